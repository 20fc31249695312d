"""The media of legs that speak RTP: a stream is a port pair, a session and a playout on the media clock."""

import ipaddress
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from bridge.audio.clock import MediaClock
from bridge.audio.codec import Codec as AudioCodec
from bridge.audio.codec import find_codec
from bridge.audio.frames import FrameSink, Unsubscribe
from bridge.audio.phase import PhaseFinder
from bridge.audio.playout import Playout
from bridge.events import DtmfReceived, LegEvent, MediaLost, OneWayAudio
from bridge.legs.base import LegError, LegStateError, MediaQuality, NotCapableError
from bridge.legs.media_quality import QualityWatch
from bridge.rtp.endpoint import RtpEndpoint, Tap
from bridge.rtp.mux import RtpMux
from bridge.rtp.ports import PortPair, PortPool, PortsError
from bridge.rtp.rtcp_session import RtcpSession
from bridge.rtp.session import (
    DigitReceived,
    Direction,
    MediaSilent,
    MediaTimedOut,
    RtpEvent,
    RtpFormat,
    RtpLimits,
    RtpSession,
)
from bridge.rtp.settings import RtpSettings
from bridge.sip.offer_answer import Codec, Negotiated


class MediaUnavailableError(LegError):
    """No RTP port is free."""


@dataclass(frozen=True, slots=True)
class MediaExpired:
    """No RTP came for longer than the limit: the leg is to end."""

    detail: str


@dataclass(frozen=True, slots=True)
class MediaCrashed:
    """This stream's code failed and was taken off the clock: the leg is to end, the others go on."""

    detail: str


StreamEvent = LegEvent | MediaExpired | MediaCrashed


class MediaPlane:
    """The process's RTP: its ports, its sockets, its place on the clock."""

    def __init__(self, clock: MediaClock, settings: RtpSettings, *, host: str = "0.0.0.0") -> None:
        self.clock = clock
        self.limits = RtpLimits(first_media_s=settings.first_media_timeout_s, media_s=settings.media_timeout_s)
        self.reports = settings.rtcp
        """Whether streams send and read RTCP."""
        self.rtcp_mux = settings.rtcp_mux
        """Whether it is to be offered on RTP's port."""
        self.mux = RtpMux()
        self.ports = PortPool(host, settings.port_min, settings.port_max)
        self._unsubscribe = clock.before_tick(self.mux.poll)

    def open(self) -> "MediaStream":
        """A stream with ports of its own, not yet running. Raises MediaUnavailableError."""
        try:
            pair = self.ports.allocate(self.clock.time())
        except PortsError as error:
            raise MediaUnavailableError(str(error)) from error
        return MediaStream(self, pair)

    def readings(self) -> Mapping[str, float]:
        """For the metrics: ports and streams now."""
        return {
            "rtp_streams": float(len(self.mux)),
            "rtp_ports_in_use": float(self.ports.in_use),
            "rtp_ports_capacity": float(self.ports.capacity),
            "rtp_receive_errors_total": float(self.mux.receive_errors),
        }

    def close(self) -> None:
        self._unsubscribe()
        self.mux.close()


