"""User agents on real sockets of this machine, and a peer that speaks raw bytes over TCP."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

from bridge.sip.agent import UserAgent
from bridge.sip.events import CallKey, Event, InviteReceived, Reoffered
from bridge.sip.flow import Address, Flow
from bridge.sip.settings import UserAgentConfig
from bridge.sip.timers import TimerValues
from bridge.sip.transport_settings import TransportSettings
from bridge.sip.transports import Transports, open_transports

SDP = b"v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n"

E = TypeVar("E")


class Phone:
    """A user agent with its events in a queue; with `answers` it takes calls and re-INVITEs."""

    transports: Transports

    def __init__(self, *, answers: bool = False, **config: Any) -> None:
        settings: dict[str, Any] = {
            "timers": TimerValues(t1=0.02, t2=0.08, t4=0.1),
            "resolve": self._resolve,
            "stream_flow": self._stream_flow,
            "session_expires_s": 0,
        }
        self.agent = UserAgent(UserAgentConfig(**(settings | config)))
        self.events: asyncio.Queue[Event] = asyncio.Queue()
        self.messages: list[tuple[bool, bytes, Flow]] = []
        self._answers = answers

    def handle(self, event: Event) -> None:
        self.events.put_nowait(event)
        if not self._answers:
            return
        # From within the handler: what this sends needs no flush of its own.
        if isinstance(event, InviteReceived):
            self.agent.ring(event.key, self.transports.now())
            self.agent.answer(event.key, SDP, self.transports.now())
        elif isinstance(event, Reoffered):
            self.agent.answer_reinvite(event.key, SDP, self.transports.now())

    async def next(self, wanted: type[E]) -> E:
        while True:
            event = await asyncio.wait_for(self.events.get(), 30)
            if isinstance(event, wanted):
                return event

    def call(self, flow: Flow, uri: str = "", **options: Any) -> CallKey:
        target = uri or f"sip:agent@{bracketed(flow.remote)};transport={flow.transport}"
        key = self.agent.invite(
            target, flow, self.transports.now(), **({"from_": "<sip:alice@127.0.0.1>", "sdp": SDP} | options)
        )
        self.transports.flush()
        return key

    def act(self, verb: str, *arguments: Any, **options: Any) -> None:
        getattr(self.agent, verb)(*arguments, self.transports.now(), **options)
        self.transports.flush()

    def carried(self, transport: str) -> list[str]:
        """First lines of what came and went over a transport."""
        return [data.partition(b"\r\n")[0].decode() for _, data, flow in self.messages if flow.transport == transport]

    def _resolve(self, host: str, port: int | None) -> Address | None:
        return self.transports.find(host, port)

    def _stream_flow(self, flow: Flow) -> Flow | None:
        return self.transports.stream_flow(flow)


@asynccontextmanager
async def phone(
    *, answers: bool = False, config: dict[str, Any] | None = None, **settings: Any
) -> AsyncIterator[Phone]:
    """Listens on free ports of 127.0.0.1 unless told otherwise."""
    made = Phone(answers=answers, **(config or {}))
    chosen: dict[str, Any] = {"hosts": ("127.0.0.1",), "port": 0, "tls_port": 0}
    made.transports = await open_transports(made.agent, made.handle, TransportSettings(**(chosen | settings)))
    made.transports.tap = lambda received, data, flow, now: made.messages.append((received, data, flow))
    try:
        yield made
    finally:
        made.transports.close()
        await asyncio.wait_for(asyncio.shield(made.transports.closed), 30)
        assert made.transports.connection_count == 0


class RawPeer:
    """One TCP (or TLS) connection that sends what it is told to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(
        cls, address: Address, *, tls: ssl.SSLContext | None = None, source: str = "127.0.0.1", name: str = ""
    ) -> "RawPeer":
        return cls(
            *await asyncio.open_connection(
                *address, ssl=tls, local_addr=(source, 0), server_hostname=(name or "x") if tls else None
            )
        )

    @property
    def address(self) -> Address:
        name = self.writer.get_extra_info("sockname")
        return (name[0], name[1])

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def message(self) -> bytes:
        """The head of the next message."""
        return (await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 30)).lstrip()

    async def ended(self) -> bool:
        """Waits until the other side closes."""
        try:
            while await asyncio.wait_for(self.reader.read(4096), 30):
                pass
        except ConnectionError:
            pass
        return True

    async def close(self, *, reset: bool = False) -> None:
        if reset:
            self.writer.transport.abort()
        self.writer.close()
        with suppress(ConnectionError, ssl.SSLError):
            await self.writer.wait_closed()


def options(via: str, *, branch: str = "z9hG4bKone", extra: str = "") -> bytes:
    """An OPTIONS; `via` is transport and sent-by, `TCP 127.0.0.1:5090`."""
    transport, _, sent_by = via.partition(" ")
    return (
        f"OPTIONS sip:x SIP/2.0\r\nVia: SIP/2.0/{transport} {sent_by};branch={branch}{extra}\r\n"
        f"From: <sip:a@b>;tag=1\r\nTo: <sip:x>\r\nCall-ID: {branch}\r\nCSeq: 1 OPTIONS\r\nMax-Forwards: 70\r\n"
        "Content-Length: 0\r\n\r\n"
    ).encode()


def bracketed(address: Address) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
