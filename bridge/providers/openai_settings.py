"""Settings of an OpenAI-compatible language model. Importing this does not import the SDK."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from bridge.providers.base import ProviderUnavailableError

KEY_VARIABLE = "OPENAI_API_KEY"

Seconds = Annotated[float, Field(gt=0)]


class OpenAiSettings(BaseModel):
    """Any endpoint that speaks Chat Completions: OpenAI, Groq, vLLM, Ollama, llama.cpp, ..."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_url: str = "https://api.openai.com/v1"
    model: str = "gpt-5.4-mini"
    api_key: SecretStr = SecretStr("")
    """Better given as OFFHOOK_OPENAI_API_KEY or OPENAI_API_KEY in the environment, or in `api_key_file`."""
    api_key_file: Path | None = None
    """A file that holds the key alone, e.g. a mounted secret."""
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    """Not sent if not given: some reasoning models refuse it."""
    reasoning_effort: Literal["", "none", "minimal", "low", "medium", "high"] = ""
    """Not sent if empty. On the telephone take the lowest the model knows: it decides the first token's delay."""
    max_reply_tokens: Annotated[int, Field(ge=16)] | None = None
    """Not sent if not given. Includes what a reasoning model thinks."""
    connect_s: Seconds = 3.0
    first_token_s: Seconds = 6.0
    """From the request to the first piece of the reply; a caller takes a longer silence for a dead line."""
    between_tokens_s: Seconds = 4.0
    idle_connection_s: Seconds = 120.0
    """How long an unused connection is kept open for the next turn."""

    @field_validator("base_url")
    @classmethod
    def _url(cls, value: str) -> str:
        if not value.startswith(("http://", "https://")):
            raise ValueError(f"{value!r} is not an http:// or https:// URL, e.g. http://127.0.0.1:8000/v1")
        return value.rstrip("/")

    def key(self, environ: Mapping[str, str]) -> SecretStr:
        """The API key: from `api_key`, `api_key_file` or the variable OPENAI_API_KEY in `environ`.

        Servers of one's own want none: then it is a placeholder. Raises ProviderUnavailableError."""
        if self.api_key.get_secret_value():
            return self.api_key
        if self.api_key_file is not None:
            try:
                text = self.api_key_file.read_text(encoding="utf-8").strip()
            except OSError as error:
                raise ProviderUnavailableError("openai", f"openai.api_key_file can't be read: {error}") from error
            if not text:
                raise ProviderUnavailableError("openai", f"openai.api_key_file {self.api_key_file} is empty")
            return SecretStr(text)
        if environ.get(KEY_VARIABLE):
            return SecretStr(environ[KEY_VARIABLE])
        if self.base_url.startswith("https://api.openai.com"):
            raise ProviderUnavailableError(
                "openai", f"no API key: set {KEY_VARIABLE} in the environment, or openai.api_key_file"
            )
        return SecretStr("none")
