"""The caller speaks over the agent: what stops it, what does not, and what is remembered."""

from itertools import pairwise

from agents_call import Call, conversing
from agents_engines import WORD_MS

from bridge.events import BargeIn, TurnEnded
from bridge.providers.base import LlmRequest, ToolCall

LONG = "We open at noon every day. On Sundays we close at ten. Mondays we are closed all day."


def long_answer(request: LlmRequest) -> list[str]:
    last = request.messages[-1].content
    return [LONG] if last == "when are you open" else [f"You said {last}."]


async def asked(call: Call) -> float:
    """The agent has been asked and is three words into its answer; returns when the caller began (s)."""
    await call.agent_silent()
    await call.say("when are you open")
    await call.agent_speaks(words=3)
    return call.now


@conversing
async def test_words_stop_the_agent_and_are_answered() -> None:
    async with Call(long_answer) as call:
        call.stt.latency_s = 0.1
        started = await asked(call)
        await call.say("I have another question")
        barge_in = call.of(BargeIn)[0]
        assert barge_in.confirmed and barge_in.reason == "speech went on"
        assert barge_in.pause_ms <= 500
        last_word_at = max(at for at, _ in call.wire() if at < started + 2)
        assert last_word_at - started <= 0.15, "the agent is silent within the detector's delay"
        await call.agent_silent()
        assert call.heard(started + 0.5) == "You said I have another question."


@conversing
async def test_memory_and_record_keep_only_what_was_heard() -> None:
    async with Call(long_answer) as call:
        started = await asked(call)
        await call.say("I have another question")
        await call.until(lambda: len(call.llm.requests) == 2)
        await call.agent_silent()
        cut = next(turn for turn in call.of(TurnEnded) if turn.interrupted)
        wire = call.heard().removeprefix("Hello there. ").split(" You said")[0]
        assert LONG.startswith(cut.heard_text)
        # The voice tells no alignment here: the map goes by characters, and may be a word off.
        assert abs(len(cut.heard_text.split()) - len(wire.split())) <= 1
        assert cut.text.startswith(cut.heard_text) and cut.text != cut.heard_text
        assert abs(cut.heard_ms - (started * 1000 + 80 - cut.started_ms)) <= 60
        assistant = call.llm.requests[-1].messages[2]
        assert assistant.content == cut.heard_text and assistant.interrupted
        turns = call.of(TurnEnded)
        assert [turn.index for turn in turns] == list(range(len(turns)))
        assert [turn.started_ms for turn in turns] == sorted(turn.started_ms for turn in turns)


@conversing
async def test_alignment_of_the_voice_is_used_where_it_gives_one() -> None:
    async with Call(long_answer) as call:
        call.tts.aligned = True
        await asked(call)
        await call.say("I have another question")
        await call.until(lambda: len(call.llm.requests) == 2)
        cut = next(turn for turn in call.of(TurnEnded) if turn.interrupted)
        wire = call.heard().removeprefix("Hello there. ")
        assert cut.heard_text == wire


@conversing
async def test_cough_pauses_the_agent_and_it_goes_on_where_it_stopped() -> None:
    async with Call(long_answer) as call:
        started = await asked(call)
        await call.make_noise(200)
        await call.agent_silent()
        await call.wait(0.1)
        barge_in = call.of(BargeIn)
        assert [b.confirmed for b in barge_in] == [False]
        assert barge_in[0].pause_ms <= 520
        assert call.heard() == f"Hello there. {LONG}"
        assert call.said("caller") == ["when are you open"]
        assert not call.of(TurnEnded)[-1].interrupted
        words = [at for at, _ in call.wire() if at > started]
        gap = max(b - a for a, b in pairwise(words))
        assert WORD_MS / 1000 + 0.2 <= gap <= WORD_MS / 1000 + 0.55


@conversing
async def test_short_click_is_rejected_as_soon_as_it_is_over() -> None:
    async with Call(long_answer) as call:
        await asked(call)
        await call.make_noise(60)
        await call.agent_silent()
        assert [(b.confirmed, b.reason) for b in call.of(BargeIn)] == [(False, "a click")]
        assert call.heard() == f"Hello there. {LONG}"


@conversing
async def test_backchannel_is_no_barge_in_and_no_turn() -> None:
    async with Call(long_answer) as call:
        call.stt.latency_s = 0.1
        await asked(call)
        await call.say("mhm")
        await call.agent_silent()
        await call.wait(1)
        assert [(b.confirmed, b.reason) for b in call.of(BargeIn)] == [(False, "backchannel: mhm")]
        assert call.heard() == f"Hello there. {LONG}"
        assert call.said("caller") == ["when are you open"]
        assert len(call.llm.requests) == 1


