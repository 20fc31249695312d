"""A stand-in for ElevenLabs, and voices that ask it."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from elevenlabs_server import KEY, ElevenLabs

from bridge.providers.elevenlabs.settings import ElevenLabsSettings
from bridge.providers.elevenlabs.tts import ElevenLabsTts


@pytest.fixture
async def server() -> AsyncIterator[ElevenLabs]:
    async with ElevenLabs() as server:
        yield server


@pytest.fixture
async def make_voice(server: ElevenLabs) -> AsyncIterator[Callable[..., ElevenLabsTts]]:
    """Makes a voice at the stand-in; at the end all are closed, and nothing may be open then."""
    made: list[ElevenLabsTts] = []

    def make(key: str = KEY, connect_s: float = 20.0, **tts: Any) -> ElevenLabsTts:
        # Without deadlines of its own a test is about none.
        tts = {"first_audio_s": 20, "between_audio_s": 20, **tts}
        settings = ElevenLabsSettings.model_validate(
            {"base_url": server.http_url, "connect_s": connect_s, "tts": tts}
        )
        made.append(ElevenLabsTts("elevenlabs", settings, environ={"ELEVENLABS_API_KEY": key}))
        return made[-1]

    yield make
    for voice in made:
        await voice.aclose()
    await server.all_closed()
