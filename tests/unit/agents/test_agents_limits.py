"""Silence, length, hold and engines that fail: how a conversation ends when it does not end well."""

from agents_call import Call, conversing

from bridge.events import BargeIn, Cause, Note, ProviderFailed, TurnEnded
from bridge.providers.base import LlmRequest, ProviderError, ProviderTimeoutError, ProviderUnavailableError

APOLOGY = "I am sorry, we have a technical problem. Please call again later."


@conversing
async def test_silent_caller_is_asked_twice_and_then_let_go() -> None:
    async with Call() as call:
        done = await call.ended()
        assert done.cause is Cause.SILENCE
        phrases = call.settings.phrases
        assert call.said("agent") == [
            "Hello there.",
            phrases.still_there,
            phrases.still_there,
            phrases.silence_goodbye,
        ]
        starts = [turn.started_ms for turn in call.of(TurnEnded)]
        ends = [turn.ended_ms for turn in call.of(TurnEnded)]
        assert all(abs(b - a - 8000) <= 60 for a, b in zip(ends, starts[1:], strict=False))
        assert 0.25 <= call.now - ends[-1] / 1000 <= 0.4, (
            "the goodbye is played out by the far side before the hang-up"
        )
        call.assert_nothing_left()


@conversing
async def test_answer_resets_the_silence() -> None:
    async with Call() as call:
        for _ in range(4):
            await call.agent_silent()
            await call.until(lambda: call.leg.playout.speaking, limit_s=9)
            await call.agent_silent()
            await call.say("yes I am here")
        assert not call.task.done()


@conversing
async def test_silence_counts_from_the_start_when_the_caller_is_to_speak_first() -> None:
    async with Call(greeting="") as call:
        await call.agent_speaks()
        assert abs(call.now - 8.25) < 0.1
        await call.agent_silent()
        await call.say("hello there agent")
        await call.agent_silent()
        assert call.heard().endswith("You said hello there agent.")


@conversing
async def test_call_that_is_too_long_ends_with_a_notice() -> None:
    async with Call(limits={"max_call_s": 6}) as call:
        done = await call.ended()
        assert done.cause is Cause.MAX_LENGTH
        assert call.said("agent")[-1] == call.settings.phrases.max_length_goodbye
        assert abs(call.of(TurnEnded)[-1].started_ms - 6000) < 60


@conversing
async def test_the_end_of_time_waits_for_the_agents_sentence_but_not_for_ever() -> None:
    long = " ".join(f"word{n}" for n in range(60))
    for reply, latest_ms in (("A short one of ten words that ends quite soon.", 9000), (long, 11_060)):
        async with Call(lambda _, reply=reply: [reply], limits={"max_call_s": 6}) as call:
            await call.agent_silent()
            await call.wait(3.2)
            await call.say("tell me")
            done = await call.ended()
            assert done.cause is Cause.MAX_LENGTH
            notice = call.of(TurnEnded)[-1]
            assert notice.text == call.settings.phrases.max_length_goodbye
            assert 6000 < notice.started_ms <= latest_ms


@conversing
async def test_last_words_are_not_interrupted() -> None:
    async with Call(limits={"max_call_s": 6}) as call:
        await call.until(lambda: call.now > 6.5)
        await call.say("no wait I am not done")
        done = await call.ended()
        assert done.cause is Cause.MAX_LENGTH
        assert call.said("agent")[-1] == call.settings.phrases.max_length_goodbye
        assert call.of(BargeIn) == []


@conversing
async def test_hold_pauses_the_agent_and_asks_nobody_whether_they_are_there() -> None:
    async with Call(lambda _: ["We open at noon every single day of the week."]) as call:
        await call.agent_silent()
        await call.say("when are you open")
        await call.agent_speaks(words=3)
        call.leg.far_hold(True)
        await call.wait(0.05)
        held_at = call.now
        await call.make_noise(5000)
        await call.wait(60)
        assert call.heard(held_at) == ""
        call.leg.far_hold(False)
        resumed_at = call.now
        await call.agent_silent()
        assert call.heard() == "Hello there. We open at noon every single day of the week."
        await call.agent_speaks()
        assert 8 <= call.now - resumed_at <= 12
        assert call.of(BargeIn) == []
        assert len(call.llm.requests) == 1


