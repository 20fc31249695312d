"""How one leg's media is doing: loss, delay and MOS both ways, and the one-way call found and named.

Looked at twice a second, reckoned every five: nothing here runs for each packet.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from bridge.events import OneWay, OneWayAudio
from bridge.legs.base import MediaQuality
from bridge.rtp.emodel import Impairment, burst_ratio, impairment_of, mos, rating
from bridge.rtp.latch import Address
from bridge.rtp.rtcp_session import RemoteView, RtcpSession
from bridge.rtp.session import Direction, RtpSession
from bridge.rtp.srtp import Srtp

WINDOW_S = 5.0
"""What one rating is of; the call's is their mean, weighted by packets."""

SILENT_S = 5.0
"""Without a packet, until the far end counts as not heard, if nothing else is said."""

UNDECIPHERABLE_S = 3.0
"""Of packets that can't be decrypted, until it is told."""

FEWEST_REFUSED = 25
"""Packets refused in a row, before it is the key and not a stray packet."""

DIGITAL_SILENCE_S = 30.0
"""Of frames that are all zero: a microphone, however quiet its room, gives none for so long. A person who listens
behind a noise gate may for a while."""

STALLED_REPORTS = 2
STALLED_REPORTS_AT_FIRST = 3
"""Reports of the far end without progress; more of them where it has never mentioned us: a few never report on
anybody."""

UNREACHABLE_S = 3.0
"""From the first ICMP error in a row of them to the last: a far end that opens its port a little late is none."""

RECENT_S = 2.0

_WHY: Mapping[str, str] = {
    "stranger": "from an address that is not the far side's",
    "payload-type": "of a payload type that was not agreed on",
    "malformed": "no RTP",
}

FAR_BUFFER_MS = 40.0
"""What the far end's jitter buffer is taken to be, at least."""


class Edge(Protocol):
    """What is asked of the endpoint."""

    @property
    def rtcp(self) -> RtcpSession | None: ...

    @property
    def srtp(self) -> Srtp | None: ...

    @property
    def unreachable(self) -> int: ...


@dataclass(slots=True)
class _Mean:
    """A mean of ratings, weighted."""

    total: float = 0.0
    weight: float = 0.0

    def add(self, value: float, weight: float) -> None:
        self.total += value * weight
        self.weight += weight

    @property
    def mos(self) -> float | None:
        return mos(self.total / self.weight) if self.weight else None


