"""The base of the vendors' stand-ins: HTTP and WebSocket on one port of 127.0.0.1, with misbehaviour to order.

A vendor's stand-in adds its routes and speaks its wire format; connections, faults and the record of what was asked
are here:

    class Echo(Standin):
        def __init__(self) -> None:
            super().__init__()
            self.route("POST", "/v1/echo/{word}", self._echo)
            self.socket("/v1/socket", self._socket)

        async def _echo(self, exchange: Exchange, reply: Reply) -> None:
            await reply.json({"word": exchange.params["word"], "you": exchange.json()})

        async def _socket(self, exchange: Exchange, socket: Socket) -> None:
            async for message in socket:
                await socket.send(message)

    async with Echo() as server:
        server.misbehave(status=429, times=1)
        ...
        assert server.exchanges[0].headers["authorization"] == "Bearer k"
"""

import asyncio
import contextlib
import json
import re
import socket
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, ParamSpec, Self
from urllib.parse import parse_qs, urlsplit

from standin_wire import Connection, Gone

__all__ = ["Exchange", "Fault", "Gone", "Reply", "Socket", "Standin", "until_gone"]

P = ParamSpec("P")

PATIENCE_S = 30.0
"""For what happens at once on a machine with time to spare."""

KEPT_MESSAGES = 20_000
"""Of each socket, the newest; audio of a long run need not stay in memory."""


@dataclass(eq=False)
class Fault:
    """What goes wrong with the exchanges that it is for. At most one of `status`, `stall`, `close`, `drop`,
    `garbage`, `deaf`."""

    status: int = 0
    """This HTTP status in place of the answer, or of the upgrade to a socket."""
    body: str | bytes | Mapping[str, Any] = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    """With `status`."""
    stall: str = ""
    """`answer`: the request is taken and nothing comes back, no head and no upgrade. `middle`: nothing more after
    `after` messages of a socket, or pieces of a body. What is held goes out once the server behaves again."""
    close: int = 0
    """Close the socket with this code, after `after` messages; an HTTP body is cut there."""
    reason: str = ""
    """With `close`."""
    drop: bool = False
    """After `after` messages or pieces the TCP connection is reset, with no word."""
    garbage: str | bytes = ""
    """After `after` messages or pieces this goes out too, once."""
    deaf: bool = False
    """The server reads nothing more, so that the client's writes come to a stop."""
    after: int = 0
    """Messages or pieces that go out properly first; the head of an HTTP answer is none."""
    times: int = -1
    """How many exchanges it is for; -1: all."""
    path: str = ""
    """Only for paths that begin so."""


@dataclass(eq=False)
class Exchange:
    """One request, or one socket from its handshake to its end: what was asked, and how it went."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes
    connection: int
    """The TCP connection it came on, from 0: two requests on one have the same."""
    is_socket: bool
    params: Mapping[str, str] = field(default_factory=dict)
    """The `{names}` of the route."""
    received: deque[str | bytes] = field(default_factory=lambda: deque(maxlen=KEPT_MESSAGES))
    """Messages of the client, in order, read by the handler or not."""
    sent: int = 0
    """Messages, or pieces of a body, that went out."""
    status: int = 0
    """Of the answer; 101 for a socket; 0: none went out."""
    close_code: int | None = None
    """With which the client closed the socket; 1006: it just left. None: it did not."""
    cut: bool = False
    """The client left before the answer was complete."""
    over: asyncio.Event = field(default_factory=asyncio.Event)
    """Nothing more happens to it."""
    fault: Fault | None = None
    _fault_from: int = 0

    def asked(self, name: str) -> str:
        """A parameter of the query; empty: not given."""
        return self.query.get(name, [""])[0]

    def json(self) -> Any:
        """The request's body."""
        return json.loads(self.body)

    @property
    def texts(self) -> list[Any]:
        """The client's text messages, parsed."""
        return [json.loads(message) for message in self.received if isinstance(message, str)]

    @property
    def binary(self) -> list[bytes]:
        """The client's binary messages."""
        return [message for message in self.received if isinstance(message, bytes)]

    def bind(self, fault: Fault) -> None:
        self.fault = fault
        self._fault_from = self.sent

    def due(self) -> Fault | None:
        """The fault, if its turn has come."""
        fault = self.fault
        return fault if fault is not None and self.sent - self._fault_from >= fault.after else None


