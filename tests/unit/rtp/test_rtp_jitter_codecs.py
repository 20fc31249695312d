"""The jitter buffer with redundancy, clocks finer than samples, comfort noise and streams that break."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.audio.codec import G722, OPUS, opus_codec
from bridge.rtp.comfort_noise import SILENT_DBOV, ComfortNoise
from bridge.rtp.jitter import JitterBuffer

START = 1000.0
SSRC = 7


def sine(n: int, rate: int = 8000) -> bytes:
    """20 ms of 200 Hz, which goes on from packet to packet."""
    return (6000 * np.sin(2 * np.pi * 200 * (np.arange(rate // 50) / rate + n * 0.02))).astype("<i2").tobytes()


def largest_step(frames: list[bytes]) -> int:
    return int(np.abs(np.diff(np.frombuffer(b"".join(frames), "<i2").astype(int))).max())


def rms(pcm: bytes) -> float:
    return float(np.sqrt(np.square(np.frombuffer(pcm, "<i2").astype(float)).mean()))


# -- clocks and redundancy ----------------------------------------------------------------------------------


def opus_call(fmtp: str, lost: set[int], *, ms: int = 20, packets: int = 200) -> tuple[JitterBuffer, list[bytes]]:
    encode, decode = opus_codec(fmtp).encoder(), OPUS.decoder()
    buffer = JitterBuffer(48000, 16000)
    frames = []
    sent = 0
    for tick in range(packets * ms // 20):
        now = START + tick * 0.02
        while sent * ms <= tick * 20:
            pcm = b"".join(half(sent * ms // 10 + part) for part in range(ms // 10))
            payload = encode(pcm)
            if sent not in lost:
                stamp = (0xFFFFF000 + sent * 48 * ms) & 0xFFFFFFFF
                buffer.push(sent & 0xFFFF, stamp, SSRC, payload, decode, now)
            sent += 1
        frames.append(buffer.take(now + 0.003))
    return buffer, frames


def half(n: int) -> bytes:
    """10 ms of a voice-like sound at 16 kHz."""
    times = np.arange(160) / 16000 + n * 0.01
    wave = sum(np.sin(2 * np.pi * 150 * k * times) / k for k in range(1, 10)) * (1.2 + np.sin(2 * np.pi * 2 * times))
    return (3000 * wave).astype("<i2").tobytes()


@pytest.mark.parametrize("ms", [10, 20, 40, 60])
def test_opus_timestamps_of_48_khz_play_without_a_seam_at_16_khz(ms: int) -> None:
    buffer, frames = opus_call("", set(), ms=ms, packets=6000 // ms)
    assert buffer.late == buffer.timeline.sequences.lost == buffer.concealed_ms == 0
    assert all(len(frame) == 640 for frame in frames)
    whole = b"".join(frames)
    assert rms(whole[-32000:]) > 1500
    assert buffer.timeline.jitter_ms <= 10


def test_lost_opus_packets_come_from_the_next_ones_redundancy() -> None:
    lost = set(range(40, 200, 7))
    buffer, _ = opus_call("useinbandfec=1", lost)
    assert buffer.timeline.sequences.lost == len(lost)
    # An encoder makes it for what is speech to it.
    assert buffer.recovered_ms > 10 * len(lost)
    assert buffer.recovered_ms + buffer.concealed_ms == pytest.approx(20 * len(lost), abs=40)


def test_without_redundancy_lost_opus_packets_are_concealed() -> None:
    lost = set(range(40, 200, 7))
    buffer, _ = opus_call("", lost)
    assert buffer.recovered_ms == 0
    assert buffer.concealed_ms == pytest.approx(20 * len(lost), abs=40)


def test_only_the_last_packet_of_a_gap_is_recovered() -> None:
    buffer, _ = opus_call("useinbandfec=1", {100, 101})
    assert buffer.recovered_ms == pytest.approx(20) and buffer.concealed_ms == pytest.approx(20)


def test_g722_timestamps_of_8_khz_are_16_khz_audio() -> None:
    encode, decode = G722.encoder(), G722.decoder()
    buffer = JitterBuffer(8000, 16000)
    frames = []
    for n in range(100):
        now = START + n * 0.02
        buffer.push(n, n * 160, SSRC, encode(half(2 * n) + half(2 * n + 1)), decode, now)
        frames.append(buffer.take(now + 0.003))
    assert all(len(frame) == 640 for frame in frames)
    assert buffer.concealed_ms == buffer.late == 0
    assert largest_step(frames) < 3 * largest_step([half(n) for n in range(200)])


# -- comfort noise ------------------------------------------------------------------------------------------


def quiet_call(level: int, *, cn_packets: int = 1, pause: int = 50) -> tuple[JitterBuffer, list[bytes], list[bytes]]:
    """Speech, a pause with comfort noise, speech: the buffer, the frames of the pause, and those after it."""
    buffer = JitterBuffer(8000, 8000)
    frames = []
    sequence = 0
    for n in range(30 + pause + 30):
        now = START + n * 0.02
        if n < 30 or n >= 30 + pause:
            buffer.push(sequence, n * 160, SSRC, sine(n), bytes, now)
            sequence += 1
        elif n - 30 < cn_packets:
            buffer.push_noise(sequence, n * 160, SSRC, bytes([level, 0x20]))
            sequence += 1
        frames.append(buffer.take(now + 0.003))
    return buffer, frames[33 : 30 + pause], frames[30 + pause + 4 :]


@pytest.mark.parametrize("level", [40, 50, 60])
@pytest.mark.parametrize("cn_packets", [1, 5, 50])
def test_pause_is_noise_of_the_level_that_was_told(level: int, cn_packets: int) -> None:
    buffer, noise, after = quiet_call(level, cn_packets=cn_packets)
    assert all(len(frame) == 320 for frame in noise)
    assert rms(b"".join(noise)) == pytest.approx(32768 * 10 ** (-level / 20), rel=0.15)
    assert rms(b"".join(after)) == pytest.approx(6000 / 2**0.5, rel=0.05)
    assert buffer.concealed_ms == buffer.late == buffer.timeline.sequences.lost == buffer.restarts == 0


def test_long_pause_stays_noise_and_ends_at_once() -> None:
    buffer, noise, after = quiet_call(50, pause=500)
    assert all(rms(frame) > 30 for frame in noise)
    assert rms(after[0]) > 3000
    assert buffer.concealed_ms == buffer.timeline.sequences.lost == 0


def test_silence_that_is_told_is_digital() -> None:
    _, noise, _ = quiet_call(127)
    assert set(noise) == {bytes(320)}


def test_no_noise_is_loud() -> None:
    noise = ComfortNoise(8000)
    assert not noise.known
    noise.hear(b"\x00")
    assert rms(noise.more(320)) < 1100


@given(st.binary(max_size=20), st.sampled_from([8000, 16000]), st.integers(1, 60))
def test_any_noise_packet_makes_whole_frames(payload: bytes, rate: int, count: int) -> None:
    noise = ComfortNoise(rate)
    assert noise.hear(payload) == b""
    assert {len(noise.more(rate // 25)) for _ in range(count)} == {rate // 25}


def test_noise_without_a_level_is_silence() -> None:
    noise = ComfortNoise(8000)
    noise.hear(b"")
    assert noise.more(320) == bytes(320)
    noise.hear(bytes([SILENT_DBOV - 1]))
    assert noise.more(320) != bytes(320)


# -- streams that break in mid-call -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ssrc", "sequence", "timestamp"),
    [
        (8, 4000, 999_999_999),
        (8, 100, 16_000),
        (SSRC, 40_000, 16_000),
        (SSRC, 100, 3_000_000_000),
        (SSRC, 60_000, 77),
        (SSRC, 100, 16_000 - 4000),
        (SSRC, 100, 16_000 + 4000),
    ],
    ids=["failover", "ssrc-only", "sequence", "timestamp", "both", "stepped-back", "stepped-ahead"],
)
@pytest.mark.parametrize("gap", [0, 10])
def test_break_of_the_stream_is_a_short_gap_without_noise(ssrc: int, sequence: int, timestamp: int, gap: int) -> None:
    buffer = JitterBuffer(8000, 8000)
    frames = []
    for n in range(200):
        now = START + n * 0.02
        if n < 100:
            buffer.push(n, n * 160, SSRC, sine(n), bytes, now)
        elif n >= 100 + gap:
            k = n - 100 - gap
            stamp = (timestamp + k * 160) & 0xFFFFFFFF
            buffer.push((sequence + k) & 0xFFFF, stamp, ssrc, sine(n), bytes, now)
        frames.append(buffer.take(now + 0.003))
    audible = [rms(frame) > 2000 for frame in frames[100 + gap :]]
    assert all(audible[8:])
    assert largest_step(frames) < 3 * largest_step([sine(n) for n in range(3)])
    assert buffer.delay_ms < 60
    assert buffer.timeline.sequences.lost <= 1
