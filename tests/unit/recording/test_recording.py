"""Recordings: both channels in step, a playable file at any time, and every failure told once."""

import asyncio
import fcntl
import os
import stat
import subprocess
import sys
import textwrap
import threading
import wave
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.audio.recording import (
    FLUSH_FRAMES,
    MAX_PENDING_FRAMES,
    Recordings,
    StereoRecorder,
    WavFile,
    repair_recordings,
    wav_header,
)

Stereo = npt.NDArray[np.int16]
"""Shape (samples, 2): caller, agent."""


def frame(value: int, samples: int = 160) -> bytes:
    return np.full(samples, value, np.int16).tobytes()


def read(path: Path, rate: int = 8000) -> Stereo:
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (2, 2, rate)
        return np.frombuffer(file.readframes(file.getnframes()), np.int16).reshape(-1, 2)


def per_frame(stereo: Stereo) -> list[tuple[int, int]]:
    """The (constant) value of each 20 ms of both channels."""
    frames = stereo.reshape(-1, 160, 2)
    assert (frames == frames[:, :1]).all()
    return [(int(left), int(right)) for left, right in frames[:, 0]]


async def settle(recorder: StereoRecorder) -> None:
    """Let the write under way end."""
    while recorder._writing is not None:
        await asyncio.wait([recorder._writing])
        await asyncio.sleep(0)


@pytest.fixture
async def recordings(tmp_path: Path) -> AsyncIterator[Recordings]:
    recordings = Recordings(tmp_path / "recordings")
    recordings.start()
    yield recordings
    await recordings.aclose()


def unexpected(reason: str) -> None:
    raise AssertionError(reason)


async def test_both_sides_are_in_their_channel_from_the_first_tick_to_the_last(recordings: Recordings) -> None:
    recorder = recordings.open("call", 8000, unexpected)
    for tick in range(500):
        recorder.caller(frame(tick), 50 + tick * 0.02)
        recorder.agent(frame(-tick), 50 + tick * 0.02)
        if tick % 25 == 0:
            await settle(recorder)
    result = await recorder.close()
    assert result.path == recordings.directory / "call.wav"
    assert (result.duration_ms, result.lost_ms, result.failure) == (10_000, 0, None)
    assert per_frame(read(result.path)) == [(tick, -tick) for tick in range(500)]
    assert [path.name for path in recordings.directory.iterdir()] == ["call.wav"]


async def test_a_16_khz_leg_is_recorded_at_its_rate(recordings: Recordings) -> None:
    recorder = recordings.open("wide", 16000, unexpected)
    for tick in range(10):
        recorder.caller(frame(7, 320), tick * 0.02)
    result = await recorder.close()
    assert result.path is not None
    assert result.duration_ms == 200
    assert len(read(result.path, 16000)) == 3200


async def test_a_side_that_begins_late_or_pauses_stays_in_step(recordings: Recordings) -> None:
    recorder = recordings.open("call", 8000, unexpected)
    for tick in range(200):
        if tick >= 30 and not 100 <= tick < 120:
            recorder.caller(frame(tick), tick * 0.02)
        if tick < 150:
            recorder.agent(frame(tick), tick * 0.02)
        await settle(recorder)
    result = await recorder.close()
    assert result.path is not None
    assert per_frame(read(result.path)) == [
        (tick if tick >= 30 and not 100 <= tick < 120 else 0, tick if tick < 150 else 0) for tick in range(200)
    ]


