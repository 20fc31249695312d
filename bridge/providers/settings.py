"""What the settings of every provider have in common. Importing this imports no SDK."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator

from bridge.providers.base import ProviderUnavailableError
from bridge.settings import Section

Seconds = Annotated[float, Field(gt=0)]
Ms = Annotated[int, Field(ge=0)]


class ProviderSettings(Section):
    """One entry under `providers`. A kind adds a section for each of its roles (`stt`, `llm`, `tts`, `realtime`)."""

    kind: str = ""
    """What it is (`bridge.providers.registry.KINDS`); empty: what the entry is named."""
    api_key_env: str = ""
    """Name of the environment variable that holds the key; empty: the vendor's usual one."""
    api_key_file: Path | None = None
    """A file that holds the key alone, e.g. a mounted secret."""
    base_url: str = ""
    """Of the HTTP interface; empty: the vendor's. Another region, a proxy, a server of one's own."""
    websocket_url: str = ""
    """Of the socket interface; empty: the vendor's, or `base_url` with ws:// for http://."""
    connect_s: Seconds = 3.0
    """Longest wait for a connection; beyond it the next provider of the chain is asked."""

    @model_validator(mode="after")
    def _one_source(self) -> "ProviderSettings":
        if self.api_key_env and self.api_key_file is not None:
            raise ValueError("give api_key_env or api_key_file, not both")
        if self.api_key_env and not self.api_key_env.isidentifier():
            raise ValueError(f"api_key_env: {self.api_key_env[:4]!r}... is no name of a variable")
        return self

    @field_validator("base_url")
    @classmethod
    def _http_url(cls, value: str) -> str:
        if value and not value.startswith(("http://", "https://")):
            raise ValueError(f"{value!r} is not an http:// or https:// URL, e.g. http://127.0.0.1:8000/v1")
        return _address(value)

    @field_validator("websocket_url")
    @classmethod
    def _socket_url(cls, value: str) -> str:
        if value and not value.startswith(("ws://", "wss://")):
            raise ValueError(f"{value!r} is not a ws:// or wss:// URL")
        return _address(value)

    def key(self, name: str, usual_env: str, environ: Mapping[str, str] = os.environ) -> SecretStr:
        """The API key of the entry `name`; `usual_env` is the vendor's own variable.

        Raises ProviderUnavailableError where it is missing or empty, with where it is looked for."""
        if self.api_key_file is not None:
            try:
                text = self.api_key_file.read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise ProviderUnavailableError(name, f"api_key_file can't be read: {error}") from error
            if not text:
                raise ProviderUnavailableError(name, f"api_key_file {self.api_key_file} is empty")
            return _one_word(name, text, f"api_key_file {self.api_key_file}")
        variable = self.api_key_env or usual_env
        text = environ.get(variable, "").strip()
        if not text:
            raise ProviderUnavailableError(
                name, f"no API key: set {variable} in the environment, or providers.{name}.api_key_file"
            )
        return _one_word(name, text, variable)

    def key_from(self, usual_env: str) -> str:
        """Where `key` is looked for, as an error names it to who is to mend it."""
        return f"api_key_file {self.api_key_file}" if self.api_key_file else self.api_key_env or usual_env

    def socket_url(self, usual: str) -> str:
        """Where sockets are opened: `websocket_url`, else that of `base_url`, else `usual`."""
        if self.websocket_url:
            return self.websocket_url
        return "ws" + self.base_url.removeprefix("http") if self.base_url else usual


def _one_word(name: str, key: str, source: str) -> SecretStr:
    """`key`, which goes into a header: a second line would be a header of its own. Raises
    ProviderUnavailableError, without the key."""
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise ProviderUnavailableError(
            name, f"{source} holds more than a key: spaces, several lines, or characters that no key has"
        )
    return SecretStr(key)


def _address(url: str) -> str:
    """`url` without the last slash; empty stays empty. Raises ValueError where it can't be connected to."""
    if not url:
        return url
    try:
        parts = urlsplit(url)
        labels, port = (parts.hostname or "").split("."), parts.port
    except ValueError as error:
        raise ValueError(f"{url!r} is no URL: {error}") from None
    if parts.username or parts.password:
        # It would stand in errors, on the record.
        raise ValueError("a URL with a user or a password in it: keys are given by api_key_env or api_key_file")
    if not labels[0] or port == 0 or any(len(label) > 63 for label in labels):
        raise ValueError(f"{url!r} names no host")
    if parts.query or parts.fragment:
        raise ValueError(f"{url!r}: paths are put behind it, so it can't have a query")
    return url.rstrip("/")
