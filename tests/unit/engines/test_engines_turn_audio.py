"""The audio of a caller's turn, in windows."""

import numpy as np

from bridge.providers.local.turn_audio import PRE_ROLL_MS, WINDOW_S, TurnAudio

FRAME = 320
RATE = 8000


def frame(number: int) -> bytes:
    return bytes([number % 251, number % 7]) * (FRAME // 2)


def push(turn: TurnAudio, first: int, count: int) -> bytes:
    frames = [frame(number) for number in range(first, first + count)]
    for pcm in frames:
        turn.push(pcm)
    return b"".join(frames)


def test_the_turn_begins_300_ms_before_its_voice_was_told() -> None:
    turn = TurnAudio(RATE, 60)
    before = push(turn, 0, 100)
    turn.speech_started()
    speech = push(turn, 100, 50)
    assert bytes(turn.windows[0].audio) == before[-FRAME * PRE_ROLL_MS // 20 :] + speech


def test_a_short_pause_within_the_turn_loses_and_doubles_nothing() -> None:
    turn = TurnAudio(RATE, 60)
    turn.speech_started()
    first = push(turn, 0, 50)
    turn.speech_paused()
    gap = push(turn, 50, 10)
    turn.speech_started()
    second = push(turn, 60, 20)
    (window,) = turn.windows
    assert bytes(window.audio) == first + gap + second


def test_a_long_pause_is_cut_out() -> None:
    turn = TurnAudio(RATE, 60)
    turn.speech_started()
    push(turn, 0, 50)
    turn.speech_paused()
    push(turn, 50, 500)
    turn.speech_started()
    assert len(turn.windows[0].audio) == FRAME * (50 + PRE_ROLL_MS // 20)


def test_silence_without_a_turn_is_not_kept() -> None:
    turn = TurnAudio(RATE, 60)
    push(turn, 0, 10000)
    assert turn.windows == []


def test_what_is_said_after_a_full_window_goes_into_a_new_one() -> None:
    turn = TurnAudio(RATE, 60)
    turn.speech_started()
    push(turn, 0, 450)
    turn.speech_paused()
    turn.speech_started()
    push(turn, 450, 10)
    assert [len(window.audio) // FRAME for window in turn.windows] == [450, 10]


def test_speech_without_a_pause_is_cut_at_its_quietest_place() -> None:
    loud = np.random.default_rng(0).integers(-9000, 9000, 8000 * 20).astype("<i2")
    quiet_from, quiet_to = int(9.5 * RATE), int(9.8 * RATE)
    loud[quiet_from:quiet_to] //= 100
    audio = loud.tobytes()
    turn = TurnAudio(RATE, 60)
    turn.speech_started()
    filled = [window for start in range(0, len(audio), FRAME) if (window := turn.push(audio[start : start + FRAME]))]
    assert len(filled) == 1
    assert quiet_from * 2 < len(filled[0].audio) < quiet_to * 2
    assert b"".join(bytes(window.audio) for window in turn.windows) == audio


def test_the_beginning_of_an_endless_turn_is_forgotten() -> None:
    turn = TurnAudio(RATE, 30)
    turn.speech_started()
    push(turn, 0, 50 * 300)
    kept_s = sum(len(window.audio) for window in turn.windows) / (2 * RATE)
    assert 30 - WINDOW_S <= kept_s <= 30 + WINDOW_S


def test_a_commit_while_the_caller_speaks_begins_the_next_turn_there() -> None:
    turn = TurnAudio(RATE, 60)
    turn.speech_started()
    push(turn, 0, 50)
    turn.windows[0].recognised("old", len(turn.windows[0].audio))
    turn.commit()
    after = push(turn, 50, 10)
    assert bytes(turn.windows[0].audio) == after
    assert turn.text == ""


def test_a_commit_in_silence_leaves_nothing() -> None:
    turn = TurnAudio(RATE, 60)
    turn.speech_started()
    push(turn, 0, 50)
    turn.speech_paused()
    turn.commit()
    assert turn.windows == []


def test_a_result_for_less_audio_does_not_replace_one_for_more() -> None:
    turn = TurnAudio(RATE, 60)
    turn.speech_started()
    push(turn, 0, 50)
    (window,) = turn.windows
    window.recognised("the whole", len(window.audio))
    window.recognised("the", 320)
    assert window.text == "the whole"
    assert window.settled
