"""A proxy between the bridge and an Asterisk's HTTP server that holds, delays, fails or cuts what goes through it.

What goes over the event socket is passed on message by message, anything else (HTTP requests, media sockets) as it
is. Runs on a thread of its own."""

import asyncio
import contextlib
import json
import os
import struct
import threading
from collections.abc import Callable, Coroutine
from typing import Any

TEXT, BINARY = 0x1, 0x2


class AriProxy:
    """Listens on `port` of 127.0.0.1. Its switches may be turned at any time, from the test's thread."""

    def __init__(self, target_port: int) -> None:
        self.delay_s = 0.0
        """Each request (of either kind) is passed on only after this."""
        self.fail_status: int | None = None
        """Requests are answered with this status, and never reach Asterisk."""
        self.refuses = False
        """New connections are closed at once."""
        self.messages: list[str] = []
        """What went over event sockets since `arm`, in short: `> POST /channels/...`, `< 204`, `< StasisStart`; HTTP
        requests in the same way; and `< media` where a media socket is open."""
        self._target_port = target_port
        self._loop = asyncio.new_event_loop()
        self._writers: set[asyncio.StreamWriter] = set()
        self._event_writers: set[asyncio.StreamWriter] = set()
        self._media_writers: set[asyncio.StreamWriter] = set()
        """Towards Asterisk."""
        self._counting = False
        self._hold_at: int | None = None
        self._held = threading.Event()
        self._released: asyncio.Event = asyncio.Event()
        self._started = threading.Event()
        self.port = 0
        self._thread = threading.Thread(target=self._run, daemon=True, name="ARI proxy")
        self._thread.start()
        assert self._started.wait(10)

    # -- the test's side ------------------------------------------------------------------------------------

    def arm(self, hold_at: int | None = None) -> None:
        """Forget what was seen; from the next StasisStart of a caller on, count messages, and hold the one with this
        number (0 is the StasisStart itself) until `release`."""

        def arm() -> None:
            self.messages.clear()
            self._counting = False
            self._hold_at = hold_at
            self._held.clear()
            self._released.clear()

        self._on_loop(arm)

    def wait_until_held(self, limit_s: float = 10) -> bool:
        """Whether the message came."""
        return self._held.wait(limit_s)

    def release(self) -> None:
        """Let the held message, and what waits behind it, go on."""

        def release() -> None:
            self._hold_at = None
            self._released.set()

        self._on_loop(release)

    def cut(self, *, events_only: bool = False) -> None:
        """Cut every connection, without a goodbye; or the event sockets alone."""

        def cut() -> None:
            for writer in self._event_writers if events_only else self._writers:
                writer.transport.abort()

        self._on_loop(cut)

    def fill(self, frames: int, size: int) -> None:
        """Give the media channels that we connected to so many frames of silence of `size` bytes, in no time."""
        frame = struct.pack("!BBHI", 0x80 | BINARY, 0x80 | 126, size, 0) + bytes(size)

        def fill() -> None:
            for writer in self._media_writers:
                writer.write(frame * frames)

        self._on_loop(fill)

    def stop(self) -> None:
        self.release()
        self.cut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    # -- inside ---------------------------------------------------------------------------------------------

    def _on_loop(self, work: Callable[[], None]) -> None:
        done = threading.Event()

        def run() -> None:
            work()
            done.set()

        self._loop.call_soon_threadsafe(run)
        assert done.wait(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)

        async def start() -> None:
            server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1 << 22)
            self.port = server.sockets[0].getsockname()[1]
            self._started.set()

        self._loop.run_until_complete(start())
        self._loop.run_forever()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refuses:
            writer.transport.abort()
            return
        self._writers.add(writer)
        far_writer = None
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            is_events = b"/events" in head.split(b"\r\n", 1)[0]
            is_media = b"/media/" in head.split(b"\r\n", 1)[0]
            if is_events:
                self._event_writers.add(writer)
            if not is_events and not await self._pass_request(head, writer):
                return
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target_port, limit=1 << 22)
            self._writers.add(far_writer)
            far_writer.write(head)
            if is_events or is_media:
                writer.write(await far_reader.readuntil(b"\r\n\r\n"))
            if is_media:
                await self._count("< media")
                self._media_writers.add(far_writer)
            if is_events:
                ways = [self._frames(reader, far_writer, writer, "> "), self._frames(far_reader, writer, None, "< ")]
            else:
                ways = [self._requests(reader, far_writer, writer), _bytes(far_reader, writer)]
            await _first_to_end(ways)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            for one in (writer, far_writer):
                if one is not None:
                    self._writers.discard(one)
                    self._event_writers.discard(one)
                    self._media_writers.discard(one)
                    one.close()

    async def _pass_request(self, head: bytes, writer: asyncio.StreamWriter) -> bool:
        """Whether an HTTP request may go on; otherwise it has been answered."""
        await self._count("> " + head.split(b" HTTP/", 1)[0].decode("latin-1"))
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        if self.fail_status is None:
            return True
        body = b'{"message":"out of order"}'
        writer.write(
            f"HTTP/1.1 {self.fail_status} Out Of Order\r\nContent-Type: application/json\r\n"
            f"Connection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        await writer.drain()
        return False

    async def _requests(
        self, reader: asyncio.StreamReader, to: asyncio.StreamWriter, back: asyncio.StreamWriter
    ) -> None:
        """What follows on a connection that is kept: whole when it is a request, else as it comes."""
        while data := await reader.read(65536):
            if data.split(b" ", 1)[0] in (b"GET", b"POST", b"PUT", b"DELETE") and not await self._pass_request(
                data, back
            ):
                return
            to.write(data)
            await to.drain()

    async def _frames(
        self,
        reader: asyncio.StreamReader,
        to: asyncio.StreamWriter,
        back: asyncio.StreamWriter | None,
        way: str,
    ) -> None:
        while True:
            head = await reader.readexactly(2)
            opcode, length = head[0] & 0xF, head[1] & 0x7F
            more = b""
            if length == 126:
                more = await reader.readexactly(2)
                (length,) = struct.unpack("!H", more)
            elif length == 127:
                more = await reader.readexactly(8)
                (length,) = struct.unpack("!Q", more)
            mask = await reader.readexactly(4) if head[1] & 0x80 else b""
            payload = await reader.readexactly(length)
            if opcode == TEXT:
                message = json.loads(_unmasked(payload, mask))
                await self._look_at(message, way)
                if back is not None and not await self._pass_message(message, back):
                    continue
            to.write(head + more + mask + payload)
            await to.drain()

    async def _look_at(self, message: dict[str, Any], way: str) -> None:
        if not self._counting:
            # Channels of ours have ids of ours.
            started = message.get("type") == "StasisStart"
            self._counting = started and not message["channel"]["id"].startswith("offhook")
        await self._count(way + _short(message))

    async def _count(self, what: str) -> None:
        """One more message, held if it is the one to be held."""
        if not self._counting:
            return
        number = len(self.messages)
        self.messages.append(what)
        if number == self._hold_at:
            self._held.set()
            await self._released.wait()

    async def _pass_message(self, message: dict[str, Any], back: asyncio.StreamWriter) -> bool:
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        if self.fail_status is None or message.get("type") != "RESTRequest":
            return True
        answer = {
            "type": "RESTResponse",
            "request_id": message.get("request_id", ""),
            "status_code": self.fail_status,
            "reason_phrase": "Out Of Order",
            "uri": message.get("uri", ""),
            "content_type": "application/json",
            "message_body": '{"message":"out of order"}',
        }
        payload = json.dumps(answer).encode()
        back.write(bytes((0x80 | TEXT, 126)) + struct.pack("!H", len(payload)) + payload)
        await back.drain()
        return False


async def _first_to_end(ways: list[Coroutine[Any, Any, None]]) -> None:
    tasks = [asyncio.ensure_future(way) for way in ways]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await task


async def _bytes(reader: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        to.write(data)
        await to.drain()


def _unmasked(payload: bytes, mask: bytes) -> bytes:
    if not mask:
        return payload
    key = (mask * (len(payload) // 4 + 1))[: len(payload)]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(len(payload), "big")


def _short(message: dict[str, Any]) -> str:
    match message.get("type"):
        case "RESTRequest":
            return f"{message['method']} {message['uri']}".replace(os.linesep, " ")
        case "RESTResponse":
            return str(message["status_code"])
        case kind:
            return f"{kind} {message.get('channel', {}).get('id', '')}".strip()
