"""One leg's RTP stream, both ways, without I/O: datagrams and ticks go in; frames, events and packets come out."""

from collections import Counter
from collections.abc import Callable

from bridge.audio.frames import FrameSink, Unsubscribe
from bridge.audio.playout import Playout
from bridge.rtp.dtmf import Digit
from bridge.rtp.events import (
    DigitReceived,
    MediaResumed,
    MediaSilent,
    MediaTimedOut,
    Reception,
    RtpEvent,
    RtpQuality,
    SenderInfo,
    SourceChanged,
)
from bridge.rtp.format import COMFORT_NOISE, DEFAULT_LIMITS, Direction, RtpFormat, RtpLimits
from bridge.rtp.latch import Address, SourceLatch
from bridge.rtp.packet import RtpError, is_rtcp, payload_bounds, unpack_header
from bridge.rtp.receiving import RtpReceiver
from bridge.rtp.sending import RtpSender

__all__ = [
    "COMFORT_NOISE",
    "DEFAULT_LIMITS",
    "DigitReceived",
    "Direction",
    "MediaResumed",
    "MediaSilent",
    "MediaTimedOut",
    "Reception",
    "RtpEvent",
    "RtpFormat",
    "RtpLimits",
    "RtpQuality",
    "RtpSession",
    "SenderInfo",
    "SourceChanged",
]
"""All that a session's owner needs."""


