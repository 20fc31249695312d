"""The jitter buffer: whatever the network does, frames come out whole, in order, soon, and once."""

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.audio.codec import PCMU
from bridge.rtp.jitter import BURST_MS, MAX_DELAY_MS, MIN_DELAY_MS, JitterBuffer

SSRC = 7
SILENCE = bytes(320)
START = 1000.0


def identity(payload: bytes) -> bytes:
    return payload


def numbered(n: int, ms: int = 20) -> bytes:
    """PCM whose every sample tells its packet; the first one is negative, which concealment does not imitate."""
    pcm = np.full(8 * ms, n + 1, "<i2")
    pcm[0] = -n - 1
    return pcm.tobytes()


@dataclass
class Run:
    buffer: JitterBuffer
    frames: list[bytes]
    delays: list[float]

    @property
    def whole(self) -> list[int]:
        """The packets that were played untouched, in order of play."""
        heard = []
        for frame in self.frames:
            values = np.frombuffer(frame, "<i2")
            if values[0] < 0 and (values[1:] == -values[0]).all():
                heard.append(int(values[1]) - 1)
        return heard


Sent = tuple[float, int, int, bytes]
"""Arrival (s), sequence, timestamp, PCM."""


def play(packets: Iterable[Sent], ticks: int, *, phase: float = 0.007, ssrc: int = SSRC) -> Run:
    buffer = JitterBuffer(8000, 8000)
    queue = sorted(packets, key=lambda packet: packet[0])
    run = Run(buffer, [], [])
    for tick in range(ticks):
        now = START + phase + tick * 0.02
        while queue and queue[0][0] <= now:
            arrival, sequence, timestamp, pcm = queue.pop(0)
            buffer.push(sequence & 0xFFFF, timestamp & 0xFFFFFFFF, ssrc, pcm, identity, arrival)
        frame = buffer.take(now)
        assert len(frame) == 320
        run.frames.append(frame)
        run.delays.append(buffer.delay_ms)
    return run


def steady(
    count: int,
    *,
    late_ms: Callable[[int], float] = lambda n: 0.0,
    lost: Callable[[int], bool] = lambda n: False,
    first_sequence: int = 100,
    first_timestamp: int = 5000,
    pcm: Callable[[int], bytes] = numbered,
    drift: float = 0.0,
) -> list[Sent]:
    return [
        (
            START + n * 0.02 * (1 + drift) + late_ms(n) / 1000,
            first_sequence + n,
            first_timestamp + n * 160,
            pcm(n),
        )
        for n in range(count)
        if not lost(n)
    ]


def speech(n: int) -> bytes:
    times = (np.arange(160) + 160 * n) / 8000
    wave = 5000 * np.sin(2 * np.pi * 180 * times) * (1.1 + np.sin(2 * np.pi * 3 * times))
    return wave.astype("<i2").tobytes()


def largest_step(frames: list[bytes]) -> int:
    return int(np.abs(np.diff(np.frombuffer(b"".join(frames), "<i2").astype(int))).max())


# -- the plain cases ----------------------------------------------------------------------------------------


def test_steady_stream_is_played_whole_after_the_shortest_delay() -> None:
    run = play(steady(100), 110)
    assert run.whole[:100] == list(range(100))
    assert 20 <= run.delays[50] < 40
    assert run.buffer.late == run.buffer.timeline.sequences.lost == run.buffer.concealed_ms == 0


@pytest.mark.parametrize(("sequence", "timestamp"), [(0xFFF0, 0), (0, 0xFFFFFFFF - 1600), (0xFFFF, 0xFFFFFFFF)])
def test_sequence_and_timestamp_wrap_unheard(sequence: int, timestamp: int) -> None:
    run = play(steady(100, first_sequence=sequence, first_timestamp=timestamp), 105)
    assert run.whole == list(range(100))
    assert run.buffer.restarts == 0


