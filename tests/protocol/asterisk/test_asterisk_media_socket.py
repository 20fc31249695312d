"""The media WebSocket on real sockets: opened in time or not at all, read and written without ever waiting."""

import asyncio
import itertools
import socket
import ssl
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from free_ports import free_port
from hypothesis import given
from hypothesis import strategies as st
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.client import ClientProtocol
from websockets.exceptions import InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from bridge.asterisk.settings import WebsocketListenerSettings
from bridge.legs.asterisk import websocket_listener
from bridge.legs.asterisk.websocket_listener import WebsocketListener
from bridge.legs.media_socket import (
    MAX_UNSENT_BYTES,
    MediaSocket,
    MediaSocketError,
    open_media_socket,
)

sys.path.append(str(Path(__file__).parents[2] / "interop"))

from certificates import Authority

WAIT_S = 30.0


class Heard:
    """What a socket told."""

    def __init__(self, media: MediaSocket | None = None) -> None:
        self.texts: list[str] = []
        self.audio: list[bytes] = []
        self.lost: list[str] = []
        self.changed = asyncio.Event()
        if media is not None:
            self.listen(media)

    def listen(self, media: MediaSocket) -> None:
        media.on_text = self.on_text
        media.on_audio = self._on_audio
        media.on_lost = self._on_lost

    def on_text(self, text: str, arrival: float) -> None:
        self.texts.append(text)
        self.changed.set()

    def _on_audio(self, payload: bytes, arrival: float) -> None:
        self.audio.append(payload)
        self.changed.set()

    def _on_lost(self, reason: str) -> None:
        self.lost.append(reason)
        self.changed.set()

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not condition():
                self.changed.clear()
                await self.changed.wait()


@asynccontextmanager
async def served(
    handle: Callable[[ServerConnection], Awaitable[None]], tls: ssl.SSLContext | None = None
) -> AsyncIterator[str]:
    """A server that speaks WebSocket well; gives its address."""
    async with serve(handle, "127.0.0.1", 0, compression=None, ssl=tls) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        yield f"{'ws' if tls is None else 'wss'}://127.0.0.1:{port}/media/id"


async def opened(url: str, tls: ssl.SSLContext | None = None) -> tuple[MediaSocket, Heard]:
    heard = Heard()
    media = await open_media_socket(url, subprotocol="media", on_text=heard.on_text, timeout_s=WAIT_S, tls=tls)
    heard.listen(media)
    return media, heard


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    near, far = socket.socketpair()
    near.setblocking(False)
    yield near, far
    near.close()
    far.close()


def client_of(near: socket.socket) -> MediaSocket:
    """An open connection, without its handshake."""
    protocol = ClientProtocol(parse_uri("ws://127.0.0.1/"), state=OPEN, max_size=131_072)
    # The library begins with the answer to a handshake, if none was made.
    protocol.parser = protocol.parse()
    next(protocol.parser)
    return MediaSocket(near, protocol)


def server_of(near: socket.socket) -> MediaSocket:
    protocol = ServerProtocol(state=OPEN, max_size=131_072)
    protocol.parser = protocol.parse()
    next(protocol.parser)
    return MediaSocket(near, protocol)


def framed(opcode: Opcode, data: bytes, *, fin: bool = True) -> bytes:
    return Frame(opcode, data, fin).serialize(mask=False)


async def greet_and_echo(connection: ServerConnection) -> None:
    await connection.send("hello")
    async for message in connection:
        await connection.send(message)


async def test_audio_and_texts_go_both_ways_and_the_first_message_is_not_missed() -> None:
    async with served(greet_and_echo) as url:
        media, heard = await opened(url)
        assert media.send_audio(b"\x01\x02" * 320)
        media.send_texts("one", "two")
        await heard.until(lambda: len(heard.texts) == 3 and heard.audio)
        assert heard.texts == ["hello", "one", "two"]
        assert heard.audio == [b"\x01\x02" * 320]
        media.close()
        media.close()
        assert heard.lost == []


