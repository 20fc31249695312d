"""Settings of Anthropic. Importing this does not import the SDK."""

from typing import Annotated, Literal

from pydantic import Field

from bridge.providers.models_table import default_model
from bridge.providers.settings import ProviderSettings, Seconds
from bridge.settings import Section

BASE_URL = "https://api.anthropic.com"


class AnthropicLlmSettings(Section):
    """A language model by the Messages interface."""

    model: str = default_model("anthropic", "llm")
    thinking: Literal["", "disabled", "adaptive"] = "disabled"
    """Thoughts before the first word are silence on the telephone. Empty: not sent, for models that refuse it."""
    effort: Literal["", "low", "medium", "high", "xhigh", "max"] = ""
    """Not sent if empty."""
    service_tier: Literal["", "auto", "standard_only"] = ""
    """Not sent if empty."""
    parallel_tool_calls: bool = True
    """Whether the model may ask for several tools at once."""
    prompt_cache: bool = True
    """Have the prompt and the conversation so far cached: a later turn of the call is read from there."""
    max_reply_tokens: Annotated[int, Field(ge=16)] = 1024
    """Includes what the model thinks."""
    first_token_s: Seconds = 6.0
    """From the request to the first piece of the reply; a caller takes a longer silence for a dead line."""
    between_tokens_s: Seconds = 4.0
    idle_connection_s: Seconds = 120.0
    """How long an unused connection is kept open for the next turn."""


class AnthropicSettings(ProviderSettings):
    llm: AnthropicLlmSettings = AnthropicLlmSettings()
