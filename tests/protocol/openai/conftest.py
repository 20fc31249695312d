"""A stand-in server, and models that ask it."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from openai_request import KEY
from openai_server import MODEL, ChatServer

from bridge.providers.openai import OpenAiLlm, OpenAiSettings


@pytest.fixture
async def server() -> AsyncIterator[ChatServer]:
    async with ChatServer().running() as server:
        yield server


@pytest.fixture
async def make_llm(server: ChatServer) -> AsyncIterator[Callable[..., OpenAiLlm]]:
    made: list[OpenAiLlm] = []

    def make(**settings: Any) -> OpenAiLlm:
        values = {"base_url": server.base_url, "model": MODEL, **settings}
        made.append(OpenAiLlm(OpenAiSettings(**values), {"OPENAI_API_KEY": KEY}))
        return made[-1]

    yield make
    for llm in made:
        await llm.aclose()
