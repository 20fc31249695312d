"""What recognisers are sent: the telephone's audio as it came, in mu-law; other rates as linear PCM."""

from collections.abc import Callable

from bridge.audio.codec import PCMU
from bridge.audio.resample import Resampler


def wire_encoder(sample_rate: int, wire_rate: int) -> Callable[[bytes], bytes]:
    """From int16 mono PCM at `sample_rate` (Hz), one stream in order, to mu-law if that is 8000, else to int16 at
    `wire_rate`."""
    if sample_rate == PCMU.sample_rate:
        return PCMU.encoder()
    return bytes if wire_rate == sample_rate else Resampler(sample_rate, wire_rate).process
