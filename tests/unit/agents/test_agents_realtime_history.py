"""What a session that goes on in another one's place is told of the talk: the last of it, within its bounds."""

from bridge.agents.memory import message_tokens
from bridge.agents.realtime_history import History
from bridge.providers.base import Message, ToolCall


def test_the_oldest_beyond_the_budget_is_left_out() -> None:
    history = History(200, 500)
    for number in range(100):
        history.add(Message("user", f"question {number} " + "x" * 80))
        history.add(Message("assistant", f"answer {number} " + "x" * 80))
    kept = history.messages
    assert 350 < sum(map(message_tokens, kept)) <= 500
    assert kept[-1].content.startswith("answer 99")


def test_a_text_that_comes_late_is_measured_too() -> None:
    history = History(200, 500)
    place = history.place()
    history.add(Message("assistant", "Good day."))
    place.append(Message("user", "x" * 4000))
    assert [message.content for message in history.messages] == ["Good day."]


def test_a_call_and_its_result_stay_together_and_the_last_word_is_kept_whatever_its_size() -> None:
    history = History(200, 500)
    call = ToolCall("c1", "look_up", {})
    history.add(Message("assistant", "", (call,)), Message("tool", "x" * 1900, tool_call_id="c1"))
    history.add(Message("user", "x" * 200))
    assert [message.role for message in history.messages] == ["user"]
    history.add(Message("assistant", "x" * 4000))
    assert [message.role for message in history.messages] == ["assistant"]
