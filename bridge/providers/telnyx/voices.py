"""Telnyx's voices, and those of the vendors behind it (`GET /v2/text-to-speech/voices`)."""

import os
from collections.abc import Mapping, Sequence

import telnyx

from bridge.providers.base import ProviderError, ProviderTimeoutError, ProviderUnavailableError
from bridge.providers.registry import KINDS
from bridge.providers.scrub import scrubbed
from bridge.providers.sockets import refusal
from bridge.providers.telnyx.link import client_and_key
from bridge.providers.telnyx.settings import BASE_URL, TelnyxSettings
from bridge.providers.voices import Recording, Voice, cannot_clone

ANSWER_S = 30.0


class TelnyxVoices:
    """Implements `Voices`."""

    def __init__(self, name: str, settings: TelnyxSettings, *, environ: Mapping[str, str] = os.environ) -> None:
        """Raises ProviderUnavailableError when there is no key."""
        self._name = name
        self._client, self._key = client_and_key(name, settings, environ)
        self._key_from = settings.key_from(KINDS["telnyx"].key_env)
        self._base_url = settings.base_url or BASE_URL

    async def aclose(self) -> None:
        await self._client.close()

    async def list(self) -> Sequence[Voice]:
        try:
            answer = await self._client.text_to_speech.list_voices(timeout=ANSWER_S)
        except telnyx.APIError as error:
            raise self._mapped(error) from None
        return [
            Voice(voice.voice_id, voice.name or "", voice.language or "", voice.provider or "")
            for voice in answer.voices or ()
            if voice.voice_id
        ]

    async def clone(self, name: str, recordings: Sequence[Recording], *, language: str, description: str) -> str:
        raise cannot_clone(self._name)

    def _mapped(self, error: telnyx.APIError) -> ProviderError:
        match error:
            case telnyx.APITimeoutError():
                return ProviderTimeoutError(self._name, f"no answer from {self._base_url} in time")
            case telnyx.APIConnectionError():
                said = scrubbed(error.__cause__ or error, self._key)
                return ProviderUnavailableError(self._name, f"{self._base_url} can't be reached: {said}")
            case telnyx.APIStatusError(status_code=status):
                return refusal(self._name, status, scrubbed(error.message, self._key), self._key_from)
        return ProviderError(self._name, scrubbed(error.message, self._key))
