"""Voice activity as calls use it: recorded speech and other sounds, 20 ms a tick in virtual time."""

import asyncio
import threading
import wave
from collections.abc import AsyncIterator
from itertools import zip_longest
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from structlog.testing import capture_logs

from bridge.audio.vad import AT_ONCE, MANY_STREAMS, MAX_OUTSTANDING, VoiceActivity, VoiceSettings
from bridge.audio.vad_silero import SileroUnavailableError
from bridge.audio.voice import OpenVoiceDetector, SpeechStarted, SpeechStopped, VoiceDetector, VoiceEvent

AUDIO = Path(__file__).parents[2] / "data/audio"
ONSET_S = {"piper_yes1_snr20": 0.46, "piper_name_clean8k": 0.47, "kokoro_hours_snr20": 0.83}
"""Where the level of the clean recording sets in."""

Samples = npt.NDArray[np.float64]


def read(name: str) -> Samples:
    with wave.open(str(AUDIO / f"{name}.wav")) as file:
        return np.frombuffer(file.readframes(file.getnframes()), np.int16).astype(np.float64)


def noise(seed: int, seconds: float, rms: float) -> Samples:
    return np.random.default_rng(seed).normal(0, rms, int(seconds * 8000))


def tone(seconds: float, rms: float, *hertz: float) -> Samples:
    t = np.arange(int(seconds * 8000)) / 8000
    wave_: Samples = np.sum([np.sin(2 * np.pi * f * t) for f in hertz], axis=0)
    return wave_ / wave_.std() * rms


def frames(samples: Samples, rate: int = 8000) -> list[bytes]:
    pcm = np.clip(samples, -32768, 32767).astype(np.int16).tobytes()
    size = rate // 50 * 2
    return [pcm[at : at + size].ljust(size, b"\0") for at in range(0, len(pcm), size)]


class Ear:
    """One stream's detector and what it told: (time of telling, event)."""

    def __init__(self, activity: VoiceActivity, rate: int = 8000) -> None:
        self.now = 0.0
        self.told: list[tuple[float, VoiceEvent]] = []
        self.detector = activity.open(rate, lambda event: self.told.append((self.now, event)))


async def hear(
    activity: VoiceActivity, *lines: Samples, sent: Samples | None = None, rate: int = 8000
) -> list[list[tuple[float, VoiceEvent]]]:
    """Each line through a detector of its own, all at once."""
    ears = [Ear(activity, rate) for _ in lines]
    ours = frames(sent, rate) if sent is not None else []
    for tick, received in enumerate(zip_longest(*(frames(line, rate) for line in lines))):
        now = (tick + 1) * 0.02
        for ear, frame in zip(ears, received, strict=True):
            ear.now = now
            if frame is not None:
                ear.detector.push(frame, now)
            if tick < len(ours):
                ear.detector.reference(ours[tick], now)
        activity.after_tick(now)
        await activity.drain()
        await asyncio.sleep(0)
    for ear in ears:
        ear.detector.close()
    return [ear.told for ear in ears]


@pytest.fixture
async def activity() -> AsyncIterator[VoiceActivity]:
    activity = VoiceActivity()
    assert activity.has_silero
    yield activity
    await activity.aclose()


async def test_speech_of_several_calls_is_told_within_200_ms_and_stops(activity: VoiceActivity) -> None:
    lines = [np.concatenate([read(name), noise(1, 0.3, 20)]) for name in ONSET_S]
    for name, told in zip(ONSET_S, await hear(activity, *lines), strict=True):
        (told_at, started), *_, (_, stopped) = told
        assert isinstance(started, SpeechStarted)
        assert isinstance(stopped, SpeechStopped)
        assert abs(started.at - ONSET_S[name]) < 0.1, name
        assert told_at - ONSET_S[name] < 0.2, name
    assert 0 < activity.batches < activity.windows_scored


async def test_speech_at_16_khz_is_told_too(activity: VoiceActivity) -> None:
    narrow = read("piper_name_clean8k")
    wide = np.interp(np.arange(2 * len(narrow)) / 2, np.arange(len(narrow)), narrow)
    (told,) = await hear(activity, wide, rate=16000)
    assert isinstance(told[0][1], SpeechStarted)
    assert abs(told[0][1].at - ONSET_S["piper_name_clean8k"]) < 0.1


async def test_what_is_not_speech_tells_nothing(activity: VoiceActivity) -> None:
    click = np.zeros(8000)
    click[4000:4016] = 20000
    bang = noise(5, 1, 15)
    bang[4000:4400] += noise(6, 0.05, 6000)
    told = await hear(
        activity,
        np.zeros(16000),
        noise(1, 2, 30),
        noise(2, 2, 1000),
        tone(2, 300, 50),
        np.tile(click, 2),
        np.tile(bang, 2),
        np.tile(np.concatenate([tone(0.1, 5000, 770, 1336), np.zeros(800)]), 10),
        np.concatenate([np.zeros(4000), tone(2, 3000, 440, 480)]),
    )
    assert told == [[]] * 8


