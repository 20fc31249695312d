"""Where Asterisks connect by AudioSocket: one listener a process, and a connection for each call's audio.

A connection is given to whoever expects its UUID. From then on it sends a frame each 20 ms, silence at first: an
Asterisk whose driver reads a header before there is one waits in it, and does nothing else (protocols/asterisk.md).
"""

import asyncio
import ipaddress
import socket
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast
from uuid import UUID

import structlog

from bridge.asterisk.audiosocket import (
    END,
    HELLO_S,
    AudioReceived,
    AudioSocketEvent,
    AudioSocketProtocol,
    ConnectionOver,
    DigitPressed,
    Identified,
    audio_header,
)
from bridge.asterisk.settings import AUDIOSOCKET_PORT, AudioSocketSettings
from bridge.audio.clock import MediaClock
from bridge.audio.frames import frame_bytes
from bridge.legs.frame_stream import FrameStream
from bridge.legs.media import MediaExpired
from bridge.log import RateLimited
from bridge.rtp.format import RtpLimits

SEND_BUFFER_BYTES = 16 * 1024
"""Of the kernel: half a second of audio. What a far side that stalled has not read by then would come too late."""
WITHDRAWN_S = 60.0
"""How long a UUID that nobody waits for any more is known for ours: it is no call of a dialplan."""


@dataclass(frozen=True, slots=True)
class ServerLimits:
    connections: int = 2000
    """Far more than calls; each is a file descriptor."""
    waiting: int = 64
    """Connections that have not said yet which call they are for. Asterisk says it within a millisecond: the one that
    has waited longest makes room for the next."""
    hello_s: float = HELLO_S
    """How long they get to say it."""
    stalled_s: float = 5.0
    """A far side that reads nothing for this long is gone."""
    closing_s: float = 1.0
    """How long the far side gets to close as well."""


DEFAULT_SERVER_LIMITS = ServerLimits()

log = structlog.get_logger(__name__)