class QualityWatch:
    """Sans-IO: `look` is called about twice a second."""

    def __init__(
        self,
        session: RtpSession,
        edge: Edge,
        *,
        codec: str,
        ptime_ms: float,
        now: float,
        on_one_way: Callable[[OneWayAudio], None],
        silent_s: float = SILENT_S,
    ) -> None:
        """`codec` is the encoding name; `ptime_ms` how much audio a packet holds; after `silent_s` without a packet
        the far end counts as not heard."""
        self.one_way: OneWay | None = None
        """What is wrong now."""
        self._answered = False
        """Before, the far end need not send, nor take what we send."""
        self._session = session
        self._edge = edge
        self._codec = codec
        self._impairment: Impairment = impairment_of(codec)
        self._ptime_ms = ptime_ms
        self._on_one_way = on_one_way
        self._silent_s = silent_s
        self._told: set[OneWay] = set()
        self._window_began = now
        self._window = session.quality
        self._rating = _Mean()
        self._remote_rating = _Mean()
        self._report_at = 0.0
        """When the last report that was rated came."""
        self._sent_at_report = 0
        self._direction = session.direction
        self._flowing_since = now
        """Since when both sides are meant to send."""
        self._zero_since = now
        self._heard_sound = False
        self._unreachable = 0
        self._unreachable_at = self._unreachable_since = float("-inf")
        self._refused_since: float | None = None

    def answered(self, now: float) -> None:
        """The call is up: from now on audio should flow."""
        self._answered = True
        self._flowing_since = self._zero_since = now

    def agreed(self, *, codec: str, ptime_ms: float) -> None:
        """A re-INVITE changed the session."""
        self._codec = codec
        self._impairment = impairment_of(codec)
        self._ptime_ms = ptime_ms

    # -- each look ------------------------------------------------------------------------------------------

    def look(self, now: float, frame: bytes) -> None:
        """Find what is one-way; rate the window when it is full. `frame` is the last that was played to listeners: a
        sample of what is heard."""
        self._heard_sound = frame.count(0) != len(frame)
        direction = self._session.direction
        if direction is not self._direction:
            self._direction = direction
            self._flowing_since = self._zero_since = now
            self._refused_since = None
        found = self._find_one_way(now) if self._answered else None
        self.one_way = found.reason if found else None
        if found is not None and found.reason not in self._told:
            self._told.add(found.reason)
            self._on_one_way(found)
        if now - self._window_began >= WINDOW_S:
            self._rate_window(now)
        self._rate_report()

    def finish(self, now: float) -> None:
        """The call is over: rate what is left."""
        self._rate_window(now)
        self._rate_report()

    # -- one-way audio --------------------------------------------------------------------------------------

    def _find_one_way(self, now: float) -> OneWayAudio | None:
        direction = self._session.direction
        # Nothing is amiss where the one who holds us sends no music, or silence for it.
        if direction is Direction.SENDRECV:
            found = self._undecipherable(now) or self._not_heard(now) or self._digital_silence(now)
            if found is not None:
                return found
        if direction.sends:
            return self._not_arriving(now)
        return None

    def _undecipherable(self, now: float) -> OneWayAudio | None:
        srtp = self._edge.srtp
        if srtp is None or srtp.refused_in_a_row < FEWEST_REFUSED:
            self._refused_since = None
            return None
        if self._refused_since is None:
            self._refused_since = now
        if now - self._refused_since < UNDECIPHERABLE_S:
            return None
        return OneWayAudio(
            OneWay.UNDECIPHERABLE,
            f"{srtp.refused_in_a_row} packets in a row do not fit the far side's key for {srtp.suite}",
        )

    def _not_heard(self, now: float) -> OneWayAudio | None:
        silent_s = self._session.silent_ms(now) / 1000
        if silent_s < self._silent_s:
            return None
        quality = self._session.quality
        parts = [f"RTP stopped {silent_s:.0f} s ago" if quality.packets_received else "no RTP ever came"]
        rtcp = self._edge.rtcp
        if rtcp is not None and rtcp.remote_packets is not None:
            parts.append(f"by its own reports the far side sent {rtcp.remote_packets} packets")
        parts += [f"{count} packets refused: {_WHY[why]}" for why, count in quality.rejected.items() if why in _WHY]
        return OneWayAudio(OneWay.NOT_HEARD, "; ".join(parts))

    def _digital_silence(self, now: float) -> OneWayAudio | None:
        if self._heard_sound or self._session.silent_ms(now) >= RECENT_S * 1000:
            self._zero_since = now
        if now - self._zero_since < DIGITAL_SILENCE_S:
            return None
        return OneWayAudio(
            OneWay.NOT_HEARD, f"RTP comes, with nothing but digital silence for {now - self._zero_since:.0f} s"
        )

    def _not_arriving(self, now: float) -> OneWayAudio | None:
        destination = self._session.destination
        if destination is None:
            return None
        if self._refused_by_network(now):
            return OneWayAudio(
                OneWay.NOT_ARRIVING, f"nobody takes RTP at {_shown(destination)}: ICMP says it is unreachable"
            )
        rtcp = self._edge.rtcp
        if rtcp is None or now - self._flowing_since < self._silent_s:
            return None
        if rtcp.remote is None:
            if rtcp.stalled < STALLED_REPORTS_AT_FIRST:
                return None
            what = f"the far side sent {rtcp.stalled} reports, and none mentions our audio"
        else:
            if rtcp.stalled < STALLED_REPORTS:
                return None
            what = f"by the far side's last {rtcp.stalled} reports nothing more of ours came"
        return OneWayAudio(OneWay.NOT_ARRIVING, f"{what}; we send to {_shown(destination)}")

    def _refused_by_network(self, now: float) -> bool:
        count = self._edge.unreachable
        if count != self._unreachable:
            if now - self._unreachable_at > RECENT_S:
                self._unreachable_since = now
            self._unreachable, self._unreachable_at = count, now
        lasting_s = self._unreachable_at - self._unreachable_since
        return now - self._unreachable_at <= RECENT_S and lasting_s >= UNREACHABLE_S

    # -- ratings --------------------------------------------------------------------------------------------

    def _rate_window(self, now: float) -> None:
        """What came since the last time, as the listener heard it."""
        before, counts = self._window, self._session.quality
        self._window_began, self._window = now, counts
        lost = max(0, counts.packets_lost - before.packets_lost)
        expected = counts.packets_received - before.packets_received + lost
        if expected <= 0:
            return
        repaired = (counts.recovered_ms - before.recovered_ms) / self._ptime_ms
        missed = max(0.0, lost + counts.packets_late - before.packets_late - repaired)
        delay_ms = counts.buffer_ms + self._ptime_ms + self._impairment.lookahead_ms + self._way_ms
        bursts = burst_ratio(lost, expected, counts.loss_bursts - before.loss_bursts)
        rated = rating(self._impairment, loss=missed / expected, delay_ms=delay_ms, burst_ratio=bursts)
        self._rating.add(rated, expected)

    def _rate_report(self) -> None:
        """What the far end says it got since its report before. Its buffer is not known, nor the bursts."""
        rtcp = self._edge.rtcp
        report = None if rtcp is None else rtcp.remote
        if report is None or report.at == self._report_at:
            return
        sent = self._session.sender.packets
        weight = sent - self._sent_at_report
        self._report_at, self._sent_at_report = report.at, sent
        if weight <= 0:
            return
        buffer_ms = max(FAR_BUFFER_MS, 2 * report.jitter_ms)
        delay_ms = buffer_ms + self._ptime_ms + self._impairment.lookahead_ms + self._way_ms
        rated = rating(self._impairment, loss=report.fraction_lost, delay_ms=delay_ms)
        self._remote_rating.add(rated, weight)

    @property
    def _way_ms(self) -> float:
        """One way through the network: half the round trip, nothing where that is not known."""
        rtcp = self._edge.rtcp
        return 0.0 if rtcp is None or rtcp.round_trip_ms is None else rtcp.round_trip_ms / 2

    # -- what it tells --------------------------------------------------------------------------------------

    @property
    def quality(self) -> MediaQuality:
        """Of the whole call so far."""
        counts = self._session.quality
        rtcp, srtp = self._edge.rtcp, self._edge.srtp
        report = None if rtcp is None else rtcp.remote
        expected = counts.packets_received + counts.packets_lost
        return MediaQuality(
            packets_received=counts.packets_received,
            packets_sent=counts.packets_sent,
            packets_lost=counts.packets_lost,
            packets_late=counts.packets_late,
            packets_rejected=counts.packets_rejected + (srtp.refused + srtp.replayed if srtp else 0),
            concealed_ms=counts.concealed_ms,
            jitter_ms=counts.jitter_ms,
            buffer_ms=counts.buffer_ms,
            loss_percent=100 * (counts.packets_lost + counts.packets_late) / expected if expected else 0.0,
            clock_drift_ppm=self._session.clock_drift_ppm,
            round_trip_ms=None if rtcp is None else rtcp.round_trip_ms,
            remote_loss_percent=None if report is None else self._remote_loss(report),
            remote_jitter_ms=None if report is None else report.jitter_ms,
            mos=self._rating.mos,
            mos_remote=self._remote_rating.mos,
            one_way=self.one_way or "",
            codec=self._codec,
            srtp="" if srtp is None else srtp.suite,
        )

    def _remote_loss(self, report: RemoteView) -> float:
        """Percent of what we had sent when the report came."""
        sent = self._sent_at_report
        return min(100.0, 100 * max(0, report.lost) / sent) if sent else 0.0


def _shown(address: Address) -> str:
    host = f"[{address[0]}]" if ":" in address[0] else address[0]
    return f"{host}:{address[1]}"