async def test_a_silent_caller_never_reaches_the_model(activity: VoiceActivity) -> None:
    await hear(activity, noise(1, 5, 25))
    assert activity.windows_scored == 0


async def test_our_own_echo_tells_nothing_and_the_caller_over_it_is_heard(activity: VoiceActivity) -> None:
    ours = np.concatenate([read("kokoro_hours_snr20"), read("piper_name_clean8k"), read("kokoro_hours_snr20")])
    echo = 0.1 * np.concatenate([np.zeros(1200), ours])[: len(ours)] + noise(1, len(ours) / 8000, 20)[: len(ours)]
    caller = read("piper_name_clean8k")
    over = echo.copy()
    over[16000 : 16000 + len(caller)] += caller
    (alone,) = await hear(activity, echo, sent=ours)
    (double,) = await hear(activity, over, sent=ours)
    (unguarded,) = await hear(activity, echo)
    assert alone == []
    assert isinstance(double[0][1], SpeechStarted)
    assert abs(double[0][1].at - 2 - ONSET_S["piper_name_clean8k"]) < 0.1
    assert unguarded, "without the reference the same echo is taken for a caller"


async def test_soft_speech_is_heard_again_after_loud_music(activity: VoiceActivity) -> None:
    soft = read("piper_name_clean8k") / 8 + noise(2, 6.0, 20)[: len(read("piper_name_clean8k"))]
    music = tone(4, 6000, 220, 331, 440, 557)
    (told,) = await hear(activity, np.concatenate([music, soft]))
    assert any(isinstance(e, SpeechStarted) and abs(e.at - 4.47) < 0.15 for _, e in told)


async def test_events_are_told_on_the_loop_and_none_after_close(activity: VoiceActivity) -> None:
    ear = Ear(activity)
    speech = frames(read("piper_name_clean8k"))
    for tick, frame in enumerate(speech[:60]):
        ear.detector.push(frame, tick * 0.02)
        activity.after_tick(tick * 0.02)
    assert ear.told == [], "no event from within push or after_tick"
    ear.detector.close()
    ear.detector.close()
    await activity.drain()
    await asyncio.sleep(0)
    assert ear.told == []
    ear.detector.push(speech[0], 9.0)


async def test_a_handler_that_fails_does_not_keep_other_calls_from_their_events(activity: VoiceActivity) -> None:
    loop = asyncio.get_running_loop()
    failures: list[BaseException | None] = []
    loop.set_exception_handler(lambda _, context: failures.append(context.get("exception")))

    def fail(event: VoiceEvent) -> None:
        raise RuntimeError("a call's own fault")

    bad = activity.open(8000, fail)
    good = Ear(activity)
    for tick, frame in enumerate(frames(read("piper_name_clean8k"))[:60]):
        bad.push(frame, tick * 0.02)
        good.detector.push(frame, tick * 0.02)
        activity.after_tick(tick * 0.02)
        await activity.drain()
        await asyncio.sleep(0)
    assert [type(event) for _, event in good.told] == [SpeechStarted]
    assert [type(error) for error in failures] == [RuntimeError]


async def test_windows_that_come_while_a_batch_is_under_way_join_the_next(activity: VoiceActivity) -> None:
    ears = [Ear(activity) for _ in range(3)]
    speech = frames(read("piper_name_clean8k"))
    for tick in range(22, 30):
        for ear in ears:
            ear.detector.push(speech[tick], tick * 0.02)
        activity.after_tick(tick * 0.02)
    await activity.drain()
    assert activity.batches == 2
    assert activity.windows_scored > 3 * 4


@pytest.mark.parametrize(("streams", "scored"), [(1, True), (AT_ONCE, False)])
async def test_a_few_windows_are_scored_within_the_step(activity: VoiceActivity, streams: int, scored: bool) -> None:
    ears = [Ear(activity) for _ in range(streams)]
    for tick, frame in enumerate(frames(read("piper_name_clean8k"))[22:30]):
        for ear in ears:
            ear.detector.push(frame, tick * 0.02)
        activity.after_tick(tick * 0.02)
        if activity.batches or activity._under_way:
            break
    assert (activity.windows_scored > 0) is scored
    await activity.drain()
    assert activity.windows_scored >= streams


