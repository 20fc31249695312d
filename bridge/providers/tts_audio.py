"""What voices send on the wire, and how it becomes int16 PCM at the rate of the call."""

import audioop
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from bridge.audio.resample import Resampler

Encoding = Literal["mulaw", "linear16"]

TELEPHONE_RATE = 8000


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

    __slots__ = ("_mulaw", "_resampler", "sample_rate")

    def __init__(self, wire: WireFormat, sample_rate: int) -> None:
        self._mulaw = wire.encoding == "mulaw"
        self._resampler = Resampler(wire.rate_hz, sample_rate)
        self.sample_rate = sample_rate

    def decode(self, data: bytes) -> bytes:
        """What can be said of the PCM so far; perhaps nothing yet."""
        return self._resampler.process(audioop.ulaw2lin(data, 2) if self._mulaw else data)

    def flush(self) -> bytes:
        """The utterance is over: its last samples."""
        return self._resampler.flush()
