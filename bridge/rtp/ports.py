"""Pairs of UDP ports for RTP (even) and RTCP (the odd one behind it), from a configured range."""

import errno
import random
import socket
from collections import deque
from dataclasses import dataclass

COOL_DOWN_S = 2.0
"""A released port rests this long: the last packets of the call before must not reach the next one."""

RECEIVE_BUFFER_BYTES = 65536
"""About 100 packets with the kernel's own overhead: two seconds of a stalled process, no more of a flood."""

SEND_BUFFER_BYTES = 65536


class PortsError(Exception):
    """No ports could be had; the message says why."""


class PortsExhaustedError(PortsError):
    """All ports of the range are in use, resting, or taken by other programs."""


@dataclass(frozen=True, slots=True)
class PortPair:
    """Two bound, non-blocking UDP sockets, owned by whoever allocated them until `PortPool.release`."""

    port: int
    """The RTP port, even; RTCP's is the next."""
    rtp: socket.socket
    rtcp: socket.socket


class PortPool:
    """Gives each leg its own pair. A port is not used again before all others were, and is hard to foretell."""

    def __init__(self, host: str, port_min: int, port_max: int, *, cool_down_s: float = COOL_DOWN_S) -> None:
        """`host` is the local address to bind; the range includes both ends. ValueError if it holds no pair."""
        self._host = host
        self._family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._range = f"{port_min} to {port_max}"
        self._cool_down_s = cool_down_s
        ports = list(range(port_min + port_min % 2, port_max, 2))
        if not ports:
            raise ValueError(f"no even port with an odd one behind it between {port_min} and {port_max}")
        random.SystemRandom().shuffle(ports)
        self._free = deque(ports)
        self._resting: deque[tuple[float, int]] = deque()
        self._in_use: set[int] = set()

    @property
    def in_use(self) -> int:
        """Pairs that were allocated and not released."""
        return len(self._in_use)

    @property
    def capacity(self) -> int:
        """Pairs in the range."""
        return len(self._free) + len(self._resting) + len(self._in_use)

    def allocate(self, now: float) -> PortPair:
        """Bind a free pair. Raises PortsExhaustedError, or PortsError if the address or the process's limit of open
        files is at fault."""
        while self._resting and self._resting[0][0] <= now:
            self._free.append(self._resting.popleft()[1])
        taken = 0
        while taken < len(self._free):
            port = self._free.popleft()
            try:
                pair = self._bind(port)
            except OSError as error:
                self._free.append(port)
                if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                    raise PortsError(f"can't open RTP port {port} on {self._host}: {error.strerror}") from error
                taken += 1
                continue
            self._in_use.add(port)
            return pair
        raise PortsExhaustedError(
            f"no RTP port left in {self._range}: {len(self._in_use)} pairs in use, {len(self._resting)} resting, "
            f"{taken} taken by other programs; widen rtp.port_min and rtp.port_max"
        )

    def release(self, pair: PortPair, now: float) -> None:
        """Close the sockets and let the ports rest. Twice does nothing."""
        pair.rtp.close()
        pair.rtcp.close()
        if pair.port in self._in_use:
            self._in_use.remove(pair.port)
            self._resting.append((now + self._cool_down_s, pair.port))

    def _bind(self, port: int) -> PortPair:
        rtp = self._socket(port)
        try:
            return PortPair(port, rtp, self._socket(port + 1))
        except OSError:
            rtp.close()
            raise

    def _socket(self, port: int) -> socket.socket:
        sock = socket.socket(self._family, socket.SOCK_DGRAM)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
            sock.bind((self._host, port))
        except OSError:
            sock.close()
            raise
        return sock
