"""A stand-in for a Chat Completions server: HTTP/1.1 on loopback, replies scripted byte by byte.

The wire format is that of the public API description (chunks, `data: [DONE]`, error bodies, Retry-After).
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

MODEL = "test-model"


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: Any
    connection: int
    """Which connection it came on: 0, 1, 2 ..."""


class Exchange:
    """One request being answered."""

    def __init__(self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.request = request
        self._reader = reader
        self._writer = writer
        self.hung_up = asyncio.Event()
        """The client closed the connection before the answer was complete."""

    async def json(self, status: int, content: object, headers: Mapping[str, str] | None = None) -> None:
        body = json.dumps(content).encode()
        lines = [f"HTTP/1.1 {status} Status", "content-type: application/json", f"content-length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        await self.raw("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    async def begin(self) -> None:
        """The head of a stream."""
        await self.raw(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")

    async def send(self, data: bytes, *, cut: int = 0) -> None:
        """Bytes of the stream, in HTTP chunks and TCP segments of `cut` bytes."""
        for at in range(0, len(data), cut or len(data)):
            part = data[at : at + (cut or len(data))]
            await self.raw(f"{len(part):x}\r\n".encode() + part + b"\r\n")
            if cut:
                await asyncio.sleep(0)

    async def end(self) -> None:
        await self.raw(b"0\r\n\r\n")

    def abort(self) -> None:
        """The server dies: the connection is gone without the stream's end."""
        self._writer.transport.abort()

    async def client_is_gone(self) -> None:
        """Wait until the client hangs up."""
        while await self._reader.read(1024):
            pass
        self.hung_up.set()

    async def raw(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()


Script = Callable[[Exchange], Awaitable[None]]


@dataclass
class ChatServer:
    """Answers each completion request with the next script; `/models/...` with `model_status`."""

    scripts: list[Script] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    exchanges: list[Exchange] = field(default_factory=list)
    model_status: int = 200
    base_url: str = ""
    _connections: int = 0

    @property
    def completions(self) -> list[Request]:
        return [request for request in self.requests if request.path.endswith("/chat/completions")]

    @asynccontextmanager
    async def running(self) -> AsyncIterator["ChatServer"]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        try:
            yield self
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = self._connections
        self._connections += 1
        try:
            while (request := await _read(reader, connection)) is not None:
                self.requests.append(request)
                exchange = Exchange(request, reader, writer)
                if "/models/" in request.path:
                    error = {"error": {"message": "no", "type": "x", "param": None, "code": None}}
                    await exchange.json(self.model_status, {"id": MODEL} if self.model_status == 200 else error)
                    continue
                self.exchanges.append(exchange)
                await self.scripts.pop(0)(exchange)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


async def _read(reader: asyncio.StreamReader, connection: int) -> Request | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines) if name}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    method, path, _ = first.split(" ")
    return Request(method, path, headers, json.loads(body) if body else None, connection)


def chunk(delta: dict[str, Any], finish: str | None = None, **extra: Any) -> bytes:
    """One SSE event."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
    event = {
        "id": "c1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": MODEL,
        "choices": [choice],
        **extra,
    }
    return f"data: {json.dumps(event, ensure_ascii=False)}\n\n".encode()


DONE = b"data: [DONE]\n\n"


def streams(*events: bytes, cut: int = 0, done: bool = True) -> Script:
    """A script that streams `events`, cut into pieces of `cut` bytes."""

    async def script(exchange: Exchange) -> None:
        await exchange.begin()
        await exchange.send(b"".join(events) + (DONE if done else b""), cut=cut)
        await exchange.end()

    return script


def says(*texts: str, cut: int = 0) -> Script:
    """A script of a whole reply as OpenAI streams it, usage missing."""
    events = [chunk({"role": "assistant", "content": ""}), *(chunk({"content": text}) for text in texts)]
    return streams(*events, chunk({}, "stop"), cut=cut)


def fails(status: int, message: str, headers: Mapping[str, str] | None = None) -> Script:
    async def script(exchange: Exchange) -> None:
        error = {"message": message, "type": "error", "param": None, "code": None}
        await exchange.json(status, {"error": error}, headers)

    return script


def calls(index: int, name: str, call_id: str | None, pieces: Sequence[str]) -> list[bytes]:
    """The chunks of one tool call whose arguments come in `pieces`."""
    first: dict[str, Any] = {"index": index, "type": "function", "function": {"name": name, "arguments": ""}}
    if call_id is not None:
        first["id"] = call_id
    more = [{"index": index, "function": {"arguments": piece}} for piece in pieces]
    return [chunk({"tool_calls": [piece]}) for piece in (first, *more)]