class AudioSocketConnection(asyncio.Protocol):
    """One call's connection. Its owner sets the callbacks as it takes it; all run on the event loop's thread."""

    def __init__(self, server: "AudioSocketServer") -> None:
        self.peer = ""
        """`address:port`."""
        self.sent = self.dropped = 0
        """Frames that went out, and that the far side had no room for."""
        self.on_audio: Callable[[bytes, float], None] = _nothing
        """PCM (int16 mono, any length) and when it came (s, monotonic)."""
        self.on_digit: Callable[[str], None] = _nothing
        self.on_over: Callable[[ConnectionOver], None] = _nothing
        """Told once, unless `close` came first: the connection ended, or was ended for breaking the protocol."""
        self._server = server
        self._clock = server.clock
        self._limits = server.limits
        self._protocol = AudioSocketProtocol(self._clock.time(), hello_s=self._limits.hello_s)
        self._transport: asyncio.Transport
        self._timer: asyncio.TimerHandle | None = None
        self._header = self._silence = b""
        self._silent = False
        """It is on the clock itself, sending silence."""
        self._stalled_since: float | None = None
        self._finished = False
        """Nobody hears of it any more; what still comes is thrown away."""

    @property
    def uuid(self) -> UUID:
        """Known once it was given to its owner."""
        assert self._protocol.uuid is not None
        return self._protocol.uuid

    def open_media(self, codec: str, rate_hz: int, limits: RtpLimits) -> FrameStream:
        """The call's media, to be started at once, or after `send_silence`. When the connection ends it tells
        `MediaExpired`; closing it closes the connection. `codec` is Asterisk's name for the rate."""
        size = frame_bytes(rate_hz)
        self._header, self._silence = audio_header(size, rate_hz), bytes(size)
        self._protocol.expect_rate(rate_hz)
        stream = FrameStream(self._clock, sample_rate=rate_hz, codec=codec, send=self.send, limits=limits)
        self.on_audio = stream.push
        self.on_over = lambda event: stream.on_event(MediaExpired(event.detail))
        stream.on_close = self.close
        # Not with the next tick: an Asterisk that waits in a header does nothing else meanwhile.
        self.send(self._silence)
        return stream

    def send_silence(self) -> None:
        """Each 20 ms, until `end_silence`: the media is not started yet."""
        self._silent = True
        self._clock.add(self, self._crashed)

    def end_silence(self) -> None:
        """The media is started now, or over."""
        if self._silent:
            self._silent = False
            self._clock.remove(self)

    def tick(self, now: float) -> None:
        """On the clock: nothing is said yet."""
        self.send(self._silence)

    def send(self, pcm: bytes) -> None:
        """One frame of 20 ms, at once or never: audio that waits for a slow far side would be late all the call."""
        if self._finished:
            return
        if self._transport.get_write_buffer_size():
            self._drop()
            return
        self._stalled_since = None
        self.sent += 1
        # In one piece: Asterisk does not put a header together that comes in two.
        self._transport.write(self._header + pcm)

    def close(self) -> None:
        """End it properly: Asterisk is told, and goes on in its dialplan. Idempotent."""
        if self._finished:
            return
        self._finish()
        if self._transport.get_write_buffer_size():
            self._transport.abort()
            return
        # Read on until Asterisk has closed as well: a frame of its that met a closed socket would be an error to it,
        # and cost the caller the call.
        self._transport.write(END)
        try:
            self._transport.write_eof()
        except OSError:
            # It has gone, and the loop has not told us yet.
            self._transport.abort()
            return
        self._timer = asyncio.get_running_loop().call_later(self._limits.closing_s, self._transport.abort)

    # -- asyncio --------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        address = transport.get_extra_info("peername")
        self.peer = _shown(address)
        sock: socket.socket = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        # Whoever vanished without a word is noticed by what it does not acknowledge.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(2 * self._limits.stalled_s * 1000))
        if not self._server.connected(self, address[0]):
            self._finish()
            self._transport.abort()
            return
        deadline = self._protocol.next_deadline()
        assert deadline is not None
        delay = deadline - self._clock.time()
        self._timer = asyncio.get_running_loop().call_later(delay, self._on_timer)

    def data_received(self, data: bytes) -> None:
        if self._finished:
            return
        now = self._clock.time()
        for event in self._protocol.receive(data, now):
            self._on_event(event, now)

    def eof_received(self) -> bool:
        for event in self._protocol.receive_eof():
            self._on_event(event, self._clock.time())
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if not self._finished:
            # Nothing of the end was read.
            detail = f"the connection broke: {exc}" if exc else "the connection was closed"
            self._over(ConnectionOver("far", None, detail, far_hung_up=False), "broken")
        self._server.gone(self)

    # -- inside ---------------------------------------------------------------------------------------------

    def _on_timer(self) -> None:
        now = self._clock.time()
        for event in self._protocol.handle_timer(now):
            self._on_event(event, now)
        if (deadline := self._protocol.next_deadline()) is not None:
            # The timer and the clock need not agree to the last digit.
            self._timer = asyncio.get_running_loop().call_later(max(0.001, deadline - now), self._on_timer)

    def _on_event(self, event: AudioSocketEvent, now: float) -> None:
        if self._finished:
            return
        match event:
            case AudioReceived(pcm=pcm):
                self.on_audio(pcm, now)
            case DigitPressed(digit=digit):
                self.on_digit(digit)
            case Identified():
                if self._timer is not None:
                    self._timer.cancel()
                    self._timer = None
                self._server.identified(self)
            case ConnectionOver():
                self._over(event)

    def _over(self, event: ConnectionOver, reason: str = "far-end") -> None:
        self._finish()
        self._server.note_end(self, event.violation.value if event.violation else reason)
        if event.violation:
            self._server.complain("a connection broke the protocol", self, event.detail)
            self._transport.abort()
        else:
            self._transport.close()
        self.on_over(event)

    def _drop(self) -> None:
        now = self._clock.time()
        self.dropped += 1
        self._server.frames_dropped += 1
        if self._stalled_since is None:
            self._stalled_since = now
        elif now - self._stalled_since > self._limits.stalled_s:
            self._finish()
            self._server.note_end(self, "stalled")
            self._transport.abort()
            detail = f"Asterisk took no audio for {self._limits.stalled_s:g} s"
            self.on_over(ConnectionOver("us", None, detail, far_hung_up=False))

    def _finish(self) -> None:
        self._finished = True
        self.end_silence()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def shut_down(self) -> None:
        """`close`, by the server: its owner is told."""
        if not self._finished:
            self.close()
            self.on_over(ConnectionOver("us", None, "the bridge stopped", far_hung_up=False))

    def refuse(self, reason: str) -> None:
        """Nobody takes it. `reason` is a word for the counter."""
        self._server.note_end(self, reason)
        self.close()

    def crowd_out(self) -> None:
        """It has not said which call it is for, and makes room for another one."""
        self._finish()
        self._server.note_end(self, "crowded")
        self._transport.abort()

    def _crashed(self, error: Exception) -> None:
        self._silent = False
        self._over(ConnectionOver("us", None, f"{type(error).__name__}: {error}", far_hung_up=False), "crashed")