class MediaStream:
    """One leg's media. `on_event` is set by its owner before `start`."""

    def __init__(self, plane: MediaPlane, pair: PortPair) -> None:
        self.on_event: Callable[[StreamEvent], None] = _ignore
        self._plane = plane
        self._pair = pair
        self._sinks: list[FrameSink] = []
        self._playout = Playout(8000)
        self._session: RtpSession | None = None
        self._endpoint: RtpEndpoint | None = None
        self._watch: QualityWatch | None = None
        self._phase: PhaseFinder | None = None
        self._quality = MediaQuality()
        self._tap: Tap | None = None
        self._started = False
        """The playout may be in use, so it stays, and its rate with it."""
        self._closed = False

    @property
    def port(self) -> int:
        return self._pair.port

    @property
    def sample_rate(self) -> int:
        return self._playout.sample_rate

    @property
    def playout(self) -> Playout:
        return self._playout

    @property
    def quality(self) -> MediaQuality:
        """Of what runs now, or of what ran last."""
        return self._quality if self._watch is None else self._watch.quality

    def tap(self, tap: Tap | None) -> None:
        """Show each RTP and RTCP packet of this leg to `tap`, in clear; None ends that."""
        self._tap = tap
        if self._endpoint is not None:
            self._endpoint.tap(tap)

    def prepare(self, codec: Codec) -> None:
        """Take the rate of the codec that is agreed on, before anybody uses the playout."""
        if not self._started and codec.sample_rate != self._playout.sample_rate:
            self._playout = Playout(codec.sample_rate)

    def listen(self, sink: FrameSink) -> Unsubscribe:
        self._set_sinks([*self._sinks, sink])

        def unsubscribe() -> None:
            self._set_sinks([s for s in self._sinks if s is not sink])

        return unsubscribe

    def start(self, agreed: Negotiated, *, reports: bool = True) -> None:
        """Send and receive from the next tick on. Without `reports` no RTCP is spoken, whatever the settings say: the
        far side is known to have none."""
        if self._closed or self._session is not None:
            raise LegStateError("the media is running already, or over")
        self.prepare(agreed.codec)
        self._started = True
        now = self._plane.clock.time()
        session = self._session = RtpSession(
            _format(agreed),
            self._playout,
            remote=_remote(agreed),
            now=now,
            on_event=self._on_rtp_event,
            direction=Direction(agreed.direction),
            limits=self._plane.limits,
        )
        session.sinks = self._sinks
        rtcp = None
        if reports and self._plane.reports:
            # The name says nothing of us, and is another for each session (RFC 7022).
            rtcp = RtcpSession(session, cname=secrets.token_urlsafe(12), now=now, unix_time=time.time())
        endpoint = self._endpoint = self._plane.mux.open(self._pair, session, self._crashed, rtcp=rtcp)
        endpoint.configure(now, rtcp_to=_remote_rtcp(agreed), rtcp_mux=agreed.rtcp_mux, srtp=agreed.srtp)
        endpoint.tap(self._tap)
        self._watch = QualityWatch(
            session,
            endpoint,
            codec=agreed.codec.name,
            ptime_ms=agreed.ptime_ms,
            now=now,
            on_one_way=self._on_one_way,
            silent_s=self._plane.limits.notice_s,
        )
        self._phase = PhaseFinder(partial(self._plane.clock.shift, endpoint), now)
        endpoint.observe = self._look
        self._plane.clock.add(endpoint, self._crashed)

    def update(self, agreed: Negotiated) -> None:
        """Go on as a re-INVITE has it. Frames keep their rate, whatever the codec's is now."""
        if self._session is None or self._endpoint is None or self._watch is None:
            return
        now = self._plane.clock.time()
        remote = None if agreed.held else _remote(agreed)
        self._session.update(now, format=_format(agreed), remote=remote, direction=Direction(agreed.direction))
        self._endpoint.configure(now, rtcp_to=_remote_rtcp(agreed), rtcp_mux=agreed.rtcp_mux, srtp=agreed.srtp)
        self._watch.agreed(codec=agreed.codec.name, ptime_ms=agreed.ptime_ms)

    def suspend(self) -> None:
        """Send nothing and expect nothing, until the next `update` or `start`."""
        if self._session is not None:
            self._session.update(self._plane.clock.time(), direction=Direction.INACTIVE)

    def hold(self, on: bool) -> None:
        """While the far party holds us nothing is sent, what is queued stays, and no media is expected; what comes
        all the same is heard."""
        if self._session is not None:
            direction = Direction.RECVONLY if on else Direction.SENDRECV
            self._session.update(self._plane.clock.time(), direction=direction)

    def await_media(self) -> None:
        """The call was answered: media that came before, or none, was early."""
        if self._session is not None and self._watch is not None:
            now = self._plane.clock.time()
            self._session.await_media(now)
            self._watch.answered(now)

    def take_over(self, other: "MediaStream") -> None:
        """Go on with the ports of `other`, which is over; ours are given back. Listeners and playout stay; `start`
        follows."""
        self._stop()
        other._stop()
        self._plane.ports.release(self._pair, self._plane.clock.time())
        self._pair = other._pair
        other._closed = True

    def send_dtmf(self, digits: str, *, tone_ms: int, gap_ms: int) -> None:
        if self._session is None:
            raise LegStateError("the media does not run")
        if not self._session.can_send_dtmf:
            raise NotCapableError("the far side takes no telephone-events")
        self._session.send_dtmf(digits, tone_ms=tone_ms, gap_ms=gap_ms)

    def close(self) -> None:
        """Off the clock, sockets closed, ports back in the pool. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._set_sinks([])
        self._stop()
        self._plane.ports.release(self._pair, self._plane.clock.time())

    # -- inside ---------------------------------------------------------------------------------------------

    def _stop(self) -> None:
        if self._watch is not None:
            self._watch.finish(self._plane.clock.time())
            self._quality = self._watch.quality
        if self._endpoint is not None:
            self._plane.clock.remove(self._endpoint)
            self._endpoint.leave()
        self._session = self._endpoint = self._watch = self._phase = None

    def _set_sinks(self, sinks: list[FrameSink]) -> None:
        # The session's own: a layer in between would be a call more for each frame.
        self._sinks = sinks
        if self._session is not None:
            self._session.sinks = sinks

    def _look(self, now: float) -> None:
        if self._session is not None and self._watch is not None and self._phase is not None:
            self._watch.look(now, self._session.frame)
            spare_ms = self._session.spare_ms
            spare_s = None if spare_ms is None else spare_ms / 1000
            playout, drift_ppm = self._playout, self._session.clock_drift_ppm
            joined = playout.blend is not None
            self._phase.look(now, spare_s, speaking=playout.speaking, joined=joined, drift_ppm=drift_ppm)

    def _on_one_way(self, event: OneWayAudio) -> None:
        self.on_event(event)

    def _on_rtp_event(self, event: RtpEvent) -> None:
        match event:
            case DigitReceived(digit=digit, duration_ms=duration_ms):
                self.on_event(DtmfReceived(digit, int(duration_ms)))
            case MediaSilent(silent_ms=silent_ms):
                self.on_event(MediaLost(int(silent_ms)))
            case MediaTimedOut(silent_ms=silent_ms, ever_received=ever_received):
                what = f"no RTP for {silent_ms / 1000:.0f} s" if ever_received else "no RTP ever came"
                self.on_event(MediaExpired(what))
            case _:
                pass

    def _crashed(self, error: Exception) -> None:
        self.on_event(MediaCrashed(f"{type(error).__name__}: {error}"))


def _format(agreed: Negotiated) -> RtpFormat:
    return RtpFormat(
        _audio_codec(agreed.codec, agreed.fmtp),
        agreed.payload_type,
        receive={number: _audio_codec(codec) for number, codec in agreed.receive.items()},
        dtmf_payload_type=agreed.dtmf_payload_type,
        dtmf_clock_rate=agreed.dtmf_clock_rate,
        dtmf_receive=agreed.dtmf_receive,
        comfort_noise=agreed.comfort_noise,
        ptime_ms=agreed.ptime_ms,
    )


def _audio_codec(codec: Codec, fmtp: str = "") -> AudioCodec:
    found = find_codec(codec.name, codec.clock_rate, fmtp)
    if found is None:
        raise LegError(f"there is no codec for {codec.rtpmap}")
    return found


def _remote(agreed: Negotiated) -> tuple[str, int] | None:
    """Where RTP goes; nowhere yet for a null address (a hold in the old way)."""
    return None if agreed.remote[0] in ("0.0.0.0", "::") else agreed.remote


def _remote_rtcp(agreed: Negotiated) -> tuple[str, int] | None:
    """Where reports go; the port behind RTP's for what is no address: a name would have to be looked up each time."""
    try:
        usable = not ipaddress.ip_address(agreed.remote_rtcp[0]).is_unspecified
    except ValueError:
        usable = False
    return agreed.remote_rtcp if usable else None


def _ignore(event: StreamEvent) -> None:
    """Until an owner listens."""
