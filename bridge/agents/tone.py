"""The last resort of an agent that has lost its voice: a tone everyone knows as "no service"."""

import numpy as np

REORDER_HZ = (480.0, 620.0)
"""The reorder tone of the North American plan (ITU-T E.180): both at once, 250 ms on, 250 ms off."""

LEVEL = 0.1
BURSTS = 6
ON_S = OFF_S = 0.25


def reorder_tone(sample_rate: int) -> bytes:
    """3 s of it as int16 mono PCM at `sample_rate` (Hz)."""
    time = np.arange(int(sample_rate * ON_S)) / sample_rate
    low, high = (np.sin(2 * np.pi * hz * time) for hz in REORDER_HZ)
    burst = ((low + high) * LEVEL * 32767).astype(np.int16).tobytes() + bytes(int(sample_rate * OFF_S) * 2)
    return burst * BURSTS