@pytest.mark.parametrize("size", [0, 1, 125, 126, 640, 65_535, 65_536])
async def test_a_message_of_any_size_arrives_whole(size: int) -> None:
    async with served(greet_and_echo) as url:
        media, heard = await opened(url)
        payload = bytes(range(256)) * (size // 256 + 1)
        media.send_audio(payload[:size])
        while not heard.audio:
            media.write_unsent()
            heard.changed.clear()
            await asyncio.wait({asyncio.ensure_future(heard.changed.wait())}, timeout=0.05)
        assert heard.audio == [payload[:size]]
        media.close()


async def test_an_encrypted_connection_works_the_same(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.issue("asterisk")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pair.certificate, pair.key)
    trusting = ssl.create_default_context(cafile=str(authority.certificate))
    async with served(greet_and_echo, server) as url:
        media, heard = await opened(url, trusting)
        for _ in range(50):
            media.send_audio(bytes(640))
        await heard.until(lambda: len(heard.audio) == 50)
        media.close()
        with pytest.raises(MediaSocketError, match="certificate"):
            await opened(url, ssl.create_default_context())


async def test_a_far_side_that_closes_is_lost_with_its_reason() -> None:
    async def leave(connection: ServerConnection) -> None:
        await connection.recv()
        await connection.close(1001, "shutting down")

    async with served(leave) as url:
        media, heard = await opened(url)
        media.send_texts("go")
        await heard.until(lambda: heard.lost)
    assert heard.lost == ["the far side closed the connection (1001 shutting down)"]


async def test_a_broken_connection_is_lost_once(pair: tuple[socket.socket, socket.socket]) -> None:
    media = client_of(pair[0])
    heard = Heard(media)
    pair[1].close()
    media.read(1.0)
    media.read(2.0)
    assert not media.send_audio(bytes(640)) or media.closed
    assert len(heard.lost) == 1


async def test_a_callback_may_close_the_socket_it_is_called_by(pair: tuple[socket.socket, socket.socket]) -> None:
    media = client_of(pair[0])
    heard = Heard(media)
    media.on_text = lambda text, arrival: media.close()
    pair[1].sendall(framed(Opcode.TEXT, b"a") + framed(Opcode.BINARY, b"audio"))
    media.read(1.0)
    assert media.closed
    assert heard.audio == heard.lost == []


async def test_messages_in_pieces_are_put_together(pair: tuple[socket.socket, socket.socket]) -> None:
    media = client_of(pair[0])
    heard = Heard(media)
    whole = (
        framed(Opcode.TEXT, b"in ", fin=False)
        + framed(Opcode.PING, b"still there?")
        + framed(Opcode.CONT, b"two")
        + framed(Opcode.BINARY, b"au", fin=False)
        + framed(Opcode.CONT, b"dio")
    )
    for byte in whole:
        pair[1].sendall(bytes((byte,)))
        media.read(1.0)
    assert heard.texts == ["in two"]
    assert b"".join(heard.audio) == b"audio"
    assert pair[1].recv(100)[0] == 0x80 | Opcode.PONG


messages = st.lists(
    st.one_of(
        st.tuples(st.just(Opcode.BINARY), st.sampled_from([0, 1, 125, 126, 640, 3000])),
        st.tuples(st.just(Opcode.TEXT), st.sampled_from([0, 40, 126])),
        st.tuples(st.just(Opcode.PING), st.just(4)),
    ),
    max_size=12,
)


@given(messages, st.lists(st.integers(1, 5000), min_size=1, max_size=30), st.booleans())
def test_messages_are_the_same_wherever_the_stream_is_cut(
    sent: list[tuple[Opcode, int]], cuts: list[int], as_server: bool
) -> None:
    async def run() -> None:
        near, far = socket.socketpair()
        near.setblocking(False)
        media = server_of(near) if as_server else client_of(near)
        heard = Heard(media)
        payloads = [(opcode, bytes((n,)) * size) for n, (opcode, size) in enumerate(sent, 65)]
        stream = b"".join(Frame(opcode, data).serialize(mask=as_server) for opcode, data in payloads)
        at = 0
        for cut in itertools.cycle(cuts):
            if at >= len(stream):
                break
            far.sendall(stream[at : at + cut])
            at += cut
            media.read(1.0)
        assert heard.audio == [data for opcode, data in payloads if opcode is Opcode.BINARY]
        assert heard.texts == [data.decode() for opcode, data in payloads if opcode is Opcode.TEXT]
        assert heard.lost == []
        media.close()
        far.close()

    asyncio.run(run())


async def test_what_comes_has_the_kernels_time_however_late_it_is_read() -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    far = socket.create_connection(listening.getsockname())
    near, _ = listening.accept()
    near.setblocking(False)
    media = client_of(near)
    times: list[float] = []
    media.on_audio = lambda payload, arrival: times.append(arrival)
    async with asyncio.timeout(WAIT_S):
        # The kernel begins to tell some moments after it was first asked to.
        while not media.timed:
            times.clear()
            before = time.monotonic()
            far.sendall(framed(Opcode.BINARY, b"one"))
            while not times:
                media.read(1.0)
                await asyncio.sleep(0)
    assert before - 0.001 <= times[0] <= time.monotonic()
    far.sendall(framed(Opcode.BINARY, b"two") + framed(Opcode.BINARY, b"six"))
    sent = time.monotonic()
    # The time that it is read late by, not one that anything is waited for.
    await asyncio.sleep(0.2)
    media.read(1.0)
    # One comes a frame's time after the other, but neither before what was read last.
    assert len(times) == 3
    assert times[0] <= times[1] <= times[2] <= sent + 0.1
    # More than is read in one piece, a while apart.
    for _ in range(20):
        far.sendall(framed(Opcode.BINARY, bytes(640)))
    sent = time.monotonic()
    await asyncio.sleep(0.2)
    media.read(1.0)
    assert len(times) == 23
    assert max(times) <= sent + 0.1
    media.close()
    far.close()
    listening.close()


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xff\xff\xff",
        Frame(Opcode.BINARY, b"masked").serialize(mask=True),
        framed(Opcode.BINARY, bytes(200_000))[:2000],
        framed(Opcode.CONT, b"of nothing"),
        b"HTTP/1.1 200 OK\r\n" + b"A: header that goes on and on\r\n" * 5,
    ],
    ids=["garbage", "masked", "too-long", "continued", "http"],
)
async def test_a_far_side_that_breaks_the_protocol_is_lost(
    pair: tuple[socket.socket, socket.socket], data: bytes
) -> None:
    media = client_of(pair[0])
    heard = Heard(media)
    pair[1].sendall(data)
    media.read(1.0)
    assert media.closed
    assert len(heard.lost) == 1


