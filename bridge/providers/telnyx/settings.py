"""Settings of Telnyx's speech and models. Importing this does not import the SDK."""

from typing import Annotated, Any, Literal

from pydantic import Field

from bridge.providers.models_table import default_model
from bridge.providers.openai.settings import OpenAiLlmSettings
from bridge.providers.settings import Ms, ProviderSettings, Seconds
from bridge.settings import Section

BASE_URL = "https://api.telnyx.com/v2"

Parameter = str | int | float | bool | list[str]


class TelnyxSttSettings(Section):
    """Speech to text over Telnyx's socket, by one of the engines behind it."""

    engine: str = "Deepgram"
    """`Deepgram`, `Telnyx`, `Google`, `Azure`, `xAI`, `Speechmatics`, `Soniox`, ... Deepgram alone can be asked for
    its text at a pause; others give it when they find one themselves."""
    model: str = ""
    """Empty: `nova-3` of Deepgram, else the engine's own."""
    input_format: Literal["linear16", "mulaw"] = "linear16"
    """On the wire; every engine takes `linear16`, Deepgram and Google also `mulaw` at half the bytes."""
    keyterms: tuple[str, ...] = ()
    """Names and terms to listen for, where the engine can."""
    endpointing_ms: Ms | None = None
    """Silence after which the engine says itself that the caller has ended; 0: never; not given: 300 with Deepgram,
    else the engine's own."""
    chunk_ms: Annotated[int, Field(ge=20, le=500, multiple_of=20)] = 100
    """Audio sent at a time."""
    settle_s: Seconds = 2.5
    """Longest wait for an answer to a pause; a recogniser that is silent so long is taken for dead."""
    parameters: dict[str, Parameter] = Field(default_factory=dict)
    """Further parameters of the connection, by Telnyx's names, e.g. `redact: pci`."""


class TelnyxTtsSettings(Section):
    """A voice of Telnyx, or of a vendor behind it."""

    voice: str = "Telnyx.NaturalHD.astra"
    """Where the agent names none: `Provider.Model.Voice`, as `offhook voices list` shows them. `Ultra` is not to be
    had over the socket."""
    audio_format: Literal["linear16", "pcm", "mulaw"] = "linear16"
    """What the voice is asked for; vendors' pages name what theirs has. `linear16` and `pcm` are two names of one."""
    rate_hz: Annotated[int, Field(ge=0)] = 0
    """Asked for; 0: the call's, or 24000 with models that have nothing else (KokoroTTS, Qwen3TTS)."""
    voice_settings: dict[str, Any] = Field(default_factory=dict)
    """Sent as they are, e.g. `{voice_speed: 1.1}`; what there is depends on the voice's provider."""
    cached: bool = True
    """Let Telnyx keep speech and give it again for the same text."""
    first_audio_s: Seconds = 3.0
    """From a text to its first audio; beyond it the next provider of the chain is asked."""
    between_audio_s: Seconds = 2.0
    sockets: Annotated[int, Field(ge=1)] = 50
    """Most connections at once; each speaks one text after another."""
    idle_socket_s: Annotated[float, Field(gt=0)] = 15.0
    """An unused connection is closed after this; Telnyx does it after 20 s."""


class TelnyxSettings(ProviderSettings):
    """Telnyx. `base_url` ends in `/v2`."""

    llm: OpenAiLlmSettings = OpenAiLlmSettings()
    """A model that Telnyx runs or passes on, by its OpenAI-compatible interface."""
    stt: TelnyxSttSettings = TelnyxSttSettings()
    tts: TelnyxTtsSettings = TelnyxTtsSettings()


def stt_model(settings: TelnyxSttSettings) -> str:
    """The model to ask for; empty: none."""
    return settings.model or (default_model("telnyx", "stt") if settings.engine == "Deepgram" else "")
