"""The sockets of all RTP sessions, read and written by the media clock: no task, callback or lock per packet."""

import select
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress

from bridge.rtp.ports import PortPair
from bridge.rtp.session import RtpSession

SO_TIMESTAMPNS = 35
"""Linux: the kernel's time of arrival with each packet (`struct timespec`); the socket module has no name for it."""

ROUNDS = 8
"""Packets read from one socket in one poll; a flood on one port costs the others no more than that."""

MAX_DATAGRAM = 2048
"""More than an Ethernet frame carries; a longer datagram is cut, and then fails to parse or to matter."""

EXPEDITED_FORWARDING = 46 << 2
"""DSCP EF in the TOS byte (RFC 3246): voice, for the routers that care."""

_timespec = struct.Struct("@qq")

STAMP_SPACE = socket.CMSG_SPACE(_timespec.size)


OnCrash = Callable[[Exception], None]


class RtpEndpoint:
    """One session on its socket: a ticker of the media clock."""

    __slots__ = ("_closed", "_fd", "_mux", "_send", "on_crash", "pair", "receive_message", "send_errors", "session")

    def __init__(self, mux: "RtpMux", pair: PortPair, session: RtpSession, on_crash: OnCrash) -> None:
        self.pair = pair
        self.session = session
        self.on_crash = on_crash
        self.send_errors = 0
        """Packets the network stack refused (ECONNREFUSED, ENETUNREACH, a full buffer)."""
        self._mux = mux
        self._fd = pair.rtp.fileno()
        self._send = pair.rtp.sendto
        self.receive_message = pair.rtp.recvmsg
        self._closed = False

    def tick(self, now: float) -> None:
        """The session's step of 20 ms."""
        if self._closed:
            return
        session = self.session
        packet = session.tick(now)
        destination = session.destination
        # A listener may have ended the leg meanwhile.
        if packet is not None and destination is not None and not self._closed:
            try:
                self._send(packet, destination)
            except OSError:
                self.send_errors += 1

    def close(self) -> None:
        """Stop reading and writing; then the caller releases the ports. Twice does nothing."""
        if not self._closed:
            self._closed = True
            self._mux.forget(self._fd, self)


class RtpMux:
    """Reads what has come for all sessions. One a process, polled by the media clock before each step."""

    def __init__(self) -> None:
        self.crashes = 0
        """Sessions closed for an exception out of their own code."""
        self.receive_errors = 0
        self._epoll = select.epoll()
        self._endpoints: dict[int, RtpEndpoint] = {}

    def __len__(self) -> int:
        return len(self._endpoints)

    def open(self, pair: PortPair, session: RtpSession, on_crash: OnCrash) -> RtpEndpoint:
        """Attach a session to its RTP socket. `on_crash` is told of an exception out of the session's own code (a
        listener's, an event handler's) while it received; the endpoint is closed by then."""
        pair.rtp.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        if pair.rtp.family == socket.AF_INET:
            pair.rtp.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, EXPEDITED_FORWARDING)
        endpoint = RtpEndpoint(self, pair, session, on_crash)
        self._endpoints[pair.rtp.fileno()] = endpoint
        self._epoll.register(pair.rtp.fileno(), select.EPOLLIN)
        return endpoint

    def forget(self, fd: int, endpoint: RtpEndpoint) -> None:
        """No more of this endpoint; `RtpEndpoint.close` calls it while its socket is open."""
        if self._endpoints.get(fd) is endpoint:
            del self._endpoints[fd]
            with suppress(OSError):
                self._epoll.unregister(fd)

    def poll(self, now: float) -> None:
        """Give each session what has come for it. Never blocks; `now` stands in where the kernel gives no time."""
        ready = self._epoll.poll(0)
        if not ready:
            return
        endpoints = self._endpoints
        # The kernel's stamps are wall-clock time; the difference is taken anew as the wall clock may be set.
        ahead = time.time() - time.monotonic()
        for _ in range(ROUNDS):
            for fd, _events in ready:
                endpoint = endpoints.get(fd)
                if endpoint is None:
                    continue
                try:
                    data, extra, _flags, address = endpoint.receive_message(MAX_DATAGRAM, STAMP_SPACE)
                except OSError:
                    self.receive_errors += 1
                    continue
                arrival = now
                if extra and len(extra[0][2]) == _timespec.size:
                    seconds, nanoseconds = _timespec.unpack(extra[0][2])
                    arrival = seconds - ahead + nanoseconds * 1e-9
                try:
                    endpoint.session.receive(data, address[:2], arrival)
                except Exception as error:  # noqa: BLE001 -- the edge of one call: it ends alone
                    self.crashes += 1
                    endpoint.close()
                    endpoint.on_crash(error)
            # Asking again which sockets have more costs less than an exception from each that has not.
            ready = self._epoll.poll(0)
            if not ready:
                return

    def close(self) -> None:
        """Forget all endpoints. Their sockets stay the callers' own."""
        self._endpoints.clear()
        self._epoll.close()