async def test_a_far_side_that_reads_nothing_costs_no_memory_and_no_time(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    media = client_of(pair[0])
    heard = Heard(media)
    sent = 0
    while media.send_audio(bytes(640)):
        sent += 1
        assert sent < 10_000
    assert not media.closed
    assert 0 < len(media.unsent) < 1000
    assert not media.send_audio(bytes(640))
    # There is room again: what was cut off in the middle comes first.
    pair[1].setblocking(False)
    received = bytearray()
    while not media.write_unsent() or len(received) < sent * 648:
        received += pair[1].recv(1_000_000)
    assert media.send_audio(bytes(640))
    assert heard.lost == []


async def test_commands_for_a_far_side_that_reads_nothing_are_bounded(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    media = client_of(pair[0])
    heard = Heard(media)
    while media.send_audio(bytes(640)):
        pass
    while not media.closed:
        media.send_texts("x" * 100)
        assert len(media.unsent) <= MAX_UNSENT_BYTES
    assert heard.lost == ["the far side reads nothing"]


async def test_a_connection_that_is_refused_or_none_is_told_with_its_reason() -> None:
    port = free_port()
    with pytest.raises(MediaSocketError, match=f":{port}: Connection refused"):
        await opened(f"ws://127.0.0.1:{port}/media/id")

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 404 Not found\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        with pytest.raises(MediaSocketError, match="404"):
            await opened(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/media/id")


async def test_a_far_side_that_does_not_answer_is_given_up_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(MediaSocketError, match=r"within 0\.1 s"):
            await open_media_socket(
                f"ws://127.0.0.1:{port}/media/id",
                subprotocol="media",
                on_text=lambda text, arrival: None,
                timeout_s=0.1,
            )
        # Nothing of it is left open.
        connection, _ = silent.accept()
        with connection:
            connection.settimeout(WAIT_S)
            while connection.recv(4096):
                pass


# -- the listener -------------------------------------------------------------------------------------------


@asynccontextmanager
async def listening() -> AsyncIterator[tuple[WebsocketListener, str]]:
    port = free_port()
    listener = WebsocketListener(WebsocketListenerSettings(listen="127.0.0.1", port=port))
    listener.start()
    try:
        yield listener, f"ws://127.0.0.1:{port}/media"
    finally:
        await listener.aclose()


async def test_the_connection_with_a_calls_secret_is_that_calls() -> None:
    async with listening() as (listener, url):
        taken: list[MediaSocket] = []
        heard = Heard()

        def take(media: MediaSocket) -> None:
            taken.append(media)
            heard.listen(media)

        with listener.expecting(take) as secret:
            async with connect(f"{url}?call={secret}", subprotocols=["media"]) as far:
                assert far.subprotocol == "media"
                await far.send(b"audio")
                await heard.until(lambda: heard.audio)
                taken[0].send_audio(bytes(640))
                assert await far.recv() == bytes(640)
                # It serves once.
                with pytest.raises(InvalidStatus):
                    await connect(f"{url}?call={secret}", subprotocols=["media"])
            await heard.until(lambda: heard.lost)
        assert len(taken) == 1
        assert listener.readings() == {"websocket_connections_total": 1.0, "websocket_refused_total": 1.0}


async def test_a_client_that_names_no_subprotocol_is_taken_as_well() -> None:
    async with listening() as (listener, url):
        taken: list[MediaSocket] = []
        with listener.expecting(taken.append) as secret:
            async with connect(f"{url}?call={secret}&more=1") as far:
                assert far.subprotocol is None
            assert len(taken) == 1
        taken[0].close()


@pytest.mark.parametrize("query", ["", "?call=", "?call=guessed", "?other=1"])
async def test_strangers_get_a_404(query: str) -> None:
    async with listening() as (listener, url):
        with listener.expecting(lambda media: None), pytest.raises(InvalidStatus) as refused:
            await connect(url + query, subprotocols=["media"])
        assert refused.value.response.status_code == 404


async def test_a_secret_is_worth_nothing_any_more_when_nobody_waits() -> None:
    async with listening() as (listener, url):
        with listener.expecting(lambda media: None) as secret:
            pass
        with pytest.raises(InvalidStatus):
            await connect(f"{url}?call={secret}")


@pytest.mark.parametrize(
    "data", [b"\x16\x03\x01\x02\x00\x01garbage\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"x" * 20_000]
)
async def test_what_is_no_websocket_is_dropped(data: bytes) -> None:
    async with listening() as (listener, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        writer.write(data)
        async with asyncio.timeout(WAIT_S):
            with suppress(ConnectionError):
                await reader.read()
        writer.close()
        assert listener.readings()["websocket_connections_total"] == 0


async def test_connections_that_say_nothing_make_room_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket_listener, "MAX_WAITING", 5)
    async with listening() as (listener, url):
        idle = [await asyncio.open_connection("127.0.0.1", listener.port) for _ in range(8)]
        taken: list[MediaSocket] = []
        with listener.expecting(taken.append) as secret:
            async with connect(f"{url}?call={secret}"):
                pass
        assert len(taken) == 1
        taken[0].close()
        async with asyncio.timeout(WAIT_S):
            # The oldest were closed.
            assert await idle[0][0].read() == b""
        for _, writer in idle:
            writer.close()


async def test_connections_that_say_nothing_are_closed_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket_listener, "HANDSHAKE_S", 0.05)
    async with listening() as (listener, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        async with asyncio.timeout(WAIT_S):
            assert await reader.read() == b""
        writer.close()


async def test_closing_frees_the_port_and_what_waited() -> None:
    async with listening() as (listener, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        port = listener.port
        await asyncio.sleep(0)
    async with asyncio.timeout(WAIT_S):
        with suppress(ConnectionError):
            assert await reader.read() == b""
    writer.close()
    with socket.create_server(("127.0.0.1", port)):
        pass
