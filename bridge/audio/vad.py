"""Voice activity of all calls: a level gate, webrtcvad behind it, and Silero in one batch over what passes both.

Each stage is for the sound the one before lets through: the gate costs a microsecond a frame and rests on silence
and steady noise; webrtcvad costs two and rests on clicks and hum; Silero costs 30 to 90 us a window and knows speech.
A silent caller never reaches the model; a speaking one is checked by it at the onset and every other window after.
"""

import asyncio
import audioop
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from math import inf, log10
from pathlib import Path

import structlog
import webrtcvad

from bridge.audio.frames import FRAME_MS, frame_bytes
from bridge.audio.vad_decision import EPSILON, DecisionSettings, SpeechDecision
from bridge.audio.vad_echo import EchoGuard, EchoSettings
from bridge.audio.vad_gate import GateSettings, LevelGate
from bridge.audio.vad_silero import (
    SAMPLE_RATES,
    WINDOW_MS,
    SileroBatch,
    SileroUnavailableError,
    Window,
    context_bytes,
    window_bytes,
)
from bridge.audio.voice import VoiceEvent, VoiceSound

log = structlog.get_logger(__name__)

NOISE_PROBABILITY = 0.15
NOISE_WINDOWS = 8
"""So many windows in a row (256 ms) below that probability are noise: the gate learns its level."""

CLEAR_RATIO = 2.5
"""A frame so far above the gate's threshold (8 dB) is hardly noise: only such windows may go unscored."""

SETTLED_WINDOWS = 4
"""Windows scored one by one after a start, before `speech_stride` applies: a false start ends soon."""

LEAD_OVER_MS = 2 * WINDOW_MS - 2 * FRAME_MS
"""Audio left over behind the lead-in windows: the window after next then ends two frames later."""

MANY_STREAMS = 50
"""With so many open, windows wait for others to be scored with: a window in a batch of four costs the model twice
what it costs in one of twenty. With fewer there is CPU enough to tell each voice at once."""

GATHER_S = 0.01
"""How long the first of them waits: three steps of the clock."""

AT_ONCE = 4
"""So many windows are scored in the event loop: to hand them to the model's thread and back, two processors woken,
costs as much as their scores."""

LEVEL_FRAMES = 100
"""Newest frames of a voice that its level is taken from (2 s)."""

FULL_SCALE = 32768

MAX_OUTSTANDING = 12
"""Windows of one stream that wait for the model (384 ms). On a box too busy for more, newer ones are not scored."""


