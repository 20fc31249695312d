"""The stand-ins' base: it serves HTTP and sockets on one port, and misbehaves as it is told."""

import asyncio
import audioop
import json

import httpx
import pytest
from standin import Exchange, Reply, Socket, Standin
from standin_ear import ScriptedEar, quiet, tone
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedError, InvalidStatus


class Echo(Standin):
    def __init__(self) -> None:
        super().__init__()
        self.route("POST", "/v1/echo/{word}", self._echo)
        self.route("GET", "/v1/count", self._count)
        self.socket("/v1/socket", self._socket)

    async def _echo(self, exchange: Exchange, reply: Reply) -> None:
        await reply.json({"word": exchange.params["word"], "you": exchange.json()})

    async def _count(self, exchange: Exchange, reply: Reply) -> None:
        await reply.begin()
        for number in range(3):
            await reply.event({"number": number})
        await reply.end()

    async def _socket(self, exchange: Exchange, socket: Socket) -> None:
        async for message in socket:
            await socket.send(message)


async def test_requests_on_one_connection_are_answered_and_recorded() -> None:
    async with Echo() as server, httpx.AsyncClient(base_url=server.http_url) as client:
        first = await client.post("/v1/echo/hello?x=1&x=2", json={"a": 1}, headers={"X-Key": "k"})
        second = await client.post("/v1/echo/again", content=json.dumps([1] * 100_000))
        assert first.json() == {"word": "hello", "you": {"a": 1}}
        assert len(second.json()["you"]) == 100_000
        asked = server.exchanges[0]
        assert (asked.query["x"], asked.headers["x-key"], asked.json()) == (["1", "2"], "k", {"a": 1})
        assert [exchange.connection for exchange in server.exchanges] == [0, 0]
        assert server.open_connections == 1
        await client.aclose()
        await server.all_closed()


async def test_socket_echoes_and_tells_how_the_client_closed() -> None:
    async with Echo() as server:
        async with connect(f"{server.ws_url}/v1/socket?model=m", additional_headers={"Authorization": "k"}) as socket:
            await socket.send("text")
            await socket.send(b"\0\1")
            await socket.send(["in ", "parts"])
            assert [await socket.recv() for _ in range(3)] == ["text", b"\0\1", "in parts"]
        (exchange,) = server.exchanges
        await exchange.over.wait()
        assert (exchange.asked("model"), exchange.headers["authorization"], exchange.status) == ("m", "k", 101)
        assert list(exchange.received) == ["text", b"\0\1", "in parts"]
        assert exchange.close_code == 1000
        await server.all_closed()


async def test_status_in_place_of_an_answer_and_of_an_upgrade() -> None:
    async with Echo() as server, httpx.AsyncClient(base_url=server.http_url) as client:
        server.misbehave(status=429, body={"error": "slow down"}, headers={"retry-after": "1"}, times=1)
        refused = await client.get("/v1/count")
        assert (refused.status_code, refused.json(), refused.headers["retry-after"]) == (
            429,
            {"error": "slow down"},
            "1",
        )
        assert (await client.get("/v1/count")).status_code == 200
        server.misbehave(status=401, path="/v1/socket")
        with pytest.raises(InvalidStatus, match="401"):
            await connect(f"{server.ws_url}/v1/socket")


async def test_a_stalled_stream_goes_on_once_the_server_behaves() -> None:
    async with Echo() as server, httpx.AsyncClient(base_url=server.http_url) as client:
        server.misbehave(stall="middle", after=1)
        async with client.stream("GET", "/v1/count") as answer:
            lines = answer.aiter_lines()
            assert await anext(lines) == 'data: {"number": 0}'
            assert server.exchanges[0].sent == 1
            server.behave()
            assert [line async for line in lines if line] == ['data: {"number": 1}', 'data: {"number": 2}']


