"""One leg's RTP stream, both ways, without I/O: datagrams and ticks go in; frames, events and packets come out."""

import secrets
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum

from bridge.audio.codec import Codec, Decode
from bridge.audio.frames import FRAME_MS, FrameSink, Unsubscribe
from bridge.audio.playout import Playout
from bridge.rtp.dtmf import Digit, DtmfReceiver, DtmfSender
from bridge.rtp.jitter import MAX_DELAY_MS, MIN_DELAY_MS, JitterBuffer
from bridge.rtp.latch import Address, SourceLatch
from bridge.rtp.packet import MARKER, MASK_16, MASK_32, RtpError, is_rtcp, pack_header, payload_bounds, unpack_order

COMFORT_NOISE = 13
"""Static payload type (RFC 3389): the far end is silent."""


class Direction(Enum):
    """What our side of the SDP says (RFC 3264 5.1)."""

    SENDRECV = "sendrecv"
    SENDONLY = "sendonly"
    RECVONLY = "recvonly"
    INACTIVE = "inactive"

    @property
    def sends(self) -> bool:
        return self in (Direction.SENDRECV, Direction.SENDONLY)

    @property
    def receives(self) -> bool:
        return self in (Direction.SENDRECV, Direction.RECVONLY)


@dataclass(frozen=True, slots=True)
class RtpFormat:
    """What was negotiated: one codec that we send, those we take, and telephone events."""

    codec: Codec
    payload_type: int
    """Of what we send: the number the far end gave the codec."""
    receive: Mapping[int, Codec] = field(default_factory=dict)
    """Every payload type we named, and its codec; when empty, `payload_type` alone."""
    dtmf_payload_type: int | None = None
    """Of the events we send; None: the far end takes none."""
    dtmf_receive_payload_type: int | None = None
    """Of the events we take, when that is another number."""


@dataclass(frozen=True, slots=True)
class RtpLimits:
    """Waits of a session, in seconds."""

    first_media_s: float = 30.0
    """From the start until the first packet."""
    media_s: float = 20.0
    """Without a packet in mid-call."""
    notice_s: float = 5.0
    """Without a packet until it is worth telling."""
    min_delay_ms: int = MIN_DELAY_MS
    max_delay_ms: int = MAX_DELAY_MS
    """Bounds of the jitter buffer's delay."""


DEFAULT_LIMITS = RtpLimits()


@dataclass(frozen=True, slots=True)
class DigitReceived:
    digit: str
    duration_ms: int


@dataclass(frozen=True, slots=True)
class MediaSilent:
    """No packet came for a while; told once in each such pause."""

    silent_ms: int


@dataclass(frozen=True, slots=True)
class MediaResumed:
    """Packets come again after `MediaSilent`."""


@dataclass(frozen=True, slots=True)
class MediaTimedOut:
    """The limit is reached: end the leg. Told once, until packets come again."""

    silent_ms: int
    ever_received: bool


@dataclass(frozen=True, slots=True)
class SourceChanged:
    """Media is taken from, and sent to, this address from now on."""

    address: Address


RtpEvent = DigitReceived | MediaSilent | MediaResumed | MediaTimedOut | SourceChanged


@dataclass(frozen=True, slots=True)
class RtpQuality:
    """Counters since the start; the first eight are those of `MediaQuality`."""

    packets_received: int
    packets_sent: int
    packets_lost: int
    packets_late: int
    packets_rejected: int
    concealed_ms: int
    jitter_ms: float
    buffer_ms: float
    rejected: Mapping[str, int]
    """`packets_rejected` by reason: malformed, payload-type, stranger, rtcp (not counted as rejected)."""
    loss_bursts: int
    """Runs of lost packets."""


@dataclass(frozen=True, slots=True)
class Reception:
    """What a report block says of the source that is heard now (RFC 3550 6.4.1); counters begin anew with it."""

    ssrc: int
    highest_sequence: int
    """Extended by the number of wraps in its upper 16 bits."""
    expected: int
    """Packets, by sequence number."""
    received: int
    """Packets, duplicates not counted."""
    jitter: float
    """Interarrival jitter, in units of the RTP clock."""
    clock_rate: int
    """Hz of the RTP clock."""


