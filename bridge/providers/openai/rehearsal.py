"""OpenAI's SDK made ready before the first call: each interface is asked once, of nobody (`beforehand`)."""

from collections.abc import Callable, Coroutine
from typing import Any

import httpx2
from openai import AsyncOpenAI, AsyncStream

from bridge.providers.beforehand import rehearsed

_ANSWERS = {
    "/models/m": b'{"id": "m", "object": "model", "created": 0, "owned_by": ""}',
    "/chat/completions": b'data: {"choices": [{"index": 0, "delta": {"content": "-"}, "finish_reason": "stop"}]}\n\n',
    "/responses": b"""data: {"type": "response.output_text.delta", "delta": "-", "sequence_number": 0}\n
data: {"type": "response.completed", "sequence_number": 1, "response": {"id": "r", "object": "response",
data:  "output": [], "tools": []}}\n\n""",
    "/audio/transcriptions": b'{"text": ""}',
    "/audio/speech": b"--",
}

Act = Callable[[AsyncOpenAI], Coroutine[Any, Any, None]]


async def rehearse(act: Act) -> None:
    """Have `act` done, after the model `m` was looked for as `warm` does."""

    async def requests(http: httpx2.AsyncClient) -> None:
        client = AsyncOpenAI(api_key="none", base_url="http://rehearsal/v1", max_retries=0, http_client=http)
        await client.models.retrieve("m")
        await act(client)

    await rehearsed(requests, _ANSWERS)


async def chat(client: AsyncOpenAI) -> None:
    stream = await client.post(
        "/chat/completions", body={}, cast_to=object, stream=True, stream_cls=AsyncStream[object]
    )
    async for _ in stream:
        pass


async def responses(client: AsyncOpenAI) -> None:
    async for _ in await client.responses.create(model="m", input="-", stream=True):
        pass


async def transcription(client: AsyncOpenAI) -> None:
    await client.audio.transcriptions.create(file=("t.wav", b"--", "audio/wav"), model="m", response_format="json")


async def session(client: AsyncOpenAI) -> None:
    """Without a request: a socket's interface has only to be loaded."""
    _ = client.realtime


async def speech(client: AsyncOpenAI) -> None:
    asking = client.audio.speech.with_streaming_response.create(
        input="-", model="m", voice="marin", response_format="pcm"
    )
    async with asking as answer:
        await answer.read()
