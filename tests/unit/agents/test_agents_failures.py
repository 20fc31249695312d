"""What a caller hears when the engines fail: a filler while there is hope, then the apology, a person or goodbye."""

from typing import Any

from agents_call import Call, conversing
from agents_loopback import LoopbackLeg

from bridge.events import Cause, ProviderFailed, ToolCalled
from bridge.legs.base import Capability
from bridge.providers.base import ProviderUnavailableError, SttFailed
from bridge.providers.brief import Brief

APOLOGY = "I am sorry, we have a technical problem. Please call again later."
HANDOVER = "I am sorry, we have a technical problem. I am putting you through to a person."
WITH_HANDOVER = Brief.model_validate({"handover": {"target": "sip:desk@example.com"}})


def failing(**settings: Any) -> Call:
    """A call whose model fails at once."""
    return Call(lambda request: [ProviderUnavailableError("scripted-llm", "it is gone")], **settings)


@conversing
async def test_without_anybody_to_hand_over_to_the_apology_is_the_goodbye() -> None:
    async with failing() as call:
        await call.agent_silent()
        await call.say("one two")
        done = await call.ended()
        assert (done.cause, call.heard().endswith(APOLOGY)) == (Cause.ENGINE_FAILED, True)
        assert call.leg.transfers == []
    call.assert_nothing_left()


@conversing
async def test_the_caller_is_put_through_after_the_apology() -> None:
    async with failing(brief=WITH_HANDOVER) as call:
        await call.agent_silent()
        await call.say("one two")
        done = await call.ended()
        assert call.heard().endswith(HANDOVER)
        assert (done.cause, done.detail) == (Cause.TRANSFERRED, "sip:desk@example.com")
        assert call.leg.transfers == ["sip:desk@example.com"]
        assert [(tool.name, tool.ok) for tool in call.of(ToolCalled)] == [("transfer", True)]
        assert {failed.provider for failed in call.of(ProviderFailed)} == {"scripted-llm"}
    call.assert_nothing_left()


@conversing
async def test_where_nobody_answers_the_transfer_the_caller_hears_so() -> None:
    async with failing(brief=WITH_HANDOVER, leg=LoopbackLeg(transfer_status=486)) as call:
        await call.agent_silent()
        await call.say("one two")
        done = await call.ended()
        assert call.heard().endswith(f"{HANDOVER} {APOLOGY}")
        assert done.cause is Cause.ENGINE_FAILED
    call.assert_nothing_left()


@conversing
async def test_a_line_that_can_t_transfer_gets_the_apology_alone() -> None:
    leg = LoopbackLeg(capabilities=~Capability.NONE & ~Capability.TRANSFER)
    async with failing(brief=WITH_HANDOVER, leg=leg) as call:
        await call.agent_silent()
        await call.say("one two")
        done = await call.ended()
        assert call.heard().endswith(APOLOGY) and done.cause is Cause.ENGINE_FAILED
    call.assert_nothing_left()


@conversing
async def test_a_caller_who_hangs_up_during_the_handover_leaves_nothing() -> None:
    async with failing(brief=WITH_HANDOVER) as call:
        call.leg.transfer_s = 20.0
        await call.agent_silent()
        await call.say("one two")
        await call.until(lambda: call.leg.transfers)
        await call.hang_up()
    call.assert_nothing_left()


@conversing
async def test_a_voice_that_says_nothing_is_covered_and_then_apologised_for() -> None:
    async with Call() as call:
        await call.agent_silent()
        call.tts.latency_s = 1000.0
        asked = await call.say("one two")
        done = await call.ended()
        assert done.cause is Cause.ENGINE_FAILED
        said = call.wire(since=asked)
        words = " ".join(word for _, word in said)
        assert words == f"One moment, please. {APOLOGY}"
        assert said[0][0] - asked < 3.5, "silence: end of turn, model, and then two seconds of the voice"
        assert said[3][0] - asked < 10
    call.assert_nothing_left()


@conversing
async def test_a_voice_that_is_late_speaks_after_the_filler_and_both_are_on_record() -> None:
    async with Call() as call:
        await call.agent_silent()
        call.tts.latency_s = 3.0
        asked = await call.say("one two")
        await call.until(lambda: call.said("agent")[1:])
        assert call.heard(since=asked) == "One moment, please. You said one two."
        assert call.said("agent")[-1] == "One moment, please. You said one two."
    call.assert_nothing_left()


@conversing
async def test_a_filler_that_is_not_prepared_is_not_waited_for() -> None:
    async with Call() as call:
        await call.agent_silent()
        call.tts.prepared.discard("One moment, please.")
        call.tts.latency_s = 3.0
        asked = await call.say("one two")
        await call.until(lambda: "two." in call.heard(since=asked))
        assert call.heard(since=asked) == "You said one two."
    call.assert_nothing_left()


@conversing
async def test_the_record_names_the_recogniser_of_a_chain_that_failed() -> None:
    async with Call() as call:
        await call.agent_silent()
        call.stt.streams[0].emit(SttFailed("it broke", fatal=False, provider="second"))
        await call.wait(0.1)
        assert [failed.provider for failed in call.of(ProviderFailed)] == ["second"]
