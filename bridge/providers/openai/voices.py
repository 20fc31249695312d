"""OpenAI's voices: names in its documents, as it has no list to ask for."""

import os
from collections.abc import Mapping, Sequence

from bridge.providers.openai.settings import OpenAiSettings
from bridge.providers.voices import Recording, Voice, cannot_clone

NAMES = "alloy ash ballad coral echo fable onyx nova sage shimmer verse marin cedar"
"""openai 3.52.0 types/audio/speech_create_params.py."""


class OpenAiVoices:
    """Implements `Voices`. An account's own voices (`voice_...`) are not listed, but can be used."""

    def __init__(self, name: str, settings: OpenAiSettings, *, environ: Mapping[str, str] = os.environ) -> None:
        self._name = name

    async def aclose(self) -> None:
        """Nothing is open."""

    async def list(self) -> Sequence[Voice]:
        return [Voice(name, name.capitalize(), "", "built-in") for name in NAMES.split()]

    async def clone(self, name: str, recordings: Sequence[Recording], *, language: str, description: str) -> str:
        raise cannot_clone(self._name)
