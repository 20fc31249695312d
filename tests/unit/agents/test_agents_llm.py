"""A language model behind a conversation: it breaks off, it is slow, the call gets long."""

from collections.abc import Sequence

from agents_call import Call, conversing
from agents_engines import Step

from bridge.agents.base import AgentDone
from bridge.events import Cause, Note, ProviderFailed, TurnEnded
from bridge.providers.base import LlmRequest, ProviderError, ProviderTimeoutError
from bridge.providers.dialogue import GO_ON


def breaking(error: ProviderError, times: int = 1) -> "Broken":
    return Broken(error, times)


class Broken:
    """Breaks off in the middle of a reply, `times` times, then says the rest."""

    def __init__(self, error: ProviderError, times: int) -> None:
        self.error, self.times = error, times

    def __call__(self, request: LlmRequest) -> Sequence[Step]:
        if self.times:
            self.times -= 1
            return ["Certainly we do. On Mon", 0.1, self.error]
        return ["On Mondays we are closed."]


@conversing
async def test_a_reply_that_breaks_off_is_gone_on_with() -> None:
    async with Call(breaking(ProviderError("scripted-llm", "gone"))) as call:
        call.llm.follows_instructions = True
        await call.agent_silent()
        await call.say("are you open on mondays")
        await call.until(lambda: len(call.llm.requests) == 2)
        await call.agent_silent()
        assert call.heard() == "Hello there. Certainly we do. On Mondays we are closed."
        asked = call.llm.requests[1].messages
        assert [message.content for message in asked[-2:]] == ["Certainly we do.", GO_ON]
        await call.say("thanks")
        await call.agent_silent()
        remembered = [message.content for message in call.llm.requests[-1].messages]
        assert "Certainly we do. On Mondays we are closed." in remembered and GO_ON not in remembered
        assert [failed.error for failed in call.of(ProviderFailed)] == ["scripted-llm: gone"]
        await call.hang_up()
        call.assert_nothing_left()


@conversing
async def test_a_reply_that_stalls_after_its_beginning_is_gone_on_with() -> None:
    async with Call(breaking(ProviderTimeoutError("scripted-llm", "no next token in time"))) as call:
        call.llm.follows_instructions = True
        await call.agent_silent()
        await call.say("are you open on mondays")
        await call.until(lambda: "closed." in call.heard())
        assert call.heard().endswith("Certainly we do. On Mondays we are closed.")


@conversing
async def test_a_reply_that_breaks_off_twice_ends_the_call_with_an_apology() -> None:
    async with Call(breaking(ProviderError("scripted-llm", "gone"), 9)) as call:
        call.llm.follows_instructions = True
        await call.agent_silent()
        await call.say("are you open on mondays")
        done = await call.ended()
        assert isinstance(done, AgentDone) and done.cause is Cause.ENGINE_FAILED
        assert call.heard().endswith("technical problem. Please call again later.")
        assert len(call.llm.requests) == 2


@conversing
async def test_the_record_tells_which_model_wrote_a_reply() -> None:
    async with Call() as call:
        await call.agent_silent()
        await call.say("good morning")
        await call.agent_silent()
        await call.hang_up()
        agent = [turn for turn in call.of(TurnEnded) if turn.speaker == "agent"]
        assert [turn.delays.llm for turn in agent] == ["", "scripted-llm/model"]


def talkative(request: LlmRequest) -> Sequence[Step]:
    if request.instructions:
        return [5.0, "Notes: ", f"the caller said {request.messages[0].content.count('Caller:')} things."]
    return [0.1, "I see what you mean by that."]


@conversing
async def test_a_long_call_is_summed_up_beside_the_conversation() -> None:
    async with Call(talkative, limits={"memory_tokens": 500}) as call:
        call.llm.follows_instructions = True
        await call.agent_silent()
        for number in range(60):
            await call.say(f"this is the thing that i want to tell you as number {number} today")
            began = call.now
            await call.agent_silent()
            assert call.now - began < 6, "a reply waited for the summary"
        asked = [request for request in call.llm.requests if not request.instructions]
        summaries = [request for request in call.llm.requests if request.instructions]
        assert summaries and all(not request.tools for request in summaries)
        assert asked[-1].summary.startswith("Notes: the caller said")
        assert len(asked[-1].messages) < 60
        assert asked[-1].messages[-1].content.endswith("number 59 today")
        assert asked[-1].call_id == summaries[0].call_id == "call-1"
        await call.hang_up()
        call.assert_nothing_left()


def no_notes(request: LlmRequest) -> Sequence[Step]:
    return [ProviderError("scripted-llm", "no notes")] if request.instructions else [0.1, "I see."]


@conversing
async def test_a_summary_that_fails_costs_the_oldest_words_and_nothing_else() -> None:
    async with Call(no_notes, limits={"memory_tokens": 500}) as call:
        call.llm.follows_instructions = True
        await call.agent_silent()
        for number in range(60):
            await call.say(f"this is the thing that i want to tell you as number {number} today")
            await call.agent_silent()
        asked = [request for request in call.llm.requests if not request.instructions]
        assert asked[-1].summary == "" and 10 < len(asked[-1].messages) < 80
        assert {note.name for note in call.of(Note)} == {"summary-failed"}
        assert len(call.llm.requests) - len(asked) < 20, "a summary is not asked for at every turn"
        assert not call.task.done()
