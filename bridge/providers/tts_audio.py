"""What voices send on the wire, and how it becomes int16 PCM at the rate of the call."""

import audioop
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from bridge.audio.frames import BYTES_PER_SAMPLE, frame_bytes
from bridge.audio.resample import FrameResampler

Encoding = Literal["mulaw", "linear16"]

TELEPHONE_RATE = 8000

FILTER_MS = 4
"""The change of rate is late by about so much."""


@dataclass(frozen=True, slots=True)
class WireFormat:
    """Mono audio without a container."""

    encoding: Encoding
    rate_hz: int


def wire_format(sample_rate: int, linear_rates: Sequence[int]) -> WireFormat:
    """What to ask a vendor for, who has mu-law at 8000 Hz and linear PCM at `linear_rates` (ascending).

    Mu-law is what the telephone carries: half the bytes, and encoded again for the leg it is the same (G.711)."""
    if sample_rate == TELEPHONE_RATE:
        return WireFormat("mulaw", TELEPHONE_RATE)
    return WireFormat("linear16", next((rate for rate in linear_rates if rate >= sample_rate), linear_rates[-1]))


class WireDecoder:
    """Turns one utterance's bytes, cut anywhere, into int16 mono PCM at `sample_rate` (Hz)."""

    __slots__ = ("_frame", "_mulaw", "_odd", "_rate_hz", "_resampler", "_samples_in", "_samples_out", "sample_rate")

    def __init__(self, wire: WireFormat, sample_rate: int) -> None:
        self.sample_rate = sample_rate
        self._mulaw = wire.encoding == "mulaw"
        self._rate_hz = wire.rate_hz
        self._frame = frame_bytes(wire.rate_hz)
        # Frame by frame it takes a third of what other chunks do.
        self._resampler = None if wire.rate_hz == sample_rate else FrameResampler(wire.rate_hz, sample_rate)
        self._odd = b""
        """What is no whole sample yet, or no whole frame where the rate is changed."""
        self._samples_in = 0
        self._samples_out = 0

    def decode(self, data: bytes) -> bytes:
        """What can be said of the PCM so far; perhaps nothing yet."""
        pcm = self._odd + (audioop.ulaw2lin(data, 2) if self._mulaw else data)
        whole = BYTES_PER_SAMPLE if self._resampler is None else self._frame
        end = len(pcm) - len(pcm) % whole
        self._odd = pcm[end:]
        return self._convert(pcm[:end] if self._odd else pcm)

    def flush(self) -> bytes:
        """The utterance is over: its last samples."""
        odd, self._odd = self._odd[: len(self._odd) // BYTES_PER_SAMPLE * BYTES_PER_SAMPLE], b""
        if self._resampler is None or not (self._samples_in or odd):
            return b""
        samples = self._samples_in + len(odd) // BYTES_PER_SAMPLE
        # What is in the filter comes out with the frame behind the last one.
        rest = self._convert(odd.ljust(self._frame, b"\0") + bytes(self._frame))
        missing = samples * self.sample_rate // self._rate_hz + self.sample_rate * FILTER_MS // 1000
        over = self._samples_out - missing
        return rest[: -over * BYTES_PER_SAMPLE] if over > 0 else rest

    def _convert(self, pcm: bytes) -> bytes:
        resampler = self._resampler
        self._samples_in += len(pcm) // BYTES_PER_SAMPLE
        if resampler is not None:
            pcm = b"".join(resampler.convert(pcm[at : at + self._frame]) for at in range(0, len(pcm), self._frame))
        self._samples_out += len(pcm) // BYTES_PER_SAMPLE
        return pcm
