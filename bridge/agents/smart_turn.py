"""An end-of-turn model that goes by the sound of the voice (smart-turn v3): one more sign for the turn detector.

It runs in a thread of its own for all calls of an agent, away from event loop and media clock, and nobody waits for
it: a verdict that comes after the turn has ended is ignored, and so is a model that is missing or fails.

Its input is a log-mel spectrogram of the turn's last eight seconds, its output the probability that the turn is over
(about 0.1 s a decision on one core; found inconclusive on synthetic voices, `protocols/local-engines.md`).
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from bridge.audio.frames import FRAME_MS
from bridge.audio.mel import HOP, MEL_BANDS, SAMPLE_RATE, log_mel
from bridge.audio.resample import Resampler

log = structlog.get_logger(__name__)

WINDOW_S = 8
"""Audio that the model hears: the end of it is the end of what was said."""

LEAD_MS = 500
"""Kept from before the voice set in."""

STALE_S = 0.5
"""A question that has waited this long for the model is not put to it any more: the turn has gone on, or is over."""

MAX_WAITING = 8
"""Questions that may wait; more are not taken."""

SHAPE = (MEL_BANDS, WINDOW_S * SAMPLE_RATE // HOP)
ERRORS_ONLY = 3


class SmartTurn:
    """One model for all calls of an agent."""

    def __init__(self, model: Path) -> None:
        """`model` is the ONNX file, loaded by the first `warm` or `ask`."""
        self._model = model
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="smart-turn")
        self._session: Any = None
        self._input = ""
        self._waiting = 0
        self.problem = ""
        """Why the model is not used; empty: it is, as far as is known."""
        self.lost = 0
        """Questions that were not put to it, as it had no time."""

    async def warm(self) -> None:
        """Have the model loaded. Never raises: see `problem`."""
        loading = asyncio.get_running_loop().run_in_executor(self._executor, self._load)
        await asyncio.wait({loading})
        self._worked(loading)

    def ask(self, pcm: bytes, sample_rate: int, told: Callable[[float], None]) -> None:
        """Judge `pcm` (int16 mono at `sample_rate` Hz; its end is the end of what was said). `told` gets the
        probability that the turn is over, on the event loop, if there is one in time. Returns at once."""
        if self.problem:
            return
        if self._waiting >= MAX_WAITING:
            self.lost += 1
            return
        self._waiting += 1
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._executor, self._judge, pcm, sample_rate, time.monotonic())
        future.add_done_callback(lambda done: self._judged(done, told))

    def _judged(self, future: "asyncio.Future[float | None]", told: Callable[[float], None]) -> None:
        self._waiting -= 1
        if not self._worked(future):
            return
        probability = future.result()
        if probability is None:
            self.lost += 1
        else:
            told(probability)

    def _worked(self, future: "asyncio.Future[Any]") -> bool:
        """Whether there is a result. Whatever went wrong (onnxruntime's errors have no common base), calls go on
        without the model."""
        if future.cancelled():
            return False
        error = future.exception()
        if error is not None:
            told = str(error).splitlines() or [type(error).__name__]
            self._give_up(f"{self._model}: {told[0]}")
        return error is None

    # -- in the thread --------------------------------------------------------------------------------------

    def _load(self) -> None:
        if self._session is not None or self.problem:
            return
        try:
            import onnxruntime
        except ImportError as error:
            self._give_up(f"onnxruntime can't be loaded ({error}): install offhook[vad]")
            return
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = ERRORS_ONLY
        session = onnxruntime.InferenceSession(str(self._model), options, providers=["CPUExecutionProvider"])
        inputs = session.get_inputs()
        if len(inputs) != 1 or tuple(inputs[0].shape[1:]) != SHAPE:
            found = ", ".join(f"{i.name} {i.shape}" for i in inputs)
            self._give_up(f"{self._model} is another model: it takes {found}, not a spectrogram of {SHAPE}")
            return
        self._input, self._session = inputs[0].name, session

    def _judge(self, pcm: bytes, sample_rate: int, asked_at: float) -> float | None:
        self._load()
        if self._session is None or time.monotonic() - asked_at > STALE_S:
            return None
        (probabilities,) = self._session.run(None, {self._input: features(pcm, sample_rate)[None]})
        return float(np.ravel(probabilities)[0])

    def _give_up(self, problem: str) -> None:
        self.problem = problem
        log.warning("turns are judged without the semantic model", reason=problem)


class TurnSound:
    """The sound of one caller's present turn, as far back as the model hears."""

    def __init__(self, sample_rate: int) -> None:
        self.sample_rate = sample_rate
        self._frames: deque[bytes] = deque()
        self._speaking = False

    def push(self, pcm: bytes, now: float) -> None:
        """One frame of the caller (20 ms, int16 mono); a `FrameSink`."""
        self._frames.append(pcm)
        kept_ms = WINDOW_S * 1000 if self._speaking else LEAD_MS
        if len(self._frames) > kept_ms // FRAME_MS:
            self._frames.popleft()

    def speech_started(self) -> None:
        self._speaking = True

    def commit(self, *, speaking: bool = False) -> None:
        """The turn is over. `speaking`: its voice goes on, into the next one."""
        self._speaking = speaking
        while len(self._frames) > LEAD_MS // FRAME_MS:
            self._frames.popleft()

    def pcm(self) -> bytes:
        return b"".join(self._frames)


def features(pcm: bytes, sample_rate: int) -> NDArray[np.float32]:
    """What the model takes of int16 mono audio: its last eight seconds at 16 kHz (silence before what is shorter), of
    zero mean and unit variance, as a log-mel spectrogram."""
    resampler = Resampler(sample_rate, SAMPLE_RATE)
    samples = np.frombuffer(resampler.process(pcm) + resampler.flush(), "<i2").astype(np.float32) / 32768
    wanted = WINDOW_S * SAMPLE_RATE
    samples = samples[-wanted:]
    samples = np.pad(samples, (wanted - len(samples), 0))
    return log_mel((samples - samples.mean()) / np.sqrt(samples.var() + np.float32(1e-7)))
