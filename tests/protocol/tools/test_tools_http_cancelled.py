"""HTTP tools whose call ends in the middle of a request, against a real server: no connection is left open."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from standin import Exchange, Reply, Standin

from bridge.agents.tool_settings import HttpTool
from bridge.agents.tools_http import HttpTools
from bridge.agents.tools_template import Secrets

FACTS = {"call.id": "c0ffee", "call.from": "+15550100", "call.to": "100"}
NOTHING = {"type": "object", "properties": {}}
STEPS = 40
"""Turns of the event loop that a request takes at most until it waits for the server, or is through."""


class Slow(Standin):
    """A server that answers at once (`/quick`), never (`/silent`), or no more than the beginning (`/begun`)."""

    def __init__(self) -> None:
        super().__init__()
        for path in ("quick", "silent", "begun"):
            self.route("GET", f"/{path}", self._reply)

    async def _reply(self, exchange: Exchange, reply: Reply) -> None:
        if exchange.path == "/quick":
            await reply.json({"ok": True})
            return
        if exchange.path == "/begun":
            await reply.begin("text/plain")
            await reply.piece(b".")
        await asyncio.Event().wait()

    def tools(self) -> HttpTools:
        made = tuple(
            HttpTool(
                name=name,
                description="x",
                parameters={"type": "object", "properties": {}},
                url=f"{self.http_url}/{name}",
            )
            for name in ("quick", "silent", "begun")
        )
        return HttpTools(made, Secrets({}))


@pytest.fixture
async def server() -> AsyncIterator[Slow]:
    async with Slow() as server:
        yield server


async def cancelled(tools: HttpTools, name: str, steps: int, times: int) -> None:
    """Call a tool, and cancel the call after so many turns of the event loop, so many times one after the other."""
    call = asyncio.create_task(tools.call(name, {}, FACTS))
    for _ in range(steps):
        await asyncio.sleep(0)
    for _ in range(times):
        call.cancel()
        await asyncio.sleep(0)
    await asyncio.wait({call})


@pytest.mark.parametrize("name", ["quick", "silent", "begun"])
@pytest.mark.parametrize("times", [1, 2, 3])
async def test_request_that_is_cancelled_at_any_step_leaves_no_connection(
    name: str, times: int, server: Slow
) -> None:
    tools = server.tools()
    for steps in range(STEPS):
        await cancelled(tools, name, steps, times)
        # Whatever was done to those before, the next request is answered.
        assert (await tools.call("quick", {}, FACTS)).ok
        # One is kept for the next request, on purpose.
        await server.until(lambda: len(server._connections) <= 1)
    await tools.aclose()
    await server.all_closed()


async def test_other_requests_on_the_same_connections_go_on(server: Slow) -> None:
    tools = server.tools()
    waiting = asyncio.create_task(tools.call("silent", {}, FACTS))
    await server.until(lambda: len(server.exchanges) == 1)
    await cancelled(tools, "silent", STEPS, 2)
    assert (await tools.call("quick", {}, FACTS)).ok
    assert not waiting.done()
    waiting.cancel()
    await asyncio.wait({waiting})
    await tools.aclose()
    await server.all_closed()
