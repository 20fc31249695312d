"""Where the time of a reply went: the parts follow each other and add up to what the caller waited."""

from collections.abc import Sequence

import pytest
from agents_call import Call, conversing
from agents_engines import Step
from hypothesis import given
from hypothesis import strategies as st

from bridge.agents.steps import Steps
from bridge.events import TurnDelays, TurnEnded
from bridge.providers.base import LlmRequest, ProviderError, ToolCall


def last_reply(call: Call) -> TurnDelays:
    return [turn for turn in call.of(TurnEnded) if turn.speaker == "agent"][-1].delays


def explains_itself(delays: TurnDelays) -> bool:
    """Nothing but the turns of the event loop is left over."""
    return delays.rest_ms is not None and abs(delays.rest_ms) < 2


@conversing
async def test_parts_of_a_reply_add_up_to_what_the_caller_waited() -> None:
    async with Call(turns={"eager": False}) as call:
        await call.agent_silent()
        await call.say("when are you open")
        await call.agent_silent()
        await call.wait(0.1)
        delays = last_reply(call)
        assert (delays.stt, delays.llm, delays.tts) == ("code-stt", "scripted-llm/model", "code-tts")
        assert delays.llm_ms == pytest.approx(100, abs=2) and delays.tts_ms == pytest.approx(200, abs=2)
        assert delays.playout_ms is not None and 0 <= delays.playout_ms <= 21
        assert delays.ahead_ms is None and delays.tools_ms is None
        assert explains_itself(delays), delays


@conversing
async def test_eager_reply_counts_only_what_was_waited_for_after_the_decision() -> None:
    async with Call() as call:
        call.stt.latency_s = 0.05
        await call.agent_silent()
        await call.say("when are you open")
        await call.agent_silent()
        await call.wait(0.1)
        delays = last_reply(call)
        # Asked 250 ms before the decision: the model's 100 ms and most of the voice's 200 ms lie before it.
        assert delays.ahead_ms is not None and 200 <= delays.ahead_ms <= 280
        assert delays.llm_ms == 0 and delays.tts_ms is not None and 20 <= delays.tts_ms <= 100
        assert explains_itself(delays), delays


@conversing
async def test_late_text_is_its_own_part() -> None:
    async with Call() as call:
        call.stt.latency_s = 0.8
        await call.agent_silent()
        await call.say("when are you open")
        await call.agent_silent()
        await call.wait(0.1)
        delays = last_reply(call)
        assert delays.stt_ms is not None and delays.stt_ms > 400
        assert explains_itself(delays), delays


@conversing
async def test_model_that_writes_slowly_is_told_from_one_that_begins_late() -> None:
    def slow_writer(request: LlmRequest) -> Sequence[Step]:
        return [0.1, "You said", 0.4, " that already."]

    async with Call(slow_writer, turns={"eager": False}) as call:
        await call.agent_silent()
        await call.say("when are you open")
        await call.agent_silent()
        await call.wait(0.1)
        delays = last_reply(call)
        assert delays.llm_ms == pytest.approx(100, abs=2)
        assert delays.clause_ms == pytest.approx(400, abs=2)
        assert explains_itself(delays), delays


@conversing
async def test_tools_before_the_first_word_are_a_part_and_both_requests_are_the_models() -> None:
    def script(request: LlmRequest) -> Sequence[Step]:
        if request.messages[-1].role == "tool":
            return [0.15, "Here you are."]
        return [0.1, ToolCall("c1", "no_such_tool", {})]

    async with Call(script, turns={"eager": False}) as call:
        await call.agent_silent()
        await call.say("when are you open")
        await call.agent_silent()
        await call.wait(0.1)
        delays = last_reply(call)
        assert delays.tools_ms is not None
        assert delays.llm_ms == pytest.approx(250, abs=2)
        assert explains_itself(delays), delays


@conversing
async def test_request_that_failed_was_waited_for_too() -> None:
    failed: list[LlmRequest] = []

    def script(request: LlmRequest) -> Sequence[Step]:
        if not failed:
            failed.append(request)
            return [0.2, ProviderError("scripted-llm", "no")]
        return [0.1, "Here you are."]

    async with Call(script, turns={"eager": False}) as call:
        await call.agent_silent()
        await call.say("when are you open")
        await call.agent_silent()
        await call.wait(0.1)
        delays = last_reply(call)
        assert delays.llm_ms == pytest.approx(300, abs=2)
        # The pause before the model was asked again is nobody's.
        assert delays.rest_ms == pytest.approx(100, abs=2)


@conversing
async def test_greeting_answers_nobody_and_still_tells_its_parts() -> None:
    async with Call() as call:
        await call.agent_silent()
        await call.wait(0.1)
        delays = last_reply(call)
        assert delays.reply_ms is None and delays.rest_ms is None and delays.endpoint_ms is None
        assert delays.tts_ms is not None and delays.playout_ms is not None


_TIMES = st.lists(st.floats(0, 10), min_size=9, max_size=9).map(sorted)


@given(_TIMES, st.integers(0, 8))
def test_no_part_counts_what_another_counts_or_what_lies_before_the_decision(times: list[float], place: int) -> None:
    steps = Steps()
    asked, answered, began, ended, again, answered_again, clause, voiced, started = times
    steps.asked(asked)
    steps.answered(answered)
    steps.tool_began(began)
    steps.tool_ended(ended)
    steps.asked(again)
    steps.answered(answered_again)
    steps.text(answered_again)
    steps.decided_at = times[place]
    waits = steps.waits(clause, voiced, started)
    parts = [waits.llm_ms, waits.tools_ms, waits.clause_ms, waits.tts_ms, waits.playout_ms]
    assert all(part is not None and part >= 0 for part in parts)
    waited_ms = (started - times[place]) * 1000
    assert sum(part or 0 for part in parts) <= waited_ms + 1e-6
