"""Forms, hanging up and handing over, as the model asks for them in a dialogue."""

import json

from agents_call import Call, conversing
from agents_loopback import LoopbackLeg

from bridge.events import Cause, FormCompleted, ToolCalled
from bridge.legs.base import Capability
from bridge.providers.base import LlmRequest, ToolCall

BRIEF = {
    "forms": [
        {
            "id": "book_table",
            "description": "Book a table",
            "ask": ["a table"],
            "slots": [
                {"id": "people", "type": "number", "ask": "How many?", "max": 12},
                {"id": "name", "type": "name", "ask": "Your name?"},
            ],
            "confirm": "For {people}, {name}?",
            "done": "Booked.",
        }
    ],
    "handover": {"target": "sip:desk@10.0.0.1"},
}
BOOKING = {"people": 4, "name": "Ada"}


def result_of(request: LlmRequest) -> dict[str, object] | None:
    """The result the model sees, if the last message is one."""
    last = request.messages[-1]
    return json.loads(last.content) if last.role == "tool" else None


@conversing
async def test_form_is_on_record_and_the_model_goes_on_with_the_result() -> None:
    def script(request: LlmRequest) -> list[str | ToolCall]:
        if result_of(request) == {"ok": True}:
            return ["Your table is booked."]
        return ["Very well. ", ToolCall("c1", "book_table", BOOKING)]

    async with Call(script, brief=BRIEF) as call:
        await call.agent_silent()
        await call.say("yes that is right")
        await call.agent_silent()
        assert call.heard() == "Hello there. Very well. Your table is booked."
        assert [(f.form, f.fields) for f in call.of(FormCompleted)] == [("book_table", BOOKING)]
        assert [(t.name, t.ok, json.loads(t.result)) for t in call.of(ToolCalled)] == [
            ("book_table", True, {"ok": True})
        ]
        roles = [m.role for m in call.llm.requests[-1].messages]
        assert roles == ["assistant", "user", "assistant", "tool"]
        await call.wait(0.1)
        assert call.said("agent")[-1] == "Very well. Your table is booked."
        await call.say("thank you so much")
        await call.until(lambda: len(call.llm.requests) == 3)
        messages = call.llm.requests[-1].messages
        assert [m.role for m in messages] == ["assistant", "user", "assistant", "tool", "assistant", "user"]
        assert [m.content for m in messages[2:5]] == ["Very well.", '{"ok": true}', "Your table is booked."]


@conversing
async def test_tool_is_not_carried_out_for_a_turn_the_caller_goes_on_with() -> None:
    def script(request: LlmRequest) -> list[str | ToolCall]:
        if request.messages[-1].content == "yes":
            return [ToolCall("c1", "book_table", BOOKING)]
        return ["Cancelled."]

    async with Call(script, brief=BRIEF) as call:
        call.stt.latency_s = 0.02
        await call.agent_silent()
        await call.say("yes")
        await call.until(lambda: call.llm.completed)
        await call.say("but not today")
        await call.agent_silent()
        assert call.heard() == "Hello there. Cancelled."
        assert call.of(ToolCalled) == call.of(FormCompleted) == []


@conversing
async def test_unknown_tools_and_bad_arguments_are_told_to_the_model() -> None:
    wrong = [
        ToolCall("1", "order_pizza", {}),
        ToolCall("2", "book_table", {"people": 4}),
        ToolCall("3", "book_table", {"people": 99, "name": "Ada"}),
        ToolCall("4", "hang_up", {"why": "because"}),
    ]
    seen: list[str] = []

    def script(request: LlmRequest) -> list[str | ToolCall]:
        if request.messages[-1].role == "tool":
            seen.append(json.loads(request.messages[-1].content)["error"])
        return [wrong[len(seen)]] if len(seen) < len(wrong) else ["I can't do that."]

    async with Call(script, brief=BRIEF) as call:
        await call.agent_silent()
        await call.say("do something strange")
        await call.agent_silent()
        assert call.heard() == "Hello there. I can't do that."
        assert "order_pizza" in seen[0] and "book_table" in seen[0]
        assert "name" in seen[1] and "12" in seen[2] and "why" in seen[3]
        assert call.of(FormCompleted) == []
        assert not call.task.done()


@conversing
async def test_model_that_never_stops_calling_tools_must_speak_in_the_end() -> None:
    def script(request: LlmRequest) -> list[str | ToolCall]:
        return [ToolCall(f"c{len(request.messages)}", "book_table", BOOKING)] if request.tools else ["Enough."]

    async with Call(script, brief=BRIEF, limits={"tool_rounds": 3}) as call:
        await call.agent_silent()
        await call.say("go on then")
        await call.agent_silent()
        assert call.heard() == "Hello there. Enough."
        assert len(call.of(ToolCalled)) == 3


@conversing
async def test_model_that_says_nothing_does_not_leave_the_caller_in_silence() -> None:
    async with Call(lambda _: []) as call:
        await call.agent_silent()
        await call.say("what do you think")
        await call.agent_silent()
        assert call.heard() == f"Hello there. {call.settings.brief.unknown}"


