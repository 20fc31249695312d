"""Settings of Cartesia. Importing this does not import the SDK."""

from typing import Annotated

from pydantic import Field

from bridge.providers.models_table import default_model
from bridge.providers.settings import ProviderSettings, Seconds
from bridge.settings import Section

BASE_URL = "https://api.cartesia.ai"
SOCKET_URL = "wss://api.cartesia.ai"


class CartesiaTtsSettings(Section):
    """A voice."""

    model: str = default_model("cartesia", "tts")
    voice: str = "6ccbfb76-1fc6-48f7-b71d-91ac6298247b"
    """Where the agent names none: an id, as `offhook voices list` shows them."""
    speed: Annotated[float, Field(ge=0.6, le=1.5)] | None = None
    """This and the following are sent only if given."""
    volume: Annotated[float, Field(ge=0.5, le=2.0)] | None = None
    emotion: str = ""
    pronunciation_dict: str = ""
    """Id of a pronunciation dictionary."""
    first_audio_s: Seconds = 3.0
    """From a text to its first audio; beyond it the next provider of the chain is asked."""
    between_audio_s: Seconds = 2.0
    sockets: Annotated[int, Field(ge=1)] = 10
    """Most connections at once; the vendor allows ten for each text that may be spoken at once in the plan."""
    texts_per_socket: Annotated[int, Field(ge=1)] = 50
    idle_socket_s: Annotated[float, Field(gt=0, le=290)] = 240.0
    """An unused connection is closed after this; the vendor does it after 300 s."""


class CartesiaSettings(ProviderSettings):
    """Cartesia."""

    tts: CartesiaTtsSettings = CartesiaTtsSettings()
