"""Somebody is told about a caller before the two talk: what each hears, and every way it may come to nothing."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from agents_call import conversing
from agents_desk import DeskCall, Phone
from agents_engines import Step
from agents_loopback import LoopbackLeg

from bridge.events import Cause, Note, SecondEnded, ToolCalled
from bridge.legs.base import Capability, LegError, LegState
from bridge.providers.base import LlmRequest, ProviderError, ToolCall

ALL = ~Capability.NONE
SIP = ALL & ~(Capability.MUSIC | Capability.VARIABLES)
"""What a leg can do whose carrier has neither music nor variables."""

SUMMARY = "Ada wants some tea."
TOLD = f"I have a caller for you. {SUMMARY}"
WARM = {"targets": {"sales": {"to": "PJSIP/1001", "announce": True, "say": "Sales it is."}}}
KEYS = {
    "targets": {
        "sales": {
            "to": "PJSIP/1001",
            "say": "Sales it is.",
            "announce": {"opening": "", "closing": "Press one.", "accept_key": "1", "refuse_key": "2", "key_s": 5},
        }
    }
}


def result_of(request: LlmRequest) -> dict[str, Any] | None:
    last = request.messages[-1]
    return json.loads(last.content) if last.role == "tool" else None


def putting_through(summary: str = SUMMARY) -> Callable[[LlmRequest], Sequence[Step]]:
    def script(request: LlmRequest) -> Sequence[Step]:
        if result_of(request):
            return ["Nobody takes it."]
        if request.messages[-1].content == "a human please":
            arguments = {"target": "sales", **({"summary": summary} if summary else {})}
            return [ToolCall("c1", "transfer", arguments)]
        return ["Very well."]

    return script


async def asked(call: DeskCall) -> Phone:
    await call.agent_silent()
    await call.say("a human please")
    return await call.rings()


async def told(call: DeskCall, up_to: str = "") -> Phone:
    """Whoever was asked for has picked up, and has heard so much of the summary."""
    phone = await asked(call)
    phone.pick_up()
    await call.until(lambda: up_to in call.heard_by(phone))
    return phone


async def told_by_the_api(call: DeskCall) -> Phone:
    """The same, not by the agent's wish."""
    await call.agent_silent()
    call.transfers.begin_transfer("200", "attended", announce="Ada is on the line.")
    phone = await call.rings()
    phone.pick_up()
    return phone


def error_of(call: DeskCall) -> str:
    (tool,) = call.of(ToolCalled)
    return str(json.loads(tool.result).get("error", ""))


async def back_with_the_agent(call: DeskCall, why: str) -> None:
    """The caller hears from the agent that it came to nothing, and is heard."""
    await call.until(lambda: call.heard().endswith("Nobody takes it."))
    assert why in error_of(call)
    assert call.transfers.second is None
    since = call.now
    await call.say("never mind then")
    await call.agent_silent()
    assert call.heard(since) == "Very well."
    assert not call.task.done()


@conversing
async def test_who_answers_hears_the_summary_alone_and_is_then_connected_by_the_carrier() -> None:
    async with DeskCall(putting_through(), transfer=WARM, leg=LoopbackLeg(capabilities=SIP)) as call:
        phone = await asked(call)
        assert phone.info.to == "PJSIP/1001"
        began = call.now
        await call.wait(2.0)
        phone.pick_up()
        await call.until(lambda: call.leg.transfers)
        assert call.heard_by(phone) == TOLD
        assert call.leg.replaced is phone
        assert call.heard() == "Hello there. Sales it is."
        assert call.noise_to_caller(began)
        done = await call.ended()
        assert (done.cause, done.detail) == (Cause.TRANSFERRED, "PJSIP/1001")
        assert [note.detail for note in call.of(Note) if note.name == "announced"] == [TOLD]


@conversing
async def test_where_the_carrier_does_not_join_them_the_two_talk_through_us() -> None:
    for capabilities, status in ((SIP & ~Capability.TRANSFER_REPLACING, 200), (SIP, None), (SIP, 503)):
        leg = LoopbackLeg(capabilities=capabilities, transfer_status=status)
        async with DeskCall(putting_through(), transfer=WARM, leg=leg) as call:
            phone = await told(call)
            assert (await call.ended()).cause is Cause.TRANSFERRED
            assert call.transfers.joined
            since = call.now
            phone.hear(call.code.pcm("hello", 240))
            call.leg.hear(call.code.pcm("anybody", 240))
            await call.wait(1.0)
            assert call.heard(since) == "hello"
            assert call.heard_by(phone) == f"{TOLD} anybody"
            assert error_of(call) == ""