class RtpSession:
    """Not thread-safe. Nothing that comes from the network raises."""

    def __init__(
        self,
        format: RtpFormat,
        playout: Playout,
        *,
        remote: Address | None,
        now: float,
        on_event: Callable[[RtpEvent], None],
        direction: Direction = Direction.SENDRECV,
        limits: RtpLimits = DEFAULT_LIMITS,
        symmetric: bool = True,
    ) -> None:
        """`remote` is the address in the far end's SDP, None while it is not known (a late offer): then nothing is
        sent until a source proved itself. Frames have the playout's sample rate, both ways, whatever codec is agreed
        on now or later: give it the first codec's, and nothing need be resampled. The first media is awaited from
        `now` on."""
        self.playout = playout
        self.format = format
        self.latch = SourceLatch(remote, symmetric=symmetric)
        self.destination = remote
        """Where the next packet goes; None: not known yet."""
        self.sample_rate = playout.sample_rate
        self._limits = limits
        self._on_event = on_event
        self._receiver = RtpReceiver(format, playout.sample_rate, limits, self._tell_digits)
        self._sender = RtpSender(format, playout, now)
        self.further = self._sender.further
        """Packets of the last tick beyond the one that it returned (10 ms each); who sends them empties the list."""
        self._decoders = self._receiver.decoders
        self._payload_type = -1
        """Of the last packet taken."""
        self.sinks: list[FrameSink] = []
        """Given each tick's frame, concealed or silent where nothing came. Put another list in its place, do not
        change it: a tick may be going through it."""
        self.frame = b""
        """The last that they were given."""
        self._established: Address | None = None
        """The source, once others' packets need no second look."""
        self._rejected: Counter[str] = Counter()
        self._direction = direction
        self._receives = direction.receives
        self._sender.withhold(not direction.sends)
        self._ever_heard = False
        self._heard_at = now
        self._wait = 0.0
        """Silence (s) at which the next thing is to be told; infinite while none is expected."""
        self._noticed = self._timed_out = False
        self._next_wait()

    # -- the leg's side -------------------------------------------------------------------------------------

    def listen(self, sink: FrameSink) -> Unsubscribe:
        """Give `sink` each tick's frame, too."""
        self.sinks = [*self.sinks, sink]

        def unsubscribe() -> None:
            self.sinks = [s for s in self.sinks if s is not sink]

        return unsubscribe

    def update(
        self,
        now: float,
        *,
        format: RtpFormat | None = None,
        remote: Address | None = None,
        direction: Direction | None = None,
    ) -> None:
        """What a re-INVITE (or a late answer) changed. Sequence and timestamps go on, except that a codec of another
        clock rate begins with an SSRC of its own."""
        if format is not None and format != self.format:
            self.format = format
            self._sender.change(format)
            self._receiver.set_format(format)
            self._decoders = self._receiver.decoders
            self._payload_type = -1
        if remote is not None:
            self.latch.resignal(remote, now)
            self._follow_latch()
        if direction is not None and direction != self._direction:
            self._direction = direction
            self._receives = direction.receives
            self._sender.withhold(not direction.sends)
            if not self._receives:
                self._receiver.jitter.reset()
            self._heard_at = now
            self._noticed = self._timed_out = False
            self._next_wait()

    def await_media(self, now: float) -> None:
        """Wait for packets as from the start: what came before, or failed to, was early media."""
        self._heard_at = now
        self._ever_heard = self._noticed = self._timed_out = False
        self._next_wait()

    def relatch(self) -> None:
        """Take the media's source as unknown again."""
        self.latch.relatch()
        self._follow_latch()

    def _follow_latch(self) -> None:
        self._established = self.latch.source if self.latch.established else None
        self.destination = self.latch.destination

    def send_dtmf(self, digits: str, *, tone_ms: int = 120, gap_ms: int = 80) -> None:
        """Queue digits (0-9 * # A-D); the playout waits meanwhile.

        Raises ValueError for another character, or if the far end takes no telephone events."""
        if self.format.dtmf_payload_type is None:
            raise ValueError("the far end takes no telephone events")
        self._sender.queue_dtmf(digits, tone_ms=tone_ms, gap_ms=gap_ms)

    @property
    def can_send_dtmf(self) -> bool:
        return self.format.dtmf_payload_type is not None

    @property
    def direction(self) -> Direction:
        return self._direction

    @property
    def ssrc(self) -> int:
        """Of what we send now."""
        return self._sender.ssrc

    def silent_ms(self, now: float) -> float:
        """Since the last valid packet, or the start (or the end of a hold)."""
        return max(0.0, now - self._heard_at) * 1000

    @property
    def quality(self) -> RtpQuality:
        receiver = self._receiver
        timeline = receiver.jitter.timeline
        rejected = dict(self._rejected)
        return RtpQuality(
            packets_received=timeline.sequences.received,
            packets_sent=self._sender.sent,
            packets_lost=timeline.sequences.lost,
            packets_late=receiver.late,
            packets_rejected=sum(rejected.values()) - rejected.get("rtcp", 0),
            concealed_ms=round(receiver.concealed_ms),
            jitter_ms=timeline.jitter_ms,
            buffer_ms=receiver.jitter.delay_ms,
            rejected=rejected,
            loss_bursts=timeline.sequences.gaps,
            recovered_ms=round(receiver.recovered_ms),
            restarts=receiver.restarts,
        )

    @property
    def spare_ms(self) -> float | None:
        """By how much the last frame was played later than aimed for (`JitterBuffer.spare_ms`)."""
        return self._receiver.jitter.spare_ms

    @property
    def clock_drift_ppm(self) -> float | None:
        """By how much the far end's clock is faster than ours; None until it has been heard for half a minute."""
        return self._receiver.jitter.timeline.drift.ppm

    @property
    def reception(self) -> Reception | None:
        """For RTCP: what came of the present source; None before the first packet."""
        timeline = self._receiver.jitter.timeline
        seen = timeline.sequences
        if seen.ssrc < 0:
            return None
        return Reception(
            ssrc=seen.ssrc,
            highest_sequence=seen.highest,
            expected=seen.expected,
            received=seen.received_now,
            jitter=timeline.jitter,
            clock_rate=timeline.tick_rate,
        )

    @property
    def sender(self) -> SenderInfo:
        """For RTCP: what we sent so far."""
        return self._sender.info

    # -- the network's side ---------------------------------------------------------------------------------

    def receive(self, data: bytes, address: Address, arrival: float) -> None:
        """One datagram, with the time (s, monotonic) at which it arrived."""
        if len(data) < 12:
            self._rejected["malformed"] += 1
            return
        first, second, sequence, timestamp, ssrc = unpack_header(data)
        if first & 0xC0 != 0x80:
            self._rejected["malformed"] += 1
            return
        payload_type = second & 0x7F
        decode = self._decoders[payload_type]
        if decode is None and not self._receiver.knows(payload_type):
            self._rejected["rtcp" if is_rtcp(data) else "payload-type"] += 1
            return
        if first == 0x80:
            payload = data[12:]
        else:
            try:
                start, end = payload_bounds(data)
            except RtpError:
                self._rejected["malformed"] += 1
                return
            payload = data[start:end]
        if address != self._established and not self._admit(address, ssrc, sequence, arrival):
            self._rejected["stranger"] += 1
            return
        self._heard_at = arrival
        if self._noticed or not self._ever_heard:
            self._heard_again()
        if not self._receives:
            return
        if payload_type != self._payload_type and not self._turn_to(payload_type, sequence, ssrc):
            return
        if decode is None:
            self._receiver.take_other(payload_type, sequence, timestamp, ssrc, payload, arrival)
        else:
            self._receiver.jitter.push(sequence, timestamp, ssrc, payload, decode, arrival)

    def _turn_to(self, payload_type: int, sequence: int, ssrc: int) -> bool:
        if not self._receiver.turn_to(payload_type, sequence, ssrc):
            return False
        self._payload_type = payload_type
        self._next_wait()
        return True

    def _admit(self, address: Address, ssrc: int, sequence: int, arrival: float) -> bool:
        latch = self.latch
        before = latch.source
        if not latch.admit(address, ssrc, sequence, arrival, self._heard_at):
            return False
        self._follow_latch()
        if before != latch.source:
            self._on_event(SourceChanged(address))
        return True

    def _heard_again(self) -> None:
        noticed = self._noticed
        self._ever_heard = True
        self._noticed = self._timed_out = False
        self._next_wait()
        if noticed:
            self._on_event(MediaResumed())

    # -- the clock's side -----------------------------------------------------------------------------------

    def tick(self, now: float) -> bytes | None:
        """One step of 20 ms: listeners get a frame, the playout gives one. Returns the packet to send to
        `destination`, or None: on hold, nobody to send to, or a packet that is not full yet. `further` has more."""
        receiver = self._receiver
        take = receiver.take
        self.frame = frame = take(now)
        for sink in self.sinks:
            sink(frame, now)
        if now - self._heard_at > self._wait:
            self._tell_silence(now)
        if receiver.pressed:
            receiver.poll(now)
        return self._sender.tick(now, self.destination is not None)

    def _tell_silence(self, now: float) -> None:
        silent_ms = round((now - self._heard_at) * 1000)
        if not self._noticed:
            self._noticed = True
            self._next_wait()
            self._on_event(MediaSilent(silent_ms))
        elif not self._timed_out:
            self._timed_out = True
            self._next_wait()
            self._on_event(MediaTimedOut(silent_ms, self._ever_heard))

    def _next_wait(self) -> None:
        limits = self._limits
        # Who holds us need not send music, and many a phone says `sendonly` and sends nothing.
        if self._direction is not Direction.SENDRECV or self._timed_out:
            self._wait = float("inf")
            return
        limit = limits.media_s if self._ever_heard else limits.first_media_s
        notice = limits.notice_s
        if self._receiver.suppressed:
            limit = notice = max(limit, limits.suppressed_s)
        self._wait = limit if self._noticed else min(notice, limit)

    def _tell_digits(self, digits: list[Digit]) -> None:
        for digit in digits:
            self._on_event(DigitReceived(digit.digit, digit.duration_ms))