@dataclass(frozen=True, slots=True)
class SenderInfo:
    """What a sender report says of our stream (RFC 3550 6.4.1)."""

    ssrc: int
    packets: int
    octets: int
    """Of payload."""
    timestamp: int
    """RTP timestamp of the tick at `at`, sent or not; it goes on by `clock_rate` a second."""
    at: float
    """Clock time (s, monotonic)."""
    clock_rate: int


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
        sent until a source proved itself. `playout` has the codec's sample rate. The first media is awaited from
        `now` on."""
        if playout.sample_rate != format.codec.sample_rate:
            raise ValueError(f"the playout has {playout.sample_rate} Hz and {format.codec.name} another rate")
        self.playout = playout
        self.latch = SourceLatch(remote, symmetric=symmetric)
        self.destination = remote
        """Where the next packet goes; None: not known yet."""
        self.ssrc = secrets.randbits(32)
        self.sample_rate = format.codec.sample_rate
        self._limits = limits
        self._on_event = on_event
        self._jitter = JitterBuffer(
            format.codec.clock_rate,
            format.codec.sample_rate,
            min_delay_ms=limits.min_delay_ms,
            max_delay_ms=limits.max_delay_ms,
        )
        self._sinks: list[FrameSink] = []
        self._established: Address | None = None
        """The source, once others' packets need no second look."""
        self._decoders: list[Decode | None] = [None] * 128
        self._event_type = -1
        self._rejected: Counter[str] = Counter()
        # The lower half only: SRTP's receiver must not meet the first wrap before its first packet (RFC 3711 3.3.1).
        self._sequence = secrets.randbits(15)
        self._timestamp = secrets.randbits(32)
        self._mark = MARKER
        self._sent = 0
        self._octets = 0
        self._ticked_at = now
        self._last_pcm = b""
        self._last_payload = b""
        """What was encoded last: silence is the same object each tick."""
        self._direction = direction
        self._receives = direction.receives
        self._withhold = not direction.sends
        self._ever_heard = False
        self._heard_at = now
        self._wait = 0.0
        """Silence (s) at which the next thing is to be told; infinite while none is expected."""
        self._noticed = self._timed_out = False
        self._receiver = DtmfReceiver(format.codec.clock_rate)
        self._sender = DtmfSender(format.codec.clock_rate)
        self._set_format(format)
        self._next_wait()

    def _set_format(self, format: RtpFormat) -> None:
        self.format = format
        codec = format.codec
        self._encode = codec.encoder()
        self._payload_type = format.payload_type
        self._step = codec.clock_rate * FRAME_MS // 1000
        self._last_pcm = b""
        self._decoders = [None] * 128
        for payload_type, received in (format.receive or {format.payload_type: codec}).items():
            if (received.sample_rate, received.clock_rate) == (codec.sample_rate, codec.clock_rate):
                self._decoders[payload_type] = received.decoder()
        event_type = format.dtmf_receive_payload_type
        if event_type is None:
            event_type = format.dtmf_payload_type
        self._event_type = -1 if event_type is None else event_type

    # -- the leg's side -------------------------------------------------------------------------------------

    def listen(self, sink: FrameSink) -> Unsubscribe:
        """Give `sink` each tick's frame, concealed or silent where nothing came."""
        self._sinks = [*self._sinks, sink]

        def unsubscribe() -> None:
            self._sinks = [s for s in self._sinks if s is not sink]

        return unsubscribe

    def update(
        self,
        now: float,
        *,
        format: RtpFormat | None = None,
        remote: Address | None = None,
        direction: Direction | None = None,
    ) -> None:
        """What a re-INVITE (or a late answer) changed. Sequence and timestamps go on.

        Raises ValueError for a codec of another sample or clock rate: frames have one rate for a leg's life."""
        if format is not None and format != self.format:
            old, new = self.format.codec, format.codec
            if (old.sample_rate, old.clock_rate) != (new.sample_rate, new.clock_rate):
                raise ValueError(
                    f"{old.name} at {old.sample_rate} Hz can't become {new.name} at {new.sample_rate} Hz"
                )
            self._set_format(format)
        if remote is not None:
            self.latch.resignal(remote, now)
            self._follow_latch()
        if direction is not None and direction != self._direction:
            self._direction = direction
            self._receives = direction.receives
            self._withhold = not direction.sends
            if self._withhold:
                self._mark = MARKER
            if not self._receives:
                self._jitter.reset()
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
        self._sender.queue(digits, tone_ms=tone_ms, gap_ms=gap_ms)

    @property
    def can_send_dtmf(self) -> bool:
        return self.format.dtmf_payload_type is not None

    @property
    def direction(self) -> Direction:
        return self._direction

    def silent_ms(self, now: float) -> float:
        """Since the last valid packet, or the start (or the end of a hold)."""
        return max(0.0, now - self._heard_at) * 1000

    @property
    def quality(self) -> RtpQuality:
        jitter = self._jitter
        rejected = dict(self._rejected)
        return RtpQuality(
            packets_received=jitter.timeline.received,
            packets_sent=self._sent,
            packets_lost=jitter.timeline.lost,
            packets_late=jitter.late,
            packets_rejected=sum(rejected.values()) - rejected.get("rtcp", 0),
            concealed_ms=round(jitter.concealed_ms),
            jitter_ms=jitter.timeline.jitter_ms,
            buffer_ms=jitter.delay_ms,
            rejected=rejected,
            loss_bursts=jitter.timeline.gaps,
        )

    @property
    def clock_drift_ppm(self) -> float | None:
        """By how much the far end's clock is faster than ours; None until that could be measured. Not for each tick:
        half a millisecond of reckoning."""
        return self._jitter.timeline.drift.ppm

    @property
    def reception(self) -> Reception | None:
        """For RTCP: what came of the present source; None before the first packet."""
        timeline = self._jitter.timeline
        if not timeline.started:
            return None
        return Reception(
            ssrc=timeline.heard_ssrc,
            highest_sequence=timeline.highest,
            expected=timeline.expected,
            received=timeline.received_now,
            jitter=timeline.jitter,
            clock_rate=timeline.clock_rate,
        )

    @property
    def sender(self) -> SenderInfo:
        """For RTCP: what we sent so far."""
        return SenderInfo(
            ssrc=self.ssrc,
            packets=self._sent,
            octets=self._octets,
            timestamp=self._timestamp,
            at=self._ticked_at,
            clock_rate=self.format.codec.clock_rate,
        )

    # -- the network's side ---------------------------------------------------------------------------------

    def receive(self, data: bytes, address: Address, arrival: float) -> None:
        """One datagram, with the time (s, monotonic) at which it arrived."""
        if len(data) < 12 or data[0] & 0xC0 != 0x80:
            self._rejected["malformed"] += 1
            return
        payload_type = data[1] & 0x7F
        decode = self._decoders[payload_type]
        if decode is None and payload_type != self._event_type and payload_type != COMFORT_NOISE:
            self._rejected["rtcp" if is_rtcp(data) else "payload-type"] += 1
            return
        if data[0] == 0x80:
            payload = data[12:]
        else:
            try:
                start, end = payload_bounds(data)
            except RtpError:
                self._rejected["malformed"] += 1
                return
            payload = data[start:end]
        sequence, timestamp, ssrc = unpack_order(data, 2)
        if address != self._established and not self._admit(address, ssrc, sequence, arrival):
            self._rejected["stranger"] += 1
            return
        self._heard_at = arrival
        if self._noticed or not self._ever_heard:
            self._heard_again()
        if not self._receives:
            return
        if decode is None:
            self._jitter.push_pause(sequence, timestamp, ssrc)
            if payload_type == self._event_type:
                self._tell_digits(self._receiver.receive(payload, timestamp, arrival))
        else:
            self._jitter.push(sequence, timestamp, ssrc, payload, decode, arrival)

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
        `destination`, or None: on hold, or nobody to send to."""
        frame = self._jitter.take(now)
        for sink in self._sinks:
            sink(frame, now)
        if now - self._heard_at > self._wait:
            self._tell_silence(now)
        if self._receiver.pressed:
            self._tell_digits(self._receiver.poll(now))
        self._timestamp = timestamp = (self._timestamp + self._step) & MASK_32
        self._ticked_at = now
        if self._withhold or self._sender.busy:
            return self._tick_without_playout(now, timestamp)
        pcm = self.playout.take(now)
        if pcm is not self._last_pcm:
            self._last_pcm = pcm
            self._last_payload = self._encode(pcm)
        return self._audio_packet(timestamp, self._last_payload)

    def _tick_without_playout(self, now: float, timestamp: int) -> bytes | None:
        silence = self.playout.withhold(now)
        if self._withhold:
            self._sender.clear()
            return None
        event = self._sender.next(timestamp)
        event_type = self.format.dtmf_payload_type
        if event is None or event_type is None:
            return self._audio_packet(timestamp, self._encode(silence))
        self._mark = MARKER
        return self._packet(event_type | (MARKER if event.first else 0), event.timestamp, event.payload)

    def _audio_packet(self, timestamp: int, payload: bytes) -> bytes | None:
        second = self._payload_type | self._mark
        self._mark = 0
        return self._packet(second, timestamp, payload)

    def _packet(self, second: int, timestamp: int, payload: bytes) -> bytes | None:
        if self.destination is None:
            return None
        self._sequence = sequence = (self._sequence + 1) & MASK_16
        self._sent += 1
        self._octets += len(payload)
        return pack_header(0x80, second, sequence, timestamp, self.ssrc) + payload

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
        limit = self._limits.media_s if self._ever_heard else self._limits.first_media_s
        if not self._receives or self._timed_out:
            self._wait = float("inf")
        elif self._noticed:
            self._wait = limit
        else:
            self._wait = min(self._limits.notice_s, limit)

    def _tell_digits(self, digits: list[Digit]) -> None:
        for digit in digits:
            self._on_event(DigitReceived(digit.digit, digit.duration_ms))
