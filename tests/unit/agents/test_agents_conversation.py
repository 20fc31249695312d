"""Whole dialogues: greeting, replies, delays, memory, record."""

from itertools import pairwise

from agents_call import NOW, Call, conversing
from agents_engines import WORD_MS

from bridge.events import TurnEnded
from bridge.providers.base import LlmRequest


@conversing
async def test_greeting_is_on_the_wire_within_100_ms_of_the_answer() -> None:
    async with Call() as call:
        await call.agent_silent()
        assert call.heard() == "Hello there."
        assert call.wire()[0][0] <= 0.1
        assert call.stt.opened == 1


@conversing
async def test_a_question_is_answered() -> None:
    async with Call() as call:
        await call.agent_silent()
        said_at = await call.say("when are you open")
        await call.agent_silent()
        assert call.heard(said_at) == "You said when are you open."
        assert [m.content for m in call.llm.requests[0].messages] == ["Hello there.", "when are you open"]
        assert call.llm.requests[0].now == NOW


@conversing
async def test_record_has_both_sides_in_order_with_delays() -> None:
    async with Call() as call:
        await call.agent_silent()
        said_at = await call.say("when are you open")
        await call.agent_silent()
        await call.wait(0.1)
        greeting, question, reply = call.of(TurnEnded)
        assert [t.index for t in (greeting, question, reply)] == [0, 1, 2]
        assert [t.speaker for t in (greeting, question, reply)] == ["agent", "caller", "agent"]
        assert question.text == "when are you open"
        assert abs(question.ended_ms - said_at * 1000) <= 20
        assert abs(question.started_ms - (said_at * 1000 - 4 * WORD_MS)) <= 20
        assert reply.text == reply.heard_text == "You said when are you open."
        assert not reply.interrupted
        assert abs(reply.heard_ms - 6 * WORD_MS) < 1
        first_word_at = call.wire(said_at)[0][0]
        assert (
            reply.delays.reply_ms is not None and abs(reply.delays.reply_ms - (first_word_at - said_at) * 1000) <= 20
        )
        assert reply.delays.endpoint_ms is not None and 500 <= reply.delays.endpoint_ms <= 530
        assert reply.delays.stt_ms == 0
        llm_ms, ahead_ms = reply.delays.llm_ms, reply.delays.ahead_ms
        assert llm_ms is not None and ahead_ms is not None and abs(ahead_ms + llm_ms - 100) < 5
        assert reply.delays.tts_ms is not None and abs(reply.delays.tts_ms - 200) < 5


@conversing
async def test_eager_reply_saves_the_time_between_text_and_end_of_turn() -> None:
    delays = {}
    for eager in (True, False):
        async with Call(turns={"eager": eager}) as call:
            call.stt.latency_s = 0.05
            await call.agent_silent()
            said_at = await call.say("when are you open")
            await call.agent_silent()
            delays[eager] = call.wire(said_at)[0][0] - said_at
    # Text at 250 ms of silence, turn's end at 500 ms: model (100 ms) and voice (200 ms) begin 250 ms earlier.
    assert 0.22 <= delays[False] - delays[True] <= 0.28


@conversing
async def test_eager_reply_is_thrown_away_unheard_when_the_caller_goes_on() -> None:
    async with Call() as call:
        call.stt.latency_s = 0.05
        await call.agent_silent()
        said_at = await call.say("when are you open")
        await call.wait(0.4)
        assert len(call.llm.requests) == 1
        await call.say("on Sunday evening")
        await call.agent_silent()
        assert call.heard(said_at) == "You said when are you open on Sunday evening."
        assert call.llm.requests[-1].messages[-1].content == "when are you open on Sunday evening"
        assert call.said("caller") == ["when are you open on Sunday evening"]


@conversing
async def test_late_text_is_waited_for_and_counted_as_stt_delay() -> None:
    async with Call() as call:
        call.stt.latency_s = 0.8
        await call.agent_silent()
        await call.say("when are you open")
        await call.agent_silent()
        await call.wait(0.1)
        delays = call.of(TurnEnded)[-1].delays
        assert delays.endpoint_ms == 500
        assert delays.stt_ms is not None and 460 <= delays.stt_ms <= 520


@conversing
async def test_first_sentence_plays_while_the_rest_is_generated() -> None:
    def script(request: LlmRequest) -> list[str | float]:
        return [0.1, "We open at noon. ", 0.7, "We close at ten. ", 0.7, "Mondays we are closed."]

    async with Call(script) as call:
        await call.agent_silent()
        said_at = await call.say("when are you open")
        await call.agent_silent()
        assert call.heard(said_at) == "We open at noon. We close at ten. Mondays we are closed."
        assert call.wire(said_at)[0][0] - said_at < 1.0
        words = [at for at, _ in call.wire(said_at)]
        gaps = [b - a for a, b in pairwise(words)]
        assert max(gaps) <= WORD_MS / 1000 + 0.03, "the voice has a gap although the engines were fast enough"