@pytest.mark.parametrize(
    ("zero", "moves_s"),
    [(9.981, (0.005,)), (9.9999, (-0.005,)), (9.981, (0.01, -0.015, 0.01)), (9.9999, (-0.01, -0.005, 0.01))],
)
async def test_steps_that_are_moved_leave_no_gap_and_no_frame_out(
    recordings: Recordings, zero: float, moves_s: tuple[float, ...]
) -> None:
    recorder = recordings.open("call", 8000, unexpected, started_at=zero)
    now = 10.0
    for tick in range(120):
        recorder.caller(frame(tick + 1), now)
        recorder.agent(frame(-1), 10.0 + tick * 0.02)
        await settle(recorder)
        now += 0.02 + (moves_s[tick // 30] if tick % 30 == 29 and tick // 30 < len(moves_s) else 0.0)
    result = await recorder.close()
    assert result.path is not None
    heard = [caller for caller, _ in per_frame(read(result.path))]
    assert heard[:120] == list(range(1, 121))
    assert result.lost_ms == 0


async def test_the_answer_is_the_zero_when_it_is_given(recordings: Recordings) -> None:
    recorder = recordings.open("call", 8000, unexpected, started_at=9.993)
    recorder.agent(frame(1), 10.0)
    recorder.caller(frame(2), 10.1)
    result = await recorder.close()
    assert result.path is not None
    assert per_frame(read(result.path)) == [(0, 1), (0, 0), (0, 0), (0, 0), (0, 0), (2, 0)]


async def test_the_file_is_a_valid_wav_while_the_call_goes_on(recordings: Recordings) -> None:
    recorder = recordings.open("call", 8000, unexpected)
    part = recordings.directory / "call.wav.part"
    await settle(recorder)
    assert len(read(part)) == 0
    for tick in range(3 * FLUSH_FRAMES + 1):
        recorder.caller(frame(5), tick * 0.02)
        await settle(recorder)
    assert len(read(part)) == 3 * FLUSH_FRAMES * 160
    await recorder.close()


async def test_only_owner_and_group_may_read(recordings: Recordings) -> None:
    before = os.umask(0o077)
    try:
        recorder = recordings.open("call", 8000, unexpected)
        recorder.caller(frame(5), 0.0)
        result = await recorder.close()
    finally:
        os.umask(before)
    assert result.path is not None
    assert stat.S_IMODE(result.path.stat().st_mode) == 0o640
    assert stat.S_IMODE(recordings.directory.stat().st_mode) == 0o750


async def test_a_writer_that_falls_behind_loses_data_but_not_the_alignment(recordings: Recordings) -> None:
    stuck = threading.Event()
    recordings._executor.submit(stuck.wait)
    recorder = recordings.open("call", 8000, unexpected)
    total = MAX_PENDING_FRAMES + 200
    for tick in range(total):
        recorder.caller(frame(1 + tick), tick * 0.02)
        recorder.agent(frame(-1 - tick), tick * 0.02)
    assert len(recorder._left) <= MAX_PENDING_FRAMES * 320
    stuck.set()
    result = await recorder.close()
    assert result.path is not None
    assert result.failure is None
    assert result.lost_ms == MAX_PENDING_FRAMES * 20
    assert result.duration_ms == total * 20
    got = per_frame(read(result.path))
    assert got[:MAX_PENDING_FRAMES] == [(0, 0)] * MAX_PENDING_FRAMES
    assert got[MAX_PENDING_FRAMES:] == [(1 + tick, -1 - tick) for tick in range(MAX_PENDING_FRAMES, total)]


async def test_a_clock_that_stood_still_leaves_silence_and_no_loss(recordings: Recordings) -> None:
    recorder = recordings.open("call", 8000, unexpected)
    await settle(recorder)
    for tick in (0, 1, 2, 3000, 3001):
        recorder.caller(frame(9), tick * 0.02)
        recorder.agent(frame(8), tick * 0.02)
    result = await recorder.close()
    assert result.path is not None
    assert result.lost_ms == 0
    got = per_frame(read(result.path))
    assert [index for index, value in enumerate(got) if value == (9, 8)] == [0, 1, 2, 3000, 3001]
    assert len(got) == 3002


async def test_a_missing_directory_disables_the_recorder_and_is_told_once(tmp_path: Path) -> None:
    recordings = Recordings(tmp_path / "nowhere")
    told: list[str] = []
    recorder = recordings.open("call", 8000, told.append)
    await settle(recorder)
    for tick in range(200):
        recorder.caller(frame(1), tick * 0.02)
        recorder.agent(frame(1), tick * 0.02)
    result = await recorder.close()
    assert told == [f"No such file or directory: {tmp_path}/nowhere/call.wav.part"]
    assert (result.path, result.duration_ms, result.failure) == (None, 0, told[0])
    assert result.lost_ms == 4000
    await recordings.aclose()


async def test_a_directory_that_may_not_be_written_is_told() -> None:
    # Even root may not create files there.
    recordings = Recordings(Path("/sys/kernel"))
    told: list[str] = []
    recorder = recordings.open("call", 8000, told.append)
    await settle(recorder)
    assert len(told) == 1
    assert (await recorder.close()).failure == told[0]
    await recordings.aclose()


async def test_a_name_that_is_taken_is_not_overwritten(recordings: Recordings) -> None:
    taken = recordings.directory / "call.wav"
    taken.write_bytes(b"an older recording")
    told: list[str] = []
    recorder = recordings.open("call", 8000, told.append)
    recorder.caller(frame(1), 0.0)
    result = await recorder.close()
    assert result.path is None
    assert "exists" in told[0]
    assert taken.read_bytes() == b"an older recording"


@pytest.mark.parametrize("name", ["", ".", "..", "../call", "a/b", ".hidden"])
async def test_a_name_that_leaves_the_directory_is_refused(recordings: Recordings, name: str) -> None:
    with pytest.raises(ValueError, match="file name"):
        recordings.open(name, 8000, unexpected)


async def test_a_call_without_audio_leaves_no_file(recordings: Recordings) -> None:
    result = await recordings.open("call", 8000, unexpected).close()
    assert result.path is None
    assert result.failure == "the call ended before there was any audio"
    assert list(recordings.directory.iterdir()) == []


async def test_closing_twice_gives_the_same_result_and_later_frames_are_ignored(recordings: Recordings) -> None:
    recorder = recordings.open("call", 8000, unexpected)
    recorder.caller(frame(1), 0.0)
    first = await recorder.close()
    recorder.caller(frame(1), 0.02)
    recorder.agent(frame(1), 0.02)
    assert await recorder.close() is first


def test_a_full_disk_is_an_error_with_its_name(tmp_path: Path) -> None:
    file = WavFile(tmp_path / "call.wav", 8000)
    file.attach(os.open("/dev/full", os.O_RDWR))
    with pytest.raises(OSError, match="No space left on device"):
        file.write(0, frame(1), frame(2))
    assert file.data_bytes == 0


def test_a_disk_that_fills_up_in_the_call_keeps_what_was_written(tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk: it needs no privilege. In a process of its own."""
    script = """
        import asyncio, resource, sys
        from pathlib import Path
        from bridge.audio.recording import Recordings

        async def main():
            recordings = Recordings(Path(sys.argv[1]))
            recordings.start()
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
            told = []
            recorder = recordings.open("call", 8000, told.append)
            for tick in range(400):
                recorder.caller(bytes([1, 0]) * 160, tick * 0.02)
                recorder.agent(bytes([2, 0]) * 160, tick * 0.02)
                while recorder._writing is not None:
                    await asyncio.wait([recorder._writing])
                    await asyncio.sleep(0)
            result = await recorder.close()
            assert len(told) == 1, told
            assert result.failure == told[0]
            print(result.path.name, result.duration_ms, result.lost_ms, told[0])
            await recordings.aclose()

        asyncio.run(main())
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    name, duration_ms, lost_ms, reason = done.stdout.strip().split(" ", 3)
    assert name == "call.wav"
    assert float(duration_ms) == 3000
    assert float(lost_ms) == 8000 - 3000
    assert reason.startswith("File too large")
    assert per_frame(read(tmp_path / "call.wav")) == [(1, 2)] * 150
    assert [path.name for path in tmp_path.iterdir()] == ["call.wav"]


def test_a_crash_leaves_a_file_that_the_next_start_finishes(tmp_path: Path) -> None:
    script = """
        import asyncio, os, sys
        from pathlib import Path
        from bridge.audio.recording import Recordings

        async def main():
            recordings = Recordings(Path(sys.argv[1]))
            recordings.start()
            recorder = recordings.open("call", 8000, print)
            for tick in range(120):
                recorder.caller(bytes([1, 0]) * 160, tick * 0.02)
                while recorder._writing is not None:
                    await asyncio.wait([recorder._writing])
                    await asyncio.sleep(0)
            os._exit(9)

        asyncio.run(main())
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script), str(tmp_path)], check=False)
    assert done.returncode == 9
    assert repair_recordings(tmp_path) == [tmp_path / "call.wav"]
    assert per_frame(read(tmp_path / "call.wav")) == [(1, 0)] * 100
    assert repair_recordings(tmp_path) == []


def test_repair_counts_audio_the_header_does_not_tell_yet_and_cuts_half_a_sample(tmp_path: Path) -> None:
    (tmp_path / "call.wav.part").write_bytes(wav_header(0, 16000) + bytes(4 * 100 + 3))
    assert repair_recordings(tmp_path) == [tmp_path / "call.wav"]
    assert len(read(tmp_path / "call.wav", 16000)) == 100


def test_repair_leaves_alone_what_is_not_its_own(tmp_path: Path) -> None:
    foreign = tmp_path / "notes.wav.part"
    foreign.write_bytes(b"something else" * 10)
    taken = tmp_path / "call.wav"
    taken.write_bytes(b"good already")
    (tmp_path / "call.wav.part").write_bytes(wav_header(0, 8000) + bytes(400))
    (tmp_path / "empty.wav.part").write_bytes(wav_header(0, 8000))
    written = tmp_path / "live.wav.part"
    written.write_bytes(wav_header(0, 8000) + bytes(400))
    with written.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert repair_recordings(tmp_path) == []
    assert foreign.read_bytes() == b"something else" * 10
    assert taken.read_bytes() == b"good already"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "call.wav",
        "call.wav.part",
        "live.wav.part",
        "notes.wav.part",
    ]


async def test_start_repairs_but_not_what_another_process_records(recordings: Recordings) -> None:
    recorder = recordings.open("live", 8000, unexpected)
    recorder.caller(frame(3), 0.0)
    await settle(recorder)
    (recordings.directory / "old.wav.part").write_bytes(wav_header(0, 8000) + bytes(640))
    Recordings(recordings.directory).start()
    assert (recordings.directory / "old.wav").exists()
    result = await recorder.close()
    assert result.failure is None


async def test_many_calls_leave_no_descriptor_behind(recordings: Recordings) -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for call in range(200):
        recorder = recordings.open(f"call-{call}", 8000, unexpected)
        recorder.caller(frame(1), 0.0)
        await recorder.close()
    assert len(os.listdir("/proc/self/fd")) <= before + 1  # noqa: PTH208
    assert len(list(recordings.directory.glob("*.wav"))) == 200


async def test_closing_the_service_finishes_open_recordings(recordings: Recordings) -> None:
    for call in range(3):
        recordings.open(f"call-{call}", 8000, unexpected).caller(frame(1), 0.0)
    await recordings.aclose()
    assert len(list(recordings.directory.glob("*.wav"))) == 3


ticks = st.lists(st.tuples(st.integers(0, 400), st.booleans(), st.booleans()), max_size=60)


@given(ticks, st.integers(1, 40))
def test_whatever_ticks_come_every_frame_is_at_its_time(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, bool, bool]], settle_every: int
) -> None:
    """Any gaps, either side missing, the writer at any pace: no frame moves, and none is lost that had room."""

    async def run() -> None:
        recordings = Recordings(tmp_path_factory.mktemp("recordings"))
        recorder = recordings.open("call", 8000, unexpected, started_at=0.0)
        expected: dict[int, tuple[int, int]] = {}
        tick = -1
        for count, (gap, caller, agent) in enumerate(steps):
            tick += 1 + gap * (count % 5 == 0)
            if caller:
                recorder.caller(frame(1 + count), tick * 0.02)
            if agent:
                recorder.agent(frame(-1 - count), tick * 0.02)
            if caller or agent:
                expected[tick] = (1 + count if caller else 0, -1 - count if agent else 0)
            if count % settle_every == 0:
                await settle(recorder)
        result = await recorder.close()
        await recordings.aclose()
        got = per_frame(read(result.path)) if result.path is not None else []
        assert len(got) == (max(expected) + 1 if expected else 0)
        silent = 0
        for index, value in enumerate(got):
            assert value == expected.get(index, (0, 0)) or value == (0, 0)
            silent += value == (0, 0) and index in expected
        assert silent * 20 <= result.lost_ms

    asyncio.run(run())
