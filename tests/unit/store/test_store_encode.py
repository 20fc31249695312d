"""Events as JSON: whatever is in them, the record can hold it."""

import json
import math
import typing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.events import CallEvent, CallStarted, ToolCalled, TurnEnded
from bridge.store.encode import MAX_ITEMS, MAX_TEXT, clean_json, clean_text, event_data, event_name, name_of

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.complex_numbers(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner) | st.tuples(inner, inner),
)


@given(anything)
def test_any_value_becomes_strict_json_that_is_stable(value: Any):
    cleaned = clean_json(value)
    text = json.dumps(cleaned, allow_nan=False).encode()
    assert clean_json(json.loads(text)) == cleaned


def test_a_value_that_holds_itself_is_cut():
    loop: dict[str, Any] = {}
    loop["again"] = loop
    json.dumps(clean_json(loop))


def test_long_texts_and_lists_are_cut():
    assert len(clean_text("x" * 2 * MAX_TEXT)) == MAX_TEXT + 1
    assert len(clean_json(list(range(2 * MAX_ITEMS)))) == MAX_ITEMS


@pytest.mark.parametrize(("raw", "kept"), [("a\x00b", "ab"), ("caf\udce9", "caf?"), ("grüß 🎉", "grüß 🎉")])
def test_what_a_database_can_not_hold_is_taken_out_of_texts(raw: str, kept: str):
    assert clean_text(raw) == kept


def test_every_event_has_a_name_of_its_own():
    names = [name_of(kind) for kind in typing.get_args(CallEvent)]
    assert len(set(names)) == len(names)
    assert {"call_started", "turn_ended", "barge_in", "dtmf_received"} <= set(names)


def test_an_event_is_named_and_encoded_by_its_fields():
    event = CallStarted("inbound", "+49301", "agent", "private", "receptionist", "sip", "id@pbx", 12.5)
    assert event_name(event) == "call_started"
    assert event_data(event)["from"] == "+49301"
    turn = event_data(TurnEnded(0, "agent", "Hi", 0.0, math.nan, "Hi", 1.0))
    assert turn["ended_ms"] is None
    assert turn["delays"]["reply_ms"] is None


def test_arguments_that_are_no_json_become_text():
    event = ToolCalled("book", {"when": {1, 2}, "who": object}, True, "ok", 1.0, 2.0)
    assert event_data(event)["arguments"]["who"] == "<class 'object'>"
