"""What SDKs put off until their first use, done before there is a call: it would hold up all calls of the loop.

Parts of an SDK are imported, its types made, the system's certificates read, when they are first asked for. With
telnyx 4.189 that takes 1.6 s, with openai 3.52 up to 0.5 s, in which no caller on the machine is heard.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import anyio.lowlevel
import httpx2

Answers = Mapping[str, bytes]
"""Bodies by the end of the request's path: JSON, or server-sent events if they begin so."""


async def beforehand(*what: Callable[[], object]) -> None:
    """Do each of `what`, in a thread. Raises what it raises."""
    for one in what:
        await asyncio.to_thread(one)


async def rehearsed(requests: Callable[[httpx2.AsyncClient], Coroutine[Any, Any, None]], answers: Answers) -> None:
    """Make `requests`, in a thread with a loop of its own, over a client that gives `answers` and has no network."""

    def answer(request: httpx2.Request) -> httpx2.Response:
        body = next((body for end, body in answers.items() if request.url.path.endswith(end)), b"{}")
        streamed = body.startswith((b"data:", b"event:"))
        kind = "text/event-stream" if streamed else "application/json"
        return httpx2.Response(200, content=body, headers={"content-type": kind})

    async def rehearse() -> None:
        # What is beneath the client picks its part for asyncio at the first use too.
        await anyio.lowlevel.checkpoint()
        async with httpx2.AsyncClient(transport=httpx2.MockTransport(answer)) as client:
            await requests(client)

    await asyncio.to_thread(lambda: asyncio.run(rehearse()))