@dataclass(frozen=True, slots=True)
class VoiceSettings:
    """How voice is told from all else. The defaults are measured by `bench/vad.py`."""

    silero: bool = True
    """False: the level gate and webrtcvad alone, as without the `vad` extra."""
    webrtc_mode: int = 2
    """0 (lets most pass) to 3."""
    lead_in_windows: int = 3
    """Windows before the first voiced frame that Silero hears first: cold it finds an onset 30 ms later."""
    attention_ms: int = 100
    """How long Silero listens on after the last voiced frame when no speech has started."""
    speech_stride: int = 2
    """While speech is under way and well above the noise, one window in so many is scored."""
    gate: GateSettings = field(default_factory=GateSettings)
    decision: DecisionSettings = field(default_factory=DecisionSettings)
    echo: EchoSettings = field(default_factory=EchoSettings)


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A window on its way to the model and back."""

    detector: "StreamDetector"
    window: Window
    start: float
    end: float


class VoiceActivity:
    """One per process. `open` gives each stream its detector; the media clock calls `after_tick`."""

    def __init__(self, settings: VoiceSettings | None = None, *, model: Path | None = None) -> None:
        """Load the model (0.2 s). Without the `vad` extra, or with an altered model file, this is logged once and the
        cheap detectors decide alone. `model` is another path to the same file."""
        self.settings = settings or VoiceSettings()
        self.windows_scored = 0
        self.windows_lost = 0
        """Windows not scored because the model fell behind."""
        self.batches = 0
        self._silero: SileroBatch | None = None
        self._executor: ThreadPoolExecutor | None = None
        if self.settings.silero:
            try:
                self._silero = SileroBatch(model)
            except SileroUnavailableError as error:
                log.warning("voice activity without Silero: starts are told later, noise passes", reason=str(error))
            else:
                self._executor = ThreadPoolExecutor(1, thread_name_prefix="silero")
        self._detectors: set[StreamDetector] = set()
        self._waiting: list[_Waiting] = []
        self._gather_until = 0.0
        """Clock time (s) until which what waits is not dispatched; counted from the first that does."""
        self._under_way: asyncio.Future[list[float]] | None = None
        self._now = 0.0
        self._closed = False

    @property
    def has_silero(self) -> bool:
        return self._silero is not None

    def open(self, sample_rate: int, handler: Callable[[VoiceEvent], None]) -> "StreamDetector":
        """A detector for one stream at `sample_rate` (8000 or 16000 Hz; else ValueError). `handler` gets its events
        on the running event loop, never from within `push`."""
        if sample_rate not in SAMPLE_RATES:
            raise ValueError(f"voice activity works at {SAMPLE_RATES} Hz, not {sample_rate}")
        if self._closed:
            raise RuntimeError("voice activity is closed")
        slot = self._silero.acquire() if self._silero is not None else None
        detector = StreamDetector(self, sample_rate, handler, slot)
        self._detectors.add(detector)
        return detector

    def after_tick(self, now: float) -> None:
        """Called by the media clock after every tick, in the event loop: what the tick gathered goes to the model,
        unless a batch is still under way; then it joins the next."""
        self._now = now
        if self._waiting and self._under_way is None and now >= self._gather_until:
            self._dispatch()

    async def drain(self) -> None:
        """Return when no window waits for the model or is under way."""
        while self._waiting or self._under_way is not None:
            if self._under_way is None:
                self._dispatch()
            if self._under_way is not None:
                await asyncio.wait([self._under_way])

    async def aclose(self) -> None:
        """Close every detector and end the model's thread. Idempotent."""
        self._closed = True
        for detector in list(self._detectors):
            detector.close()
        self._waiting.clear()
        await self.drain()
        if self._executor is not None:
            self._executor.shutdown()
            self._executor = None

    def submit(self, waiting: _Waiting, now: float) -> None:
        if not self._waiting and len(self._detectors) >= MANY_STREAMS:
            self._gather_until = now + GATHER_S - EPSILON
        self._waiting.append(waiting)

    def forget(self, detector: "StreamDetector", slot: int | None) -> None:
        self._detectors.discard(detector)
        if slot is not None and self._silero is not None:
            self._silero.release(slot)

    def _dispatch(self) -> None:
        # A closed stream's slot may have a new owner: only windows of open streams may be in a batch.
        batch = [w for w in self._waiting if not w.detector.closed]
        self._waiting = []
        if not batch or self._silero is None or self._executor is None:
            return
        if len(batch) <= AT_ONCE:
            try:
                probabilities = _score(self._silero, batch)
            except Exception as error:  # noqa: BLE001 -- whatever the model fails of, calls go on without it
                self._lose_silero(error)
            else:
                self._tell_scores(batch, probabilities)
            return
        loop = asyncio.get_running_loop()
        self._under_way = loop.run_in_executor(self._executor, _score, self._silero, batch)
        self._under_way.add_done_callback(lambda future: self._scored(batch, future))

    def _scored(self, batch: list[_Waiting], future: "asyncio.Future[list[float]]") -> None:
        self._under_way = None
        if future.cancelled():
            return
        error = future.exception()
        if error is not None:
            self._lose_silero(error)
            return
        self._tell_scores(batch, future.result())
        if self._waiting and self._now >= self._gather_until:
            self._dispatch()

    def _tell_scores(self, batch: list[_Waiting], probabilities: list[float]) -> None:
        self.batches += 1
        self.windows_scored += len(batch)
        for waiting, probability in zip(batch, probabilities, strict=True):
            waiting.detector.scored(waiting.start, waiting.end, probability, self._now)

    def _lose_silero(self, error: BaseException) -> None:
        """The model failed: no call may lose its ear for it."""
        log.error("Silero failed, voice activity goes on without it", error=repr(error))
        self._silero = None
        self._waiting = []
        for detector in self._detectors:
            detector.without_silero()


