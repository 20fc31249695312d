"""A UDP socket for SIP: datagrams in and out, and which peer can't be reached."""

import asyncio
import errno
import socket
import struct
from contextlib import suppress
from functools import lru_cache
from typing import Protocol

from bridge.sip.flow import Address

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
