"""A UDP socket for SIP: datagrams in and out, and which peer can't be reached."""

import asyncio
import errno
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from typing import Protocol, cast

from bridge.sip.agent import UserAgent
from bridge.sip.events import Event
from bridge.sip.flow import Address, Flow

EventHandler = Callable[[Event], None]

_RECEIVE_BUFFER_BYTES = 4 * 1024 * 1024
"""For bursts that come while the loop is busy; the system may give less."""

_RECEIVED_AT_ONCE = 4
"""Then others have their turn: the media clock runs on the same loop."""

_IP_RECVERR, _IPV6_RECVERR = 11, 25
"""From linux/in.h; not in Python's socket module before 3.14."""

_EXTENDED_ERROR = struct.Struct("=IBBBBII")
"""sock_extended_err: errno, origin, ICMP type, code, ..."""

_UNREACHABLE = (errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH)


@lru_cache(1024)
def local_address_towards(ip: str) -> str:
    """The address of this machine that packets to `ip` (an address, no name) leave from, by the routing table.
    Nothing is sent. Remembered, until `local_address_towards.cache_clear()`. Raises OSError without a route."""
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        # Any port does, but 0.
        probe.connect((ip, 9))
        return str(probe.getsockname()[0])


def bound_socket(kind: socket.SocketKind, host: str, port: int) -> socket.socket:
    """A socket at an address of ours, that listens if it is one for streams; `::` leaves IPv4 to another socket.
    Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, kind)
    try:
        sock.setblocking(False)
        if kind is socket.SOCK_STREAM:
            # Connections of the process before us may still be dying.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family is socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((host, port))
        if kind is socket.SOCK_STREAM:
            sock.listen(1024)
    except OSError:
        sock.close()
        raise
    return sock


class DatagramUser(Protocol):
    def datagram_received(self, data: bytes, remote: Address, local: Address) -> None:
        """`local` is the address that the socket is bound to."""

    def unreachable(self, remote: Address, local: Address, why: str) -> None:
        """Nobody is there, or the system can't send there."""


class UdpSocket:
    """Reads until it is closed."""

    def __init__(self, sock: socket.socket, user: DatagramUser) -> None:
        self.address: Address = (str(sock.getsockname()[0]), int(sock.getsockname()[1]))
        self._socket = sock
        self._user = user
        self._loop = asyncio.get_running_loop()
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
        with suppress(OSError):
            # Where the system has it, ICMP errors say which peer they are about.
            if sock.family is socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVERR, 1)
            else:
                sock.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)
        self._loop.add_reader(sock, self._readable)

    def send(self, data: bytes, remote: Address) -> bool:
        """Send it, or tell the user that it can't be sent there. False where the system has no room for it."""
        # An earlier packet's ICMP error may come out here, and would keep this one back.
        for _ in range(3):
            try:
                self._socket.sendto(data, remote)
            except BlockingIOError:
                return False
            except OSError as error:
                if self._take_errors():
                    continue
                self._user.unreachable(remote, self.address, error.strerror or str(error))
            return True
        return False

    def close(self) -> None:
        self._loop.remove_reader(self._socket)
        self._socket.close()

    def _readable(self) -> None:
        for _ in range(_RECEIVED_AT_ONCE):
            try:
                data, remote = self._socket.recvfrom(65_535)
            except BlockingIOError:
                # The error queue, too, wakes us.
                self._take_errors()
                return
            except OSError:
                self._take_errors()
                continue
            self._user.datagram_received(data, (str(remote[0]), int(remote[1])), self.address)
            if self._socket.fileno() < 0:
                return

    def _take_errors(self) -> bool:
        """Tell what ICMP said of earlier packets; whether there was anything."""
        taken = False
        while True:
            try:
                _, ancillary, _, remote = self._socket.recvmsg(0, 512, socket.MSG_ERRQUEUE)
            except OSError:
                return taken
            taken = True
            for level, kind, data in ancillary:
                known = (level, kind) in (
                    (socket.IPPROTO_IP, _IP_RECVERR),
                    (socket.IPPROTO_IPV6, _IPV6_RECVERR),
                )
                if not known or len(data) < _EXTENDED_ERROR.size or not remote:
                    continue
                number = _EXTENDED_ERROR.unpack_from(data)[0]
                if number in _UNREACHABLE:
                    self._user.unreachable((str(remote[0]), int(remote[1])), self.address, errno.errorcode[number])


