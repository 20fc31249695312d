"""One leg's RTCP, without I/O: when to report what, and what the far end's reports say of our audio (RFC 3550 6)."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from bridge.rtp.rtcp import (
    Goodbye,
    ReceiverReport,
    ReportBlock,
    RtcpError,
    RtcpPacket,
    SenderReport,
    SourceDescription,
    parse_compound,
    serialise_compound,
)
from bridge.rtp.session import Reception, SenderInfo

INTERVAL_S = 5.0
"""Mean time between reports; the least that RFC 3550 6.2 recommends, and two parties need no more."""

COMPENSATION = 1.21828
"""e - 3/2: what the randomised interval is divided by so that its mean is kept (RFC 3550 6.3.1)."""

NTP_EPOCH = 2_208_988_800
"""Seconds from 1900 to 1970."""

ENOUGH_SENT = 50
"""Packets of ours between two reports of the far end, before the second one's silence about them means anything."""

LONGEST_TRIP_S = 60.0
"""A round trip beyond this is no measurement: the far end answers a report that we never sent."""


class Reported(Protocol):
    """What RTCP needs of the RTP session."""

    @property
    def reception(self) -> Reception | None: ...

    @property
    def sender(self) -> SenderInfo: ...


@dataclass(frozen=True, slots=True)
class RemoteView:
    """What the far end said of our audio in its last report."""

    at: float
    """When that report arrived (s, monotonic)."""
    fraction_lost: float
    """0 to 1, since its report before."""
    lost: int
    """Since the beginning."""
    highest_sequence: int
    jitter_ms: float


