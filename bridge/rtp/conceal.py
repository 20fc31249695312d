"""Packet-loss concealment: the last pitch period of PCM (int16 mono) repeated and faded, after G.711 Appendix I."""

import numpy as np

from bridge.rtp.stretch import JOIN_MS, Samples, best_lag, ramp, to_pcm, to_samples

HOLD_MS = 20
"""A lost packet's length of speech is repeated at full level ..."""

FADE_MS = 60
"""... and then fades: a vowel that goes on longer sounds like a robot."""


class Concealer:
    """Goes on in the caller's own sound where packets are missing. One instance serves one stream."""

    __slots__ = ("_cycle", "_elapsed", "_end", "_hold", "_join", "_sample_rate", "_step", "active")

    def __init__(self, sample_rate: int) -> None:
        self.active = False
        """Between `begin` and `join`."""
        self._sample_rate = sample_rate
        self._hold = sample_rate * HOLD_MS // 1000
        self._end = sample_rate * (HOLD_MS + FADE_MS) // 1000
        self._join = sample_rate * JOIN_MS // 1000
        self._elapsed = 0
        self._step = 0.0
        """From the last sample of the past to what a true repetition would have had there."""
        self._cycle: Samples = np.zeros(1, np.float32)

    @property
    def audible(self) -> bool:
        """False once the sound has faded out."""
        return self._elapsed < self._end

    def begin(self, history: bytes) -> None:
        """Take the last 40 ms that were played as what to go on with."""
        self.active = True
        self._elapsed = 0
        past = to_samples(history)
        lag = best_lag(past[::-1], self._sample_rate)
        blend = lag // 4
        if not lag or len(past) < lag + blend:
            self._elapsed = self._end
            return
        cycle = past[-lag:].copy()
        self._step = float(past[-1] - past[-lag - 1]) if lag < len(past) else 0.0
        if blend:
            # The end of a period leads into its own beginning, as the audio before it did.
            rising = ramp(blend)
            cycle[-blend:] = cycle[-blend:] * (1 - rising) + past[-lag - blend : -lag] * rising
        self._cycle = cycle

    def mute(self) -> None:
        """Be silent from here on: the sender said that nothing follows."""
        self._elapsed = self._end

    def more(self, samples: int) -> bytes:
        """The next `samples` samples of invented audio: repeated, fading, then silent."""
        if not self.audible:
            return bytes(2 * samples)
        return to_pcm(self._invent(samples))

    def _invent(self, samples: int) -> Samples:
        times = np.arange(self._elapsed, self._elapsed + samples)
        self._elapsed += samples
        gain = np.clip((self._end - times) / (self._end - self._hold), 0, 1).astype(np.float32)
        invented = self._cycle[times % len(self._cycle)]
        if times[0] < self._join:
            # No voice is quite periodic: the step to what came before is spread over some milliseconds.
            invented += self._step * np.clip(1 - times / self._join, 0, 1).astype(np.float32)
        return invented * gain

    def join(self, pcm: bytes) -> bytes:
        """Real audio is back: fade over into `pcm`, and be done."""
        self.active = False
        count = min(self._join, len(pcm) // 2)
        if not count:
            return pcm
        rising = ramp(count)
        head = to_samples(pcm[: 2 * count]) * rising
        if self.audible:
            head += self._invent(count) * (1 - rising)
        return to_pcm(head) + pcm[2 * count :]
