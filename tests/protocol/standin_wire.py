"""One TCP connection of a stand-in: HTTP/1.1 by h11, then perhaps a WebSocket by websockets' protocol without I/O."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Protocol

import h11
from websockets.exceptions import InvalidState
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol

LARGEST_MESSAGE = 64 * 1024 * 1024


class Gone(Exception):
    """The connection is over, or was ended by a fault."""


class Server(Protocol):
    """Whom a connection belongs to."""

    def connected(self, connection: "Connection") -> int: ...

    def disconnected(self, connection: "Connection") -> None: ...

    async def answer(
        self, connection: "Connection", method: str, target: str, headers: Mapping[str, str], body: bytes
    ) -> None: ...


class Connection(asyncio.Protocol):
    """Requests go to the server's `answer` one after another; what it answers is written here at once."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._transport: asyncio.Transport
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
        self._head: h11.Request | None = None
        self._body = bytearray()
        self._websocket: ServerProtocol | None = None
        self._messages: asyncio.Queue[str | bytes | None] = asyncio.Queue()
        self._came: Callable[[str | bytes], None] = lambda message: None
        self._fragments = bytearray()
        self._fragments_are_text = False
        self._answering: asyncio.Task[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._lost = False
        self.number = -1
        self.client_close_code: int | None = None

    # -- asyncio ----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.number = self._server.connected(self)

    def data_received(self, data: bytes) -> None:
        if self._websocket is not None:
            self._websocket.receive_data(data)
            self._take_frames()
            return
        self._http.receive_data(data)
        self._take_http()

    def eof_received(self) -> bool:
        if self._websocket is not None:
            self._websocket.receive_eof()
            self._flush()
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._lost = True
        self._writable.set()
        if self._websocket is not None and self.client_close_code is None and not self._websocket.close_sent:
            self.client_close_code = 1006
        if self._answering is not None:
            self._answering.cancel()
        self._server.disconnected(self)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    async def drained(self) -> None:
        """Wait until the client has read enough."""
        await self._writable.wait()

    def listen(self, on: bool) -> None:
        """Read what the client sends, or leave it in the network's buffers."""
        if self._transport.is_closing():
            return
        if on:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def abort(self) -> None:
        """Reset the connection."""
        self._transport.abort()

    # -- HTTP -------------------------------------------------------------------------------------------------

    def _take_http(self) -> None:
        try:
            self._next_events()
        except h11.RemoteProtocolError:
            self._transport.close()

    def _next_events(self) -> None:
        while True:
            event = self._http.next_event()
            if isinstance(event, h11.Request):
                self._head = event
                self._body.clear()
                if (b"expect", b"100-continue") in event.headers:
                    self._send(h11.InformationalResponse(status_code=100, headers=[]))
            elif isinstance(event, h11.Data):
                self._body += event.data
            elif isinstance(event, h11.EndOfMessage):
                self._answering = asyncio.get_running_loop().create_task(self._answer())
            elif isinstance(event, h11.ConnectionClosed):
                self._transport.close()
                return
            else:  # NEED_DATA or PAUSED
                return

    async def _answer(self) -> None:
        assert self._head is not None
        headers = {name.decode().lower(): value.decode("latin-1") for name, value in self._head.headers}
        target = self._head.target.decode()
        await self._server.answer(self, self._head.method.decode(), target, headers, bytes(self._body))
        self._answering = None
        if self._lost or self._websocket is not None:
            return
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
            self._take_http()
        else:
            self._transport.close()

    def write_head(self, status: int, headers: Mapping[str, str]) -> None:
        self._send(h11.Response(status_code=status, headers=list(headers.items())))

    def write_body(self, data: bytes) -> None:
        self._send(h11.Data(data=data))

    def finish(self) -> None:
        self._send(h11.EndOfMessage())

    def _send(self, event: h11.Event) -> None:
        if self._lost:
            raise Gone
        data = self._http.send(event)
        if data:
            self._transport.write(data)

    # -- WebSocket --------------------------------------------------------------------------------------------

    def upgrade(self, came: Callable[[str | bytes], None]) -> int:
        """Answer the handshake. Returns the status that was sent: 101, or what was wrong with the handshake. `came`
        is told every message as it arrives."""
        assert self._head is not None
        self._came = came
        self._websocket = ServerProtocol(max_size=LARGEST_MESSAGE)
        lines = [b"GET " + self._head.target + b" HTTP/1.1"]
        lines += [name + b": " + value for name, value in self._head.headers]
        early = self._http.trailing_data[0]
        self._websocket.receive_data(b"\r\n".join(lines) + b"\r\n\r\n")
        (request,) = self._websocket.events_received()
        response = self._websocket.accept(request)  # type: ignore[arg-type]
        self._websocket.send_response(response)
        if early:
            self._websocket.receive_data(early)
        self._take_frames()
        return response.status_code

    async def message(self) -> str | bytes | None:
        """The client's next message; None: it has closed."""
        return await self._messages.get()

    def write_message(self, message: str | bytes) -> None:
        assert self._websocket is not None
        if self._lost or self._websocket.state is not State.OPEN:
            raise Gone
        if isinstance(message, str):
            self._websocket.send_text(message.encode())
        else:
            self._websocket.send_binary(message)
        self._flush()

    def write_garbage(self, data: str | bytes) -> None:
        """A message that means nothing, or raw bytes in the body of an HTTP answer."""
        if self._websocket is not None:
            self.write_message(data)
        else:
            self.write_body(data.encode() if isinstance(data, str) else data)

    def end(self, code: int, reason: str) -> None:
        """Close the socket; an HTTP answer is cut."""
        if self._websocket is None:
            self._transport.close()
            return
        if self._lost or self._websocket.state is not State.OPEN:
            return
        try:
            self._websocket.send_close(code, reason)
        except InvalidState:
            return
        self._flush()
        self._messages.put_nowait(None)

    def _take_frames(self) -> None:
        assert self._websocket is not None
        for frame in self._websocket.events_received():
            assert isinstance(frame, Frame)
            if frame.opcode is Opcode.CLOSE:
                self.client_close_code = self._websocket.close_rcvd.code if self._websocket.close_rcvd else 1005
                self._messages.put_nowait(None)
            elif frame.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
                self._take_fragment(frame)
        self._flush()

    def _take_fragment(self, frame: Frame) -> None:
        if frame.opcode is not Opcode.CONT:
            self._fragments.clear()
            self._fragments_are_text = frame.opcode is Opcode.TEXT
        self._fragments += frame.data
        if frame.fin:
            data = bytes(self._fragments)
            message = data.decode() if self._fragments_are_text else data
            self._came(message)
            self._messages.put_nowait(message)

    def _flush(self) -> None:
        assert self._websocket is not None
        for data in self._websocket.data_to_send():
            if data:
                self._transport.write(data)
            else:
                self._transport.close()
