"""Deepgram's voices: each is a model."""

import os
from collections.abc import Mapping, Sequence

import httpx
from deepgram import AsyncDeepgramClient
from deepgram.core.api_error import ApiError
from deepgram.environment import DeepgramClientEnvironment

from bridge.providers.base import ProviderUnavailableError
from bridge.providers.deepgram.settings import BASE_URL, SOCKET_URL, DeepgramSettings
from bridge.providers.registry import KINDS
from bridge.providers.scrub import scrubbed
from bridge.providers.sockets import refusal
from bridge.providers.voices import Recording, Voice, cannot_clone

ANSWER_S = 30.0


class DeepgramVoices:
    """Implements `Voices`."""

    def __init__(self, name: str, settings: DeepgramSettings, *, environ: Mapping[str, str] = os.environ) -> None:
        """Raises ProviderUnavailableError when there is no key."""
        self._name = name
        self._key = settings.key(name, KINDS["deepgram"].key_env, environ).get_secret_value()
        self._base_url = settings.base_url or BASE_URL
        where = DeepgramClientEnvironment(
            base=self._base_url,
            production=settings.socket_url(SOCKET_URL),
            agent=settings.socket_url(SOCKET_URL),
            agent_rest=self._base_url,
        )
        self._http = httpx.AsyncClient(timeout=httpx.Timeout(ANSWER_S, connect=settings.connect_s))
        self._client = AsyncDeepgramClient(api_key=self._key, environment=where, httpx_client=self._http)

    async def aclose(self) -> None:
        await self._http.aclose()

    async def list(self) -> Sequence[Voice]:
        try:
            models = await self._client.manage.v1.models.list(request_options={"max_retries": 0})
        except ApiError as error:
            raise refusal(self._name, error.status_code or 0, scrubbed(error.body, self._key)) from None
        except httpx.HTTPError as error:
            said = scrubbed(error, self._key) or type(error).__name__
            raise ProviderUnavailableError(self._name, f"{self._base_url} can't be reached: {said}") from None
        return [
            Voice(model.canonical_name, model.name or "", ", ".join(model.languages or ()), model.architecture or "")
            for model in models.tts or ()
            if model.canonical_name
        ]

    async def clone(self, name: str, recordings: Sequence[Recording], *, language: str, description: str) -> str:
        raise cannot_clone(self._name)