@conversing
async def test_caller_who_talks_when_the_line_resumes_is_heard() -> None:
    async with Call() as call:
        await call.agent_silent()
        call.leg.far_hold(True)
        call.leg.hear(b"".join(call.code.pcm(word, 240) for word in ("so", "here", "I", "am", "again", "now")))
        await call.wait(0.5)
        call.leg.far_hold(False)
        await call.agent_silent()
        assert call.heard().startswith("Hello there. You said")
        assert call.heard().endswith("again now.")


@conversing
async def test_words_before_a_hold_are_answered_after_it() -> None:
    async with Call() as call:
        await call.agent_silent()
        await call.say("when are you open")
        await call.wait(0.48)
        call.leg.far_hold(True)
        await call.wait(20)
        assert call.heard() == "Hello there."
        call.leg.far_hold(False)
        await call.agent_silent()
        assert call.heard() == "Hello there. You said when are you open."


# -- engines that fail -----------------------------------------------------------------------------------------


def failing(*errors: ProviderError | None) -> tuple[list[int], "object"]:
    """A script that fails with each error in turn (None: it replies)."""
    asked: list[int] = []

    def script(request: LlmRequest) -> list[str | ProviderError]:
        asked.append(len(asked))
        error = errors[min(len(asked), len(errors)) - 1]
        return [error] if error is not None else ["All is well."]

    return asked, script


@conversing
async def test_model_that_fails_once_is_asked_again() -> None:
    asked, script = failing(ProviderError("llm", "connection reset"), None)
    async with Call(script) as call:
        await call.agent_silent()
        await call.say("when are you open")
        await call.agent_silent()
        assert call.heard() == "Hello there. All is well."
        assert len(asked) == 2
        assert [(f.role, f.provider) for f in call.of(ProviderFailed)] == [("llm", "llm")]


@conversing
async def test_model_that_fails_for_good_brings_the_apology() -> None:
    for error, times in (
        (ProviderError("llm", "connection reset"), 2),
        (ProviderTimeoutError("llm", "too slow"), 1),
        (ProviderUnavailableError("llm", "the key is wrong"), 1),
    ):
        asked, script = failing(error)
        async with Call(script, turns={"eager": False}) as call:
            await call.agent_silent()
            await call.say("when are you open")
            done = await call.ended()
            assert done.cause is Cause.ENGINE_FAILED and "llm" in done.detail
            assert call.said("agent")[-1] == APOLOGY
            assert len(asked) == times
            assert len(call.of(ProviderFailed)) == times
            call.assert_nothing_left()


@conversing
async def test_model_that_breaks_off_in_the_middle_is_not_asked_again() -> None:
    def script(request: LlmRequest) -> list[str | float | ProviderError]:
        return ["We open at noon. And ", 2.0, ProviderError("llm", "gone")]

    async with Call(script, turns={"eager": False}) as call:
        await call.agent_silent()
        await call.say("when are you open")
        done = await call.ended()
        assert done.cause is Cause.ENGINE_FAILED
        assert call.heard() == f"Hello there. We open at noon. {APOLOGY}"
        assert len(call.llm.requests) == 1


@conversing
async def test_model_that_hangs_meets_its_deadlines() -> None:
    for script, limit in (
        (lambda _: [60.0, "late"], {"llm_first_ms": 3000}),
        (lambda _: ["We open", 60.0, "late"], {"llm_total_ms": 3000}),
    ):
        async with Call(script, limits=limit, turns={"eager": False}) as call:
            await call.agent_silent()
            await call.say("when are you open")
            done = await call.ended(limit_s=15)
            assert done.cause is Cause.ENGINE_FAILED and "3000 ms" in done.detail
            assert call.said("agent")[-1] == APOLOGY


@conversing
async def test_caller_in_silence_while_the_model_thinks_hears_the_filler() -> None:
    async with Call(lambda _: [4.0, "We open at noon."]) as call:
        await call.agent_silent()
        said_at = await call.say("when are you open")
        await call.agent_silent()
        assert call.heard() == "Hello there. One moment, please. We open at noon."
        assert 2.4 <= call.wire(said_at)[0][0] - said_at <= 3.1


