"""Stand-in servers of language models, and models that ask them."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from openai_request import KEY
from openai_server import MODEL, ChatStandin, ResponsesStandin
from standin_llm import LlmStandin

from bridge.providers.openai.llm import OpenAiLlm
from bridge.providers.openai.settings import OpenAiLlmSettings, OpenAiSettings


@pytest.fixture
async def chat() -> AsyncIterator[ChatStandin]:
    async with ChatStandin() as server:
        yield server


@pytest.fixture
async def responses() -> AsyncIterator[ResponsesStandin]:
    async with ResponsesStandin() as server:
        yield server


@pytest.fixture
async def make_llm() -> AsyncIterator[Callable[..., OpenAiLlm]]:
    made: list[OpenAiLlm] = []

    def make(server: LlmStandin, **settings: Any) -> OpenAiLlm:
        api = "responses" if isinstance(server, ResponsesStandin) else "chat"
        llm = OpenAiLlmSettings(**{"model": MODEL, "api": api, **settings})
        whole = OpenAiSettings(base_url=f"{server.http_url}/v1", api_key_env="OPENAI_API_KEY", llm=llm)
        made.append(OpenAiLlm("openai", whole, environ={"OPENAI_API_KEY": KEY}))
        return made[-1]

    yield make
    for llm in made:
        await llm.aclose()
