"""What a session receives: payloads told apart by their type, into audio frames of the leg's rate, and digits."""

from collections.abc import Callable

from bridge.audio.codec import Codec, Decode
from bridge.audio.resample import FrameResampler
from bridge.rtp.dtmf import Digit, DtmfReceiver
from bridge.rtp.format import COMFORT_NOISE, RtpFormat, RtpLimits
from bridge.rtp.jitter import JitterBuffer


class RtpReceiver:
    """Sans-IO: packets of a trusted source in, a frame a tick out. Frames keep their rate, whatever codecs come."""

    def __init__(
        self, format: RtpFormat, sample_rate: int, limits: RtpLimits, on_digits: Callable[[list[Digit]], None]
    ) -> None:
        """`sample_rate`: Hz of the frames."""
        self.decoders: list[Decode | None] = [None] * 128
        """By payload type, of audio."""
        self.pressed = False
        """A key is down: `poll` is to be called."""
        self.suppressed = False
        """The last packet was comfort noise: the far end may send nothing while it is silent."""
        self._sample_rate = sample_rate
        self._limits = limits
        self._on_digits = on_digits
        self._codecs: dict[int, Codec] = {}
        self._noise: frozenset[int] = frozenset()
        self._events: dict[int, tuple[DtmfReceiver, int]] = {}
        """Receiver and clock rate (Hz) by payload type: one receiver for each rate."""
        self._late = 0
        self._concealed_ms = self._recovered_ms = 0.0
        self._restarts = 0
        """Counted by jitter buffers before this one."""
        self.take: Callable[[float], bytes]
        """The frame of a tick, whose time (s) it takes. Straight the buffer's where nothing is resampled."""
        self.jitter = self._open(format.codec)
        self.set_format(format)

    def set_format(self, format: RtpFormat) -> None:
        """What may come from now on. What came before goes on as it is, until the far end has changed too: a payload
        type keeps its meaning for the session's life (RFC 3264 8.3.2)."""
        codecs = {**self._codecs, **(format.receive or {format.payload_type: format.codec})}
        decoders: list[Decode | None] = [None] * 128
        for number, codec in codecs.items():
            going_on = self.decoders[number] if self._codecs.get(number) == codec else None
            decoders[number] = going_on or codec.decoder()
        self.decoders = decoders
        self._codecs = codecs
        self._noise = (self._noise | format.comfort_noise | {COMFORT_NOISE}) - codecs.keys()
        events = dict(format.dtmf_receive)
        if not events and format.dtmf_payload_type is not None:
            events[format.dtmf_payload_type] = format.dtmf_clock_rate or format.codec.clock_rate
        events = {number: rate for number, (_, rate) in self._events.items()} | events
        known = {rate: receiver for receiver, rate in self._events.values()}
        for rate in events.values():
            known.setdefault(rate, DtmfReceiver(rate))
        self._events = {n: (known[rate], rate) for n, rate in events.items() if n not in codecs}

    def knows(self, payload_type: int) -> bool:
        return self.decoders[payload_type] is not None or payload_type in self._events or payload_type in self._noise

    # -- packets in -----------------------------------------------------------------------------------------

    def turn_to(self, payload_type: int, sequence: int, ssrc: int) -> bool:
        """The payload type is another than that of the packet before. False: leave it, it was overtaken by one of
        another codec."""
        codec = self._codecs.get(payload_type)
        if codec is not None and (codec.clock_rate, codec.sample_rate) != self._rates:
            seen = self.jitter.timeline.sequences
            if ssrc == seen.ssrc and seen.is_behind(sequence):
                self._late += 1
                return False
            self.jitter = self._open(codec)
        self.suppressed = payload_type in self._noise
        return True

    def _open(self, codec: Codec) -> JitterBuffer:
        """A buffer for a codec of other rates; what is left in the former is given up."""
        limits = self._limits
        sequences = None
        if self._codecs:
            old = self.jitter
            sequences = old.timeline.sequences
            self._late += old.late
            self._concealed_ms += old.concealed_ms
            self._recovered_ms += old.recovered_ms
            self._restarts += old.restarts
        self._rates = (codec.clock_rate, codec.sample_rate)
        self._resampler = None
        if codec.sample_rate != self._sample_rate:
            self._resampler = FrameResampler(codec.sample_rate, self._sample_rate)
        jitter = JitterBuffer(
            codec.clock_rate,
            codec.sample_rate,
            min_delay_ms=limits.min_delay_ms,
            max_delay_ms=limits.max_delay_ms,
            sequences=sequences,
        )
        self.take = jitter.take if self._resampler is None else self._take_resampled
        return jitter

    def take_other(
        self, payload_type: int, sequence: int, timestamp: int, ssrc: int, payload: bytes, arrival: float
    ) -> None:
        """A packet without audio that `knows` knows: an event, or comfort noise."""
        event = self._events.get(payload_type)
        if event is None:
            self.jitter.push_noise(sequence, timestamp, ssrc, payload)
            return
        receiver, rate = event
        if rate == self._rates[0]:
            self.jitter.push_pause(sequence, timestamp, ssrc)
        else:
            self.jitter.push_untimed(sequence, ssrc)
        digits = receiver.receive(payload, timestamp, arrival)
        self.pressed = self.pressed or receiver.pressed
        self._on_digits(digits)

    # -- each tick ------------------------------------------------------------------------------------------

    def _take_resampled(self, now: float) -> bytes:
        assert self._resampler is not None
        return self._resampler.convert(self.jitter.take(now))

    def poll(self, now: float) -> None:
        """While a key is pressed: the end of a digit may have got lost."""
        receivers = {id(receiver): receiver for receiver, _ in self._events.values()}.values()
        for receiver in receivers:
            self._on_digits(receiver.poll(now))
        self.pressed = any(receiver.pressed for receiver in receivers)

    # -- what it counted ------------------------------------------------------------------------------------

    @property
    def late(self) -> int:
        return self._late + self.jitter.late

    @property
    def concealed_ms(self) -> float:
        return self._concealed_ms + self.jitter.concealed_ms

    @property
    def recovered_ms(self) -> float:
        return self._recovered_ms + self.jitter.recovered_ms

    @property
    def restarts(self) -> int:
        return self._restarts + self.jitter.restarts