@conversing
async def test_the_voice_is_not_asked_for_more_than_the_look_ahead() -> None:
    sentences = [f"Sentence number {n} is a long one indeed." for n in range(10)]
    async with Call(lambda _: [" ".join(sentences)], limits={"look_ahead_ms": 3000}) as call:
        await call.agent_silent()
        await call.say("tell me everything")
        await call.agent_speaks()
        await call.wait(0.5)
        spoken_for = [text for text in call.tts.asked if text in sentences]
        assert 2 <= len(spoken_for) <= 3
        await call.agent_silent()
        await call.wait(0.1)
        assert call.said("agent")[-1] == " ".join(sentences)


@conversing
async def test_noise_is_no_turn() -> None:
    async with Call() as call:
        await call.agent_silent()
        await call.make_noise(300)
        await call.wait(3)
        assert call.llm.requests == []
        assert call.said("caller") == []
        assert call.stt.streams[0].commits == 1


@conversing
async def test_text_that_never_comes_is_answered_with_not_understood() -> None:
    async with Call() as call:
        call.stt.answers = False
        await call.agent_silent()
        said_at = await call.say("hello hello")
        await call.agent_silent()
        assert call.heard(said_at) == call.settings.brief.not_understood
        assert call.llm.requests == []


@conversing
async def test_unfinished_sentence_is_waited_for() -> None:
    async with Call() as call:
        await call.agent_silent()
        said_at = await call.say("I would like a table for")
        await call.wait(0.9)
        await call.say("four people")
        await call.agent_silent()
        assert call.heard(said_at) == "You said I would like a table for four people."


@conversing
async def test_a_pause_right_after_the_decision_continues_the_turn() -> None:
    async with Call(lambda r: [0.6, f"You said {r.messages[-1].content}."]) as call:
        await call.agent_silent()
        said_at = await call.say("a table on Sunday")
        await call.wait(0.7)
        await call.say("at seven for four")
        await call.agent_silent()
        assert call.heard(said_at) == "You said a table on Sunday at seven for four."
        assert call.said("caller") == ["a table on Sunday", "at seven for four"]


@conversing
async def test_keys_are_a_turn_after_a_pause_or_hash() -> None:
    async with Call() as call:
        await call.agent_silent()
        for digit in "123":
            call.leg.press(digit)
            await call.wait(0.3)
        await call.agent_silent()
        call.leg.press("7")
        call.leg.press("#")
        await call.wait(0.05)
        assert [r.messages[-1].content for r in call.llm.requests] == ["123", "7"]


@conversing
async def test_a_caller_who_never_stops_is_answered_in_the_middle() -> None:
    async with Call(turns={"max_turn_ms": 5000}) as call:
        await call.agent_silent()
        call.leg.hear(b"".join(call.code.pcm(f"word{n}", WORD_MS) for n in range(40)))
        await call.until(lambda: call.llm.requests)
        assert 5.0 <= call.now - 0.48 <= 5.6
        await call.until(lambda: len(call.llm.requests) == 2)
        first, second = (r.messages for r in call.llm.requests)
        both = f"{first[-1].content} {second[-1].content}".split()
        assert both[0] == "word0" and both[-1] == "word39" and len(both) >= 39


@conversing
async def test_the_detector_hears_what_the_agent_says() -> None:
    async with Call() as call:
        await call.wait(1)
        assert call.detectors[0].references >= 45


@conversing
async def test_everything_is_closed_when_the_caller_hangs_up() -> None:
    async with Call() as call:
        await call.agent_silent()
        await call.say("when are you open")
        await call.agent_speaks()
        await call.hang_up()
        call.assert_nothing_left()
        last = call.of(TurnEnded)[-1]
        assert last.speaker == "agent" and last.interrupted and last.heard_text == "You"


@conversing
async def test_hang_up_while_the_model_thinks_stops_everything_at_once() -> None:
    async with Call(lambda _: ["Well, ", 30.0, "never said."]) as call:
        await call.agent_silent()
        await call.say("when are you open")
        await call.until(lambda: call.llm.open)
        await call.wait(0.5)
        assert await call.hang_up() < 0.1
        call.assert_nothing_left()
        assert call.llm.completed == 0


@conversing
async def test_hang_up_while_the_voice_synthesises_stops_it() -> None:
    async with Call(lambda _: ["A long sentence follows here."]) as call:
        call.tts.latency_s = 3
        await call.agent_silent()
        await call.say("when are you open")
        await call.until(lambda: call.tts.open)
        assert await call.hang_up() < 0.1
        call.assert_nothing_left()


@conversing
async def test_words_said_when_the_caller_hangs_up_are_on_record() -> None:
    async with Call() as call:
        await call.agent_silent()
        await call.say("forget it")
        await call.wait(0.47)
        await call.hang_up()
        assert call.said("caller") == ["forget it"]