class AudioSocketServer:
    """The listener. Whoever has a call set up expects its UUID; others are for `on_unknown`."""

    def __init__(
        self, settings: AudioSocketSettings, clock: MediaClock, limits: ServerLimits = DEFAULT_SERVER_LIMITS
    ) -> None:
        self.clock = clock
        self.limits = limits
        self.on_unknown: Callable[[AudioSocketConnection], None] | None = None
        """Takes connections whose UUID nobody expects: sets their callbacks, or refuses them. None: all refused."""
        self.frames_dropped = 0
        self.last_stranger = ""
        """Address of the last one that may not connect; empty: there was none."""
        self._settings = settings
        self.permit(settings.networks)
        self._server: asyncio.Server | None = None
        self._expected: dict[UUID, Callable[[AudioSocketConnection], None]] = {}
        self._withdrawn: dict[UUID, float] = {}
        """Until when (s, monotonic) a UUID is known that nobody expects any more."""
        self._waiting: dict[AudioSocketConnection, None] = {}
        """Not identified yet, the oldest first."""
        self._connections: set[AudioSocketConnection] = set()
        self._accepted = 0
        self._ends: Counter[str] = Counter()
        self._log = RateLimited(log, clock=clock.time)

    @property
    def port(self) -> int:
        """Where it listens; where it is to, before `start`."""
        if self._server is not None and self._server.sockets:
            return int(self._server.sockets[0].getsockname()[1])
        return self._settings.port or AUDIOSOCKET_PORT

    async def start(self) -> None:
        """Raises OSError."""
        port = self._settings.port or AUDIOSOCKET_PORT
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: AudioSocketConnection(self), self._settings.listen, port, backlog=self.limits.waiting
        )
        log.info("audiosocket: listening", address=self._settings.listen, port=self.port)

    async def aclose(self) -> None:
        """Take no more connections, and end those that are left."""
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.shut_down()
        if self._server is not None:
            # From Python 3.12.1 on it returns when the last connection has.
            await self._server.wait_closed()

    def permit(self, networks: Sequence[str]) -> None:
        """Who may connect from now on, besides loopback, in CIDR notation."""
        self._networks = [ipaddress.ip_network(network) for network in networks]

    def allows(self, address: str) -> bool:
        """Whether this IP address may connect."""
        try:
            ip = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return False
        if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        return ip.is_loopback or any(ip in network for network in self._networks)

    @contextmanager
    def expecting(self, uuid: UUID, take: Callable[[AudioSocketConnection], None]) -> Iterator[None]:
        """Give the connection with this UUID to `take`, once; what comes with it after the block is refused."""
        self._expected[uuid] = take
        try:
            yield
        finally:
            self._expected.pop(uuid, None)
            self._withdraw(uuid)

    def readings(self) -> Mapping[str, float]:
        """For the metrics."""
        readings = {
            "audiosocket_connections": float(len(self._connections)),
            "audiosocket_connections_total": float(self._accepted),
            "audiosocket_frames_dropped_total": float(self.frames_dropped),
        }
        for reason, count in self._ends.items():
            readings[f'audiosocket_ends_total{{reason="{reason}"}}'] = float(count)
        return readings

    @property
    def ends(self) -> Mapping[str, int]:
        """Connections that ended otherwise than by `close`, by reason."""
        return self._ends

    def __len__(self) -> int:
        """Connections, those included that are being closed."""
        return len(self._connections)

    # -- its connections' side ------------------------------------------------------------------------------

    def connected(self, connection: AudioSocketConnection, address: str) -> bool:
        """Whether the connection may stay, and say which call it is for."""
        self._accepted += 1
        self._connections.add(connection)
        if not self.allows(address):
            self.last_stranger = address
            self.note_end(connection, "stranger")
            self.complain("a stranger connected", connection, "its address is not in audiosocket.networks")
            return False
        if len(self._connections) > self.limits.connections:
            self.note_end(connection, "full")
            self.complain("too many connections", connection, f"there are {self.limits.connections}")
            return False
        if len(self._waiting) >= self.limits.waiting:
            oldest = next(iter(self._waiting))
            del self._waiting[oldest]
            oldest.crowd_out()
        self._waiting[connection] = None
        return True

    def identified(self, connection: AudioSocketConnection) -> None:
        self._waiting.pop(connection, None)
        uuid = connection.uuid
        take = self._expected.pop(uuid, None)
        if take is not None:
            take(connection)
        elif uuid in self._withdrawn:
            connection.refuse("too-late")
        elif self.on_unknown is not None:
            self.on_unknown(connection)
        else:
            why = "the bridge is still starting" if self._settings.trunk else "audiosocket.trunk is not set"
            self.complain("nobody knows the call", connection, f"UUID {uuid}; {why}")
            connection.refuse("unknown-uuid")

    def gone(self, connection: AudioSocketConnection) -> None:
        self._connections.discard(connection)
        self._waiting.pop(connection, None)

    def note_end(self, connection: AudioSocketConnection, reason: str) -> None:
        self._waiting.pop(connection, None)
        self._ends[reason] += 1

    def complain(self, what: str, connection: AudioSocketConnection, detail: str) -> None:
        """Strangers can cause it, so not too often."""
        self._log.warning(f"audiosocket: {what}", peer=connection.peer, detail=detail)

    # -- inside ---------------------------------------------------------------------------------------------

    def _withdraw(self, uuid: UUID) -> None:
        now = self.clock.time()
        for old in [old for old, until in self._withdrawn.items() if until < now]:
            del self._withdrawn[old]
        self._withdrawn[uuid] = now + WITHDRAWN_S


def _shown(address: tuple[str, int]) -> str:
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _nothing(*_: object) -> None:
    """Until it has an owner."""
