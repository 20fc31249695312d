"""Settings of OpenAI, and of every server that speaks its protocols. Importing this does not import the SDK."""

from typing import Annotated, Literal

from pydantic import Field

from bridge.providers.settings import ProviderSettings, Seconds
from bridge.settings import Section

BASE_URL = "https://api.openai.com/v1"


class OpenAiLlmSettings(Section):
    """A language model: OpenAI's, or behind Groq, vLLM, Ollama, llama.cpp, ..."""

    model: str = "gpt-5.4-mini"
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    """Not sent if not given: some reasoning models refuse it."""
    reasoning_effort: Literal["", "none", "minimal", "low", "medium", "high"] = ""
    """Not sent if empty. On the telephone take the lowest the model knows: it decides the first token's delay."""
    max_reply_tokens: Annotated[int, Field(ge=16)] | None = None
    """Not sent if not given. Includes what a reasoning model thinks."""
    first_token_s: Seconds = 6.0
    """From the request to the first piece of the reply; a caller takes a longer silence for a dead line."""
    between_tokens_s: Seconds = 4.0
    idle_connection_s: Seconds = 120.0
    """How long an unused connection is kept open for the next turn."""


class OpenAiSettings(ProviderSettings):
    """OpenAI, or another server by `base_url`; of those only the language model is known to work."""

    llm: OpenAiLlmSettings = OpenAiLlmSettings()
