"""A call's memory as Chat Completions messages, and where the key comes from."""

from pathlib import Path

import pytest

from bridge.providers.base import Message, ProviderUnavailableError, ToolCall
from bridge.providers.openai_chat import chat_messages
from bridge.providers.openai_settings import OpenAiSettings


def roles(*memory: Message) -> list[str]:
    return [message["role"] for message in chat_messages("PROMPT", memory)]


def test_the_greeting_goes_into_the_prompt() -> None:
    messages = chat_messages("PROMPT", [Message("assistant", "Hello?"), Message("user", "Hi")])
    assert [message["role"] for message in messages] == ["system", "user"]
    assert messages[0]["content"].startswith("PROMPT")
    assert "Hello?" in messages[0]["content"]


def test_what_was_cut_off_is_marked() -> None:
    messages = chat_messages(
        "PROMPT",
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
    messages = chat_messages("PROMPT", [*memory, Message("user", "Yes")])
    assert [message["content"] for message in messages[1:]] == ["A table for two", "One. Two.", "Yes"]


def test_tool_calls_and_results_stay_together() -> None:
    call = ToolCall("a", "book_table", {"people": 4})
    memory = [
        Message("user", "yes"),
        Message("assistant", "", (call,)),
        Message("tool", '{"ok": true}', tool_call_id="a"),
    ]
    messages = chat_messages("PROMPT", memory)
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


def test_the_key_comes_from_the_settings_a_file_or_the_environment(tmp_path: Path) -> None:
    environ = {"OPENAI_API_KEY": "from-environment"}
    file = tmp_path / "key"
    file.write_text("from-file\n")
    assert OpenAiSettings().key(environ).get_secret_value() == "from-environment"
    assert OpenAiSettings(api_key_file=file).key(environ).get_secret_value() == "from-file"
    assert OpenAiSettings.model_validate({"api_key": "given"}).key(environ).get_secret_value() == "given"
    assert OpenAiSettings(base_url="http://127.0.0.1:8000/v1").key({}).get_secret_value() == "none"


def test_a_missing_key_says_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(ProviderUnavailableError, match="set OPENAI_API_KEY"):
        OpenAiSettings().key({})
    with pytest.raises(ProviderUnavailableError, match="can't be read"):
        OpenAiSettings(api_key_file=tmp_path / "none").key({})


def test_the_key_is_not_shown() -> None:
    settings = OpenAiSettings.model_validate({"api_key": "sk-secret"})
    assert "sk-secret" not in repr(settings)
    assert "sk-secret" not in settings.model_dump_json()