def test_reordered_packets_are_put_in_order() -> None:
    run = play(steady(100, late_ms=lambda n: 15 if n % 3 == 1 else 0), 110)
    assert run.whole == list(range(100))


def test_duplicates_are_played_once() -> None:
    packets = steady(100)
    run = play(packets + [(arrival + 0.004, *rest) for arrival, *rest in packets], 110)
    assert run.whole == list(range(100))
    assert run.buffer.timeline.sequences.received == 100 and run.buffer.late == 0


@pytest.mark.parametrize("back", [1, 60, 99])
def test_a_packet_sent_again_long_after_many_in_order_is_known(back: int) -> None:
    packets = steady(400)
    again = packets[300 - back]
    run = play([*packets[:301], (packets[300][0] + 0.001, *again[1:]), *packets[301:]], 410)
    assert run.whole == list(range(400))
    assert run.buffer.timeline.sequences.received == 400


def test_lost_packet_is_concealed_and_counted_and_nothing_else_moves() -> None:
    run = play(steady(100, lost=lambda n: n == 50), 110)
    # The frame after the gap is faded over from the invented audio.
    assert set(range(100)) - set(run.whole) <= {50, 51}
    assert run.buffer.timeline.sequences.lost == 1
    assert run.buffer.concealed_ms == 20
    assert run.delays[60] == pytest.approx(run.delays[40])


def test_concealment_goes_on_in_the_callers_sound_and_then_fades() -> None:
    run = play(steady(100, lost=lambda n: 50 <= n < 57, pcm=speech), 110)
    first = next(i for i, frame in enumerate(run.frames) if frame == speech(49)) + 1
    level = [int(np.abs(np.frombuffer(frame, "<i2").astype(int)).max()) for frame in run.frames]
    assert level[first] > level[first - 1] / 2
    assert level[first] > level[first + 1] > level[first + 2] > level[first + 3]
    assert level[first + 4] == 0
    assert largest_step(run.frames) < 3 * largest_step([speech(n) for n in range(100)])


def test_late_packet_is_counted_and_dropped() -> None:
    run = play(steady(100, late_ms=lambda n: 70 if n == 50 else 0), 110)
    assert 50 not in run.whole
    assert run.buffer.late == 1 and run.buffer.timeline.sequences.lost == 0


@pytest.mark.parametrize("phase", [0.001, 0.0099, 0.0101, 0.019])
def test_steady_stream_waits_ten_ms_at_least_and_says_what_it_waits_too_long(phase: float) -> None:
    run = play(steady(100), 99, phase=phase)
    assert MIN_DELAY_MS <= run.delays[-1] < MIN_DELAY_MS + 20
    assert run.buffer.spare_ms == pytest.approx(run.delays[-1] - MIN_DELAY_MS, abs=0.01)


def test_first_late_packets_cost_what_bridges_them_and_then_the_delay_follows() -> None:
    """The floor is low: jitter is waited for once it was seen twice in a second, as a single packet proves none."""
    run = play(steady(400, late_ms=lambda n: 35 if n % 25 == 20 else 0, pcm=speech), 410)
    assert run.buffer.concealed_ms <= 40 and run.buffer.late <= 2
    assert run.buffer.timeline.sequences.lost == 0
    assert 35 <= run.delays[390] < 60
    assert b"".join(speech(n) for n in range(150, 380)) in b"".join(run.frames)


@pytest.mark.parametrize(("ms", "apart_ms"), [(10, 10), (20, 0), (30, 10), (40, 0), (60, 0)])
def test_time_to_spare_counts_from_where_frames_are_whole(ms: int, apart_ms: int) -> None:
    packets = [(START + 0.015 * (n % 2) + n * ms / 1000, n, n * 8 * ms, bytes(16 * ms)) for n in range(200)]
    run = play(packets, 90)
    need_ms = 15 + (apart_ms + 2 if apart_ms else 0)
    assert run.buffer.spare_ms == pytest.approx(run.delays[-1] - need_ms, abs=0.01)


