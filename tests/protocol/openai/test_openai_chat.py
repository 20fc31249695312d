"""A call's memory as Chat Completions messages, and where the key comes from."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from openai_request import request

from bridge.providers.base import Message, ProviderUnavailableError, ToolCall
from bridge.providers.dialogue import dialogue
from bridge.providers.openai.chat import chat_messages as messages_of
from bridge.providers.openai.settings import OpenAiSettings


def chat_messages(memory: Sequence[Message]) -> list[dict[str, Any]]:
    return messages_of(dialogue(request(), memory))


def roles(*memory: Message) -> list[str]:
    return [message["role"] for message in chat_messages(memory)]


def test_the_greeting_goes_into_the_prompt() -> None:
    messages = chat_messages([Message("assistant", "Hello?"), Message("user", "Hi")])
    assert [message["role"] for message in messages] == ["system", "user"]
    assert messages[0]["content"].startswith("You are a friendly")
    assert "Hello?" in messages[0]["content"]


def test_what_was_cut_off_is_marked() -> None:
    messages = chat_messages(
        [Message("user", "Hi"), Message("assistant", "We are open", interrupted=True), Message("user", "Parking?")],
    )
    assert messages[2] == {"role": "assistant", "content": "We are open—"}


def test_neighbours_of_one_role_are_joined() -> None:
    memory = [
        Message("user", "A table"),
        Message("user", "for two"),
        Message("assistant", "One."),
        Message("assistant", "Two."),
    ]
    messages = chat_messages([*memory, Message("user", "Yes")])
    assert [message["content"] for message in messages[1:]] == ["A table for two", "One. Two.", "Yes"]


def test_tool_calls_and_results_stay_together() -> None:
    call = ToolCall("a", "book_table", {"people": 4})
    memory = [
        Message("user", "yes"),
        Message("assistant", "", (call,)),
        Message("tool", '{"ok": true}', tool_call_id="a"),
    ]
    messages = chat_messages(memory)
    assert messages[2]["tool_calls"][0]["function"] == {"name": "book_table", "arguments": '{"people": 4}'}
    assert messages[3] == {"role": "tool", "tool_call_id": "a", "content": '{"ok": true}'}


def test_a_lost_result_is_made_up_for_and_an_orphaned_one_dropped() -> None:
    call = ToolCall("a", "book_table", {})
    assert roles(Message("user", "yes"), Message("assistant", "", (call,)), Message("user", "wait")) == [
        *("system", "user", "assistant", "tool", "user"),
    ]
    assert roles(Message("tool", "{}", tool_call_id="x"), Message("user", "yes")) == ["system", "user"]


def test_the_last_word_is_never_the_agents() -> None:
    assert roles() == ["system", "user"]
    assert roles(Message("user", "Hi"), Message("assistant", "Yes?")) == ["system", "user", "assistant", "user"]


def test_the_key_comes_from_a_file_or_the_environment(tmp_path: Path) -> None:
    environ = {"OPENAI_API_KEY": "from-environment", "MINE": "from-mine"}
    file = tmp_path / "key"
    file.write_text("from-file\n")
    keys = [OpenAiSettings(), OpenAiSettings(api_key_file=file), OpenAiSettings(api_key_env="MINE")]
    found = [settings.key("openai", "OPENAI_API_KEY", environ).get_secret_value() for settings in keys]
    assert found == ["from-environment", "from-file", "from-mine"]


def test_a_missing_key_says_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(ProviderUnavailableError, match="set OPENAI_API_KEY"):
        OpenAiSettings().key("openai", "OPENAI_API_KEY", {})
    with pytest.raises(ProviderUnavailableError, match="can't be read"):
        OpenAiSettings(api_key_file=tmp_path / "none").key("openai", "OPENAI_API_KEY", {})