class _Outgoing:
    """What a `Reply` and a `Socket` share: faults come between what is sent."""

    def __init__(self, standin: "Standin", exchange: Exchange, connection: Connection) -> None:
        self._standin = standin
        self.exchange = exchange
        self._connection = connection

    async def _put(self, write: Callable[[], None]) -> None:
        await self.trip()
        write()
        self.exchange.sent += 1
        await self._connection.drained()
        if not self._stalls():
            await self.trip()

    def _stalls(self) -> bool:
        fault = self.exchange.due()
        return fault is not None and bool(fault.stall)

    async def trip(self) -> None:
        """Do what the exchange's fault says, if it is due. Raises Gone where that ends the exchange."""
        while (fault := self.exchange.due()) is not None:
            if fault.stall == "middle":
                await self._standin.behaves()
                continue
            if fault.deaf:
                self._connection.listen(False)
                return
            if fault.drop:
                self._connection.abort()
                raise Gone
            if fault.close:
                self._connection.end(fault.close, fault.reason)
                raise Gone
            if fault.garbage:
                self.exchange.fault = None
                self._connection.write_garbage(fault.garbage)
            return


class Reply(_Outgoing):
    """The answer to an HTTP request: `json` or `send` for a whole one; `begin`, any number of `piece` or `event`,
    `end` for a stream."""

    async def json(self, content: object, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        await self.send(json.dumps(content).encode(), "application/json", status, headers)

    async def send(
        self,
        body: bytes,
        content_type: str = "text/plain",
        status: int = 200,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._head(status, content_type, {"content-length": str(len(body)), **(headers or {})})
        if body:
            await self._put(lambda: self._connection.write_body(body))
        await self.end()

    async def begin(
        self, content_type: str = "text/event-stream", status: int = 200, headers: Mapping[str, str] | None = None
    ) -> None:
        self._head(status, content_type, headers or {})
        await self.trip()

    async def piece(self, data: bytes) -> None:
        """A part of the body, in an HTTP chunk of its own."""
        await self._put(lambda: self._connection.write_body(data))

    async def event(self, data: object, name: str = "") -> None:
        """A server-sent event; `data` as it is if it is text, else as JSON."""
        text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
        await self.piece(f"{f'event: {name}' + chr(10) if name else ''}data: {text}\n\n".encode())

    async def end(self) -> None:
        self._connection.finish()

    def _head(self, status: int, content_type: str, headers: Mapping[str, str]) -> None:
        self.exchange.status = status
        self._connection.write_head(status, {"content-type": content_type, **headers})


class Socket(_Outgoing):
    """A WebSocket, open. Iterate over it for the client's messages until the client closes. `send` raises Gone once
    it is closed, which the handler need not catch."""

    def __aiter__(self) -> AsyncIterator[str | bytes]:
        return self._messages()

    async def _messages(self) -> AsyncIterator[str | bytes]:
        while (message := await self.receive()) is not None:
            yield message

    async def receive(self) -> str | bytes | None:
        """The next message; None once the client has closed."""
        return await self._connection.message()

    async def send(self, message: str | bytes) -> None:
        await self._put(lambda: self._connection.write_message(message))

    async def json(self, content: object) -> None:
        await self.send(json.dumps(content, ensure_ascii=False))

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close from the server's side; what the client says afterwards is not read."""
        self._connection.end(code, reason)


HttpHandler = Callable[[Exchange, Reply], Awaitable[None]]
SocketHandler = Callable[[Exchange, Socket], Awaitable[None]]


class Standin:
    """A server in this event loop. As a context manager it runs; leaving raises what went wrong in a handler, so that
    a stand-in which did not understand its client fails the test."""

    def __init__(self) -> None:
        self.exchanges: list[Exchange] = []
        """All requests and sockets, in the order of their coming."""
        self.connections_made = 0
        self.port = 0
        self._routes: list[tuple[str, re.Pattern[str], HttpHandler | SocketHandler]] = []
        self._faults: list[Fault] = []
        self._behaves = asyncio.Event()
        self._behaves.set()
        self._connections: set[Connection] = set()
        self._live: dict[Exchange, Connection] = {}
        self._errors: list[Exception] = []
        self._server: asyncio.Server | None = None
        self._held: socket.socket | None = None
        """Has the port while the server is down."""

    # -- what a vendor's stand-in says ----------------------------------------------------------------------

    def route(self, method: str, path: str, handler: HttpHandler) -> None:
        """Answer requests; `{name}` in the path stands for one segment, found in `Exchange.params`."""
        self._routes.append((method, _pattern(path), handler))

    def socket(self, path: str, handler: SocketHandler) -> None:
        """Take WebSockets; the socket is closed (1000) once the handler returns."""
        self._routes.append(("SOCKET", _pattern(path), handler))

    def refusal(self, exchange: Exchange) -> tuple[int, Mapping[str, Any]] | None:
        """Status and JSON body in place of an answer, or of the upgrade to a socket: no such key, say. None: none."""
        return None

    # -- what a test sees -----------------------------------------------------------------------------------

    @property
    def http_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws_url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    @property
    def open_connections(self) -> int:
        """TCP connections that are up."""
        return len(self._connections)

    @property
    def live(self) -> list[Exchange]:
        """Exchanges that are going on."""
        return list(self._live)

    def at(self, path: str) -> list[Exchange]:
        """The exchanges whose path begins so."""
        return [exchange for exchange in self.exchanges if exchange.path.startswith(path)]

    async def until(self, condition: Callable[[], bool], within_s: float = PATIENCE_S) -> None:
        """Wait for something to be so. Raises TimeoutError."""
        async with asyncio.timeout(within_s):
            while not condition():
                await asyncio.sleep(0.005)

    async def all_closed(self, within_s: float = PATIENCE_S) -> None:
        """Wait until no connection is open. Raises TimeoutError, which says that somebody left one."""
        await self.until(lambda: not self._connections, within_s)

    # -- misbehaviour ---------------------------------------------------------------------------------------

    def misbehave(self, **fault: Any) -> Fault:
        """Have a `Fault` (its fields are the arguments) happen to the exchanges to come, and to sockets that are open
        (`after` then counts from now). Several may be given: the first that fits an exchange is taken."""
        made = Fault(**fault)
        self._faults.append(made)
        if made.stall:
            self._behaves.clear()
        for exchange, connection in list(self._live.items()):
            if not made.status and made.stall != "answer":
                self._assign(exchange)
                self._trip_now(exchange, connection)
        return made

    def behave(self) -> None:
        """Take all faults back; what was stalled goes on."""
        self._faults.clear()
        for exchange, connection in self._live.items():
            exchange.fault = None
            connection.listen(True)
        self._behaves.set()

    async def behaves(self) -> None:
        """Wait until `behave` is called."""
        await self._behaves.wait()

    def close_all(self, code: int, reason: str = "") -> None:
        """Close every open socket from the server's side."""
        for exchange, connection in list(self._live.items()):
            if exchange.is_socket:
                connection.end(code, reason)

    def drop_all(self) -> None:
        """Reset every connection."""
        for connection in list(self._connections):
            connection.abort()

    async def down(self) -> None:
        """The process dies: connections are reset, and new ones refused until `up`."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.drop_all()
        await self.all_closed()
        if self._held is None:
            self._hold_port()

    def _hold_port(self) -> None:
        """Let nobody else listen where this one did: its clients are to find nobody, not another stand-in."""
        held = socket.socket()
        try:
            held.bind(("127.0.0.1", self.port))
        except OSError:
            held.close()
        else:
            self._held = held

    async def up(self) -> None:
        """Listen, at the same port as before."""
        self._let_go()
        self._server = await asyncio.get_running_loop().create_server(
            lambda: Connection(self), "127.0.0.1", self.port, reuse_address=True
        )
        self.port = self._server.sockets[0].getsockname()[1]

    def _let_go(self) -> None:
        if self._held is not None:
            self._held.close()
            self._held = None

    async def __aenter__(self) -> Self:
        await self.up()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        await self.down()
        self._let_go()
        if self._errors and kind is None:
            raise self._errors[0]

    # -- what connections ask -------------------------------------------------------------------------------

    def connected(self, connection: Connection) -> int:
        self._connections.add(connection)
        self.connections_made += 1
        return self.connections_made - 1

    def disconnected(self, connection: Connection) -> None:
        self._connections.discard(connection)

    async def answer(
        self, connection: Connection, method: str, target: str, headers: Mapping[str, str], body: bytes
    ) -> None:
        """Serve one request, to its end."""
        parts = urlsplit(target)
        upgrade = headers.get("upgrade", "").lower() == "websocket"
        query = parse_qs(parts.query, keep_blank_values=True)
        exchange = Exchange(method, parts.path, query, headers, body, connection.number, upgrade)
        self.exchanges.append(exchange)
        self._live[exchange] = connection
        self._assign(exchange)
        try:
            await self._serve(exchange, connection)
        except Gone:
            pass
        except asyncio.CancelledError:
            exchange.cut = True
        except Exception as error:  # noqa: BLE001  kept for the end of the test, which it fails
            self._errors.append(error)
            connection.abort()
        finally:
            if upgrade:
                exchange.close_code = connection.client_close_code
            self._live.pop(exchange)
            exchange.over.set()

    async def _serve(self, exchange: Exchange, connection: Connection) -> None:
        fault = exchange.fault
        if fault is not None and fault.stall == "answer":
            exchange.fault = None
            await self.behaves()
        reply = Reply(self, exchange, connection)
        if fault is not None and fault.status:
            exchange.fault = None
            body = fault.body
            content = (
                body if isinstance(body, bytes) else (body if isinstance(body, str) else json.dumps(body)).encode()
            )
            kind = "text/plain" if isinstance(body, str | bytes) else "application/json"
            await reply.send(content, kind, fault.status, fault.headers)
            return
        refused = self.refusal(exchange)
        if refused is not None:
            await reply.json(refused[1], refused[0])
            return
        kind = "SOCKET" if exchange.is_socket else exchange.method
        handler = self._find(kind, exchange)
        if handler is None:
            await reply.json({"error": f"no {kind} {exchange.path} here"}, 404)
            return
        if not exchange.is_socket:
            await handler(exchange, reply)  # type: ignore[arg-type]
            return
        socket = Socket(self, exchange, connection)
        exchange.status = connection.upgrade(exchange.received.append)
        if exchange.status != 101:
            return
        if fault is None or not fault.stall:
            await socket.trip()
        await handler(exchange, socket)  # type: ignore[arg-type]
        await socket.close()

    def _find(self, kind: str, exchange: Exchange) -> HttpHandler | SocketHandler | None:
        for method, pattern, handler in self._routes:
            if method == kind and (match := pattern.fullmatch(exchange.path)):
                exchange.params = match.groupdict()
                return handler
        return None

    def _assign(self, exchange: Exchange) -> None:
        if exchange.fault is not None:
            return
        for fault in self._faults:
            if fault.times and exchange.path.startswith(fault.path):
                fault.times -= 1
                exchange.bind(fault)
                return

    def _trip_now(self, exchange: Exchange, connection: Connection) -> None:
        """A fault that is due at once need not wait for something to be sent."""
        fault = exchange.due()
        if fault is None or fault.stall:
            return
        if fault.deaf:
            connection.listen(False)
        elif fault.drop:
            connection.abort()
        elif fault.close:
            connection.end(fault.close, fault.reason)
        elif fault.garbage and exchange.is_socket:
            exchange.fault = None
            with contextlib.suppress(Gone):
                connection.write_garbage(fault.garbage)


def until_gone(sends: Callable[P, Awaitable[None]]) -> Callable[P, Coroutine[Any, Any, None]]:
    """Decorates what sends in a task of its own, beside the handler: it ends when the client has left."""

    @wraps(sends)
    async def send(*args: P.args, **kwargs: P.kwargs) -> None:
        with contextlib.suppress(Gone):
            await sends(*args, **kwargs)

    return send


def _pattern(path: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(path)))


async def serve_forever(standin: Standin) -> None:
    """Run a stand-in in a process of its own: says its URL on the first line, and stays until cancelled."""
    async with standin:
        print(standin.http_url, flush=True)
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
