"""A bot as its author would write it for a carrier's media stream: it keeps what it is told, and says what a test
has it say."""

import asyncio
import audioop
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, serve


class Bot:
    def __init__(self, protocol: str) -> None:
        self.protocol = protocol
        self.told: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.socket: ServerConnection | None = None
        self.connections = 0
        self._news = asyncio.Condition()

    @asynccontextmanager
    async def running(self, port: int = 0) -> AsyncIterator["Bot"]:
        async with serve(self._serve, "127.0.0.1", port) as server:
            self.server: Server = server
            self.port = next(iter(server.sockets)).getsockname()[1]
            self.url = f"ws://127.0.0.1:{self.port}/ws"
            yield self

    async def _serve(self, socket: ServerConnection) -> None:
        self.socket = socket
        self.connections += 1
        assert socket.request is not None
        self.headers.append({name.lower(): value for name, value in socket.request.headers.raw_items()})
        try:
            async for text in socket:
                async with self._news:
                    self.told.append(json.loads(text))
                    self._news.notify_all()
        finally:
            self.connections -= 1
            async with self._news:
                self._news.notify_all()

    # -- what it was told -----------------------------------------------------------------------------------

    def events(self, name: str) -> list[dict[str, Any]]:
        return [message for message in self.told if message["event"] == name]

    async def event(self, name: str, count: int = 1) -> dict[str, Any]:
        """The `count`-th message of that kind."""
        async with asyncio.timeout(30), self._news:
            await self._news.wait_for(lambda: len(self.events(name)) >= count)
        return self.events(name)[count - 1]

    async def all_closed(self) -> None:
        async with asyncio.timeout(30), self._news:
            await self._news.wait_for(lambda: self.connections == 0)

    def pcm(self) -> bytes:
        """All of the caller's audio."""
        return b"".join(
            audioop.ulaw2lin(base64.b64decode(message["media"]["payload"]), 2) for message in self.events("media")
        )

    @property
    def call_sid(self) -> str:
        start = self.events("start")[0]["start"]
        return str(start["callSid"] if self.protocol == "twilio" else start["call_control_id"])

    # -- what it says ---------------------------------------------------------------------------------------

    async def say(self, event: str, **what: Any) -> None:
        assert self.socket is not None
        message: dict[str, Any] = {"event": event, **what}
        if self.protocol == "twilio":
            message["streamSid"] = self.events("start")[0]["streamSid"]
        await self.socket.send(json.dumps(message))

    async def speak(self, pcm: bytes) -> None:
        payload = base64.b64encode(audioop.lin2ulaw(pcm, 2)).decode()
        await self.say("media", media={"payload": payload})

    async def mark(self, name: str) -> None:
        await self.say("mark", mark={"name": name})

    async def clear(self) -> None:
        await self.say("clear")

    async def close(self, code: int = 1000) -> None:
        assert self.socket is not None
        await self.socket.close(code)
