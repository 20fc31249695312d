"""Settings of Deepgram. Importing this imports no SDK."""

from typing import Annotated, Any

from pydantic import Field

from bridge.providers.models_table import default_model
from bridge.providers.settings import Ms, ProviderSettings, Seconds
from bridge.settings import Section

BASE_URL = "https://api.deepgram.com"
SOCKET_URL = "wss://api.deepgram.com"

Parameter = str | int | float | bool | list[str]


class DeepgramSttSettings(Section):
    """Speech to text: Nova (`/v1/listen`), or Flux (`/v2/listen`) where the model's name begins with `flux`."""

    model: str = default_model("deepgram", "stt")
    """`nova-3`, `nova-3-medical`, ...; `flux-general-en` and `flux-general-multi` know ends of turns themselves. For
    another language than English `flux-general-multi` is taken in place of `flux-general-en`."""
    keyterms: tuple[str, ...] = ()
    """Names and terms to listen for; Nova 3 and Flux."""
    endpointing_ms: Ms = 300
    """Nova: silence after which it says itself that the caller has ended; 0: never. Our own voice activity asks for
    the text in any case."""
    utterance_end_ms: Ms = 1000
    """Nova: gap between words that ends an utterance where noise hides the silence, 1000 or more; 0: off."""
    smart_format: bool = False
    """Nova: dates, amounts and numbers as they are written. Final results may have to wait for it."""
    numerals: bool = False
    """`seven` as `7`."""
    eot_threshold: Annotated[float, Field(ge=0.5, le=1.0)] | None = None
    """Flux: confidence that ends a turn; not given: 0.7; 1.0: it never does."""
    eager_eot_threshold: Annotated[float, Field(ge=0.3, le=0.9)] | None = 0.5
    """Flux: confidence at which a reply may be prepared; null: no such signs. Not above `eot_threshold`."""
    eot_timeout_ms: Annotated[int, Field(ge=500, le=60_000)] | None = None
    """Flux: silence that ends a turn, sure or not; not given: 5000."""
    chunk_ms: Annotated[int, Field(ge=20, le=500, multiple_of=20)] = 80
    """Audio sent at a time. Less costs more of our processor; more delays partial texts."""
    settle_s: Seconds = 2.5
    """Longest wait for an answer to a pause; a recogniser that is silent so long is taken for dead."""
    parameters: dict[str, Parameter] = Field(default_factory=dict)
    """Further parameters of the connection, by Deepgram's names, e.g. `profanity_filter: true`, `redact: [pci]`."""


class DeepgramTtsSettings(Section):
    """Text to speech: Aura (`/v1/speak`)."""

    voice: str = default_model("deepgram", "tts")
    """Where the agent names none: a model, which is a voice in its language, e.g. `aura-2-celeste-es`."""
    speed: Annotated[float, Field(ge=0.7, le=1.5)] | None = None
    """Not sent if not given; not every voice takes it."""
    first_audio_s: Seconds = 3.0
    """From a text to its first audio; beyond it the next provider of the chain is asked."""
    between_audio_s: Seconds = 2.0
    sockets: Annotated[int, Field(ge=1)] = 40
    """Most connections at once; each speaks one text at a time, and twenty a minute."""
    idle_socket_s: Seconds = 45.0
    """An unused connection is closed after this: the vendor closes one on which nothing is said."""


class DeepgramRealtimeSettings(Section):
    """The Voice Agent: listening, thinking and speaking behind one socket."""

    model: str = ""
    """What thinks, of Deepgram's own. Empty: the default of `bridge.providers.models_table`."""
    think: dict[str, Any] = Field(default_factory=dict)
    """In place of `model`: another provider by Deepgram's names, e.g. `{type: open_ai, model: ...}`."""
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    """Not sent if not given."""
    listen_model: str = "flux-general-en"
    """What hears, as in `stt.model`."""
    voice: str = default_model("deepgram", "tts")
    """Where the agent names none."""
    speak: dict[str, Any] = Field(default_factory=dict)
    """In place of `voice`: another provider's, by Deepgram's names."""
    websocket_url: str = ""
    """Empty: the entry's `websocket_url` or `base_url`, else Deepgram's for agents, which is another host than that
    for speech alone."""
    setup_s: Seconds = 4.0
    """From the connection to the session being set up."""


class DeepgramSettings(ProviderSettings):
    """Deepgram, or a server of one's own that speaks its protocols. `base_url` and `websocket_url` are without the
    version, e.g. `https://api.eu.deepgram.com`."""

    stt: DeepgramSttSettings = DeepgramSttSettings()
    realtime: DeepgramRealtimeSettings = DeepgramRealtimeSettings()
    tts: DeepgramTtsSettings = DeepgramTtsSettings()
