"""The memory of a call: within its budget, true, and whole where tools are concerned."""

import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.agents.memory import MAX_DONE, OVERDRAFT, Memory, message_tokens, tokens
from bridge.providers.base import Message, ToolCall


def exchange(number: int, *, words: int = 10) -> list[Message]:
    text = " ".join(f"word{number}" for _ in range(words))
    return [Message("user", text), Message("assistant", f"Answer {text}.")]


def booking(number: int) -> list[Message]:
    call = ToolCall(f"call-{number}", "book_table", {"people": number})
    return [
        Message("user", f"Book for {number}"),
        Message("assistant", "One moment.", (call,)),
        Message("tool", json.dumps({"ok": True, "number": number}), tool_call_id=call.id),
        Message("assistant", f"Booked for {number}."),
    ]


def fill(memory: Memory, messages: Sequence[Message]) -> None:
    for message in messages:
        if message.role == "user":
            memory.add_user(message.content)
        else:
            memory.add([message])


@pytest.mark.parametrize(
    ("text", "about"),
    [("We are open from noon until ten every day.", 10), ("Wir öffnen um zwölf.", 6), ("我们中午开门", 6), ("", 0)],
)
def test_tokens_are_estimated_by_script(text: str, about: int) -> None:
    assert abs(tokens(text) - about) <= 2


def test_within_the_budget_nothing_is_summed_up_or_forgotten() -> None:
    memory = Memory(200, 1000)
    fill(memory, exchange(1))
    assert memory.excerpt() is None and len(memory.messages) == 2 and memory.summary == ""


def test_the_oldest_exchanges_are_summed_up_down_to_half_the_budget() -> None:
    memory = Memory(200, 1000)
    said = [message for number in range(40) for message in exchange(number)]
    while memory.excerpt() is None:
        fill(memory, said[:2])
        del said[:2]
    excerpt = memory.excerpt()
    assert excerpt is not None
    before = memory.messages
    memory.add_user("And what about parking?")
    memory.summed_up(excerpt, "The caller counts words.")
    assert memory.summary == "The caller counts words."
    assert memory.messages == (*before[len(excerpt.messages) :], Message("user", "And what about parking?"))
    assert memory.messages[0].role == "user"
    assert 250 < memory.tokens < 600


def test_a_second_summary_takes_up_the_first() -> None:
    memory = Memory(200, 500)
    for number in range(60):
        fill(memory, exchange(number))
        if (excerpt := memory.excerpt()) is not None:
            assert excerpt.summary == memory.summary
            memory.summed_up(excerpt, f"Up to {excerpt.messages[-1].content[-7:]}")
    assert memory.summary.startswith("Up to")
    assert memory.tokens <= 500


def test_without_a_summary_the_oldest_are_forgotten_and_what_tools_did_is_kept() -> None:
    memory = Memory(200, 500)
    fill(memory, booking(4))
    for number in range(100):
        fill(memory, exchange(number))
    assert memory.tokens <= 500 * OVERDRAFT
    assert "book" not in " ".join(message.content for message in memory.messages).lower()
    assert 'book_table {"people": 4}: {"ok": true, "number": 4}' in memory.summary


def test_what_tools_did_is_kept_beside_a_summary_and_bounded() -> None:
    memory = Memory(200, 500)
    for number in range(100):
        fill(memory, booking(number))
        if (excerpt := memory.excerpt()) is not None:
            memory.summed_up(excerpt, "Many bookings.")
    assert memory.summary.startswith("Many bookings.\n")
    assert memory.summary.count("book_table") == MAX_DONE


def test_a_summary_that_comes_late_takes_nothing_that_it_does_not_know() -> None:
    memory = Memory(200, 500)
    while (excerpt := memory.excerpt()) is None:
        fill(memory, exchange(1))
    for number in range(2, 60):
        fill(memory, exchange(number))
    kept = memory.messages
    memory.summed_up(excerpt, "Old.")
    assert memory.messages == kept and memory.summary == "Old."


def test_a_counted_memory_is_not_measured() -> None:
    memory = Memory(10)
    for number in range(50):
        fill(memory, exchange(number, words=500))
    assert memory.excerpt() is None and len(memory.messages) == 10


@given(
    st.lists(st.sampled_from(["talk", "long", "tool", "cut", "back"]), max_size=80),
    st.integers(4, 40),
    st.integers(500, 2000),
    st.integers(0, 7),
)
def test_the_memory_stays_within_budget_and_true_whatever_happens(
    steps: list[str], limit: int, budget: int, late: int
) -> None:
    memory = Memory(limit, budget)
    said: list[str] = []
    pending = None
    for number, step in enumerate(steps):
        match step:
            case "talk":
                fill(memory, exchange(number))
            case "long":
                fill(memory, exchange(number, words=60))
            case "tool":
                fill(memory, booking(number))
            case "cut":
                fill(memory, [Message("user", f"So {number}"), Message("assistant", f"I {number}", interrupted=True)])
            case "back":
                memory.take_back()
        said.append(step)
        excerpt = memory.excerpt()
        if excerpt is not None and pending is None:
            pending = (excerpt, number + late)
        if pending is not None and number >= pending[1]:
            memory.summed_up(pending[0], f"Summary {number}.")
            pending = None
        messages = memory.messages
        largest = max(map(message_tokens, messages), default=0)
        assert memory.tokens <= budget * OVERDRAFT + 2 * largest
        assert abs(memory.tokens - sum(map(message_tokens, messages))) < 1e-6
        assert len(messages) <= max(limit, 4)
        open_calls: set[str] = set()
        for message in messages:
            if message.role == "tool":
                assert message.tool_call_id in open_calls
            open_calls |= {call.id for call in message.tool_calls}
