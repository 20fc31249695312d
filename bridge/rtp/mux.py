"""The sockets of all RTP sessions, read and written by the media clock: no task, callback or lock per packet."""

import select
import time
from collections import deque
from contextlib import suppress

from bridge.rtp.endpoint import MAX_DATAGRAM, STAMP_BYTES, STAMP_SPACE, OnCrash, RtpEndpoint, unpack_timespec
from bridge.rtp.ports import PortPair
from bridge.rtp.rtcp_session import RtcpSession
from bridge.rtp.session import RtpSession

ROUNDS = 8
"""Packets read from one socket in one poll; a flood on one port costs the others no more than that."""

ATTEND_S = 0.5
"""How often each endpoint is looked at for what is not worth doing at each step."""

SET_S = 0.01
"""By so much the kernel's time of a packet may be off what it can have been: more, and the wall clock was set."""


class RtpMux:
    """Reads what has come for all sessions. One a process, polled by the media clock before each step."""

    def __init__(self) -> None:
        self.crashes = 0
        """Sessions closed for an exception out of their own code."""
        self.receive_errors = 0
        self._epoll = select.epoll()
        self._endpoints: dict[int, RtpEndpoint] = {}
        """By the RTP socket's descriptor."""
        self._reports: dict[int, RtpEndpoint] = {}
        """By the RTCP socket's."""
        self._attended: deque[RtpEndpoint] = deque()
        """In the order of their `attend_at`."""
        self._emptied_at = float("-inf")
        """When nothing was left to read (s, monotonic): what is read comes after that."""

    def __len__(self) -> int:
        return len(self._endpoints)

    def open(
        self, pair: PortPair, session: RtpSession, on_crash: OnCrash, *, rtcp: RtcpSession | None = None
    ) -> RtpEndpoint:
        """Attach a session to its sockets. `on_crash` is told of an exception out of the session's own code (a
        listener's, an event handler's) while it received; the endpoint is closed by then. With `rtcp` it reports,
        once `RtpEndpoint.configure` has said where to."""
        endpoint = RtpEndpoint(self, pair, session, on_crash, rtcp=rtcp)
        self._endpoints[pair.rtp.fileno()] = endpoint
        self._epoll.register(pair.rtp.fileno(), select.EPOLLIN)
        if rtcp is not None:
            self._reports[pair.rtcp.fileno()] = endpoint
            self._epoll.register(pair.rtcp.fileno(), select.EPOLLIN)
        # At the front: it is due at once, and from then on in its turn.
        self._attended.appendleft(endpoint)
        return endpoint

    def forget(self, endpoint: RtpEndpoint) -> None:
        """No more of this endpoint; `RtpEndpoint.close` calls it while its sockets are open."""
        for descriptors, sock in ((self._endpoints, endpoint.pair.rtp), (self._reports, endpoint.pair.rtcp)):
            if descriptors.get(sock.fileno()) is endpoint:
                del descriptors[sock.fileno()]
                with suppress(OSError):
                    self._epoll.unregister(sock.fileno())
        with suppress(ValueError):
            self._attended.remove(endpoint)

    def poll(self, now: float) -> None:
        """Give each session what has come for it. Never blocks; `now` stands in where the kernel gives no time."""
        looked_at = time.monotonic()
        ready = self._epoll.poll(0)
        if not ready or self._receive(ready, now, looked_at):
            self._emptied_at = looked_at
        self._attend(now)

    def _receive(self, ready: list[tuple[int, int]], now: float, looked_at: float) -> bool:
        """Whether nothing is left."""
        endpoints = self._endpoints
        only_readable = select.EPOLLIN
        # The kernel's stamps are wall-clock time; the difference is taken anew as the wall clock may be set.
        ahead = time.time() - time.monotonic()
        # Packets that came before it was set are in its old time still: a call would seem silent for an hour.
        earliest, latest = self._emptied_at - SET_S, looked_at + SET_S
        for _ in range(ROUNDS):
            for fd, events in ready:
                endpoint = endpoints.get(fd)
                if endpoint is None:
                    self._receive_report(fd)
                    continue
                if events != only_readable:
                    endpoint.read_errors()
                    if not events & only_readable:
                        continue
                # Functions kept as attributes are called by a name: called as if they were methods they take longer.
                receive_message, receive = endpoint.receive_message, endpoint.receive
                try:
                    data, extra, _flags, address = receive_message(MAX_DATAGRAM, STAMP_SPACE)
                except OSError:
                    self.receive_errors += 1
                    continue
                arrival = now
                if extra and len(stamp := extra[0][2]) == STAMP_BYTES:
                    seconds, nanoseconds = unpack_timespec(stamp)
                    arrival = seconds - ahead + nanoseconds * 1e-9
                    # What a new endpoint finds may have waited for it.
                    if (arrival < earliest and endpoint.attend_at) or (
                        arrival > latest and arrival > (latest := time.monotonic() + SET_S)
                    ):
                        arrival = now
                try:
                    receive(data, address[:2], arrival)
                except Exception as error:  # noqa: BLE001 -- the edge of one call: it ends alone
                    self._crash(endpoint, error)
            # Asking again which sockets have more costs less than an exception from each that has not.
            ready = self._epoll.poll(0)
            if not ready:
                return True
        return False

    def _receive_report(self, fd: int) -> None:
        endpoint = self._reports.get(fd)
        if endpoint is None:
            return
        try:
            endpoint.receive_report()
        except OSError:
            self.receive_errors += 1
        except Exception as error:  # noqa: BLE001 -- the edge of one call: it ends alone
            self._crash(endpoint, error)

    def _attend(self, now: float) -> None:
        attended = self._attended
        while attended and attended[0].attend_at <= now:
            endpoint = attended.popleft()
            endpoint.attend_at = now + ATTEND_S
            attended.append(endpoint)
            try:
                endpoint.attend(now)
            except Exception as error:  # noqa: BLE001 -- the edge of one call: it ends alone
                self._crash(endpoint, error)

    def _crash(self, endpoint: RtpEndpoint, error: Exception) -> None:
        self.crashes += 1
        endpoint.close()
        endpoint.on_crash(error)

    def close(self) -> None:
        """Forget all endpoints. Their sockets stay the callers' own."""
        self._endpoints.clear()
        self._reports.clear()
        self._attended.clear()
        self._epoll.close()
