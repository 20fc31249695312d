"""A stand-in server, and models that ask it."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from openai_request import KEY
from openai_server import MODEL, ChatServer

from bridge.providers.openai.llm import OpenAiLlm
from bridge.providers.openai.settings import OpenAiLlmSettings, OpenAiSettings


@pytest.fixture
async def server() -> AsyncIterator[ChatServer]:
    async with ChatServer().running() as server:
        yield server


@pytest.fixture
async def make_llm(server: ChatServer) -> AsyncIterator[Callable[..., OpenAiLlm]]:
    made: list[OpenAiLlm] = []

    def make(**settings: Any) -> OpenAiLlm:
        llm = {"model": MODEL, **settings}
        top = {name: llm.pop(name) for name in ("base_url", "connect_s") if name in llm}
        top = {"base_url": server.base_url, "api_key_env": "OPENAI_API_KEY", **top}
        whole = OpenAiSettings(llm=OpenAiLlmSettings(**llm), **top)
        made.append(OpenAiLlm("openai", whole, environ={"OPENAI_API_KEY": KEY}))
        return made[-1]

    yield make
    for llm in made:
        await llm.aclose()