@conversing
async def test_backchannel_whose_text_comes_late_is_no_turn_either() -> None:
    async with Call(long_answer) as call:
        call.stt.latency_s = 0.7
        await asked(call)
        await call.say("mhm")
        await call.agent_silent()
        await call.wait(1)
        assert [b.confirmed for b in call.of(BargeIn)] == [False]
        assert call.heard() == f"Hello there. {LONG}"
        assert len(call.llm.requests) == 1


@conversing
async def test_stop_word_alone_stops_the_agent() -> None:
    async with Call(long_answer) as call:
        call.stt.latency_s = 0.1
        await asked(call)
        await call.say("wait")
        await call.until(lambda: call.said("caller")[-1] == "wait", limit_s=1)
        assert [(b.confirmed, b.reason) for b in call.of(BargeIn)] == [(True, "words: wait")]


@conversing
async def test_stop_word_whose_text_comes_late_still_stops_the_agent() -> None:
    async with Call(long_answer) as call:
        call.stt.latency_s = 0.5
        started = await asked(call)
        await call.say("wait")
        await call.until(lambda: len(call.llm.requests) == 2)
        assert [b.confirmed for b in call.of(BargeIn)] == [False, True]
        assert call.said("caller")[-1] == "wait"
        await call.agent_silent()
        assert call.heard(started + 1).endswith("You said wait.")


@conversing
async def test_yes_over_the_end_of_a_question_is_its_answer() -> None:
    def script(request: LlmRequest) -> list[str]:
        if request.messages[-1].content == "a table":
            return ["For four people at seven, right?"]
        return ["Booked."]

    async with Call(script) as call:
        call.stt.latency_s = 0.1
        await call.agent_silent()
        await call.say("a table")
        await call.agent_speaks(words=5)
        await call.say("yes")
        await call.until(lambda: len(call.llm.requests) == 2)
        await call.agent_silent()
        assert call.said("caller") == ["a table", "yes"]
        assert call.heard() == "Hello there. For four people at seven, right? Booked."


@conversing
async def test_echo_of_the_agent_does_not_stop_it() -> None:
    async with Call(lambda _: ["Nothing but the same words over and over again my friend here."]) as call:
        call.stt.latency_s = 0.05
        await call.agent_silent()
        await call.say("when are you open")
        await call.agent_speaks(words=4)
        await call.say("the same words")
        await call.wait(4)
        assert call.said("caller") == ["when are you open"]
        assert all(b.reason.startswith(("echo", "speech")) for b in call.of(BargeIn))
        assert call.of(BargeIn)[0].reason.startswith("echo") and not call.of(BargeIn)[0].confirmed


@conversing
async def test_protected_greeting_is_spoken_to_its_end_and_what_was_said_over_it_is_answered() -> None:
    greeting = "This call is recorded for your safety and ours."
    async with Call(greeting=greeting, greeting_interruptible=False) as call:
        await call.agent_speaks(words=2)
        await call.say("I want a table")
        await call.until(lambda: call.llm.requests)
        await call.agent_silent()
        assert call.heard() == f"{greeting} You said I want a table."
        assert call.of(BargeIn) == []


@conversing
async def test_disabled_barge_in_lets_the_agent_finish() -> None:
    async with Call(long_answer, barge_in={"enabled": False}) as call:
        await asked(call)
        await call.say("I have another question")
        await call.until(lambda: len(call.llm.requests) == 2)
        assert call.heard() == f"Hello there. {LONG}"
        assert call.of(BargeIn) == []


@conversing
async def test_noise_that_stopped_the_agent_lets_it_take_up_the_cut_sentence() -> None:
    async with Call(long_answer) as call:
        await asked(call)
        await call.make_noise(900)
        await call.agent_silent()
        await call.wait(0.1)
        assert [b.confirmed for b in call.of(BargeIn)] == [True]
        assert call.said("agent")[-1] == LONG
        assert call.said("caller") == ["when are you open"]
        await call.say("thank you so much")
        await call.until(lambda: len(call.llm.requests) == 2)
        assert [(m.content, m.interrupted) for m in call.llm.requests[-1].messages[2:-1]] == [(LONG, False)]


@conversing
async def test_noise_in_a_later_sentence_repeats_only_that_one_and_memory_has_it_once() -> None:
    async with Call(long_answer) as call:
        await call.agent_silent()
        await call.say("when are you open")
        await call.agent_speaks(words=9)
        await call.make_noise(900)
        await call.agent_silent()
        await call.say("thank you so much")
        await call.until(lambda: len(call.llm.requests) == 2)
        assert call.said("agent")[-1] == "On Sundays we close at ten. Mondays we are closed all day."
        assert [(m.content, m.interrupted) for m in call.llm.requests[-1].messages[2:-1]] == [(LONG, False)]