class RtcpSession:
    """Not thread-safe. Nothing that comes from the network raises."""

    def __init__(
        self,
        session: Reported,
        *,
        cname: str,
        now: float,
        unix_time: float,
        draw: Callable[[], float] = random.random,
    ) -> None:
        """`unix_time` is the wall clock's at `now`; what is sent goes on from there even if that clock is set.
        `draw` gives numbers from 0 to 1."""
        self.remote: RemoteView | None = None
        self.round_trip_ms: float | None = None
        """The last measured."""
        self.remote_packets: int | None = None
        """Packets that the far end's last sender report says it has sent."""
        self.received = 0
        """Compounds taken."""
        self.malformed = 0
        self.stalled = 0
        """The far end's last reports in a row by which nothing of ours had come since the one before, though we had
        sent: they show no progress, or leave us out as they must then (RFC 3550 6.4.2)."""
        self.left = False
        """The far end said goodbye."""
        self._session = session
        self._cname = cname
        self._ntp_ahead = unix_time + NTP_EPOCH - now
        self._draw = draw
        # The first report comes after half the time (RFC 3550 6.2).
        self.due = now + self._interval() / 2
        """When `poll` is to be called next (s)."""
        self._sent_packets = (0, 0)
        """Our packets at the last two reports: who sent since the one before the last is a sender."""
        self._last_counts = (-1, 0, 0)
        """SSRC, and its packets expected and received at our last report."""
        self._last_sr = (-1, 0, 0.0)
        """SSRC, middle 32 bits of its NTP time, and arrival of the far end's last sender report."""
        self._sent_before = 0
        """Our packets when the far end's last report came."""

    # -- out ------------------------------------------------------------------------------------------------

    def poll(self, now: float) -> bytes | None:
        """The compound to send, once `due` has come."""
        if now < self.due:
            return None
        self.due = now + self._interval()
        return serialise_compound(self._report(now))

    def goodbye(self, now: float, reason: str = "") -> bytes | None:
        """The last compound; None if nothing was ever sent, as then nobody knows us (RFC 3550 6.3.7)."""
        sender = self._session.sender
        if not sender.packets:
            return None
        return serialise_compound([*self._report(now), Goodbye((sender.ssrc,), reason)])

    def _interval(self) -> float:
        return INTERVAL_S * (0.5 + self._draw()) / COMPENSATION

    def _report(self, now: float) -> list[RtcpPacket]:
        sender = self._session.sender
        blocks = self._blocks(now)
        before, self._sent_packets = self._sent_packets[0], (self._sent_packets[1], sender.packets)
        report: RtcpPacket
        if sender.packets != before:
            elapsed = round((now - sender.at) * sender.clock_rate)
            timestamp = (sender.timestamp + elapsed) & 0xFFFFFFFF
            report = SenderReport(sender.ssrc, self._ntp(now), timestamp, sender.packets, sender.octets, blocks)
        else:
            report = ReceiverReport(sender.ssrc, blocks)
        return [report, SourceDescription(((sender.ssrc, self._cname),))]

    def _blocks(self, now: float) -> tuple[ReportBlock, ...]:
        seen = self._session.reception
        if seen is None:
            return ()
        ssrc, expected, received = self._last_counts
        if ssrc != seen.ssrc or seen.expected < expected:
            expected = received = 0
        self._last_counts = (seen.ssrc, seen.expected, seen.received)
        expected = seen.expected - expected
        if not expected:
            # Silent since the last report: then it is left out (RFC 3550 6.4.1).
            return ()
        lost = max(0, expected - (seen.received - received))
        last_report = delay = 0
        if self._last_sr[0] == seen.ssrc:
            last_report = self._last_sr[1]
            delay = min(0xFFFFFFFF, round((now - self._last_sr[2]) * 65536))
        return (
            ReportBlock(
                seen.ssrc,
                min(255, lost * 256 // expected),
                seen.expected - seen.received,
                seen.highest_sequence,
                min(0xFFFFFFFF, int(seen.jitter)),
                last_report,
                delay,
            ),
        )

    def _ntp(self, now: float) -> int:
        return round((now + self._ntp_ahead) * 4294967296) & 0xFFFFFFFFFFFFFFFF

    # -- in -------------------------------------------------------------------------------------------------

    def receive(self, data: bytes, now: float) -> None:
        """One datagram that arrived at `now`, from an address that was found credible."""
        try:
            packets = parse_compound(data)
        except RtcpError:
            self.malformed += 1
            return
        self.received += 1
        sender = self._session.sender
        reports = [packet for packet in packets if isinstance(packet, SenderReport | ReceiverReport)]
        if any(report.ssrc == sender.ssrc for report in reports):
            # Our own report came back: a loop, not the far end (RFC 3550 8.2).
            return
        self.left = self.left or any(isinstance(packet, Goodbye) for packet in packets)
        for report in reports:
            if isinstance(report, SenderReport):
                self._last_sr = (report.ssrc, report.ntp >> 16 & 0xFFFFFFFF, now)
                self.remote_packets = report.packets
        if reports:
            ours = [block for report in reports for block in report.blocks if block.ssrc == sender.ssrc]
            self._take(ours[0] if ours else None, sender, now)

    def _take(self, block: ReportBlock | None, sender: SenderInfo, now: float) -> None:
        before = self.remote
        if sender.packets - self._sent_before >= ENOUGH_SENT:
            self._sent_before = sender.packets
            nothing_new = block is None or block.fraction_lost == 255
            if block is not None and before is not None and block.highest_sequence == before.highest_sequence:
                nothing_new = True
            self.stalled = self.stalled + 1 if nothing_new else 0
        elif block is not None and (before is None or block.highest_sequence != before.highest_sequence):
            self.stalled = 0
        if block is None:
            return
        self.remote = RemoteView(
            at=now,
            fraction_lost=block.fraction_lost / 256,
            lost=block.lost,
            highest_sequence=block.highest_sequence,
            jitter_ms=block.jitter * 1000 / sender.clock_rate,
        )
        if block.last_report:
            compact = self._ntp(now) >> 16 & 0xFFFFFFFF
            trip = compact - block.last_report - block.delay_since & 0xFFFFFFFF
            # The far end may count its delay a little too long: a trip just below nothing is none.
            trip_s = 0.0 if trip > 0xFFFF0000 else trip / 65536
            if trip_s < LONGEST_TRIP_S:
                self.round_trip_ms = trip_s * 1000
