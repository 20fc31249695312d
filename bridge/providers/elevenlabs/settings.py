"""Settings of ElevenLabs. Importing this does not import the SDK."""

from typing import Annotated, Literal

from pydantic import Field

from bridge.providers.models_table import default_model
from bridge.providers.settings import ProviderSettings, Seconds
from bridge.settings import Section

BASE_URL = "https://api.elevenlabs.io"
SOCKET_URL = "wss://api.elevenlabs.io"

Share = Annotated[float, Field(ge=0, le=1)]


class ElevenLabsTtsSettings(Section):
    """A voice."""

    mode: Literal["socket", "http"] = "socket"
    """`socket`: connections that are open already, shared by all calls. `http`: a request for each text, which is
    told the text before it for the melody; for what the socket does not take, e.g. eleven_v3."""
    model: str = default_model("elevenlabs", "tts")
    voice: str = "JBFqnCBsd6RMkjVDRZzb"
    """Where the agent names none: an id, as `offhook voices list` shows them."""
    stability: Share | None = None
    """This and the following are sent only if given; else the voice's own settings hold."""
    similarity_boost: Share | None = None
    style: Share | None = None
    use_speaker_boost: bool | None = None
    speed: Annotated[float, Field(ge=0.7, le=1.2)] | None = None
    text_normalization: Literal["auto", "on", "off"] = "auto"
    """Whether numbers and dates are written out before they are spoken."""
    zero_retention: bool = False
    """Ask that nothing is kept (enterprise plans alone)."""
    first_audio_s: Seconds = 3.0
    """From a text to its first audio; beyond it the next provider of the chain is asked."""
    between_audio_s: Seconds = 2.0
    sockets: Annotated[int, Field(ge=1)] = 60
    """Most connections at once; each holds five texts."""
    idle_socket_s: Annotated[float, Field(gt=0, le=150)] = 100.0
    """An unused connection is closed after this; the vendor does it after 180 s."""


class ElevenLabsSttSettings(Section):
    """Speech recognition: Scribe, over its realtime socket."""

    model: str = ""
    """Empty: the default of `bridge.providers.models_table`."""
    commit: Literal["manual", "vad"] = "manual"
    """`manual`: pauses are found here, and text asked for. `vad`: the server finds them, and its word counts as one
    sign of the turn's end."""
    vad_silence_s: Annotated[float, Field(ge=0.3, le=3.0)] | None = None
    """With `vad`: silence that is a pause; not given: the server's own, 1.5."""
    keyterms: Annotated[tuple[Annotated[str, Field(min_length=1, max_length=20)], ...], Field(max_length=50)] = ()
    """Names and terms to expect."""
    no_verbatim: bool = False
    """Leave out filler words and false starts."""
    filter_background_audio: bool = False
    """Heed less what is said near by."""
    zero_retention: bool = False
    """Ask that nothing is kept (enterprise plans alone)."""
    chunk_ms: Annotated[int, Field(ge=20, le=1000, multiple_of=20)] = 100
    """Audio sent at a time."""
    settle_s: Seconds = 3.0
    """Longest wait for an answer to a pause; a recogniser that is silent so long is taken for dead."""


class ElevenLabsSettings(ProviderSettings):
    """ElevenLabs."""

    stt: ElevenLabsSttSettings = ElevenLabsSttSettings()
    tts: ElevenLabsTtsSettings = ElevenLabsTtsSettings()
