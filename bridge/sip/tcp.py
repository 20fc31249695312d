"""One TCP or TLS connection: bytes in and out, limits on what a peer may cost. No SIP beyond its framing."""

import asyncio
import socket
import ssl
from dataclasses import dataclass
from typing import Protocol, cast

from bridge.sip.flow import Address, Flow
from bridge.sip.stream import PING, PONG, Broken, Frame, Message, Ping, SipStream
from bridge.sip.tls import names_of, speaks_for

_FRAMES_AT_ONCE = 8
_REFUSAL = b"SIP/2.0 4"


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamLimits:
    max_connections: int = 2000
    """All that came in. Beyond it the oldest that brought nothing of use makes room, else the new one is refused."""
    max_per_address: int = 200
    """The same for each peer's address: a registrar or SBC needs a few, an attacker takes all it gets."""
    max_newcomers: int = 500
    """Of them, those that brought nothing of use so far, as above: one of TLS takes half a megabyte."""
    first_message_s: float = 20.0
    """A connection that came in must bring something within it that is not ignored, nor refused with a 4xx: else a
    stranger could hold it for `idle_s`."""
    message_s: float = 10.0
    """A message must be whole within it."""
    idle_s: float = 3600.0
    """No message sent nor received, no sign of life from who opened it: longer than session timers, so that no call
    loses its connection."""
    ping_s: float = 90.0
    """Connections that we opened and that lie idle are kept open by a ping this often: NATs forget them (RFC 5626
    4.4.1). 0: never."""
    connect_s: float = 5.0
    """To open a connection, TLS included."""
    handshake_s: float = 10.0
    """For TLS's handshake on a connection that came in."""
    unacknowledged_s: float = 20.0
    """Data that the peer's system does not acknowledge for so long ends the connection (TCP_USER_TIMEOUT)."""
    pings_per_s: int = 10
    """Keep-alives; they are meant to come once in half a minute."""
    write_buffer_bytes: int = 262_144
    """A peer that does not read what it is sent is cut off beyond it."""


class ConnectionOwner(Protocol):
    """What a connection needs of those who keep it."""

    def now(self) -> float: ...

    def opened(self, connection: "Connection") -> None: ...

    def received(self, connection: "Connection", data: bytes) -> None:
        """A whole message."""

    def lost(self, connection: "Connection") -> None:
        """It is over; `connection.failure` says why, "" where the peer or we just closed it. Comes once."""


