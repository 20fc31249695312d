"""Silence and length as a machine in fake time, and in whole conversations: re-prompts, the warning, long noise."""

import pytest
from agents_call import Call, conversing

from bridge.agents.patience import Due, Patience, Situation
from bridge.agents.settings import LimitSettings
from bridge.events import Cause, TurnEnded
from bridge.providers.base import Heard, LlmRequest, SttEndpoint

QUIET = Situation(True, False, None, False)
AGENT = Situation(True, True, None, False)
HELD = Situation(False, False, None, False)


def noisy(since: float, *, words: bool = False) -> Situation:
    return Situation(True, False, since, words)


def test_silence_brings_re_prompts_and_then_the_goodbye() -> None:
    patience = Patience(LimitSettings(silence_ms=5000, max_reprompts=1), 100)
    assert patience.deadline(100, QUIET) == 105
    assert patience.tick(104.9, QUIET) is None
    assert patience.tick(105, QUIET) is Due.REPROMPT
    patience.silent_since(107)
    assert patience.tick(112, QUIET) is Due.SILENCE_GOODBYE


@pytest.mark.parametrize("situation", [AGENT, HELD, noisy(101, words=True)])
def test_silence_does_not_count_while_somebody_talks_or_the_line_is_on_hold(situation: Situation) -> None:
    patience = Patience(LimitSettings(), 100)
    assert patience.tick(300, situation) is None
    assert patience.deadline(300, situation) == 1900


def test_a_silence_that_is_not_the_callers_brings_no_re_prompt_but_the_warning() -> None:
    limits = LimitSettings(silence_ms=5000, max_call_s=60, max_call_warning_s=20)
    patience = Patience(limits, 100, warning_pause_s=0.0)
    excused = Situation(True, False, None, False, excused=True)
    assert patience.tick(139, excused) is None
    patience.silent_since(140)
    assert patience.deadline(139, excused) == 140
    assert patience.tick(140, excused) is Due.WARNING
    assert patience.tick(159, excused) is None


def test_voice_without_words_is_asked_for_them_and_then_counts_as_silence() -> None:
    patience = Patience(LimitSettings(), 100)
    situation = noisy(103)
    assert patience.deadline(103, situation) == 111
    assert patience.tick(111, situation) is Due.WANT_TEXT
    assert patience.tick(112, situation) is None
    assert patience.tick(112, noisy(103, words=True)) is None, "it was the caller"
    assert patience.deadline(112, situation) == 114
    assert patience.tick(114, situation) is Due.REPROMPT


def test_warning_comes_in_a_pause_and_once() -> None:
    patience = Patience(LimitSettings(max_call_s=300, max_call_warning_s=60, silence_ms=60_000), 100)
    assert patience.tick(345, AGENT) is None
    assert patience.tick(345, noisy(339)) is None
    patience.silent_since(350)
    assert patience.tick(350.1, QUIET) is None
    assert patience.deadline(350.1, QUIET) == 350.8
    assert patience.tick(350.8, QUIET) is Due.WARNING
    assert patience.tick(352, QUIET) is None
    assert patience.tick(400, QUIET) is Due.TOO_LONG


@pytest.mark.parametrize(("max_s", "warning_s"), [(60, 60), (30, 60), (300, 0)])
def test_short_calls_and_those_without_a_warning_just_end(max_s: int, warning_s: int) -> None:
    patience = Patience(LimitSettings(max_call_s=max_s, max_call_warning_s=warning_s, silence_ms=900_000), 0)
    assert patience.deadline(0, QUIET) == max_s
    assert patience.tick(max_s, QUIET) is Due.TOO_LONG


@conversing
async def test_warning_is_spoken_in_a_pause_of_both() -> None:
    warning = "One minute left."

    async with Call(
        lambda _: ["We open at noon every single day of the week but Monday."],
        limits={"max_call_s": 30, "max_call_warning_s": 25},
        phrases={"max_length_warning": warning},
    ) as call:
        await call.until(lambda: call.now >= 4.2)
        await call.say("well I have a question about when you are open")
        assert call.now > 5.5, "the time for it came while the caller spoke"
        await call.until(lambda: warning in call.said("agent"))
        turns = call.of(TurnEnded)
        assert [turn.heard_text for turn in turns] == [
            "Hello there.",
            "well I have a question about when you are open",
            "We open at noon every single day of the week but Monday.",
            warning,
        ]
        assert 700 <= turns[3].started_ms - turns[2].ended_ms <= 900
        await call.ended()
        assert call.said("agent").count(warning) == 1


@conversing
async def test_caller_beside_a_television_is_not_waited_for_for_ever() -> None:
    async with Call(greeting="Hello.") as call:
        await call.agent_silent()
        call.leg.hear(b"\xe7\x03" * 8000 * 120)
        done = await call.ended(limit_s=60)
        assert done.cause is Cause.SILENCE
        phrases = call.settings.phrases
        assert call.said("agent")[1:] == [phrases.still_there, phrases.still_there, phrases.silence_goodbye]


@conversing
async def test_engine_that_hears_nothing_ends_in_a_goodbye() -> None:
    async with Call() as call:
        call.stt.answers = False
        await call.agent_silent()
        for _ in range(8):
            if not call.task.done():
                await call.say("can you hear me")
                await call.until(lambda: call.task.done() or call.leg.playout.speaking)
                await call.until(lambda: call.task.done() or not call.leg.playout.speaking)
        done = await call.ended(limit_s=5)
        assert done.cause is Cause.SILENCE
        assert call.said("agent").count(call.settings.brief.not_understood) == 3


@conversing
async def test_recognisers_end_makes_the_reply_come_sooner_and_is_on_record() -> None:
    starts: list[float] = []
    for told in (False, True):
        async with Call() as call:
            call.stt.latency_s = 0.02
            await call.agent_silent()
            said_at = await call.say("when are you open")
            if told:
                call.stt.streams[0].emit(Heard("when are you open", False, 0))
                call.stt.streams[0].emit(SttEndpoint("end", 0.9))
            await call.agent_speaks()
            starts.append(call.wire(said_at)[0][0] - said_at)
            turn = next(turn for turn in call.of(TurnEnded) if turn.speaker == "caller")
            assert ("the recogniser says it is over (0.90)" in turn.why) is told
    assert starts[0] - starts[1] == pytest.approx(0.2, abs=0.05)


@conversing
async def test_caller_asked_for_a_number_may_pause_between_its_digits() -> None:
    def script(request: LlmRequest) -> list[str]:
        return ["What is your phone number?" if len(request.messages) < 3 else "Thank you."]

    async with Call(script) as call:
        await call.agent_silent()
        await call.say("take a message please")
        await call.agent_silent()
        await call.say("five")
        await call.wait(1.3)
        await call.say("two")
        await call.until(lambda: "five two" in call.said("caller"))
        turn = call.of(TurnEnded)[-1]
        assert turn.why == "1500 ms of silence: a row of digits, which was asked for"
