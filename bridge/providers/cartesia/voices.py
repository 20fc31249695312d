"""Cartesia's voices: the list, and cloning from one recording."""

import os
from collections.abc import Mapping, Sequence

import cartesia
from cartesia import AsyncCartesia

from bridge.providers.base import ProviderError, ProviderTimeoutError, ProviderUnavailableError
from bridge.providers.cartesia.failures import failure
from bridge.providers.cartesia.settings import BASE_URL, CartesiaSettings
from bridge.providers.registry import KINDS
from bridge.providers.scrub import scrubbed
from bridge.providers.voices import Recording, Voice

ANSWER_S = 30.0
CLONE_S = 120.0
"""A file is uploaded, and listened to."""

PAGE = 100


class CartesiaVoices:
    """Implements `Voices`."""

    def __init__(self, name: str, settings: CartesiaSettings, *, environ: Mapping[str, str] = os.environ) -> None:
        """Raises ProviderUnavailableError when there is no key."""
        key_env = KINDS["cartesia"].key_env
        self._name = name
        self._key = settings.key(name, key_env, environ).get_secret_value()
        self._key_from = settings.key_from(key_env)
        self._base_url = settings.base_url or BASE_URL
        self._client = AsyncCartesia(api_key=self._key, base_url=self._base_url, max_retries=0, timeout=ANSWER_S)

    async def aclose(self) -> None:
        await self._client.close()

    async def list(self) -> Sequence[Voice]:
        try:
            return [
                Voice(voice.id, voice.name, str(voice.language or ""), "own" if voice.is_owner else "public")
                async for voice in self._client.voices.list(limit=PAGE)
            ]
        except cartesia.APIError as error:
            raise self._mapped(error) from None

    async def clone(self, name: str, recordings: Sequence[Recording], *, language: str, description: str) -> str:
        """From one recording: Cartesia takes no more, and wants five to ten seconds of it."""
        if len(recordings) != 1:
            raise ProviderUnavailableError(self._name, f"it makes a voice from one file, not {len(recordings)}")
        (recording,) = recordings
        try:
            made = await self._client.voices.clone(
                clip=(recording.filename, recording.content, recording.mime),
                name=name,
                language=language or "en",
                description=description,
                timeout=CLONE_S,
            )
        except cartesia.APIError as error:
            raise self._mapped(error) from None
        return made.id

    def _mapped(self, error: cartesia.APIError) -> ProviderError:
        body = error.body
        told = body.get("message") or body.get("title") if isinstance(body, dict) else None
        match error:
            case cartesia.APITimeoutError():
                return ProviderTimeoutError(self._name, f"no answer from {self._base_url} in time")
            case cartesia.APIConnectionError():
                said = scrubbed(error.__cause__ or error, self._key)
                return ProviderUnavailableError(self._name, f"{self._base_url} can't be reached: {said}")
            case cartesia.APIStatusError(status_code=status):
                said = scrubbed(told or error.message, self._key)
                return failure(self._name, status, said, key_from=self._key_from)
        return ProviderError(self._name, scrubbed(error.message, self._key))
