"""The HTTP server: its port, its stop, and many requests at once."""

import asyncio
import contextlib
import signal
import socket
import threading

import httpx
import pytest

from bridge.api.server import HttpError, HttpServer


async def hello(scope, receive, send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


async def test_a_port_that_is_taken_is_one_clear_line():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(HttpError, match=rf"http 127\.0\.0\.1:{port} is taken by another program.*http\.port"):
            await HttpServer(hello, "127.0.0.1", port).start()


async def test_an_address_of_another_machine_is_one_clear_line():
    with pytest.raises(HttpError, match=r"no address of this machine: correct http\.listen"):
        await HttpServer(hello, "192.0.2.1", 0).start()


async def test_it_starts_stops_and_starts_again_on_its_port():
    port = 0
    for _ in range(3):
        server = HttpServer(hello, "127.0.0.1", port)
        await server.start()
        port = server.port
        async with httpx.AsyncClient() as client:
            assert (await client.get(f"http://127.0.0.1:{port}/")).text == "hello"
        await server.aclose()
        await server.aclose()
        with pytest.raises(httpx.ConnectError):
            async with httpx.AsyncClient() as client:
                await client.get(f"http://127.0.0.1:{port}/")


async def test_a_server_that_never_started_can_be_closed():
    await HttpServer(hello, "127.0.0.1", 0).aclose()


async def test_signals_stay_the_bridge_s():
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    server = HttpServer(hello, "127.0.0.1", 0)
    await server.start()
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    await server.aclose()


async def test_a_request_under_way_is_finished_at_the_stop():
    entered = asyncio.Event()
    go_on = asyncio.Event()

    async def slow(scope, receive, send) -> None:
        entered.set()
        await go_on.wait()
        await hello(scope, receive, send)

    server = HttpServer(slow, "127.0.0.1", 0)
    await server.start()
    async with httpx.AsyncClient() as client:
        request = asyncio.create_task(client.get(f"http://127.0.0.1:{server.port}/"))
        await entered.wait()
        stop = asyncio.create_task(server.aclose())
        await asyncio.sleep(0)
        go_on.set()
        assert (await request).text == "hello"
        await stop


async def test_a_request_that_never_ends_does_not_hold_up_the_stop():
    entered = asyncio.Event()
    cancelled = asyncio.Event()

    async def stuck(scope, receive, send) -> None:
        entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    server = HttpServer(stuck, "127.0.0.1", 0)
    await server.start()
    async with httpx.AsyncClient() as client:
        request = asyncio.create_task(client.get(f"http://127.0.0.1:{server.port}/"))
        await entered.wait()
        await asyncio.wait_for(server.aclose(deadline_s=10), 30)
        assert cancelled.is_set()
        with pytest.raises(httpx.HTTPError):
            (await request).raise_for_status()


async def test_connections_that_say_nothing_do_not_hold_up_the_stop(api):
    idle = [await asyncio.open_connection("127.0.0.1", api.server.port) for _ in range(20)]
    idle[0][1].write(b"GET /healthz HTTP/1.1\r\nHost:")
    await idle[0][1].drain()
    await asyncio.wait_for(api.server.aclose(deadline_s=10), 30)
    for _, writer in idle:
        writer.close()


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00\x01\x02\x03\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 20_000 + b"\r\n",
        b"INVITE sip:agent@127.0.0.1 SIP/2.0\r\n\r\n",
        b"POST /api/calls HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"POST /api/calls HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\nzz\r\n",
    ],
)
async def test_garbage_on_the_port_harms_nobody(api, client, garbage):
    reader, writer = await asyncio.open_connection("127.0.0.1", api.server.port)
    writer.write(garbage)
    writer.write_eof()
    answer = b""
    with contextlib.suppress(ConnectionResetError):
        answer = await asyncio.wait_for(reader.read(), 30)
    writer.close()
    assert not answer or answer.split()[1] in (b"400", b"401", b"431")
    assert (await client.get("/healthz")).status_code == 200


async def test_a_hundred_requests_at_once_are_all_answered_right(api, client):
    for number in range(100):
        api.bridge.whole_call(f"c{number}")
    answers = await asyncio.gather(*(client.get(f"/api/calls/c{number}") for number in range(100)))
    assert [answer.json()["id"] for answer in answers] == [f"c{number}" for number in range(100)]

    async def listed() -> int:
        """How many calls are shown. A record that is asked for more than it reads in five seconds says so."""
        while (answer := await client.get("/api/calls", params={"limit": 200})).status_code == 503:
            assert "try again" in answer.text
        return len(answer.json()["calls"])

    assert set(await asyncio.gather(*(listed() for _ in range(100)))) == {100}


async def test_requests_while_calls_come_and_go(api, client):
    async def calls() -> None:
        for number in range(200):
            api.bridge.whole_call(f"c{number}")
            await asyncio.sleep(0)

    async def ask() -> None:
        for number in range(20):
            page = (await client.get("/api/calls", params={"limit": 5})).json()
            assert len(page["calls"]) <= 5
            assert (await client.get("/metrics")).status_code == 200
            answer = await client.get(f"/api/calls/c{number}")
            assert answer.status_code in (200, 404)

    await asyncio.gather(calls(), *(ask() for _ in range(5)))
    assert api.log.stats.rejected == 0
    assert (await client.get("/api/calls/c199")).json()["state"] == "ended"


async def test_nothing_is_left_when_all_is_closed(start):
    async def once() -> None:
        async with start() as api, api.client() as client:
            api.bridge.whole_call("c1")
            assert (await client.get("/api/calls/c1")).status_code == 200

    tasks, threads = asyncio.all_tasks(), threading.active_count()
    await once()
    assert asyncio.all_tasks() == tasks
    async with asyncio.timeout(30):
        # A database's thread says that it is done a moment before it is gone.
        while threading.active_count() > threads:
            await asyncio.sleep(0.01)
