"""ElevenLabs' voices: the list of an account, and instant cloning (`protocols/tts.md` 4)."""

import os
from collections.abc import Mapping, Sequence

import httpx
from elevenlabs import AsyncElevenLabs
from elevenlabs.core import ApiError

from bridge.providers.base import ProviderError, ProviderUnavailableError
from bridge.providers.elevenlabs.failures import detail, failure
from bridge.providers.elevenlabs.settings import BASE_URL, ElevenLabsSettings
from bridge.providers.registry import KINDS
from bridge.providers.scrub import scrubbed
from bridge.providers.voices import Recording, Voice

ANSWER_S = 30.0
CLONE_S = 120.0
"""Files are uploaded, and listened to."""

PAGE = 100


class ElevenLabsVoices:
    """Implements `Voices`."""

    def __init__(self, name: str, settings: ElevenLabsSettings, *, environ: Mapping[str, str] = os.environ) -> None:
        """Raises ProviderUnavailableError when there is no key."""
        key_env = KINDS["elevenlabs"].key_env
        self._name = name
        self._key = settings.key(name, key_env, environ).get_secret_value()
        self._key_from = settings.key_from(key_env)
        self._base_url = settings.base_url or BASE_URL
        self._http = httpx.AsyncClient(timeout=httpx.Timeout(CLONE_S, connect=settings.connect_s))
        self._client = AsyncElevenLabs(api_key=self._key, base_url=self._base_url, httpx_client=self._http)

    async def aclose(self) -> None:
        await self._http.aclose()

    async def list(self) -> Sequence[Voice]:
        found: list[Voice] = []
        token: str | None = None
        try:
            while True:
                page = await self._client.voices.search(
                    page_size=PAGE,
                    next_page_token=token,
                    request_options={"max_retries": 0, "timeout_in_seconds": int(ANSWER_S)},
                )
                for voice in page.voices:
                    labels = voice.labels or {}
                    language = labels.get("language") or ""
                    found.append(Voice(voice.voice_id, voice.name or "", language, str(voice.category or "")))
                token = page.next_page_token
                if not page.has_more or not token:
                    return found
        except (ApiError, httpx.HTTPError) as error:
            raise self._mapped(error) from None

    async def clone(self, name: str, recordings: Sequence[Recording], *, language: str, description: str) -> str:
        try:
            made = await self._client.voices.ivc.create(
                name=name,
                files=[(recording.filename, recording.content, recording.mime) for recording in recordings],
                description=description,
                labels={"language": language} if language else {},
                request_options={"max_retries": 0},
            )
        except (ApiError, httpx.HTTPError) as error:
            raise self._mapped(error) from None
        return str(made.voice_id)

    def _mapped(self, error: ApiError | httpx.HTTPError) -> ProviderError:
        if isinstance(error, ApiError):
            code, said = detail(error.body)
            status = error.status_code or 0
            return failure(self._name, status, code, said, key_from=self._key_from, key=self._key)
        said = scrubbed(error, self._key) or type(error).__name__
        return ProviderUnavailableError(self._name, f"{self._base_url} can't be reached: {said}")