class Connection(asyncio.Protocol):
    """Made before it is open: what is sent until then waits."""

    def __init__(
        self, flow: Flow, owner: ConnectionOwner, limits: StreamLimits, *, inbound: bool, max_bytes: int, verify: bool
    ) -> None:
        self.flow = flow
        self.inbound = inbound
        self.users = {flow}
        """The flows whose messages go this way: others had connections that are gone."""
        self.peer_names: frozenset[str] = frozenset()
        """Whom the peer's verified certificate speaks for."""
        self.failure = ""
        self.closing = False
        self.alias: Address | None = None
        """The address that the peer wants to be reached at by way of this connection."""
        self.was_open = False
        self._served = False
        """The peer was sent something better than a refusal."""
        self.work: asyncio.Task[None] | None = None
        """Opens it."""
        self._owner = owner
        self._limits = limits
        self._verify = verify
        self._transport: asyncio.Transport | None = None
        self._stream = SipStream(max_bytes)
        self._waiting: list[bytes] = []
        self._over = False
        self._begun_at = self._active_at = self._pinged_at = owner.now()
        self._message_since: float | None = None
        self._paused = False
        """The peer is not read from, for what it sent is not worked off."""
        self._pings = 0
        self._pings_since = 0.0

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self.closing

    @property
    def proven(self) -> bool:
        """Whether the peer has shown that it speaks SIP, and is somebody whom we answer."""
        return self._served and self._stream.messages > 0

    def send(self, data: bytes) -> None:
        """Send a message, or cut off a peer that has not read what it was sent before."""
        self._active_at = self._owner.now()
        self._served = self._served or not data.startswith(_REFUSAL)
        self._write(data)

    def _write(self, data: bytes) -> None:
        if self.closing:
            return
        if self._transport is None:
            self._waiting.append(data)
            waiting = sum(map(len, self._waiting))
        else:
            self._transport.write(data)
            waiting = self._transport.get_write_buffer_size()
        if waiting > self._limits.write_buffer_bytes:
            self.fail("the peer does not read what it is sent")

    def ping(self) -> None:
        """Ask for a sign of life (RFC 5626 3.5.1)."""
        self._pinged_at = self._owner.now()
        self._stream.pinged()
        self._write(PING)

    def wants_ping(self, now: float) -> bool:
        """Whether it has lain idle long enough for a NAT to forget it."""
        every = self._limits.ping_s
        if self.inbound or not every or not self.is_open:
            return False
        return now - max(self._active_at, self._pinged_at) >= every

    def overdue(self, now: float) -> str:
        """Why the connection is to be ended now, "" while it may stay."""
        limits = self._limits
        if self.inbound and not self.proven and now - self._begun_at >= limits.first_message_s:
            return "nothing came that is served here"
        if self._message_since is not None and now - self._message_since >= limits.message_s:
            return "a message did not come to its end"
        return "idle" if now - self._active_at >= limits.idle_s else ""

    def close(self) -> None:
        """End it when what is to be sent has been sent. `lost` follows."""
        if self.closing:
            return
        self.closing = True
        if self._transport is None:
            self.end()
        else:
            self._transport.close()

    def fail(self, why: str) -> None:
        """End it at once. `lost` follows."""
        self.failure = self.failure or why
        self.closing = True
        if self._transport is None:
            self.end()
        else:
            self._transport.abort()

    def end(self) -> None:
        """Say that it is over, once."""
        self.closing = True
        self._waiting.clear()
        if not self._over:
            self._over = True
            self._owner.lost(self)

    # -- asyncio.Protocol -----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self.closing:
            self._transport.abort()
            return
        connection: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
        if connection is not None and not self._authentic(connection):
            self._transport.abort()
            return
        for data in self._waiting:
            self._transport.write(data)
        self._waiting.clear()
        self.was_open = True
        self._owner.opened(self)

    def data_received(self, data: bytes) -> None:
        if not self.closing:
            self._stream.feed(data)
            self._take_frames()

    def _take_frames(self) -> None:
        """Take what has come, a little at a time: others, and the media clock, run on the same loop."""
        if self.closing or self._transport is None:
            return
        for _ in range(_FRAMES_AT_ONCE):
            frame = self._stream.next()
            if frame is None:
                if self._paused:
                    self._paused = False
                    self._transport.resume_reading()
                break
            self._take(frame)
            if self.closing:
                return
        else:
            if not self._paused:
                self._paused = True
                self._transport.pause_reading()
            asyncio.get_running_loop().call_soon(self._take_frames)
            return
        if not self._stream.mid_message:
            self._message_since = None
        elif self._message_since is None:
            self._message_since = self._owner.now()

    def _take(self, frame: Frame) -> None:
        if isinstance(frame, Message):
            self._active_at = self._owner.now()
            self._message_since = None
            self._owner.received(self, frame.data)
        elif isinstance(frame, Ping):
            now = self._active_at = self._owner.now()
            self._pings = self._pings + 1 if now - self._pings_since < 1.0 else 1
            if self._pings == 1:
                self._pings_since = now
            if self._pings > self._limits.pings_per_s:
                self.fail("too many keep-alives")
            else:
                self._write(PONG)
        elif isinstance(frame, Broken):
            self.fail(frame.reason)

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None:
            self.failure = self.failure or str(exc) or type(exc).__name__
        self.end()

    def _authentic(self, connection: ssl.SSLObject) -> bool:
        self.peer_names = names_of(connection.getpeercert())
        wanted = self.flow.name or self.flow.remote[0]
        if self.inbound or not self._verify or speaks_for(self.peer_names, wanted):
            return True
        shown = ", ".join(sorted(self.peer_names)) or "nobody"
        self.failure = f"the server's certificate is not that of {wanted} but of {shown}"
        self.closing = True
        return False


def set_options(sock: socket.socket, limits: StreamLimits) -> None:
    """Have the system find out that a peer is gone, though it said nothing."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(limits.unacknowledged_s * 1000))
