"""The agent's echo: what level is expected, and what is proven by correlation."""

import audioop

import numpy as np
import numpy.typing as npt

from bridge.audio.vad_echo import EchoGuard, EchoSettings, correlation

RATE = 8000


def chatter(seed: int, seconds: float) -> npt.NDArray[np.float64]:
    """Noise with the envelope of syllables: as unlike another seed's as two voices' words."""
    rng = np.random.default_rng(seed)
    count = int(seconds * RATE)
    envelope = np.repeat(rng.uniform(0.1, 1.0, count // 800 + 1), 800)[:count]
    return rng.normal(0, 4000, count) * envelope


def pcm(samples: npt.NDArray[np.float64]) -> bytes:
    return np.clip(samples, -32768, 32767).astype(np.int16).tobytes()


class Line:
    """A guard on a line that returns what we send after `delay_frames`, times `ratio`."""

    def __init__(self, ratio: float, delay_frames: int = 7) -> None:
        self.guard = EchoGuard(EchoSettings(), RATE)
        self.ratio = ratio
        self.delay = delay_frames
        self.tick = 0
        self.heard: list[bytes] = []

    def speak(
        self, samples: npt.NDArray[np.float64], caller: npt.NDArray[np.float64] | None = None
    ) -> list[tuple[float, float]]:
        """(received level, expected bound) of each frame while we send `samples`."""
        sent = np.concatenate([np.zeros(self.delay * 160), samples])
        seen = []
        for at in range(0, len(samples) - 159, 160):
            self.tick += 1
            now = self.tick * 0.02
            back = sent[at : at + 160] * self.ratio
            if caller is not None:
                back = back + caller[at : at + 160]
            frame = pcm(back)
            self.heard.append(frame)
            level = float(audioop.rms(frame, 2))
            seen.append((level, self.guard.bound(level, now, speaking=False)))
            ours = pcm(samples[at : at + 160])
            self.guard.sent(ours, float(audioop.rms(ours, 2)), now)
        return seen

    @property
    def now(self) -> float:
        return self.tick * 0.02

    def is_echo(self) -> bool:
        return self.guard.is_echo(self.heard[-10:], self.now)


def test_nothing_is_expected_while_we_say_nothing() -> None:
    guard = EchoGuard(EchoSettings(), RATE)
    for tick in range(50):
        guard.sent(bytes(320), 0.0, tick * 0.02)
    assert guard.bound(1000.0, 1.0, speaking=False) == 0.0
    assert not guard.is_echo([pcm(chatter(1, 0.2))], 1.0)


def test_an_echo_20_db_below_us_stays_under_the_bound() -> None:
    for level, bound in Line(0.1).speak(chatter(1, 10))[1:]:
        assert level <= bound or level < 20


def test_the_bound_comes_down_on_a_line_without_echo() -> None:
    line = Line(0.0)
    line.speak(chatter(1, 5))
    assert line.guard.ratio == EchoSettings().least_ratio


def test_the_bound_comes_down_to_the_echo_that_is_there_and_no_further() -> None:
    line = Line(0.03)
    seen = line.speak(chatter(1, 20))
    assert line.guard.ratio < 0.06
    assert all(level <= bound for level, bound in seen[100:])


def test_the_bound_does_not_learn_from_the_caller() -> None:
    guard = EchoGuard(EchoSettings(), RATE)
    for tick in range(200):
        guard.sent(bytes(320), 4000.0, tick * 0.02)
        guard.bound(10.0, tick * 0.02, speaking=True)
    assert guard.ratio == EchoSettings().expected_ratio


def test_a_loud_echo_is_proven_and_then_expected() -> None:
    line = Line(0.5)
    for seed in (1, 2, 3):
        # 6 dB more with each proof: what is taken for an echo once in a while is a caller.
        line.speak(chatter(seed, 2))
        assert line.is_echo()
    seen = line.speak(chatter(4, 2))
    assert sum(level > bound for level, bound in seen) < len(seen) * 0.02


def test_an_echo_is_found_at_every_delay_up_to_400_ms() -> None:
    for delay in range(1, 20):
        line = Line(0.2, delay)
        line.speak(chatter(delay, 2))
        assert line.is_echo(), f"{delay * 20} ms"


def test_the_caller_over_an_echo_is_no_echo() -> None:
    line = Line(0.1)
    line.speak(chatter(1, 2), caller=chatter(9, 2))
    assert not line.is_echo()
    assert line.guard.ratio <= EchoSettings().expected_ratio


def test_what_we_sent_long_ago_is_forgotten() -> None:
    line = Line(0.1)
    line.speak(chatter(1, 1))
    assert line.guard.bound(100.0, line.now + 0.1, speaking=False) > 0
    assert line.guard.bound(100.0, line.now + 0.5, speaking=False) == 0.0


def test_correlation_is_one_for_the_same_and_low_for_another() -> None:
    sent = chatter(1, 0.6)
    assert correlation(pcm(sent[1000:2024] * 0.1), pcm(sent)) > 0.99
    assert correlation(pcm(chatter(2, 0.128)), pcm(sent)) < 0.3
    assert correlation(bytes(2048), pcm(sent)) == 0.0