def _score(silero: SileroBatch, batch: list[_Waiting]) -> list[float]:
    """Run the model over `batch`. Windows of one stream depend on each other, so each is in a round of its own."""
    rounds: dict[tuple[int, int], list[int]] = {}
    seen: dict[int, int] = {}
    for index, waiting in enumerate(batch):
        turn = seen.get(waiting.window.stream, 0)
        seen[waiting.window.stream] = turn + 1
        rounds.setdefault((turn, waiting.detector.sample_rate), []).append(index)
    probabilities = [0.0] * len(batch)
    for (_, sample_rate), indices in sorted(rounds.items()):
        for index, probability in zip(
            indices, silero.score([batch[i].window for i in indices], sample_rate), strict=True
        ):
            probabilities[index] = probability
    return probabilities


class StreamDetector:
    """One stream's cascade; fulfils `VoiceDetector`."""

    def __init__(
        self, activity: VoiceActivity, sample_rate: int, handler: Callable[[VoiceEvent], None], slot: int | None
    ) -> None:
        settings = activity.settings
        self.sample_rate = sample_rate
        self.closed = False
        self._activity = activity
        self._handler = handler
        self._loop = asyncio.get_running_loop()
        self._slot = slot
        self._settings = settings
        self._gate = LevelGate(settings.gate)
        self._webrtc = webrtcvad.Vad(settings.webrtc_mode)
        self._echo = EchoGuard(settings.echo, sample_rate)
        self._decision = SpeechDecision(settings.decision, silero=slot is not None, accept=self._accept)
        self._frame_bytes = frame_bytes(sample_rate)
        self._window_bytes = window_bytes(sample_rate)
        self._context_bytes = context_bytes(sample_rate)
        # Windows are laid so that one ends with the third voiced frame, the first that may start speech.
        lead_ms = settings.lead_in_windows * WINDOW_MS + WINDOW_MS // 8 + LEAD_OVER_MS
        self._lead_bytes = lead_ms * sample_rate // 1000 * 2
        self._history: deque[bytes] = deque(maxlen=-(-max(lead_ms, settings.echo.compare_ms) // FRAME_MS))
        self._now = 0.0
        self._attention = 0
        """Frames Silero listens on for; 0: it does not listen."""
        self._attention_frames = settings.attention_ms // FRAME_MS
        self._pending = b""
        """Audio that is not yet in a window, with the context before it."""
        self._fresh = True
        self._outstanding = 0
        self._skipped = 0
        self._since_start = 0
        self._unheard_voice = False
        """A voiced frame came since the last window that went to the model."""
        self._unheard_doubt = False
        """One came that was not well above the noise."""
        self._noise_run = 0
        self._levels: deque[float] = deque(maxlen=LEVEL_FRAMES)
        """Of the newest frames with voice in them."""

    @property
    def sound(self) -> VoiceSound:
        """See `VoiceDetector`; the level is of the last two seconds of voice at most."""
        loud = sorted(self._levels)[len(self._levels) // 2 :]
        power = sum(level * level for level in loud) / len(loud) if loud else 0.0
        level_db = 10 * log10(power / FULL_SCALE**2) if power else -inf
        return VoiceSound(self._decision.last_voice, level_db, self._decision.certainty)

    def push(self, pcm: bytes, now: float) -> None:
        """One received 20 ms frame (int16 mono) and its clock time; a `FrameSink`. A frame of another size is not
        looked at."""
        if self.closed or len(pcm) != self._frame_bytes:
            return
        self._now = now
        self._history.append(pcm)
        decision = self._decision
        speaking = decision.speaking
        level = audioop.rms(pcm, 2)
        loud = self._gate.passes(level, speaking=speaking)
        voiced = loud
        if self._echo.loudest:
            voiced = level > self._echo.bound(level, now, speaking=speaking) and loud
        # Once speech is under way Silero watches it: webrtcvad's no to a soft caller's weak sounds would cut it up.
        if voiced and (not speaking or self._slot is None):
            voiced = self._webrtc.is_speech(pcm, self.sample_rate)
        event = decision.frame(now, voiced)
        if event is not None:
            self._tell(event)
        if voiced:
            self._levels.append(level)
        elif not speaking:
            self._levels.clear()
        if self._slot is not None:
            if voiced:
                self._unheard_voice = True
                if level < self._gate.threshold * CLEAR_RATIO:
                    self._unheard_doubt = True
                self._attend(pcm, now, True)
            elif self._attention:
                self._attend(pcm, now, False)

    def reference(self, pcm: bytes, now: float) -> None:
        """One frame as we sent it (int16 mono at the stream's rate), for `Playout.listen`: its echo is not speech."""
        self._echo.sent(pcm, audioop.rms(pcm, 2), now)

    def close(self) -> None:
        """Forget the stream; no event comes after. Idempotent."""
        if not self.closed:
            self.closed = True
            self._activity.forget(self, self._slot)

    def without_silero(self) -> None:
        """The cheap detectors decide alone from here on."""
        self._slot = None
        self._pending = b""
        self._attention = 0
        self._decision.without_silero()

    def scored(self, start: float, end: float, probability: float, now: float) -> None:
        """The model's word on the audio between `start` and `end`."""
        self._outstanding -= 1
        if self.closed:
            return
        was_speaking = self._decision.speaking
        event = self._decision.window(start, end, probability, now)
        if event is not None:
            self._tell(event)
        if self._decision.speaking:
            self._noise_run = 0
            if not was_speaking:
                self._since_start = 0
        elif probability < NOISE_PROBABILITY:
            self._noise_run += 1
            if self._noise_run >= NOISE_WINDOWS:
                self._noise_run = 0
                self._gate.learn_noise()
        else:
            self._noise_run = 0

    def _attend(self, pcm: bytes, now: float, voiced: bool) -> None:
        """Gather the windows that Silero is to hear."""
        if voiced:
            if not self._attention:
                lead = b"".join(self._history)[-self._lead_bytes :]
                self._pending = lead.rjust(self._lead_bytes, b"\0")
                self._fresh = True
                self._decision.restart()
            else:
                self._pending += pcm
            self._attention = self._attention_frames
        elif self._attention:
            self._pending += pcm
            if not self._decision.speaking:
                self._attention -= 1
                if not self._attention:
                    self._pending = b""
                    self._noise_run = 0
                    return
        else:
            return
        size = self._context_bytes + self._window_bytes
        while len(self._pending) >= size:
            window, self._pending = self._pending[:size], self._pending[self._window_bytes :]
            if self._wanted():
                behind = len(self._pending) - self._context_bytes
                self._submit(window, now - behind / (2 * self.sample_rate))

    def _wanted(self) -> bool:
        """While speech is under way not every window needs the model's word."""
        if not self._decision.speaking:
            return True
        self._since_start += 1
        if self._since_start <= SETTLED_WINDOWS:
            return True
        self._skipped += 1
        return self._unheard_voice and (self._unheard_doubt or self._skipped >= self._settings.speech_stride)

    def _submit(self, pcm: bytes, end: float) -> None:
        self._skipped = 0
        self._unheard_voice = self._unheard_doubt = False
        if self._slot is None:
            return
        if self._outstanding >= MAX_OUTSTANDING:
            self._activity.windows_lost += 1
            self._fresh = True
            self._decision.restart()
            return
        self._outstanding += 1
        window = Window(self._slot, pcm, self._fresh)
        self._fresh = False
        self._activity.submit(_Waiting(self, window, end - WINDOW_MS / 1000, end), self._now)

    def _accept(self) -> bool:
        return not self._echo.is_echo(self._history, self._now)

    def _tell(self, event: VoiceEvent) -> None:
        # Not from within the clock's tick or a batch's results: a handler that fails hurts only its own call.
        self._loop.call_soon(self._deliver, event)

    def _deliver(self, event: VoiceEvent) -> None:
        if not self.closed:
            self._handler(event)
