"""Which voices a vendor has, and the making of new ones from recordings: what stands behind `offhook voices`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

from bridge.providers.base import ProviderUnavailableError
from bridge.providers.settings import ProviderSettings

VENDORS: Mapping[str, str] = {
    "elevenlabs": "bridge.providers.elevenlabs.voices:ElevenLabsVoices",
    "cartesia": "bridge.providers.cartesia.voices:CartesiaVoices",
    "deepgram": "bridge.providers.deepgram.voices:DeepgramVoices",
    "openai": "bridge.providers.openai.voices:OpenAiVoices",
    "telnyx": "bridge.providers.telnyx.voices:TelnyxVoices",
}
"""`module:Class` by kind, made as `Class(name, settings, environ=...)`."""

CLONERS = ("elevenlabs", "cartesia")
"""The kinds that make a voice from recordings."""


@dataclass(frozen=True, slots=True)
class Voice:
    """One that can be put into `voice:`."""

    id: str
    name: str
    language: str = ""
    """Language codes, separated by commas; empty: not told, or any."""
    kind: str = ""
    """In the vendor's word: `cloned`, `premade`, ..."""


@dataclass(frozen=True, slots=True)
class Recording:
    """A file that a voice is made from."""

    filename: str
    content: bytes
    mime: str
    """`audio/wav` or `audio/mpeg`."""


class Voices(Protocol):
    """One configured vendor's. All raise ProviderError."""

    async def list(self) -> Sequence[Voice]:
        """Those that the key may use."""
        ...

    async def clone(self, name: str, recordings: Sequence[Recording], *, language: str, description: str) -> str:
        """Make a voice that sounds like `recordings` (in `language`, ISO 639-1). Returns its id."""
        ...

    async def aclose(self) -> None: ...


def voices_of(name: str, settings: ProviderSettings, environ: Mapping[str, str]) -> Voices:
    """The voices of the provider `name`. Raises ProviderUnavailableError: no key, no SDK, no list of voices."""
    kind = settings.kind or name
    path = VENDORS.get(kind)
    if path is None:
        raise ProviderUnavailableError(name, f"{kind} does not tell its voices; these do: {', '.join(VENDORS)}")
    module, _, attribute = path.partition(":")
    try:
        made: Any = getattr(import_module(module), attribute)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("bridge."):
            raise
        raise ProviderUnavailableError(
            name, f"its SDK is not installed ({error.name} is missing): pip install 'offhook[cloud]'"
        ) from error
    voices: Voices = made(name, settings, environ=environ)
    return voices


def cannot_clone(name: str) -> ProviderUnavailableError:
    """The error of vendors that make no voices."""
    return ProviderUnavailableError(name, f"it makes no voices from recordings; these do: {', '.join(CLONERS)}")
