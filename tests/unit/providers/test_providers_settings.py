"""What an operator may get wrong about a provider: its address, and where its key is."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from bridge.providers.base import ProviderUnavailableError
from bridge.providers.settings import ProviderSettings


@pytest.mark.parametrize(
    ("field", "url", "says"),
    [
        ("base_url", "ws://host", "not an http"),
        ("websocket_url", "http://host", "not a ws"),
        ("base_url", "http://", "names no host"),
        ("base_url", "http://host:0/v1", "names no host"),
        ("base_url", "http://host:99999", "is no URL"),
        ("base_url", "http://[::1", "is no URL"),
        ("base_url", f"http://{'a' * 64}.org", "names no host"),
        ("base_url", "https://host/v1?api-version=1", "can't have a query"),
    ],
)
def test_an_address_that_can_not_be_used_is_told_at_the_start(field: str, url: str, says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        ProviderSettings(**{field: url})


def test_a_password_in_an_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(ValidationError, match="a password in it") as refused:
        ProviderSettings(base_url="https://me:secret@host/v1")
    assert "secret" not in refused.value.errors()[0]["msg"]


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000/v1", "https://[::1]:8443/", "http://vllm"])
def test_an_address_is_kept_without_its_last_slash(url: str) -> None:
    assert ProviderSettings(base_url=url).base_url == url.rstrip("/")


@pytest.mark.parametrize("text", ["sk-1\nsk-2", "“sk-1234”", "Bearer sk-1", "sk-1\tx"])
def test_a_file_with_more_than_a_key_is_told_without_it(tmp_path: Path, text: str) -> None:
    file = tmp_path / "key"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ProviderUnavailableError, match="more than a key") as refused:
        ProviderSettings(api_key_file=file).key("voice", "KEY")
    assert "sk-" not in str(refused.value)


def test_an_empty_file_and_an_empty_variable_are_told(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("\n")
    with pytest.raises(ProviderUnavailableError, match="is empty"):
        ProviderSettings(api_key_file=file).key("voice", "KEY")
    with pytest.raises(ProviderUnavailableError, match="set KEY"):
        ProviderSettings().key("voice", "KEY", {"KEY": " "})


def test_an_error_can_say_where_the_key_is_from(tmp_path: Path) -> None:
    assert ProviderSettings().key_from("KEY") == "KEY"
    assert ProviderSettings(api_key_env="OWN").key_from("KEY") == "OWN"
    assert str(tmp_path / "key") in ProviderSettings(api_key_file=tmp_path / "key").key_from("KEY")
