"""A chain of recognisers, in fake time: whoever listens, turns and the numbers of pauses are the same."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from agents_fake_time import in_fake_time
from chains_peers import NEVER, SETTINGS, SttPeer, Took, members

from bridge.providers.base import (
    Heard,
    ProviderTimeoutError,
    ProviderUnavailableError,
    SttEvent,
    SttFailed,
    SttStream,
    Switched,
)
from bridge.providers.chain import Member
from bridge.providers.chain_stt import ChainStt

REFUSED = ProviderUnavailableError("a", "the key was refused")
OPEN_S = 3.0


class Line:
    """One call's stream of a chain over `peers`."""

    def __init__(self, *peers: SttPeer) -> None:
        self.peers = peers
        self.took: list[Took] = []
        self.members: list[Member[SttPeer]] = members(*peers, took=self.took)
        self.loop = asyncio.get_running_loop()
        self.chain = ChainStt(self.members, SETTINGS, open_s=OPEN_S, now=self.loop.time)  # type: ignore[arg-type]
        self.events: list[SttEvent] = []
        self.stream: SttStream

    async def __aenter__(self) -> "Line":
        self.stream = await self.chain.open(sample_rate=8000, language="en", emit=self.events.append)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stream.aclose()
        for peer in self.peers:
            assert all(stream.closed for stream in peer.streams), f"{peer.name} has an open stream"

    def say(self, frames: int) -> None:
        self.stream.speech_started()
        self.push(frames)

    def push(self, frames: int) -> None:
        for _ in range(frames):
            self.stream.push(bytes(320))

    def heard(self) -> list[tuple[str, int]]:
        return [(event.text, event.pause) for event in self.events if isinstance(event, Heard)]

    def switches(self) -> list[tuple[str, str]]:
        return [(event.from_, event.to) for event in self.events if isinstance(event, Switched)]


def test_a_recogniser_that_does_not_open_is_passed_over() -> None:
    async def main() -> None:
        for trouble in ("refuses", "stalls"):
            a, b = SttPeer("a"), SttPeer("b")
            if trouble == "refuses":
                a.refuses = REFUSED
            else:
                a.open_s = NEVER
            began = asyncio.get_running_loop().time()
            async with Line(a, b) as line:
                assert asyncio.get_running_loop().time() - began < SETTINGS.stt_open_s + 0.2
                assert line.switches() == [("a", "b")] and line.chain.name == "b"

    in_fake_time(main)


def test_when_none_opens_the_last_error_is_raised_before_the_conversation_gives_up() -> None:
    async def main() -> None:
        a, b = SttPeer("a", open_s=NEVER), SttPeer("b", open_s=NEVER)
        began = asyncio.get_running_loop().time()
        with pytest.raises(ProviderTimeoutError) as failed:
            async with Line(a, b):
                raise AssertionError("it opened")
        assert failed.value.provider == "b"
        assert asyncio.get_running_loop().time() - began < OPEN_S

    in_fake_time(main)


async def dies(line: Line) -> None:
    line.peers[0].streams[0].fail()


async def is_silent(line: Line) -> None:
    line.peers[0].answers = False


async def fails_to_settle(line: Line) -> None:
    line.peers[0].answers = False
    line.stream.speech_paused()
    line.peers[0].streams[0].fail(fatal=False)


@pytest.mark.parametrize("trouble", [dies, is_silent, fails_to_settle])
def test_the_next_recogniser_hears_the_whole_turn(trouble: Callable[[Line], Awaitable[None]]) -> None:
    async def main() -> None:
        a, b = SttPeer("a"), SttPeer("b")
        async with Line(a, b) as line:
            line.push(100)
            line.say(50)
            await trouble(line)
            line.push(20)
            if not line.peers[0].streams[0].pauses:
                line.stream.speech_paused()
            await asyncio.sleep(SETTINGS.stt_settle_s + 1)
            # 15 frames are the lead of 300 ms.
            assert line.heard() == [("b heard 85", 1)]
            assert line.switches() == [("a", "b")]
            assert b.streams[0].told == ["started", "paused"]
            assert a.streams[0].closed

    in_fake_time(main)


def test_the_numbers_of_pauses_go_on_over_streams() -> None:
    async def main() -> None:
        a, b = SttPeer("a"), SttPeer("b")
        async with Line(a, b) as line:
            for _ in range(2):
                line.say(40)
                line.stream.speech_paused()
                await asyncio.sleep(0.5)
            line.stream.commit()
            line.say(40)
            a.streams[0].fail()
            await asyncio.sleep(0.5)
            line.stream.speech_paused()
            await asyncio.sleep(0.5)
            assert [pause for _, pause in line.heard()] == [1, 2, 3]

    in_fake_time(main)


def test_what_a_left_recogniser_says_later_is_not_heard() -> None:
    async def main() -> None:
        a, b = SttPeer("a", latency_s=SETTINGS.stt_settle_s + 0.2), SttPeer("b", latency_s=2.0)
        async with Line(a, b) as line:
            line.say(40)
            line.stream.speech_paused()
            await asyncio.sleep(5)
            assert [text for text, _ in line.heard()] == ["b heard 40"]

    in_fake_time(main)


def test_only_when_all_have_failed_the_conversation_is_told() -> None:
    async def main() -> None:
        a, b = SttPeer("a"), SttPeer("b")
        async with Line(a, b) as line:
            a.streams[0].fail()
            await asyncio.sleep(0.5)
            a.refuses = REFUSED
            b.streams[0].fail()
            await asyncio.sleep(0.5)
            failures = [event for event in line.events if isinstance(event, SttFailed)]
            assert failures == [SttFailed("it broke", fatal=True, provider="b")]
            assert line.switches() == [("a", "b")]

    in_fake_time(main)