class UdpEndpoint(asyncio.DatagramProtocol):
    """Made by `open_udp`. After calling a verb of the agent's from outside an event handler, call `flush`."""

    def __init__(self, agent: UserAgent, handler: EventHandler, loop: asyncio.AbstractEventLoop) -> None:
        self.agent = agent
        self._handler = handler
        self._loop = loop
        self._transport: asyncio.DatagramTransport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at: float | None = None
        self._flushing = False
        self.closed = loop.create_future()
        """Done once the socket is gone."""

    @property
    def address(self) -> Address:
        """Where the socket is bound."""
        if self._transport is None:
            raise RuntimeError("the SIP socket is not open")
        name = self._transport.get_extra_info("sockname")
        return (str(name[0]), int(name[1]))

    def flow_to(self, remote: Address) -> Flow:
        """The flow to a peer at an IP address and port. Raises OSError where there is no route to it."""
        host, port = self.address
        if host in ("0.0.0.0", "::"):
            host = local_address_towards(remote[0])
        return Flow("udp", remote, (host, port))

    def now(self) -> float:
        """The agent's clock (seconds, monotonic)."""
        return self._loop.time()

    def flush(self) -> None:
        """Send what the agent has to send, tell what it has to tell, until there is neither."""
        if self._flushing:
            return
        self._flushing = True
        try:
            while True:
                self._send()
                events = self.agent.events()
                if not events:
                    break
                for event in events:
                    self._tell(event)
        finally:
            self._flushing = False
        self._arm()

    def close(self) -> None:
        """Close the socket at once, whatever is still to come."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._transport is not None:
            self._transport.close()

    # -- asyncio.DatagramProtocol ---------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        try:
            flow = self.flow_to((addr[0], addr[1]))
        except OSError:
            self.agent.counters["dropped: no way back"] += 1
            return
        self.agent.receive(data, flow, self._loop.time())
        self.flush()

    def error_received(self, exc: Exception) -> None:
        # An ICMP error tells nothing that a timer would not; it does not even say which peer.
        self.agent.counters["socket errors"] += 1

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._transport = None
        if not self.closed.done():
            self.closed.set_result(None)

    # -- inside ---------------------------------------------------------------------------------------------

    def _send(self) -> None:
        for data, flow in self.agent.outgoing():
            if self._transport is not None and not self._transport.is_closing():
                self._transport.sendto(data, flow.remote)

    def _tell(self, event: Event) -> None:
        try:
            self._handler(event)
        except Exception as error:  # noqa: BLE001  # the outermost edge: one call's failure must not reach the next
            self._loop.call_exception_handler(
                {"message": f"SIP event handler failed on {type(event).__name__} of {event.key}", "exception": error}
            )

    def _arm(self) -> None:
        at = self.agent.timer()
        if at == self._timer_at and self._timer is not None:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._timer_at = at
        if at is not None and self._transport is not None:
            self._timer = self._loop.call_at(at, self._due)

    def _due(self) -> None:
        self._timer = None
        self.agent.handle_timer(self._loop.time())
        self.flush()


async def open_udp(
    agent: UserAgent,
    handler: EventHandler,
    *,
    host: str = "0.0.0.0",
    port: int = 5060,
) -> UdpEndpoint:
    """Bind a socket and drive `agent` on it. Raises OSError where the port is taken."""
    loop = asyncio.get_running_loop()
    _, endpoint = await loop.create_datagram_endpoint(
        lambda: UdpEndpoint(agent, handler, loop), local_addr=(host, port)
    )
    return endpoint