@pytest.mark.parametrize(("streams", "batches"), [(MANY_STREAMS - 1, 2), (MANY_STREAMS, 1)])
async def test_with_many_streams_windows_wait_for_others(activity: VoiceActivity, streams: int, batches: int) -> None:
    ears = [Ear(activity) for _ in range(streams)]
    speech = frames(read("piper_name_clean8k"))
    for step, ear in enumerate(ears[:3]):
        for frame in speech[22:30]:
            ear.detector.push(frame, 1 + step * 0.005)
        activity.after_tick(1 + step * 0.005)
    # The first step's windows went by themselves only where there are few streams.
    await activity.drain()
    assert activity.batches == batches


async def test_windows_do_not_wait_longer_for_others_than_three_steps(activity: VoiceActivity) -> None:
    ears = [Ear(activity) for _ in range(MANY_STREAMS)]
    speech = frames(read("piper_name_clean8k"))
    for step in range(3):
        for frame in speech[22:30] if step == 0 else ():
            ears[0].detector.push(frame, 1.0)
        activity.after_tick(1 + step * 0.005)
    # The first have gone: those of a later step are in a batch of their own.
    for frame in speech[22:30]:
        ears[1].detector.push(frame, 1.015)
    await activity.drain()
    assert activity.batches == 2


async def test_a_model_that_falls_behind_loses_windows_and_counts_them(activity: VoiceActivity) -> None:
    ear = Ear(activity)
    for tick, frame in enumerate(frames(read("piper_name_clean8k"))[20:80]):
        ear.detector.push(frame, tick * 0.02)
    assert activity.windows_lost > 0
    activity.after_tick(1.2)
    await activity.drain()
    assert activity.windows_scored == MAX_OUTSTANDING


async def test_without_silero_the_cheap_detectors_hear_speech_later() -> None:
    activity = VoiceActivity(VoiceSettings(silero=False))
    (told,) = await hear(activity, read("piper_name_clean8k"))
    assert isinstance(told[0][1], SpeechStarted)
    assert abs(told[0][1].at - ONSET_S["piper_name_clean8k"]) < 0.1
    assert activity.windows_scored == 0
    await activity.aclose()


async def test_an_altered_model_is_logged_once_and_calls_go_on_without_it(tmp_path: Path) -> None:
    model = tmp_path / "silero_vad.onnx"
    model.write_bytes(b"altered")
    with capture_logs() as logs:
        activity = VoiceActivity(model=model)
        (told, _) = await hear(activity, read("piper_name_clean8k"), read("piper_name_clean8k"))
    assert not activity.has_silero
    assert [entry["log_level"] for entry in logs] == ["warning"]
    assert "sha256" in logs[0]["reason"]
    assert isinstance(told[0][1], SpeechStarted)
    await activity.aclose()


@pytest.mark.parametrize("calls", [1, AT_ONCE + 1])
async def test_a_model_that_fails_in_the_call_leaves_the_cheap_detectors(
    monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    activity = VoiceActivity()

    class Broken:
        def run(self, *_: object) -> None:
            raise SileroUnavailableError("out of memory")

    monkeypatch.setattr(activity._silero, "_session", Broken())
    with capture_logs() as logs:
        told = await hear(activity, *[read("piper_name_clean8k")] * calls)
    assert [entry["log_level"] for entry in logs] == ["error"]
    assert all(isinstance(events[0][1], SpeechStarted) for events in told)
    await activity.aclose()


async def test_frames_of_another_size_are_not_looked_at(activity: VoiceActivity) -> None:
    ear = Ear(activity)
    for tick in range(50):
        ear.detector.push(noise(tick, 0.015, 5000).astype(np.int16).tobytes(), tick * 0.02)
        ear.detector.push(b"", tick * 0.02)
    activity.after_tick(1.0)
    await activity.drain()
    assert activity.windows_scored == 0


async def test_an_unknown_rate_is_refused(activity: VoiceActivity) -> None:
    with pytest.raises(ValueError, match="48000"):
        activity.open(48000, lambda event: None)


async def test_the_service_fits_the_contract(activity: VoiceActivity) -> None:
    open_voice: OpenVoiceDetector = activity.open
    detector: VoiceDetector = open_voice(8000, lambda event: None)
    detector.close()


async def test_closing_ends_the_thread_and_forgets_every_stream() -> None:
    before = threading.active_count()
    activity = VoiceActivity()
    ears = [Ear(activity) for _ in range(5)]
    for tick, frame in enumerate(frames(read("piper_name_clean8k"))[:40]):
        for ear in ears:
            ear.detector.push(frame, tick * 0.02)
        activity.after_tick(tick * 0.02)
    await activity.aclose()
    await activity.aclose()
    with pytest.raises(RuntimeError, match="closed"):
        activity.open(8000, lambda event: None)
    assert threading.active_count() <= before
