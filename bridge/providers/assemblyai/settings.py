"""Settings of AssemblyAI. Importing this imports no SDK."""

from typing import Annotated

from pydantic import Field

from bridge.providers.models_table import default_model
from bridge.providers.settings import Ms, ProviderSettings, Seconds
from bridge.settings import Section

SOCKET_URL = "wss://streaming.assemblyai.com"

Share = Annotated[float, Field(ge=0, le=1)]

Parameter = str | int | float | bool | list[str]


class AssemblyAiSttSettings(Section):
    """Speech to text, streaming v3."""

    model: str = default_model("assemblyai", "stt")
    """For another language than English, or one to be detected, `universal-streaming-multilingual` is taken in place
    of `universal-streaming-english`."""
    keyterms: tuple[str, ...] = ()
    """Names and terms to listen for."""
    format_turns: bool = False
    """Punctuation and capitals for models that don't write them by themselves; a pause's text then comes later."""
    end_of_turn_confidence: Share | None = None
    """Confidence that ends a turn; not given: AssemblyAI's own default, as with the next three."""
    min_turn_silence_ms: Ms | None = None
    """Silence before a turn is ended that is confidently over."""
    max_turn_silence_ms: Ms | None = None
    """Silence that ends a turn, sure or not."""
    vad_threshold: Share | None = None
    """How sure it must be of a voice."""
    chunk_ms: Annotated[int, Field(ge=60, le=1000, multiple_of=20)] = 100
    """Audio sent at a time. Less costs more of our processor; more delays partial texts."""
    catch_up: Annotated[float, Field(ge=0)] = 2.0
    """How many times faster than real time audio is sent that a reopened stream has missed; AssemblyAI may close a
    stream that is faster. 0: as fast as the network takes it."""
    settle_s: Seconds = 2.5
    """Longest wait for an answer to a pause; a recogniser that is silent so long is taken for dead."""
    parameters: dict[str, Parameter] = Field(default_factory=dict)
    """Further parameters of the connection, by AssemblyAI's names, e.g. `filter_profanity: true`."""


class AssemblyAiSettings(ProviderSettings):
    """AssemblyAI; `websocket_url` is without the path, e.g. `wss://streaming.eu.assemblyai.com`."""

    stt: AssemblyAiSttSettings = AssemblyAiSttSettings()