async def test_an_answer_that_never_comes_is_cut_by_the_client() -> None:
    patience = httpx.Timeout(30, read=0.2)
    async with Echo() as server, httpx.AsyncClient(base_url=server.http_url, timeout=patience) as client:
        server.misbehave(stall="answer")
        with pytest.raises(httpx.ReadTimeout):
            await client.get("/v1/count")
        await server.until(lambda: bool(server.exchanges))
        await server.exchanges[0].over.wait()
        assert server.exchanges[0].cut
        await server.all_closed()


async def test_a_body_is_cut_in_the_middle() -> None:
    async with Echo() as server, httpx.AsyncClient(base_url=server.http_url) as client:
        server.misbehave(drop=True, after=2)
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            await client.get("/v1/count")


async def test_an_open_socket_is_closed_by_an_order_given_later() -> None:
    async with Echo() as server, connect(f"{server.ws_url}/v1/socket") as socket:
        await socket.send("one")
        await socket.recv()
        server.misbehave(close=1011, reason="NET-0001", after=1)
        await socket.send("two")
        assert await socket.recv() == "two"
        with pytest.raises(ConnectionClosedError) as closed:
            await socket.recv()
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1011, "NET-0001")


async def test_garbage_comes_between_proper_messages() -> None:
    async with Echo() as server, connect(f"{server.ws_url}/v1/socket") as socket:
        server.misbehave(garbage="{not json", after=1)
        for word in ("one", "two"):
            await socket.send(word)
        assert [await socket.recv() for _ in range(3)] == ["one", "{not json", "two"]


async def test_a_deaf_server_stops_the_client_from_writing() -> None:
    async with Echo() as server, connect(f"{server.ws_url}/v1/socket") as socket:
        await server.until(lambda: bool(server.live))
        server.misbehave(deaf=True)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                while True:
                    await socket.send(bytes(1 << 20))
        assert len(server.exchanges[0].received) <= 1
        server.drop_all()


async def test_a_server_that_is_down_comes_back_at_the_same_place() -> None:
    async with Echo() as server:
        socket = await connect(f"{server.ws_url}/v1/socket")
        await server.down()
        with pytest.raises(ConnectionClosedError):
            await socket.recv()
        with pytest.raises(OSError):
            await connect(f"{server.ws_url}/v1/socket")
        await server.up()
        async with connect(f"{server.ws_url}/v1/socket") as again:
            await again.send("back")
            assert await again.recv() == "back"


async def test_what_goes_wrong_in_a_handler_fails_the_test() -> None:
    with pytest.raises(json.JSONDecodeError):
        async with Echo() as server, httpx.AsyncClient(base_url=server.http_url) as client:
            with pytest.raises(httpx.RemoteProtocolError):
                await client.post("/v1/echo/x", content=b"no json")


def test_scripted_ear_gives_the_nth_text_for_the_nth_utterance() -> None:
    ear = ScriptedEar(["one two three", "four"], encoding="mulaw", word_ms=100, hang_ms=200)
    audio = tone(260) + quiet(300) + tone(100) + quiet(300)
    heard = ear.feed(audioop.lin2ulaw(audio, 2))
    assert [(sign.what, sign.number, sign.text) for sign in heard] == [
        ("began", 0, ""),
        ("words", 0, "one"),
        ("words", 0, "one two"),
        ("ended", 0, "one two three"),
        ("began", 1, ""),
        ("ended", 1, "four"),
    ]
    assert (heard[3].began_ms, heard[3].at_ms) == (0, 460)


def test_scripted_ear_gives_everything_when_asked_in_a_pause_and_nothing_again_at_the_end() -> None:
    ear = ScriptedEar(["one two three"], hang_ms=500)
    ear.feed(tone(200) + quiet(60))
    (sign,) = ear.finalise()
    assert sign.text == "one two three"
    assert ear.finalise() == []
    assert [sign.what for sign in ear.feed(quiet(500))] == ["ended"]