def test_a_recogniser_that_failed_before_is_used_again_when_the_other_one_fails_later() -> None:
    async def main() -> None:
        a, b = SttPeer("a"), SttPeer("b")
        async with Line(a, b) as line:
            a.streams[0].fail()
            await asyncio.sleep(0.5)
            line.say(40)
            line.stream.speech_paused()
            await asyncio.sleep(0.5)
            b.streams[0].fail()
            await asyncio.sleep(0.5)
            assert line.switches() == [("a", "b"), ("b", "a")]

    in_fake_time(main)


def test_a_single_recogniser_that_is_slow_is_left_to_the_conversation_s_patience() -> None:
    async def main() -> None:
        a = SttPeer("a", latency_s=2.0)
        async with Line(a) as line:
            line.say(40)
            line.stream.speech_paused()
            await asyncio.sleep(2.5)
            assert line.heard() == [("a heard 40", 1)]
            assert line.members[0].health.failures == 0

    in_fake_time(main)


def test_a_single_recogniser_that_never_answered_is_told_as_dead_when_the_turn_is_over() -> None:
    async def main() -> None:
        a = SttPeer("a")
        a.answers = False
        async with Line(a) as line:
            line.say(40)
            line.stream.speech_paused()
            await asyncio.sleep(2.5)
            line.stream.commit()
            assert [event.fatal for event in line.events if isinstance(event, SttFailed)] == [True]
            assert line.members[0].health.failures == 1

    in_fake_time(main)


def test_a_short_sound_that_nothing_is_made_of_is_no_failure() -> None:
    async def main() -> None:
        a, b = SttPeer("a"), SttPeer("b")
        a.answers = False
        async with Line(a, b) as line:
            line.say(20)
            line.stream.speech_paused()
            await asyncio.sleep(SETTINGS.stt_settle_s + 1)
            line.stream.commit()
            assert line.switches() == [] and line.members[0].health.failures == 0
            line.say(20)
            a.streams[0].emit(Heard("yes", False, 0))
            line.stream.speech_paused()
            await asyncio.sleep(SETTINGS.stt_settle_s + 1)
            assert line.switches() == [("a", "b")], "there is text, so it has to be settled"

    in_fake_time(main)


def test_audio_before_the_turn_is_not_kept_and_a_voice_that_goes_on_is() -> None:
    async def main() -> None:
        a, b = SttPeer("a"), SttPeer("b")
        async with Line(a, b) as line:
            line.push(500)
            line.say(100)
            line.stream.commit()
            line.push(100)
            a.streams[0].fail()
            await asyncio.sleep(0.5)
            assert len(b.streams[0].frames) == 115
            assert b.streams[0].told == ["started"]

    in_fake_time(main)


def test_the_call_s_next_stream_begins_with_the_recogniser_that_works() -> None:
    async def main() -> None:
        a, b = SttPeer("a"), SttPeer("b")
        a.refuses = REFUSED
        async with Line(a, b) as line:
            again = await line.chain.open(sample_rate=8000, language="en", emit=line.events.append)
            await again.aclose()
            assert len(b.streams) == 2 and line.switches() == [("a", "b")]

    in_fake_time(main)


def test_closing_while_the_next_recogniser_opens_leaves_nothing() -> None:
    async def main() -> None:
        a, b = SttPeer("a"), SttPeer("b", open_s=1.0)
        async with Line(a, b):
            a.streams[0].fail()
            await asyncio.sleep(0.1)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    in_fake_time(main)


def test_a_stream_counts_as_working_only_once_it_has_settled_a_text() -> None:
    async def main() -> None:
        a, b = SttPeer("a"), SttPeer("b")
        a.answers = False
        of = members(a, b)
        loop = asyncio.get_running_loop()
        chain = ChainStt(of, SETTINGS, open_s=OPEN_S, now=loop.time)  # type: ignore[arg-type]
        for _ in range(3):
            stream = await chain.for_call().open(sample_rate=8000, language="en", emit=lambda event: None)
            stream.speech_started()
            for _ in range(40):
                stream.push(bytes(320))
            stream.speech_paused()
            await asyncio.sleep(SETTINGS.stt_settle_s + 0.5)
            await stream.aclose()
        assert not of[0].health.usable and of[1].health.usable
        stream = await chain.for_call().open(sample_rate=8000, language="en", emit=lambda event: None)
        assert len(a.streams) == 3
        await stream.aclose()

    in_fake_time(main)


def test_a_text_is_timed_from_the_pause_that_asked_for_it_by_whoever_gave_it() -> None:
    async def main() -> None:
        a, b = SttPeer("a"), SttPeer("b", latency_s=0.4)
        a.answers = False
        async with Line(a, b) as line:
            line.say(40)
            line.stream.speech_paused()
            await asyncio.sleep(SETTINGS.stt_settle_s + 1)
            assert line.switches() == [("a", "b")]
            assert [(role, name, round(seconds, 3)) for role, name, seconds in line.took] == [("stt", "b", 0.4)]
            line.stream.commit()
            line.say(40)
            line.stream.speech_paused()
            # Nobody waits for it any more: a late text is nobody's delay.
            line.stream.commit()
            await asyncio.sleep(1)
            assert len(line.took) == 1

    in_fake_time(main)
