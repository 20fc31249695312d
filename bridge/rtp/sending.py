"""What a session sends: the playout's frames, coded and cut into packets as long as the far end wants; and digits."""

import secrets

from bridge.audio.codec import Codec
from bridge.audio.frames import FRAME_MS
from bridge.audio.playout import Playout
from bridge.audio.resample import FrameResampler
from bridge.rtp.dtmf import DtmfSender
from bridge.rtp.events import SenderInfo
from bridge.rtp.format import RtpFormat
from bridge.rtp.packet import MARKER, MASK_16, MASK_32, pack_header


class RtpSender:
    """Sans-IO: a tick each 20 ms in, packets out. The playout's rate stays, whatever the codec's is."""

    def __init__(self, format: RtpFormat, playout: Playout, now: float) -> None:
        self.playout = playout
        self.ssrc = secrets.randbits(32)
        self.sent = 0
        """Packets so far, of all SSRCs."""
        self.further: list[bytes] = []
        """What the last tick sent after the packet it returned; emptied by whoever sends it."""
        self.withheld = False
        """On hold: nothing is sent."""
        self._timestamp = secrets.randbits(32)
        self._sequence = _first_sequence()
        self._sent_before = 0
        self._octets = 0
        self._ticked_at = now
        self._mark = MARKER
        self._codec: Codec | None = None
        self._event_rate = 0
        self._resampler: FrameResampler | None = None
        self._pending = b""
        """PCM at the codec's rate that waits until a packet is full; it ends where the next tick begins."""
        self._plain = True
        """A frame is a packet, and the same frame the same payload."""
        self._last_pcm = b""
        self._last_payload = b""
        """What was encoded last: silence is the same object each tick."""
        self._set_format(format)

    def _set_format(self, format: RtpFormat) -> None:
        self._payload_type = format.payload_type
        self._event_type = format.dtmf_payload_type
        event_rate = format.dtmf_clock_rate or format.codec.clock_rate
        if event_rate != self._event_rate:
            self._event_rate = event_rate
            self._dtmf = DtmfSender(event_rate)
        if self._codec != format.codec:
            self._set_codec(format.codec)
        self._packet_bytes = self._bytes_per_second * format.packet_ms // 1000
        self._plain = format.packet_ms == FRAME_MS and not format.codec.stateful and self._resampler is None
        self._last_pcm = b""

    def _set_codec(self, codec: Codec) -> None:
        if self._codec is not None and self._codec.clock_rate != codec.clock_rate:
            # One SSRC has one clock (RFC 7160 4.1).
            self.ssrc = secrets.randbits(32)
            self._sequence = _first_sequence()
            self._timestamp = secrets.randbits(32)
            self._sent_before = self.sent
            self._octets = 0
        self._codec = codec
        self._clock_rate = codec.clock_rate
        self._encode = codec.encoder()
        self._step = codec.clock_rate * FRAME_MS // 1000
        self._bytes_per_second = 2 * codec.sample_rate
        rates = self.playout.sample_rate, codec.sample_rate
        self._resampler = FrameResampler(*rates) if rates[0] != rates[1] else None
        self._pending = b""
        self._mark = MARKER

    def change(self, format: RtpFormat) -> None:
        """Send this from the next tick on. What of another codec is not sent yet, less than a packet, is dropped."""
        self._pending = b""
        self._set_format(format)

    def queue_dtmf(self, digits: str, *, tone_ms: int, gap_ms: int) -> None:
        """Send digits in the place of audio. Raises ValueError for another character."""
        self._dtmf.queue(digits, tone_ms=tone_ms, gap_ms=gap_ms)

    @property
    def info(self) -> SenderInfo:
        return SenderInfo(
            ssrc=self.ssrc,
            packets=self.sent - self._sent_before,
            octets=self._octets,
            timestamp=self._timestamp,
            at=self._ticked_at,
            clock_rate=self._clock_rate,
        )

    def withhold(self, on: bool) -> None:
        self.withheld = on
        if on:
            self._mark = MARKER
            self._pending = b""

    # -- each tick ------------------------------------------------------------------------------------------

    def tick(self, now: float, reachable: bool) -> bytes | None:
        """The tick's packet, or None; more than one go on in `further`. Nothing is sent if nobody is `reachable`."""
        self._timestamp = timestamp = (self._timestamp + self._step) & MASK_32
        self._ticked_at = now
        if self.withheld or self._dtmf.busy:
            packets = self._tick_without_playout(now, timestamp)
        else:
            pcm = self.playout.take(now)
            if self._plain:
                if pcm is not self._last_pcm:
                    self._last_pcm = pcm
                    encode = self._encode
                    self._last_payload = encode(pcm)
                if not reachable:
                    return None
                second = self._payload_type | self._mark
                self._mark = 0
                # As `_packet` does: a call less for each packet of nearly every stream.
                payload = self._last_payload
                self._sequence = sequence = (self._sequence + 1) & MASK_16
                self.sent += 1
                self._octets += len(payload)
                return pack_header(0x80, second, sequence, timestamp, self.ssrc) + payload
            packets = self._cut(pcm, timestamp)
        if not reachable:
            self._mark = MARKER
        if not reachable or not packets:
            return None
        first = self._packet(*packets[0])
        for packet in packets[1:]:
            self.further.append(self._packet(*packet))
        return first

    def _tick_without_playout(self, now: float, timestamp: int) -> list[tuple[int, int, bytes]]:
        silence = self.playout.withhold(now)
        if self.withheld:
            self._dtmf.clear()
            return []
        event = self._dtmf.next(timestamp)
        if event is None or self._event_type is None:
            return self._cut(silence, timestamp)
        packets = self._flush(timestamp)
        packets.append((self._event_type | (MARKER if event.first else 0), event.timestamp, event.payload))
        self._mark = MARKER
        return packets

    def _cut(self, pcm: bytes, timestamp: int) -> list[tuple[int, int, bytes]]:
        """The packets that are full with this frame, which begins at `timestamp`."""
        if self._resampler is not None:
            pcm = self._resampler.convert(pcm)
        timestamp -= self._ticks(self._pending)
        pcm = self._pending + pcm
        size = self._packet_bytes
        packets: list[tuple[int, int, bytes]] = []
        while len(pcm) >= size:
            self._add(packets, pcm[:size], timestamp)
            timestamp += self._ticks(pcm[:size])
            pcm = pcm[size:]
        self._pending = pcm
        return packets

    def _flush(self, timestamp: int) -> list[tuple[int, int, bytes]]:
        """What waits for a packet to be full, as a shorter one: something else follows at `timestamp`."""
        packets: list[tuple[int, int, bytes]] = []
        if self._pending:
            self._add(packets, self._pending, timestamp - self._ticks(self._pending))
            self._pending = b""
        return packets

    def _add(self, packets: list[tuple[int, int, bytes]], pcm: bytes, timestamp: int) -> None:
        payload = self._encode(pcm)
        if payload:
            packets.append((self._payload_type | self._mark, timestamp & MASK_32, payload))
            self._mark = 0
        else:
            # The codec sends nothing in silence: the next packet begins a talkspurt (RFC 3551 4.1).
            self._mark = MARKER

    def _ticks(self, pcm: bytes) -> int:
        """Of the RTP clock, in PCM of the codec's rate."""
        return len(pcm) * self._clock_rate // self._bytes_per_second

    def _packet(self, second: int, timestamp: int, payload: bytes) -> bytes:
        self._sequence = sequence = (self._sequence + 1) & MASK_16
        self.sent += 1
        self._octets += len(payload)
        return pack_header(0x80, second, sequence, timestamp, self.ssrc) + payload


def _first_sequence() -> int:
    """In the lower half: SRTP's receiver must not meet the first wrap before its first packet (RFC 3711 3.3.1)."""
    return secrets.randbits(15)