def test_delay_told_is_not_the_longer_for_a_stream_that_has_ended() -> None:
    run = play(steady(100), 106)
    assert run.delays[98:106] == pytest.approx([run.delays[90]] * 8)
    assert play(steady(100), 115).buffer.delay_ms == 0


def test_nothing_is_to_spare_while_nothing_plays() -> None:
    buffer = JitterBuffer(8000, 8000)
    assert buffer.spare_ms is None
    buffer.push(1, 160, SSRC, speech(1), identity, START)
    assert buffer.spare_ms is None


# -- adaptation ---------------------------------------------------------------------------------------------


def test_delay_grows_with_jitter_until_hardly_a_packet_is_late() -> None:
    rng = random.Random(1)
    run = play(steady(1500, late_ms=lambda n: rng.uniform(0, 80)), 1500)
    assert run.buffer.late < 15
    assert 70 <= run.delays[1400] <= 120


def test_delay_shrinks_in_quiet_frames_when_the_jitter_is_over() -> None:
    rng = random.Random(1)
    run = play(steady(2000, late_ms=lambda n: rng.uniform(0, 100) if n < 500 else 0, pcm=lambda n: bytes(320)), 2000)
    assert max(run.delays[400:500]) > 80
    assert run.delays[1990] <= 42


def test_delay_shrinks_within_speech_without_clicks() -> None:
    rng = random.Random(1)
    run = play(steady(2000, late_ms=lambda n: rng.uniform(0, 100) if n < 500 else 0, pcm=speech), 2000)
    assert run.delays[1990] <= 42
    assert largest_step(run.frames[600:]) < 2 * largest_step([speech(n) for n in range(100)])


def test_delay_never_passes_its_bound() -> None:
    rng = random.Random(1)
    run = play(steady(1000, late_ms=lambda n: rng.uniform(0, 600)), 1050)
    assert max(run.delays[:990]) <= MAX_DELAY_MS + BURST_MS + 40


def test_stalled_network_costs_its_stall_and_then_the_delay_comes_down() -> None:
    run = play(steady(1500, late_ms=lambda n: max(0, 500 - 20 * (n - 500)) if n >= 500 else 0), 1500)
    assert max(changed(run)) >= 1490
    assert run.buffer.restarts == 0
    assert max(run.delays) <= MAX_DELAY_MS + BURST_MS + 40
    assert run.delays[1490] <= 42


def test_path_that_became_longer_is_followed() -> None:
    run = play(steady(1000, late_ms=lambda n: 100 if n >= 300 else 0), 1050)
    # Pitch periods bring the delay to where it should be; all that came is played.
    assert changed(run) >= set(range(420, 990))
    assert run.buffer.late == 0


@pytest.mark.parametrize("drift", [-500e-6, 500e-6])
def test_drifting_sender_is_followed_in_quiet_frames(drift: float) -> None:
    run = play(steady(6000, pcm=lambda n: bytes(320), drift=drift), 5990)
    assert 10 <= run.delays[-1] <= 45
    assert run.buffer.late == 0