@conversing
async def test_carriers_music_plays_while_the_caller_waits_and_has_stopped_before_it_is_handed_on() -> None:
    async with DeskCall(putting_through(), transfer=WARM) as call:
        phone = await asked(call)
        began = call.now
        await call.wait(1.0)
        assert [on for _, on in call.leg.music_turns] == [True]
        phone.pick_up()
        await call.until(lambda: call.leg.transfers)
        assert [on for _, on in call.leg.music_turns] == [True, False]
        assert not call.noise_to_caller(began)
        await call.ended()


@pytest.mark.parametrize(
    ("cause", "status", "said"),
    [(Cause.BUSY, 486, "486 busy"), (Cause.REJECTED, 603, "603 rejected"), (Cause.NO_ANSWER, 480, "480 no-answer")],
)
def test_who_does_not_pick_up_leaves_the_caller_with_the_agent(cause: Cause, status: int, said: str) -> None:
    @conversing
    async def dialogue() -> None:
        async with DeskCall(putting_through(), transfer=WARM) as call:
            phone = await asked(call)
            await phone.hang_up(cause, status)
            await back_with_the_agent(call, said)
            assert [on for _, on in call.leg.music_turns] == [True, False]

    dialogue()


@conversing
async def test_nobody_picks_up_in_time() -> None:
    async with DeskCall(putting_through(), transfer=WARM) as call:
        await asked(call)
        await back_with_the_agent(call, "408 no-answer")


@conversing
async def test_nobody_can_be_called_there() -> None:
    async with DeskCall(putting_through(), transfer=WARM, nobody=True) as call:
        await call.agent_silent()
        await call.say("a human please")
        await back_with_the_agent(call, "no trunk leads there")


@conversing
async def test_who_hangs_up_during_the_summary_refuses() -> None:
    async with DeskCall(putting_through(), transfer=WARM) as call:
        phone = await told(call, "caller")
        await phone.hang_up()
        await back_with_the_agent(call, "480 they hung up before the caller was put through")
        assert call.leg.transfers == []


@conversing
async def test_key_refuses_and_their_leg_is_over() -> None:
    async with DeskCall(putting_through(), transfer=KEYS) as call:
        phone = await told(call, "Ada")
        phone.press("5")
        phone.press("2")
        await call.until(lambda: call.of(SecondEnded))
        assert phone.state is LegState.ENDED
        await back_with_the_agent(call, "603 they do not want to take the call")


@conversing
async def test_key_takes_the_call_at_once() -> None:
    async with DeskCall(putting_through(), transfer=KEYS) as call:
        phone = await told(call, "Ada")
        phone.press("1")
        await call.until(lambda: call.leg.transfers)
        assert "tea." not in call.heard_by(phone)
        await call.ended()


@conversing
async def test_key_after_the_text_takes_the_call_and_a_mailbox_presses_none() -> None:
    async with DeskCall(putting_through(), transfer=KEYS) as call:
        phone = await told(call, "one.")
        await call.wait(3.0)
        assert call.leg.transfers == []
        phone.press("1")
        await call.ended()
        assert call.heard_by(phone) == f"{SUMMARY} Press one."
    async with DeskCall(putting_through(), transfer=KEYS) as call:
        (await asked(call)).pick_up()
        await back_with_the_agent(call, "408 nobody pressed the key that takes the call")


@conversing
async def test_caller_who_hangs_up_meanwhile_takes_the_other_leg_along() -> None:
    async with DeskCall(putting_through(), transfer=WARM) as call:
        phone = await told(call, "caller")
        await call.leg.hangup(Cause.CALLER_HUNG_UP)
        await call.ended()
        await call.transfers.close(Cause.CALLER_HUNG_UP)
        assert phone.state is LegState.ENDED
        said = call.heard_by(phone)
        await call.wait(1.0)
        assert call.heard_by(phone) == said
        assert phone.handlers == [] and phone.playout._sinks == []


