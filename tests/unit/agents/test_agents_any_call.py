"""Whatever a caller does, in any order: no exception, no endless pause, a record in order, nothing left behind."""

from itertools import pairwise

from agents_call import Call
from agents_engines import Step
from agents_fake_time import in_fake_time
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.events import BargeIn, Cause, TurnEnded
from bridge.providers.base import LlmRequest, ProviderError, ToolCall

ACTIONS = st.one_of(
    st.tuples(st.just("wait"), st.floats(0.02, 12)),
    st.tuples(
        st.just("say"),
        st.sampled_from(["yes", "mhm", "wait", "a table for", "when are you open", "fail", "book", "bye"]),
    ),
    st.tuples(st.just("noise"), st.sampled_from([40, 200, 450, 1500])),
    st.tuples(st.just("press"), st.sampled_from("19#*")),
    st.tuples(st.just("hold"), st.booleans()),
    st.tuples(st.just("break the ear"), st.booleans()),
)

BRIEF = {
    "forms": [
        {
            "id": "book",
            "description": "Book",
            "ask": ["book"],
            "slots": [{"id": "name", "type": "name", "ask": "Name?"}],
            "confirm": "{name}?",
            "done": "Done.",
        }
    ]
}


def script(request: LlmRequest) -> list[Step]:
    last = request.messages[-1]
    if last.role == "tool":
        return [0.2, "That is done, and I am glad about it. ", 0.3, "Anything else that I can do?"]
    if last.content.endswith("fail"):
        return [0.1, ProviderError("llm", "no")]
    if last.content.endswith("book"):
        return ["One moment. ", 0.4, ToolCall(f"c{len(request.messages)}", "book", {"name": "Ada"})]
    if last.content.endswith("bye"):
        return ["Goodbye then, and thank you.", ToolCall("h", "hang_up", {})]
    return [0.3, "We open at noon every day. ", 0.5, "On Sundays we close at ten in the evening."]


@settings(max_examples=60, deadline=None)
@given(st.lists(ACTIONS, max_size=14), st.booleans(), st.sampled_from([0.05, 0.3, 1.2]))
def test_any_caller_gets_a_consistent_call(actions: list, eager: bool, stt_s: float) -> None:
    async def main() -> None:
        async with Call(script, brief=BRIEF, turns={"eager": eager}, limits={"max_call_s": 120}) as call:
            call.stt.latency_s = stt_s
            # Words whose times the voice does not tell are counted by their characters: not to the word.
            call.tts.aligned = True
            for action in actions:
                if call.task.done():
                    break
                match action:
                    case ("wait", seconds):
                        await call.wait(seconds)
                    case ("say", text):
                        await call.say(text)
                    case ("noise", length_ms):
                        await call.make_noise(length_ms)
                    case ("press", digit):
                        call.leg.press(digit)
                    case ("hold", on):
                        call.leg.far_hold(on)
                    case ("break the ear", fatal):
                        for stream in call.stt.streams[-1:]:
                            stream.fail(fatal=fatal)
            call.leg.far_hold(False)
            # Left alone, every call comes to its end by itself.
            done = await call.ended(limit_s=160)
            assert done.cause in {Cause.SILENCE, Cause.MAX_LENGTH, Cause.ENGINE_FAILED, Cause.AGENT_HUNG_UP}
            call.assert_nothing_left()
            turns = call.of(TurnEnded)
            assert [turn.index for turn in turns] == list(range(len(turns)))
            # A voice is told 60 ms after its onset; a turn cut off by a key within that time is on record before it.
            assert all(b.started_ms - a.started_ms >= -60 for a, b in pairwise(turns))
            for turn in turns:
                assert turn.started_ms <= turn.ended_ms
                assert turn.speaker == "caller" or turn.text.startswith(turn.heard_text[:8])
            assert all(b.pause_ms <= 520 for b in call.of(BargeIn))
            agent_words = " ".join(turn.heard_text for turn in turns if turn.speaker == "agent").split()
            assert abs(len(agent_words) - len(call.heard().split())) <= sum(t.interrupted for t in turns)

    in_fake_time(main)
