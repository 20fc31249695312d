"""Requests to ARI over HTTP that are given up, or run out of time, against a real server: no connection is left open,
and none that nobody needs any more."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from standin import Exchange, Reply, Standin

from bridge.asterisk.ari_http import CONNECTIONS, AriHttp
from bridge.asterisk.tls import Trust

STEPS = 40
"""Turns of the event loop that a request takes at most until it waits for the server, or is through."""


class Slow(Standin):
    """Answers `quick` at once, `silent` never."""

    def __init__(self) -> None:
        super().__init__()
        self.route("GET", "/ari/quick", self._quick)
        self.route("GET", "/ari/silent", self._silent)

    @staticmethod
    async def _quick(exchange: Exchange, reply: Reply) -> None:
        await reply.json({"ok": True})

    @staticmethod
    async def _silent(exchange: Exchange, reply: Reply) -> None:
        await asyncio.Event().wait()


@pytest.fixture
async def server() -> AsyncIterator[Slow]:
    async with Slow() as server:
        yield server


def over_http(server: Slow, *, idle_s: float = 10.0) -> AriHttp:
    return AriHttp(server.http_url, Trust(), idle_s=idle_s)


async def ask(http: AriHttp, path: str, timeout_s: float = 30.0) -> object:
    return await http.request("GET", path, {}, None, authorization="Basic eDp5", timeout_s=timeout_s)


async def given_up(http: AriHttp, path: str, steps: int, times: int) -> None:
    """Ask, and give it up after so many turns of the event loop, so many times one after the other."""
    asking = asyncio.create_task(ask(http, path))
    for _ in range(steps):
        await asyncio.sleep(0)
    for _ in range(times):
        asking.cancel()
        await asyncio.sleep(0)
    await asyncio.wait({asking})


@pytest.mark.parametrize("path", ["quick", "silent"])
@pytest.mark.parametrize("times", [1, 2])
async def test_a_request_that_is_given_up_at_any_step_leaves_no_connection(
    path: str, times: int, server: Slow
) -> None:
    http = over_http(server)
    for steps in range(STEPS):
        await given_up(http, path, steps, times)
        # Whatever was done to those before, the next request is answered.
        assert await ask(http, "quick") == {"ok": True}
        # One is kept for the next request, on purpose.
        await server.until(lambda: len(server._connections) <= 1)
    await http.aclose()
    await server.all_closed()


async def test_more_requests_than_connections_may_run_out_of_time(server: Slow) -> None:
    http = over_http(server)
    late = await asyncio.gather(*(ask(http, "silent", 0.05) for _ in range(CONNECTIONS + 5)), return_exceptions=True)
    assert all(isinstance(one, TimeoutError) for one in late), late
    assert await ask(http, "quick") == {"ok": True}
    await server.until(lambda: len(server._connections) <= 1)
    await http.aclose()
    await server.all_closed()


async def test_connections_that_nobody_needs_any_more_are_closed_without_another_request(server: Slow) -> None:
    http = over_http(server, idle_s=0.05)
    await asyncio.gather(*(ask(http, "quick") for _ in range(5)))
    await server.all_closed()
    assert await ask(http, "quick") == {"ok": True}
    await http.aclose()
    await server.all_closed()
