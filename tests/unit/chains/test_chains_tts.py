"""A chain of voices, in fake time."""

import asyncio
from contextlib import aclosing
from itertools import pairwise

import numpy as np
import pytest
from agents_fake_time import in_fake_time
from chains_peers import NEVER, RATE, SETTINGS, WORD_MS, VoicePeer, collect, members, switches

from bridge.providers.base import (
    ProviderError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    SpeechChunk,
    TtsEvent,
    WordTiming,
)
from bridge.providers.chain import Member
from bridge.providers.chain_tts import ChainTts

BROKE = ProviderError("a", "it broke")
TEXT = "one two three four five six"
A, B = 1000, 2000


class PreparedPeer(VoicePeer):
    """Has the speech of some texts ready."""

    texts: frozenset[str] = frozenset()

    def prepared(self, text: str, *, voice: str, sample_rate: int, language: str) -> SpeechChunk | None:
        if text not in self.texts:
            return None
        return SpeechChunk(self.value.to_bytes(2, "little") * (sample_rate // 10))


def chain(of: list[Member[VoicePeer]]) -> ChainTts:
    return ChainTts(of, SETTINGS, chunk_s=5.0, now=asyncio.get_running_loop().time)  # type: ignore[arg-type]


async def speak(tts: ChainTts, text: str = TEXT, voice: str = "") -> list[TtsEvent]:
    return await collect(tts.synthesize(text, voice=voice, sample_rate=RATE, language="en"))


def heard(events: list[TtsEvent]) -> list[int]:
    """Which voice spoke, by its sample value, a tenth of a second each."""
    pcm = b"".join(event.pcm for event in events if isinstance(event, SpeechChunk))
    samples = np.frombuffer(pcm, np.int16)
    return [int(value) for value in samples[:: RATE // 10]]


def words(events: list[TtsEvent]) -> list[WordTiming]:
    return [word for event in events if isinstance(event, SpeechChunk) for word in event.words]


@pytest.mark.parametrize(
    "trouble",
    [
        {"words": 0, "error": BROKE},
        {"words": 0, "error": ProviderUnavailableError("a", "the key was refused")},
        {"first_s": NEVER},
    ],
    ids=["breaks", "refuses", "stalls"],
)
def test_before_any_audio_the_next_voice_speaks_the_whole_text(trouble: dict[str, object]) -> None:
    async def main() -> None:
        a, b = VoicePeer("a", value=A, **trouble), VoicePeer("b", value=B)  # type: ignore[arg-type]
        began = asyncio.get_running_loop().time()
        events = await speak(chain(members(a, b, voices=("anna", "bert"))), voice="anna")
        assert switches(events) == [("a", "b")]
        assert set(heard(events)) == {B}
        assert (a.asked, b.asked) == ([(TEXT, "anna")], [(TEXT, "bert")])
        assert asyncio.get_running_loop().time() - began < SETTINGS.tts_first_s + 0.2
        assert a.busy == b.busy == 0

    in_fake_time(main)


def test_a_voice_that_ends_without_any_audio_has_failed() -> None:
    async def main() -> None:
        class Mute(VoicePeer):
            async def synthesize(self, text, **_):  # type: ignore[no-untyped-def,override]
                for _chunk in ():
                    yield _chunk

        a, b = Mute("a"), VoicePeer("b", value=B)
        assert switches(await speak(chain(members(a, b)))) == [("a", "b")]

    in_fake_time(main)


def test_a_text_without_words_may_have_no_audio() -> None:
    async def main() -> None:
        of = members(VoicePeer("a"))
        assert await speak(chain(of), "") == []
        assert of[0].health.failures == 0

    in_fake_time(main)


@pytest.mark.parametrize("error", [BROKE, None], ids=["breaks", "stalls"])
def test_in_the_middle_the_next_voice_goes_on_at_the_word_by_alignment(error: ProviderError | None) -> None:
    async def main() -> None:
        a = VoicePeer("a", value=A, words=2, error=error, stalls_s=NEVER)
        b = VoicePeer("b", value=B)
        events = await speak(chain(members(a, b)))
        assert b.asked == [("three four five six", "")]
        assert heard(events) == [A] * 6 + [B] * 12
        assert [word.word for word in words(events)] == TEXT.split()
        assert all(before.end_ms == after.start_ms for before, after in pairwise(words(events)))
        assert words(events)[-1].end_ms == 6 * WORD_MS

    in_fake_time(main)


def test_without_alignment_the_word_is_estimated_by_time_and_none_is_lost() -> None:
    async def main() -> None:
        a = VoicePeer("a", words=3, error=BROKE, aligned=False)
        b = VoicePeer("b", aligned=False)
        await speak(chain(members(a, b)))
        (asked, _), *_ = b.asked
        assert asked.split()[-1] == "six" and TEXT.endswith(asked)
        # 900 ms were said: at 65 ms a character, two words and most of the third.
        assert asked == "three four five six"

    in_fake_time(main)


def test_a_third_voice_goes_on_where_the_second_stopped() -> None:
    async def main() -> None:
        a = VoicePeer("a", words=2, error=BROKE)
        b = VoicePeer("b", words=1, error=ProviderError("b", "it broke too"))
        c = VoicePeer("c")
        events = await speak(chain(members(a, b, c)))
        assert c.asked == [("four five six", "")]
        assert switches(events) == [("a", "b"), ("b", "c")]
        assert [word.start_ms for word in words(events)] == [WORD_MS * number for number in range(6)]

    in_fake_time(main)


def test_the_call_stays_with_the_voice_that_works() -> None:
    async def main() -> None:
        a, b = VoicePeer("a", words=2, error=BROKE), VoicePeer("b")
        tts = chain(members(a, b)).for_call()
        await speak(tts)
        assert switches(await speak(tts, "seven eight")) == []
        assert len(a.asked) == 1 and tts.name == "b"

    in_fake_time(main)


def test_when_all_fail_the_last_error_is_raised_before_the_conversation_gives_up() -> None:
    async def main() -> None:
        a, b = VoicePeer("a", first_s=NEVER), VoicePeer("b", first_s=NEVER)
        began = asyncio.get_running_loop().time()
        with pytest.raises(ProviderTimeoutError) as failed:
            await speak(chain(members(a, b)))
        assert failed.value.provider == "b"
        assert asyncio.get_running_loop().time() - began < SETTINGS.tts_first_s + 5.0

    in_fake_time(main)


def test_prepared_speech_needs_no_provider_and_says_nothing_about_its_health() -> None:
    async def main() -> None:
        a = PreparedPeer("a", first_s=NEVER, value=A)
        a.texts = frozenset({"Sorry."})
        of = members(a)
        tts = chain(of)
        for _ in range(3):
            with pytest.raises(ProviderTimeoutError):
                await speak(tts)
        assert not of[0].health.usable
        began = asyncio.get_running_loop().time()
        assert heard(await speak(tts, "Sorry.")) == [A]
        assert asyncio.get_running_loop().time() == began
        assert not of[0].health.usable, "what was said from memory proves nothing"

    in_fake_time(main)


def test_a_voice_that_works_is_preferred_to_another_one_that_has_the_text_prepared() -> None:
    async def main() -> None:
        a, b = VoicePeer("a", value=A), PreparedPeer("b", value=B)
        b.texts = frozenset({TEXT})
        assert set(heard(await speak(chain(members(a, b))))) == {A}

    in_fake_time(main)


def test_with_every_voice_down_the_one_that_has_the_text_prepared_speaks() -> None:
    async def main() -> None:
        refused = ProviderUnavailableError("x", "no")
        a, b = VoicePeer("a", words=0, error=refused), PreparedPeer("b", words=0, error=refused, value=B)
        b.texts = frozenset({"Sorry."})
        tts = chain(members(a, b))
        with pytest.raises(ProviderUnavailableError):
            await speak(tts)
        events = await speak(tts, "Sorry.")
        assert heard(events) == [B] and len(a.asked) == 1

    in_fake_time(main)


def test_audio_closed_by_a_barge_in_is_no_failure() -> None:
    async def main() -> None:
        a = VoicePeer("a")
        of = members(a)
        stream = chain(of).synthesize(TEXT, voice="", sample_rate=RATE, language="en")
        async with aclosing(stream):  # type: ignore[type-var] # it is a generator
            await anext(stream)
        assert (of[0].health.failures, of[0].health.abandoned, a.busy) == (0, 1, 0)

    in_fake_time(main)