@conversing
async def test_hang_up_waits_for_the_goodbye() -> None:
    for text, goodbye in (("Bye for now.", "Bye for now."), ("", "Thank you for calling. Goodbye!")):
        async with Call(lambda _, text=text: [text, ToolCall("c", "hang_up", {})]) as call:
            await call.agent_silent()
            await call.say("that is all")
            done = await call.ended()
            assert done.cause is Cause.AGENT_HUNG_UP
            assert call.heard() == f"Hello there. {goodbye}"
            assert len(call.llm.requests) == 1
            call.assert_nothing_left()


def handing_over(request: LlmRequest) -> list[str | ToolCall]:
    result = result_of(request)
    if result is None:
        return ["One moment, you are put through. ", ToolCall("c", "transfer", {"target": "sip:desk@10.0.0.1"})]
    return ["Nobody is there, sorry."]


@conversing
async def test_transfer_happens_after_its_announcement_was_heard_and_ends_our_part() -> None:
    async with Call(handing_over, brief=BRIEF) as call:
        await call.agent_silent()
        await call.say("a human please")
        await call.until(lambda: call.leg.transfers)
        assert call.heard() == "Hello there. One moment, you are put through."
        done = await call.ended()
        assert done.cause is Cause.TRANSFERRED
        assert call.leg.transfers == ["sip:desk@10.0.0.1"]
        call.assert_nothing_left()


@conversing
async def test_silent_transfer_is_announced_by_the_handover_phrase() -> None:
    def script(request: LlmRequest) -> list[ToolCall]:
        return [ToolCall("c", "transfer", {"target": "sip:desk@10.0.0.1"})]

    async with Call(script, brief=BRIEF) as call:
        await call.agent_silent()
        await call.say("a human please")
        await call.ended()
        assert call.heard() == "Hello there. One moment, I am putting you through."


@conversing
async def test_transfer_that_fails_is_told_to_the_model_and_the_call_goes_on() -> None:
    for leg, word in (
        (LoopbackLeg(transfer_status=486), "486"),
        (LoopbackLeg(transfer_status=None), "403"),
    ):
        async with Call(handing_over, leg=leg, brief=BRIEF) as call:
            await call.agent_silent()
            await call.say("a human please")
            await call.until(lambda: len(call.llm.requests) == 2)
            await call.agent_silent()
            assert call.heard().endswith("Nobody is there, sorry.")
            (tool,) = call.of(ToolCalled)
            assert not tool.ok and word in tool.result
            assert not call.task.done()


@conversing
async def test_slow_transfer_is_covered_by_the_filler_and_given_up_at_its_deadline() -> None:
    leg = LoopbackLeg(transfer_status=200)
    leg.transfer_s = 3600
    async with Call(handing_over, leg=leg, brief=BRIEF, limits={"transfer_ms": 5000}) as call:
        await call.agent_silent()
        await call.say("a human please")
        await call.until(lambda: len(call.llm.requests) == 2)
        await call.agent_silent()
        assert call.heard() == (
            "Hello there. One moment, you are put through. One moment, please. Nobody is there, sorry."
        )
        assert leg.transfers_stopped == 1


@conversing
async def test_caller_can_not_stop_the_agent_during_a_transfer() -> None:
    leg = LoopbackLeg()
    leg.transfer_s = 3.0
    async with Call(handing_over, leg=leg, brief=BRIEF) as call:
        await call.agent_silent()
        await call.say("a human please")
        await call.until(lambda: leg.transfers)
        await call.say("wait no stop it please")
        done = await call.ended()
        assert done.cause is Cause.TRANSFERRED


@conversing
async def test_leg_that_can_not_transfer_gives_the_model_no_such_tool() -> None:
    leg = LoopbackLeg(capabilities=Capability.DTMF_RECEIVE)
    async with Call(handing_over, leg=leg, brief=BRIEF) as call:
        await call.agent_silent()
        await call.say("a human please")
        await call.until(lambda: len(call.llm.requests) == 2)
        assert "transfer" not in [tool.name for tool in call.llm.requests[0].tools]
        assert leg.transfers == []


@conversing
async def test_tool_interrupted_by_the_caller_leaves_a_complete_memory() -> None:
    def script(request: LlmRequest) -> list[str | float | ToolCall]:
        if result_of(request) == {"ok": True}:
            return [5.0, "Your table is booked."]
        if request.messages[-1].content == "yes please do":
            return ["Very well. ", ToolCall("c1", "book_table", BOOKING)]
        return ["You changed your mind."]

    async with Call(script, brief=BRIEF) as call:
        await call.agent_silent()
        await call.say("yes please do")
        await call.until(lambda: len(call.llm.requests) == 2)
        await call.agent_speaks(words=2)
        await call.wait(0.5)
        await call.say("no I changed my mind")
        await call.agent_silent()
        messages = call.llm.requests[-1].messages
        assert [m.role for m in messages] == ["assistant", "user", "assistant", "tool", "user"]
        assert messages[2].tool_calls[0].id == messages[3].tool_call_id == "c1"
        assert call.heard().endswith("You changed your mind.")
