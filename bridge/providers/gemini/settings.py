"""Settings of Gemini. Importing this does not import the SDK."""

from typing import Annotated, Literal

from pydantic import Field

from bridge.providers.models_table import default_model
from bridge.providers.settings import Ms, ProviderSettings, Seconds
from bridge.settings import Section

BASE_URL = "https://generativelanguage.googleapis.com"


class GeminiLlmSettings(Section):
    """A language model, by Google's own interface."""

    model: str = default_model("gemini", "llm")
    api_version: str = "v1beta"
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    """Not sent if not given; Google advises against changing it for Gemini 3."""
    thinking: Literal["least", "", "minimal", "low", "medium", "high"] = "least"
    """Thoughts before the first word are silence on the telephone. `least`: `low` for Gemini 3 and later, which can't
    all do without, none for 2.5 Flash. Empty: not sent."""
    service_tier: Literal["", "flex", "standard", "priority"] = ""
    """Not sent if empty."""
    max_reply_tokens: Annotated[int, Field(ge=16)] | None = None
    """Not sent if not given. Includes what the model thinks."""
    first_token_s: Seconds = 6.0
    """From the request to the first piece of the reply; a caller takes a longer silence for a dead line."""
    between_tokens_s: Seconds = 4.0
    idle_connection_s: Seconds = 120.0
    """How long an unused connection is kept open for the next turn."""


class GeminiRealtimeSettings(Section):
    """One model that hears and speaks (the Live interface)."""

    model: str = ""
    """Empty: the default of `bridge.providers.models_table`."""
    api_version: str = "v1beta"
    voice: str = ""
    """Where the agent names none, e.g. `Puck`; empty: the model's own."""
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    """Not sent if not given."""
    silence_ms: Ms = 500
    """Silence after which it takes the caller's turn for complete."""
    prefix_padding_ms: Ms | None = None
    """Speech this long makes a turn begin; not given: its own."""
    setup_s: Seconds = 4.0
    """From the connection to the session being set up."""


class GeminiSettings(ProviderSettings):
    llm: GeminiLlmSettings = GeminiLlmSettings()
    realtime: GeminiRealtimeSettings = GeminiRealtimeSettings()
