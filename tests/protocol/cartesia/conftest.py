"""A stand-in for Cartesia, and voices that ask it."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from cartesia_server import KEY, Cartesia

from bridge.providers.cartesia.settings import CartesiaSettings
from bridge.providers.cartesia.tts import CartesiaTts


@pytest.fixture
async def server() -> AsyncIterator[Cartesia]:
    async with Cartesia() as server:
        yield server


@pytest.fixture
async def make_voice(server: Cartesia) -> AsyncIterator[Callable[..., CartesiaTts]]:
    """Makes a voice at the stand-in; at the end all are closed, and nothing may be open then."""
    made: list[CartesiaTts] = []

    def make(key: str = KEY, connect_s: float = 20.0, **tts: Any) -> CartesiaTts:
        # Without deadlines of its own a test is about none.
        tts = {"first_audio_s": 20, "between_audio_s": 20, **tts}
        settings = CartesiaSettings.model_validate({"base_url": server.http_url, "connect_s": connect_s, "tts": tts})
        made.append(CartesiaTts("cartesia", settings, environ={"CARTESIA_API_KEY": key}))
        return made[-1]

    yield make
    for voice in made:
        await voice.aclose()
    await server.all_closed()
