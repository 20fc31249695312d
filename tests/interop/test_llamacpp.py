"""llama.cpp's own server behind our client of OpenAI's interface: streaming, and what cancelling does to it."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
import xllamacpp
from tiny_model import WORDS, write_tiny_model

from bridge.providers.base import LlmRequest, Message, ReplyDone, TextDelta
from bridge.providers.brief import Brief
from bridge.providers.openai.llm import OpenAiLlm
from bridge.providers.openai.settings import OpenAiLlmSettings, OpenAiSettings

CONTEXT = 32768


@dataclass
class LlamaServer:
    url: str

    def slot(self) -> dict[str, Any]:
        """What its one slot does."""
        with urlopen(f"{self.url}/slots", timeout=10) as answer:
            (slot,) = json.load(answer)
        return slot


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaServer]:
    path: Path = tmp_path_factory.mktemp("llama") / "tiny.gguf"
    write_tiny_model(path)
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx, params.n_parallel = CONTEXT, 1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.endpoint_slots = True
    running = xllamacpp.Server(params)
    yield LlamaServer(running.listening_address)


@pytest.fixture
async def llm(server: LlamaServer) -> AsyncIterator[OpenAiLlm]:
    settings = OpenAiLlmSettings(model="tiny", max_reply_tokens=CONTEXT)
    llm = OpenAiLlm("mine", OpenAiSettings(kind="llamacpp", base_url=f"{server.url}/v1", llm=settings), environ={})
    await llm.start()
    await llm.warm()
    yield llm
    await llm.aclose()


REQUEST = LlmRequest(Brief(), [Message("user", "Hello")], (), datetime(2026, 5, 5, 15, 0, tzinfo=UTC))


async def test_a_reply_is_streamed_token_by_token(server: LlamaServer) -> None:
    settings = OpenAiSettings(
        kind="llamacpp", base_url=f"{server.url}/v1", llm=OpenAiLlmSettings(model="tiny", max_reply_tokens=50)
    )
    llm = OpenAiLlm("mine", settings, environ={})
    events = [event async for event in llm.reply(REQUEST)]
    await llm.aclose()
    texts = [event.text for event in events if isinstance(event, TextDelta)]
    assert len(texts) >= 45
    assert set("".join(texts).split()) <= set(WORDS)
    assert events[-1] == ReplyDone((), "mine/tiny")


async def test_closing_a_reply_stops_the_model(server: LlamaServer, llm: OpenAiLlm) -> None:
    reply = llm.reply(REQUEST)
    for _ in range(5):
        assert isinstance(await anext(reply), TextDelta)
    assert server.slot()["is_processing"]
    await reply.aclose()  # type: ignore[attr-defined] - an async generator behind the contract's iterator
    async with asyncio.timeout(30):
        while (slot := await asyncio.to_thread(server.slot))["is_processing"]:
            await asyncio.sleep(0.01)
    assert slot["next_token"][0]["n_decoded"] < CONTEXT / 2, "it was not just at its end"


async def test_a_probe_sees_that_it_works(llm: OpenAiLlm) -> None:
    assert "tiny at http://127.0.0.1" in await llm.probe()
