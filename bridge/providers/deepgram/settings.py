"""Settings of Deepgram. Importing this imports no SDK."""

from typing import Annotated

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


class DeepgramSettings(ProviderSettings):
    """Deepgram, or a server of one's own that speaks its protocols. `base_url` and `websocket_url` are without the
    version, e.g. `https://api.eu.deepgram.com`."""

    stt: DeepgramSttSettings = DeepgramSttSettings()