@conversing
async def test_who_answered_is_not_lost_for_want_of_a_voice() -> None:
    async with DeskCall(putting_through(), transfer=WARM) as call:
        call.tts.failing = lambda text: ProviderError("code-tts", "hoarse") if "caller" in text else None
        phone = await told(call)
        assert (await call.ended()).cause is Cause.TRANSFERRED
        assert call.leg.replaced is phone
        (note,) = [note for note in call.of(Note) if note.name == "announcement-failed"]
        assert "hoarse" in note.detail


@conversing
async def test_without_words_of_the_model_the_forms_are_the_summary() -> None:
    brief = {
        "forms": [
            {
                "id": "order",
                "description": "Order tea",
                "ask": ["tea"],
                "slots": [{"id": "pounds", "type": "number", "ask": "How much?"}],
                "confirm": "{pounds}?",
                "done": "Done.",
            }
        ]
    }

    def script(request: LlmRequest) -> Sequence[Step]:
        if request.messages[-1].content == "some tea":
            return [ToolCall("c0", "order", {"pounds": 4})]
        return ["It is noted."] if len(request.messages) < 6 else putting_through("")(request)

    async with DeskCall(script, transfer=WARM, brief=brief) as call:
        await call.agent_silent()
        await call.say("some tea")
        await call.agent_silent()
        phone = await asked_again(call)
        phone.pick_up()
        await call.ended()
        assert call.heard_by(phone) == "I have a caller for you. Order tea: pounds 4."
        assert call.leg.variables["OFFHOOK_SUMMARY"] == "Order tea: pounds 4."
        assert call.leg.variables["OFFHOOK_FORM_ORDER_POUNDS"] == "4"


async def asked_again(call: DeskCall) -> Phone:
    await call.say("a human please")
    return await call.rings()


@conversing
async def test_model_is_asked_for_a_summary_where_somebody_hears_or_reads_it() -> None:
    async def transfer_tool(capabilities: Capability, target: dict[str, Any]) -> dict[str, Any]:
        targets = {"targets": {"sales": target, "desk": {"to": "300"}}}
        async with DeskCall(lambda _: ["Hi."], transfer=targets, leg=LoopbackLeg(capabilities=capabilities)) as call:
            await call.agent_silent()
            await call.say("hello")
            await call.until(lambda: call.llm.requests)
            (tool,) = [tool for tool in call.llm.requests[0].tools if tool.name == "transfer"]
            return dict(tool.parameters["properties"])

    heard = await transfer_tool(SIP, {"to": "200", "announce": True})
    assert "takes the call (sales): who is calling" in heard["summary"]["description"]
    read = await transfer_tool(ALL, {"to": "200"})
    assert read["summary"]["description"].startswith("Shown to")
    assert "summary" not in await transfer_tool(SIP, {"to": "200"})


@conversing
async def test_too_slow_an_announcement_is_given_up() -> None:
    limits = {"transfer_ms": 5000, "announce_ms": 5000}
    async with DeskCall(putting_through("tea " * 140), transfer=WARM, limits=limits) as call:
        phone = await told(call)
        await back_with_the_agent(call, "no result within 10 s")
        assert phone.state is LegState.ENDED


# -- asked for by others ------------------------------------------------------------------------------------


@conversing
async def test_announcement_for_who_asks_by_the_api_is_in_the_agents_voice() -> None:
    async with DeskCall() as call:
        phone = await told_by_the_api(call)
        await call.until(lambda: call.leg.transfers)
        assert call.heard_by(phone) == "Ada is on the line."
        assert call.heard() == "Hello there."


@conversing
async def test_announcement_refused_leaves_the_caller_with_the_agent() -> None:
    async with DeskCall() as call:
        phone = await told_by_the_api(call)
        await call.until(lambda: "Ada" in call.heard_by(phone))
        await phone.hang_up()
        await call.until(lambda: call.transfers.second is None)
        await call.say("where are you")
        await call.agent_silent()
        assert call.heard().endswith("You said where are you.")


@conversing
async def test_agent_that_has_left_announces_nothing() -> None:
    async with DeskCall() as call:
        await call.agent_silent()
        await call.leg.hangup(Cause.CALLER_HUNG_UP)
        await call.ended()
        with pytest.raises(LegError):
            call.transfers.begin_transfer("200", "attended", announce="Ada is on the line.")
