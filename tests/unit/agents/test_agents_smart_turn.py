"""The semantic end-of-turn model: what it is fed, that nobody waits for it, and that its failure is no failure."""

import asyncio
import math
import threading
from pathlib import Path

import numpy as np
import pytest
from agents_call import Call, conversing
from agents_onnx import mean_model

from bridge.agents.smart_turn import LEAD_MS, MAX_WAITING, SHAPE, SmartTurn, TurnSound, features
from bridge.events import Note, TurnEnded

RATE = 8000


def tone(seconds: float, rate: int = RATE) -> bytes:
    t = np.arange(int(seconds * rate)) / rate
    return (8000 * np.sin(2 * np.pi * 440 * t)).astype("<i2").tobytes()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.onnx"
    path.write_bytes(mean_model())
    return path


@pytest.mark.parametrize(("seconds", "rate"), [(0.0, 8000), (1.0, 8000), (3.0, 16000), (20.0, 8000), (2.0, 48000)])
def test_spectrogram_is_of_the_last_eight_seconds(seconds: float, rate: int) -> None:
    made = features(tone(seconds, rate), rate)
    assert made.shape == SHAPE and made.dtype == np.float32 and np.isfinite(made).all()
    if 1 <= seconds < 8:
        first = round((8 - seconds) * 100)
        loud = made.max(axis=0)
        assert loud[first + 5 :].min() > loud[: first - 5].max(), "what is shorter stands at the end"


def test_sound_of_a_turn_begins_just_before_its_voice_and_is_no_longer_than_the_model_hears() -> None:
    sound = TurnSound(RATE)
    for number in range(200):
        sound.push(bytes([number]) * 320, 0.0)
    assert len(sound.pcm()) == LEAD_MS * 16
    sound.speech_started()
    for _ in range(100):
        sound.push(bytes(320), 0.0)
    assert len(sound.pcm()) == (LEAD_MS + 2000) * 16
    for _ in range(600):
        sound.push(bytes(320), 0.0)
    assert len(sound.pcm()) == 8000 * 16
    sound.commit()
    assert len(sound.pcm()) == LEAD_MS * 16


async def test_verdict_of_a_real_model(model: Path) -> None:
    smart_turn = SmartTurn(model)
    told = asyncio.get_running_loop().create_future()
    smart_turn.ask(tone(2), RATE, told.set_result)
    expected = 1 / (1 + math.exp(-float(features(tone(2), RATE).mean())))
    assert await asyncio.wait_for(told, 30) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("content", "problem"),
    [(None, "doesn't exist"), (b"no model", "failed"), (mean_model((80, 3000)), "is another model")],
)
async def test_model_that_is_missing_or_another_is_a_problem_and_no_error(
    tmp_path: Path, content: bytes | None, problem: str
) -> None:
    path = tmp_path / "model.onnx"
    if content is not None:
        path.write_bytes(content)
    smart_turn = SmartTurn(path)
    await smart_turn.warm()
    assert problem in smart_turn.problem and str(path) in smart_turn.problem
    smart_turn.ask(tone(1), RATE, lambda probability: pytest.fail("there is no model to tell anything"))


async def test_questions_that_the_model_has_no_time_for_are_dropped(model: Path) -> None:
    smart_turn = SmartTurn(model)
    await smart_turn.warm()
    go_on, told = threading.Event(), []
    blocked = asyncio.get_running_loop().run_in_executor(smart_turn._executor, go_on.wait)
    for _ in range(MAX_WAITING + 3):
        smart_turn.ask(tone(0.1), RATE, told.append)
    assert smart_turn.lost == 3
    go_on.set()
    await blocked
    while smart_turn._waiting:
        await asyncio.sleep(0)
    assert len(told) + smart_turn.lost == MAX_WAITING + 3


def test_its_doubt_makes_the_silence_longer_and_stands_in_the_record(tmp_path: Path) -> None:
    # The mean of a mostly silent spectrogram is negative: this model always says that the turn goes on.
    path = tmp_path / "tiny.onnx"
    path.write_bytes(mean_model())

    @conversing
    async def talk() -> None:
        async with Call(turns={"semantic_model": path}) as call:
            await call.agent.warm()
            await call.agent_silent()
            said_at = await call.say("when are you open")
            await call.agent_speaks()
            assert call.wire(said_at)[0][0] - said_at > 1.2
            turn = next(turn for turn in call.of(TurnEnded) if turn.speaker == "caller")
            assert turn.why.startswith("1200 ms of silence: complete, but the semantic model says it goes on (0.")
            assert call.of(Note) == []

    talk()


def test_call_without_the_model_it_should_have_goes_on_and_says_so(tmp_path: Path) -> None:
    @conversing
    async def talk() -> None:
        async with Call(turns={"semantic_model": tmp_path / "none.onnx"}) as call:
            await call.agent.warm()
            for _ in range(2):
                await call.agent_silent()
                await call.say("when are you open")
            await call.until(lambda: len(call.said("caller")) == 2)
            (note,) = call.of(Note)
            assert note.name == "semantic-model" and "none.onnx" in note.detail

    talk()
