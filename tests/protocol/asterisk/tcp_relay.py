"""A TCP relay in front of a server: it can cut or stop what goes through it, add TLS, and listen elsewhere."""

import asyncio
import ssl
from contextlib import suppress
from typing import Self


class TcpRelay:
    """Listens while it is entered. `stalled`: bytes are taken, and go no further, both ways."""

    def __init__(self, target_port: int, *, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> None:
        self._target_port = target_port
        self._host = host
        self._tls = tls
        self.port = 0
        self.connections_made = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._flows = asyncio.Event()
        self._flows.set()
        self._server: asyncio.Server | None = None

    @property
    def open_connections(self) -> int:
        return len(self._writers) // 2

    def stall(self) -> None:
        self._flows.clear()

    def flow(self) -> None:
        self._flows.set()

    def cut(self) -> None:
        """Reset what is open; new connections are taken."""
        for writer in list(self._writers):
            writer.transport.abort()

    async def refuse(self) -> None:
        """Reset what is open, and let nobody in until `listen`."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.cut()

    async def listen(self) -> None:
        self._server = await asyncio.start_server(self._relay, self._host, self.port, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def __aenter__(self) -> Self:
        await self.listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.flow()
        await self.refuse()
        while self._writers:
            await asyncio.sleep(0.005)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections_made += 1
        self._writers.add(writer)
        try:
            onward_reader, onward = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            writer.transport.abort()
            self._writers.discard(writer)
            return
        self._writers.add(onward)
        try:
            await asyncio.gather(self._pump(reader, onward), self._pump(onward_reader, writer))
        finally:
            for one in (writer, onward):
                one.transport.abort()
                self._writers.discard(one)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                await self._flows.wait()
                writer.write(data)
                await writer.drain()
        # Either way's end is the connection's: nobody here half-closes.
        writer.close()