@conversing
async def test_one_word_more_while_the_agent_thinks_is_part_of_the_turn() -> None:
    async with Call(lambda r: [1.5, f"You said {r.messages[-1].content}."]) as call:
        call.stt.latency_s = 0.1
        await call.agent_silent()
        await call.say("a table please")
        await call.wait(0.7)
        await call.say("Sunday")
        await call.agent_silent()
        assert call.heard() == "Hello there. You said a table please Sunday."
        await call.wait(0.1)
        delays = call.of(TurnEnded)[-1].delays
        assert delays.reply_ms is not None and delays.endpoint_ms is not None


@conversing
async def test_noise_that_stopped_the_agent_while_it_thought_brings_the_reply_all_the_same() -> None:
    async with Call(lambda _: [1.5, "We open at noon."]) as call:
        await call.agent_silent()
        await call.say("when are you open")
        await call.wait(0.8)
        await call.make_noise(900)
        await call.agent_silent()
        assert call.heard() == "Hello there. We open at noon."
        assert call.of(BargeIn) == [], "nothing was to be heard that could be interrupted"


@conversing
async def test_key_stops_the_agent() -> None:
    async with Call(long_answer) as call:
        await asked(call)
        call.leg.press("4")
        call.leg.press("#")
        await call.until(lambda: len(call.llm.requests) == 2)
        assert [(b.confirmed, b.reason) for b in call.of(BargeIn)] == [(True, "key")]
        assert call.said("caller")[-1] == "4"


@conversing
async def test_goodbye_that_is_interrupted_does_not_hang_up() -> None:
    def script(request: LlmRequest) -> list[str | ToolCall]:
        if request.messages[-1].content == "bye":
            return ["Thank you very much for calling us today. Goodbye!", ToolCall("1", "hang_up", {})]
        return ["Of course."]

    async with Call(script) as call:
        await call.agent_silent()
        await call.say("bye")
        await call.agent_speaks(words=2)
        await call.say("wait one more question please")
        await call.agent_silent()
        await call.wait(1)
        assert not call.task.done()
        assert call.heard().endswith("Of course.")


NOTICE = "This call is recorded for training."
GREETING = f"Welcome to the shop. {NOTICE} How can we help you on this fine day of the year?"


@conversing
async def test_protected_phrase_is_heard_to_its_end_and_what_was_said_over_it_stops_the_agent_after_it() -> None:
    async with Call(greeting=GREETING, barge_in={"protected_phrases": [NOTICE]}) as call:
        call.stt.latency_s = 0.1
        await call.agent_speaks(words=2)
        await call.say("hello I would like to buy a very big red bicycle for my sister please")
        await call.until(lambda: len(call.said("caller")) == 1)
        assert NOTICE in call.said("agent")[0], "nobody interrupts it, and nothing of it is left out"
        assert call.of(TurnEnded)[0].interrupted, "but from then on the caller may"
        await call.agent_silent()
        assert call.heard().endswith("sister please.")


@conversing
async def test_keys_pressed_over_a_protected_phrase_are_answered_after_it() -> None:
    async with Call(greeting=GREETING, barge_in={"protected_phrases": [NOTICE]}) as call:
        await call.agent_speaks(words=5)
        call.leg.press("7")
        call.leg.press("#")
        await call.until(lambda: call.heard().endswith("You said 7."))
        assert call.said("agent")[0] == GREETING
        assert not call.of(TurnEnded)[0].interrupted


@conversing
async def test_hang_up_during_a_protected_phrase_ends_the_call() -> None:
    async with Call(greeting=GREETING, barge_in={"protected_phrases": [NOTICE]}) as call:
        await call.agent_speaks(words=5)
        assert await call.hang_up() < 0.1
        call.assert_nothing_left()


@conversing
async def test_agent_may_be_interrupted_where_nothing_protected_is_left_to_play() -> None:
    async with Call(greeting=GREETING, barge_in={"protected_phrases": [NOTICE]}) as call:
        call.stt.latency_s = 0.1
        await call.agent_speaks(words=13)
        await call.say("I have a question")
        assert call.of(TurnEnded)[0].interrupted and call.of(BargeIn)[0].reason == "speech went on"


@conversing
async def test_long_backchannel_that_stopped_the_agent_lets_it_take_up_the_cut_sentence() -> None:
    async with Call(long_answer) as call:
        await asked(call)
        await call.say("uh huh okay")
        barge_in = call.of(BargeIn)[0]
        assert barge_in.confirmed and barge_in.reason == "speech went on"
        await call.agent_silent()
        assert call.heard().endswith(LONG)
        assert len(call.llm.requests) == 1
        assert call.said("caller") == ["when are you open"]


@conversing
async def test_television_pauses_the_agent_and_does_not_stop_it() -> None:
    async with Call(long_answer) as call:
        await asked(call)
        call.detectors[0].voice_db = -36.0
        await call.make_noise(700)
        await call.agent_silent()
        (paused,) = call.of(BargeIn)
        assert not paused.confirmed and paused.reason == "no words in time, the voice is 13 dB below the caller's"
        assert call.heard() == f"Hello there. {LONG}"