@conversing
async def test_voice_that_fails_once_is_asked_again() -> None:
    async with Call() as call:
        errors = [ProviderError("tts", "hiccup")]
        call.tts.failing = lambda text: errors.pop() if errors and text.startswith("You") else None
        await call.agent_silent()
        await call.say("when are you open")
        await call.agent_silent()
        assert call.heard() == "Hello there. You said when are you open."
        assert len(call.of(ProviderFailed)) == 1


@conversing
async def test_voice_that_fails_for_good_leaves_the_prepared_apology() -> None:
    async with Call() as call:
        call.tts.failing = lambda text: None if text in call.tts.prepared else ProviderError("tts", "gone")
        await call.agent_silent()
        await call.say("when are you open")
        done = await call.ended()
        assert done.cause is Cause.ENGINE_FAILED
        assert call.heard() == f"Hello there. {APOLOGY}"


@conversing
async def test_apology_that_can_not_be_spoken_is_a_tone() -> None:
    async with Call() as call:
        call.tts.failing = lambda text: ProviderUnavailableError("tts", "gone")
        done = await call.ended(limit_s=10)
        assert done.cause is Cause.ENGINE_FAILED
        assert [note.name for note in call.of(Note)] == ["tone"]
        loud = [at for at, frame in call.leg.sent if any(frame)]
        assert 2.5 <= loud[-1] - loud[0] <= 3.1
        call.assert_nothing_left()


@conversing
async def test_voice_that_hangs_on_the_apology_does_not_keep_the_call() -> None:
    async with Call(limits={"closing_s": 10, "tts_chunk_ms": 60_000}) as call:
        await call.agent_silent()
        call.tts.prepared.clear()
        call.tts.latency_s = 3600
        call.llm.script = lambda _: [ProviderUnavailableError("llm", "gone")]
        await call.say("when are you open")
        done = await call.ended(limit_s=20)
        assert done.cause is Cause.ENGINE_FAILED
        call.assert_nothing_left()


@conversing
async def test_ear_that_does_not_open_at_first_is_tried_again_and_loses_nothing() -> None:
    async with Call(greeting="") as call:
        call.stt.refuse_opens = 1
        call.stt.open_s = 0.7
        await call.say("good evening my friend")
        await call.agent_silent()
        assert call.heard() == "You said good evening my friend."
        assert [f.role for f in call.of(ProviderFailed)] == ["stt"]


@conversing
async def test_ear_that_never_opens_brings_the_apology() -> None:
    async with Call() as call:
        call.stt.refuse_opens = 9
        done = await call.ended()
        assert done.cause is Cause.ENGINE_FAILED and "stt" in done.detail
        assert call.said("agent")[-1] == APOLOGY
        assert call.stt.opened == 2


@conversing
async def test_ear_that_breaks_is_replaced_in_the_middle_of_a_turn() -> None:
    async with Call() as call:
        await call.agent_silent()
        await call.say("I would like")
        call.stt.streams[0].fail(fatal=True)
        await call.say("a table please")
        await call.agent_silent()
        assert call.heard() == "Hello there. You said I would like a table please."
        assert call.stt.streams[0].closed and len(call.stt.streams) == 2
        await call.say("for four people")
        await call.agent_silent()
        assert call.heard().endswith("You said for four people.")


@conversing
async def test_ear_that_breaks_while_its_text_is_awaited_still_gives_it() -> None:
    async with Call() as call:
        await call.agent_silent()
        await call.say("when are you open")
        await call.wait(0.3)
        call.stt.streams[0].fail(fatal=True)
        await call.agent_silent()
        assert call.heard() == "Hello there. You said when are you open."


@conversing
async def test_text_that_fails_is_asked_for_again_of_the_caller_three_times() -> None:
    async with Call() as call:
        call.stt.answers = False
        await call.agent_silent()
        for _ in range(3):
            await call.say("when are you open")
            await call.wait(0.4)
            call.stt.streams[0].fail(fatal=False)
            await call.agent_silent()
        done = await call.ended()
        assert done.cause is Cause.ENGINE_FAILED
        assert call.said("agent")[1:] == [call.settings.brief.not_understood] * 2 + [APOLOGY]