# -- other senders ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ms", [10, 30, 40, 60])
def test_other_packet_lengths_play_without_a_seam(ms: int) -> None:
    stream = np.arange(1, 16001, dtype="<i2").tobytes()
    size = 16 * ms
    packets = [
        (START + n * ms / 1000, n, n * 8 * ms, stream[n * size : (n + 1) * size]) for n in range(len(stream) // size)
    ]
    run = play(packets, 95)
    sound = b"".join(run.frames)
    start = sound.index(stream[:320])
    assert stream.startswith(sound[start:])
    assert run.buffer.concealed_ms == 0


def test_pause_of_the_sender_is_silence_and_not_loss() -> None:
    packets = steady(50) + [
        (START + (n + 100) * 0.02, 150 + n, 5000 + (n + 100) * 160, numbered(n + 100)) for n in range(50)
    ]
    run = play(packets, 160)
    assert set(run.whole) >= set(range(50)) | set(range(101, 150))
    assert run.buffer.concealed_ms == 0 and run.buffer.timeline.sequences.lost == 0
    assert run.delays[150] < 45


def test_short_pause_is_no_loss_either() -> None:
    packets = [packet for packet in steady(100) if not 5000 + 50 * 160 <= packet[2] < 5000 + 55 * 160]
    packets = [(arrival, 100 + i, timestamp, pcm) for i, (arrival, _, timestamp, pcm) in enumerate(packets)]
    run = play(packets, 110)
    assert run.buffer.concealed_ms == 0
    assert run.delays[90] < 45


def test_comfort_noise_packet_silences_at_once() -> None:
    buffer = JitterBuffer(8000, 8000)
    frames = []
    for n in range(20):
        now = START + n * 0.02
        if n < 10:
            buffer.push(n, n * 160, SSRC, speech(n), identity, now)
        elif n == 10:
            buffer.push_pause(n, n * 160, SSRC)
        frames.append(buffer.take(now + 0.001))
    last = max(i for i, frame in enumerate(frames) if frame != SILENCE)
    assert frames[last] == speech(9)
    assert buffer.concealed_ms == 0 and buffer.timeline.sequences.lost == 0


def test_audio_beside_event_packets_of_the_same_time_is_played() -> None:
    buffer = JitterBuffer(8000, 8000)
    frames = []
    for n in range(30):
        now = START + n * 0.02
        if n == 15:
            buffer.push_pause(2 * n, n * 160, SSRC)
        buffer.push(2 * n + 1, n * 160, SSRC, numbered(n), identity, now)
        frames.append(buffer.take(now + 0.001))
    assert numbered(15) in frames


# -- streams that begin anew --------------------------------------------------------------------------------


def restarted(offset_ticks: int, sequence: int, timestamp: int, count: int = 50) -> list[Sent]:
    return [
        (START + (offset_ticks + n) * 0.02, sequence + n, timestamp + n * 160, numbered(500 + n))
        for n in range(count)
    ]


@pytest.mark.parametrize(
    ("sequence", "timestamp"),
    [(30000, 5000 + 50 * 160), (150, 5_000_000), (1, 1), (150, 5000 + 50 * 160 - 5 * 160), (150, 4_000_000_000)],
)
def test_jump_of_sequence_or_timestamp_is_a_new_beginning(sequence: int, timestamp: int) -> None:
    run = play(steady(50) + restarted(50, sequence, timestamp), 120)
    assert set(run.whole) >= set(range(48)) | set(range(507, 548))
    assert run.delays[90] < 45


def test_new_ssrc_is_absorbed_by_its_second_packet() -> None:
    buffer = JitterBuffer(8000, 8000)
    heard = []
    for n in range(100):
        now = START + n * 0.02
        ssrc, sequence = (SSRC, n) if n < 50 else (99, 4000 + n)
        buffer.push(sequence, 160 * n if n < 50 else 77 + 160 * n, ssrc, numbered(n), identity, now)
        heard.append(buffer.take(now + 0.001))
    assert buffer.restarts == 1
    assert numbered(55) in heard and numbered(97) in heard
    assert buffer.timeline.sequences.lost == 0


def test_stray_packet_of_another_stream_changes_nothing() -> None:
    buffer = JitterBuffer(8000, 8000)
    for n in range(100):
        now = START + n * 0.02
        buffer.push(n, 160 * n, SSRC, numbered(n), identity, now)
        if n % 2:
            # Another stream all along, packet by packet between ours.
            buffer.push(9000 + n // 2, 160 * n, 1234, numbered(9), identity, now)
        frame = buffer.take(now + 0.001)
        assert frame in (SILENCE, numbered(n - 1))
    assert buffer.restarts == 0


# -- any network --------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(
    delays=st.lists(st.none() | st.integers(0, 19), min_size=5, max_size=120),
    duplicates=st.sets(st.integers(0, 119)),
    sequence=st.integers(0, 0xFFFF),
    timestamp=st.integers(0, 0xFFFFFFFF),
)
def test_every_packet_on_time_is_played_once_and_in_order(
    delays: list[int | None], duplicates: set[int], sequence: int, timestamp: int
) -> None:
    """Within the shortest delay any order is on time; what is played is all that came, around the losses."""
    late = {n: delay or 0 for n, delay in enumerate(delays)}
    late[0] = 0
    gone = {n for n, delay in enumerate(delays) if delay is None and n}
    packets = steady(
        len(delays),
        late_ms=lambda n: late[n],
        lost=lambda n: n in gone,
        first_sequence=sequence,
        first_timestamp=timestamp,
    )
    packets += [(packet[0] + 0.011, *packet[1:]) for n, packet in enumerate(packets) if n in duplicates]
    run = play(packets, len(delays) + 20)
    assert run.whole == sorted(set(run.whole))
    # A frame beside a gap is faded; losses at the very end end the stream; more waiting follows a long gap.
    near_loss = {n + 1 for n in gone}
    assert set(range(len(delays))) - gone - near_loss <= set(run.whole)
    assert set(range(len(delays))) - gone <= changed(run)
    assert run.buffer.timeline.sequences.received == len(delays) - len(gone)


def changed(run: Run) -> set[int]:
    """Packets of which something was played, faded over or not."""
    return {int(value) - 1 for frame in run.frames for value in np.unique(np.frombuffer(frame, "<i2")) if value > 0}


packet_values = st.tuples(
    st.integers(0, 0xFFFF) | st.integers(0, 40),
    st.integers(0, 0xFFFFFFFF) | st.integers(0, 40).map(lambda n: n * 160) | st.integers(0, 9000),
    st.sampled_from([1, 1, 1, 2]),
    st.binary(max_size=2100) | st.just(bytes(160)),
    st.floats(-1, 1),
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.none() | packet_values | packet_values.map(lambda values: (*values[:4], None)), max_size=150),
    st.sampled_from([(8000, 8000), (16000, 16000), (8000, 16000), (48000, 16000)]),
)
def test_any_packets_at_any_time_never_raise_nor_make_a_wrong_frame(
    steps: list[tuple[int, int, int, bytes, float | None] | None], rates: tuple[int, int]
) -> None:
    buffer = JitterBuffer(*rates)
    decode = identity if rates[1] == 16000 else PCMU.decoder()
    now = START
    for step in steps:
        if step is None:
            now += 0.02
            assert len(buffer.take(now)) == rates[1] // 50 * 2
        else:
            sequence, timestamp, ssrc, payload, arrival = step
            if arrival is None:
                buffer.push_pause(sequence, timestamp, ssrc)
            else:
                buffer.push(sequence, timestamp, ssrc, payload, decode, now + arrival)
    for _ in range(40):
        now += 0.02
        assert len(buffer.take(now)) == rates[1] // 50 * 2
    assert buffer.timeline.sequences.lost >= 0 and buffer.late >= 0
    assert len(buffer._packets) < 400


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), loss=st.floats(0, 0.5), jitter_ms=st.integers(0, 400))
def test_latency_is_bounded_and_order_kept_on_any_network(seed: int, loss: float, jitter_ms: int) -> None:
    rng = random.Random(seed)
    packets = steady(300, late_ms=lambda n: rng.uniform(0, jitter_ms), lost=lambda n: rng.random() < loss)
    run = play(packets, 340)
    assert run.whole == sorted(run.whole)
    assert max(run.delays[:290]) <= MAX_DELAY_MS + BURST_MS + 40
    assert not run.buffer._packets or run.buffer.delay_ms


def test_clock_and_sample_rates_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="neither"):
        JitterBuffer(44100, 16000)
