"""One RTP session on its sockets: what is encrypted at their edge, what is RTCP, and whether anybody is there."""

import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from bridge.rtp.latch import RELATCH_AFTER_S, Address
from bridge.rtp.packet import is_rtcp
from bridge.rtp.ports import PortPair
from bridge.rtp.rtcp_session import RtcpSession
from bridge.rtp.session import RtpSession
from bridge.rtp.source_filter import from_anyone, only_from
from bridge.rtp.srtp import Srtp
from bridge.rtp.srtp_keys import SrtpKeys

if TYPE_CHECKING:
    from bridge.rtp.mux import RtpMux

SO_TIMESTAMPNS = 35
"""Linux: the kernel's time of arrival with each packet (`struct timespec`); the socket module has no name for it."""

IP_RECVERR = 11
IPV6_RECVERR = 25
"""Linux: ICMP errors are told on the socket. Neither has a name in the socket module."""

MSG_ERRQUEUE = 0x2000

EXPEDITED_FORWARDING = 46 << 2
"""DSCP EF in the TOS byte (RFC 3246): voice, for the routers that care."""

MAX_DATAGRAM = 2048
"""More than an Ethernet frame carries; a longer datagram is cut, and then fails to parse or to matter."""

PROOF_PACKETS = 3
"""Authenticated ones in a row from elsewhere, before the source is looked for anew."""

UNREAD_S = 2.0
"""No report is left unread for longer: they are looked for each 20 ms."""

MAX_ERRORS = 3
"""ICMP errors that are read between two looks at an endpoint: each costs more than a packet."""

timespec = struct.Struct("@qq")

unpack_timespec = timespec.unpack
"""Seconds and nanoseconds."""

STAMP_BYTES = timespec.size

STAMP_SPACE = socket.CMSG_SPACE(STAMP_BYTES)

OnCrash = Callable[[Exception], None]

Tap = Callable[[bool, bytes, Address, float], None]
"""(received, RTP or RTCP in clear, far address, time in s): sees each packet that counts."""


class RtpEndpoint:
    """A ticker of the media clock. `RtpMux` gives it what comes, and looks at it every half second."""

    __slots__ = (
        "_closed",
        "_elsewhere",
        "_errors",
        "_filtered",
        "_listens_for_errors",
        "_mux",
        "_plain",
        "_rtcp_mux",
        "_rtcp_source",
        "_rtcp_to",
        "_send",
        "_tap",
        "attend_at",
        "observe",
        "on_crash",
        "pair",
        "receive",
        "receive_message",
        "rtcp",
        "send_errors",
        "session",
        "srtp",
        "unreachable",
        "unreachable_at",
    )

    def __init__(
        self,
        mux: "RtpMux",
        pair: PortPair,
        session: RtpSession,
        on_crash: OnCrash,
        *,
        rtcp: RtcpSession | None = None,
    ) -> None:
        self.pair = pair
        self.session = session
        self.rtcp = rtcp
        self.on_crash = on_crash
        self.srtp: Srtp | None = None
        self.observe: Callable[[float], None] | None = None
        """Called about twice a second with the step's time."""
        self.attend_at = 0.0
        """When the mux looks at it next; the mux's own note."""
        self.send_errors = 0
        """Packets the network stack refused (ENETUNREACH, a full buffer)."""
        self.unreachable = 0
        """Times that ICMP said nobody takes what we send. At most a few a second are counted."""
        self.unreachable_at = float("-inf")
        """The last of them (s, monotonic)."""
        self.receive: Callable[[bytes, Address, float], None] = session.receive
        self._mux = mux
        self._send = pair.rtp.sendto
        self.receive_message = pair.rtp.recvmsg
        self._plain = True
        """What the session makes goes out as it is."""
        self._rtcp_mux = False
        self._rtcp_to: Address | None = None
        self._rtcp_source: Address | None = None
        self._tap: Tap | None = None
        self._elsewhere = 0
        self._errors = 0
        self._filtered: Address | None = None
        """The only address whose packets the kernel lets through; None: anybody's."""
        self._closed = False
        self._prepare_socket(pair.rtp)
        if rtcp is not None:
            pair.rtcp.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self._listens_for_errors = False
        self._listen_for_errors(True)

    # -- settings -------------------------------------------------------------------------------------------

    def configure(
        self, now: float, *, rtcp_to: Address | None = None, rtcp_mux: bool = False, srtp: SrtpKeys | None = None
    ) -> None:
        """What signalling agreed on, at the start or in mid-call. `rtcp_to` is where the far end takes RTCP; with
        `rtcp_mux` it goes with the RTP."""
        self._rtcp_to = rtcp_to
        self._rtcp_mux = rtcp_mux
        self._rtcp_source = None
        self._filter(None)
        if srtp is None:
            self.srtp = None
        elif self.srtp is None:
            self.srtp = Srtp(srtp)
        elif self.srtp.keys != srtp:
            self.srtp.rekey(srtp, now)
        self._choose_path()

    def tap(self, tap: Tap | None) -> None:
        """Show each packet to `tap`; None ends that. Costs nothing while nobody looks."""
        self._tap = tap
        self._choose_path()

    def _choose_path(self) -> None:
        self._plain = self.srtp is None and self._tap is None
        simple = self._plain and not self._rtcp_mux
        self.receive = self.session.receive if simple else self._receive_any

    # -- RTP ------------------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """The session's step of 20 ms."""
        if self._closed:
            return
        session = self.session
        packet = session.tick(now)
        destination = session.destination
        # A listener may have ended the leg meanwhile.
        if packet is None or destination is None or self._closed:
            return
        if self._plain:
            send = self._send
            try:
                send(packet, destination)
            except OSError as error:
                self._send_again(error, packet, destination)
        else:
            self._transmit(packet, destination, now)
        if session.further:
            for packet in session.further:
                self._transmit(packet, destination, now)
            session.further.clear()

    def _transmit(self, packet: bytes, destination: Address, now: float) -> None:
        if not self._plain:
            if self._tap is not None:
                self._tap(False, packet, destination, now)
            if self.srtp is not None:
                protected = self.srtp.protect(packet)
                if protected is None:
                    self.send_errors += 1
                    return
                packet = protected
        try:
            self._send(packet, destination)
        except OSError as error:
            self._send_again(error, packet, destination)

    def _send_again(self, error: OSError, packet: bytes, destination: Address) -> None:
        """An ICMP error of a packet before is told in place of sending the next one: that one has not gone yet."""
        if isinstance(error, ConnectionRefusedError):
            with suppress(OSError):
                self._send(packet, destination)
                return
        self.send_errors += 1

    def _receive_any(self, data: bytes, address: Address, arrival: float) -> None:
        if self._rtcp_mux and is_rtcp(data):
            self._receive_rtcp(data, address, arrival)
            return
        srtp = self.srtp
        if srtp is not None:
            packet = srtp.unprotect(data, arrival)
            if packet is None:
                return
            data = packet
            if address != self.session.latch.source:
                self._came_from_elsewhere()
            else:
                self._elsewhere = 0
        if self._tap is not None:
            self._tap(True, data, address, arrival)
        self.session.receive(data, address, arrival)

    def _came_from_elsewhere(self) -> None:
        """Who has the key is the far end, wherever it speaks from (an SBC took over): no silence need prove it."""
        self._elsewhere += 1
        if self._elsewhere >= PROOF_PACKETS and self.session.latch.established:
            self._elsewhere = 0
            self.session.relatch()

    # -- RTCP -----------------------------------------------------------------------------------------------

    def receive_report(self) -> None:
        """Read one datagram from the RTCP port. Raises OSError."""
        data, extra, _flags, address = self.pair.rtcp.recvmsg(MAX_DATAGRAM, STAMP_SPACE)
        self._receive_rtcp(data, address[:2], arrival_time(extra, time.monotonic()))

    def _receive_rtcp(self, data: bytes, address: Address, arrival: float) -> None:
        rtcp = self.rtcp
        latch = self.session.latch
        known = (latch.source, latch.signalled, self._rtcp_to)
        # Its port may be any behind a NAT, its host is the one that RTP comes from or was named for it.
        if rtcp is None or not any(place is not None and place[0] == address[0] for place in known):
            return
        if self.srtp is not None:
            compound = self.srtp.unprotect_rtcp(data, arrival)
            if compound is None:
                return
            data = compound
        self._rtcp_source = address
        if self._tap is not None:
            self._tap(True, data, address, arrival)
        rtcp.receive(data, arrival)

    def _send_rtcp(self, compound: bytes) -> None:
        destination = self._rtcp_destination()
        if destination is None:
            return
        if self._tap is not None:
            self._tap(False, compound, destination, time.monotonic())
        data = compound if self.srtp is None else self.srtp.protect_rtcp(compound)
        if data is not None:
            # Reports that get lost are no trouble of the call's.
            with suppress(OSError):
                (self.pair.rtp if self._rtcp_mux else self.pair.rtcp).sendto(data, destination)

    def _rtcp_destination(self) -> Address | None:
        to = self.session.destination
        if to is None or self._rtcp_mux:
            return to
        if self._rtcp_source is not None:
            return self._rtcp_source
        if self._rtcp_to is not None and (to == self.session.latch.signalled or to[0] == self._rtcp_to[0]):
            return self._rtcp_to
        # RTP comes from elsewhere than was said: a NAT, for which the next port is the best guess there is.
        return to[0], min(to[1] + 1, 65535)

    # -- twice a second -------------------------------------------------------------------------------------

    def attend(self, now: float) -> None:
        """What is not worth doing each 20 ms: reports, errors of the network, the observer."""
        if self._errors >= MAX_ERRORS:
            self._listen_for_errors(True)
        self._errors = 0
        self._filter(self._sole_source(now))
        rtcp = self.rtcp
        # The true time, not the step's: a round trip is measured by it.
        if rtcp is not None and now >= rtcp.due and (compound := rtcp.poll(time.monotonic())) is not None:
            self._send_rtcp(compound)
        if self.observe is not None:
            self.observe(now)

    def _sole_source(self, now: float) -> Address | None:
        """Who alone would be listened to now: others would be turned away one by one, after they have crowded out the
        far end. With SRTP the far end may prove itself from anywhere."""
        latch = self.session.latch
        silent = self.session.silent_ms(now) >= RELATCH_AFTER_S * 1000
        return None if silent or self.srtp is not None or not latch.established else latch.source

    def _filter(self, source: Address | None) -> None:
        if source == self._filtered:
            return
        if source is None:
            from_anyone(self.pair.rtp)
            self._filtered = None
        elif only_from(self.pair.rtp, source):
            self._filtered = source

    def read_errors(self) -> None:
        """Take the socket's ICMP errors."""
        while True:
            try:
                self.pair.rtp.recvmsg(0, 512, MSG_ERRQUEUE)
            except OSError:
                return
            self.unreachable += 1
            self.unreachable_at = time.monotonic()
            self._errors += 1
            if self._errors >= MAX_ERRORS:
                self._listen_for_errors(False)

    def _listen_for_errors(self, on: bool) -> None:
        if on == self._listens_for_errors:
            return
        self._listens_for_errors = on
        sock = self.pair.rtp
        ipv4 = sock.family == socket.AF_INET
        level, option = (socket.IPPROTO_IP, IP_RECVERR) if ipv4 else (socket.IPPROTO_IPV6, IPV6_RECVERR)
        # A system without it can't tell who is unreachable, and carries calls all the same.
        with suppress(OSError):
            sock.setsockopt(level, option, int(on))

    # -- the end --------------------------------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        return self._closed

    def leave(self, reason: str = "") -> None:
        """Say goodbye by RTCP, then `close`."""
        if not self._closed and self.rtcp is not None:
            compound = self.rtcp.goodbye(time.monotonic(), reason)
            if compound is not None:
                self._send_rtcp(compound)
        self.close()

    def close(self) -> None:
        """Stop reading and writing; then the caller releases the ports. Twice does nothing."""
        if not self._closed:
            self._closed = True
            # The socket may go on in another call.
            self._filter(None)
            self._mux.forget(self)

    @staticmethod
    def _prepare_socket(sock: socket.socket) -> None:
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        if sock.family == socket.AF_INET:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, EXPEDITED_FORWARDING)
        else:
            with suppress(OSError):
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, EXPEDITED_FORWARDING)


def arrival_time(extra: list[tuple[int, int, bytes]], now: float) -> float:
    """The kernel's stamp among a datagram's ancillary data as monotonic time (s); `now` where there is none, or the
    wall clock, which it is by, was set since."""
    if extra and len(extra[0][2]) == STAMP_BYTES:
        seconds, nanoseconds = unpack_timespec(extra[0][2])
        arrival = float(seconds - time.time() + time.monotonic() + nanoseconds * 1e-9)
        return arrival if abs(now - arrival) < UNREAD_S else now
    return now
