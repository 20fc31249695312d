"""The audio waiting to be sent on a leg, and the truth of what has been sent.

A producer opens an utterance (`begin`), writes PCM under its generation number, and ends it. The media clock takes
one frame a tick. Audio written under an old generation is refused, so a producer that was interrupted needs no
cancelling: what it still says is stale.

Where the far side buffers (media streams), its transport says how many frames that is (`far_frames`), has it drop
them when the agent is cut off (`on_cut`), and takes them back (`take_back`): they were never heard.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

import numpy as np

from bridge.audio.frames import BYTES_PER_SAMPLE, FrameSink, Unsubscribe, duration_ms, frame_bytes

FADE_MS = 5
"""Ramp at a pause, a drop and a resume: an abrupt edge is a click in the caller's ear."""

MAX_QUEUED_MS = 300_000
"""More than anyone would listen to; a producer that writes on is cut here and the loss is counted."""


@dataclass(frozen=True, slots=True)
class UtteranceStarted:
    generation: int
    at: float
    """Clock time (s) of the tick that sent the first frame."""


@dataclass(frozen=True, slots=True)
class UtteranceFinished:
    """Everything written was sent and the producer had ended it. Not told for an utterance that was dropped."""

    generation: int
    at: float


PlayoutEvent = UtteranceStarted | UtteranceFinished

Blend = Callable[[bytes, float], bytes]
"""Takes the playout's own frame and the clock's time; returns the frame to be sent in its place, of the same size."""


class Playout:
    """One leg's outgoing audio: int16 mono at `sample_rate` (Hz). Not thread-safe: the event loop's thread only."""

    def __init__(self, sample_rate: int, *, max_queued_ms: int = MAX_QUEUED_MS) -> None:
        self.sample_rate = sample_rate
        self.far_frames = 0
        """Frames taken, silent ones included, that the far side has not played yet; its transport keeps it up to date
        (after `keep`)."""
        self.on_cut: Callable[[], None] | None = None
        """Called at once when an utterance that was heard in part is paused or dropped: where the far side buffers,
        its transport has it drop what it has, and calls `take_back`."""
        self.overflow_ms: float = 0.0
        """Audio refused because the queue was full."""
        self.blend: Blend | None = None
        """Adds other parties' voices, or puts them in the place of ours (a bridged call). Called once a tick, also
        when nothing is sent; listeners get what it returned, counts and events are of our own audio."""
        self.underruns = 0
        """Times an open utterance ran dry after it had started: the producer was slower than speech."""
        self._frame_bytes = frame_bytes(sample_rate)
        self._silence = bytes(self._frame_bytes)
        self._fade_samples = sample_rate * FADE_MS // 1000
        self._max_bytes = max_queued_ms * sample_rate // 1000 * 2
        self._generation = 0
        self._chunks: deque[bytes] = deque()
        self._offset = 0
        """Bytes of the first chunk that were sent."""
        self._odd = b""
        """Half a sample at the end of what was written: byte streams are cut anywhere."""
        self._edge = b""
        """The faded 5 ms that a dropped utterance ends with; no part of the next one."""
        self._queued = 0
        self._sent = 0
        self._live = False
        """An utterance is under way: begun, neither dropped nor finished."""
        self._open = False
        """Its producer has more to say."""
        self._started = False
        self._dry = False
        self._paused = False
        self._fade_out = False
        self._fade_in = False
        self._sinks: list[FrameSink] = []
        self._handlers: list[Callable[[PlayoutEvent], None]] = []
        self._far_ms = 0.0
        self._kept: deque[bytes] | None = None
        """What the last frames held of the present utterance, unfaded; None: nobody takes anything back."""
        self._pulled = b""
        """The same of the frame under way."""
        self._since_cut = 0
        """Frames taken since the far side dropped what it had: it can't have more."""
        self._taken_back = 0
        """Bytes of the present utterance that were taken back last."""

    # -- the producer's side --------------------------------------------------------------------------------

    def begin(self) -> int:
        """Open a new utterance, not paused, and return its generation. What was left of the one before is dropped."""
        self.drop()
        self._generation += 1
        self._live = self._open = True
        self._started = self._dry = self._fade_in = False
        self._sent = self._taken_back = 0
        if self._kept:
            # Those frames are still on their way, but hold nothing of this one.
            self._kept = deque([b""] * len(self._kept), self._kept.maxlen)
        self._pulled = b""
        return self._generation

    def write(self, generation: int, pcm: bytes) -> bool:
        """Queue PCM of the utterance `generation`. False: it is stale (dropped, ended, replaced); stop producing."""
        if generation != self._generation or not self._open:
            return False
        if self._odd:
            pcm = self._odd + pcm
            self._odd = b""
        size = len(pcm)
        if size % BYTES_PER_SAMPLE:
            self._odd = pcm[-1:]
            pcm = pcm[:-1]
            size -= 1
        if self._queued + size > self._max_bytes:
            self.overflow_ms += duration_ms(size, self.sample_rate)
            return True
        if size:
            self._chunks.append(pcm)
            self._queued += size
            if self._dry:
                self._dry = False
                self._fade_in = True
        return True

    def end(self, generation: int) -> None:
        """Say that the utterance is complete. `UtteranceFinished` follows when its last frame was sent."""
        if generation == self._generation:
            self._open = False

    def pause(self) -> None:
        """Send silence from the next frame on (after a fade of 5 ms) and keep the tail; without an utterance
        under way it does nothing."""
        if self._live and not self._paused:
            self._cut()
            self._paused = True
            self._fade_out = self._started and self._queued > 0 and not self._fade_in

    def resume(self) -> None:
        """Go on where `pause` stopped."""
        if self._paused:
            self._paused = False
            self._fade_in = self._started and not self._fade_out
            self._fade_out = False

    def drop(self) -> float:
        """Drop what was not sent yet; the utterance is over and its generation stale. Returns the dropped ms.

        An utterance that is cut off while it sounds goes on for a fade of 5 ms, which counts as sent."""
        if not self._live:
            return 0.0
        if not self._paused:
            self._cut()
        sounding = self._started and self._queued > 0 and not self._fade_in
        if sounding and not (self._paused and not self._fade_out):
            self._edge = self._ramp(self._pull(self._fade_samples * BYTES_PER_SAMPLE), rising=False)
        dropped = duration_ms(self._queued, self.sample_rate)
        self._chunks.clear()
        self._offset = self._queued = 0
        self._odd = b""
        self._live = self._open = self._paused = self._fade_out = self._fade_in = False
        return dropped

    def skip(self) -> None:
        """Drop what was not sent yet; the utterance goes on with what is written next. One that is complete is over,
        as dropped."""
        live, started = self._live and self._open, self._started
        self.drop()
        if live:
            self._live = self._open = True
            self._started, self._dry = started, False
            self._fade_in = started

    def _cut(self) -> None:
        if self._started and self.on_cut is not None:
            self.on_cut()

    # -- the far side's buffer ------------------------------------------------------------------------------

    def keep(self, frames: int) -> None:
        """Keep the last `frames` frames, so that they can be taken back."""
        self._kept = deque(self._kept or (), frames)

    def take_back(self, frames: int, *, since: int = 0) -> bytes:
        """The far side dropped `frames` frames without playing them: the last that were taken, but for the last
        `since`. What they held of the present utterance was not sent after all; `resume` goes on with it.

        Returns a frame that fades out in their place, empty if there was nothing to be heard in them. It is no part
        of what counts as sent."""
        kept = self._kept
        if kept is None or frames <= 0:
            return b""
        later = [kept.pop() for _ in range(min(since, len(kept)))]
        if any(later):
            # The utterance went on meanwhile: nothing can be put before what was played.
            kept.extend(reversed(later))
            return b""
        pcm = b"".join(reversed([kept.pop() for _ in range(min(frames, len(kept)))]))
        kept.extend(later)
        self._since_cut = len(later)
        self._taken_back += len(pcm)
        self._sent -= len(pcm)
        if not pcm:
            return b""
        if self._live:
            if self._offset:
                self._chunks[0] = self._chunks[0][self._offset :]
                self._offset = 0
            self._chunks.appendleft(pcm)
            self._queued += len(pcm)
            self._dry = self._fade_out = False
            self._fade_in = True
        edge = self._ramp(pcm[: self._fade_samples * BYTES_PER_SAMPLE], rising=False)
        return edge + self._silence[len(edge) :]

    def played_after_all(self, frames: int) -> None:
        """Of what was taken back last, the first `frames` frames had been played: they count as sent, and `resume`
        goes on behind them. Where it went on already it stays as it is."""
        size = min(frames * self._frame_bytes, self._taken_back)
        if not self._live:
            self._taken_back -= size
            self._sent += size
        elif self._paused and size:
            self._taken_back -= size
            self._pull(min(size, self._queued))
            self._pulled = b""

    # -- the truth ------------------------------------------------------------------------------------------

    @property
    def generation(self) -> int:
        return self._generation

    @property
    def paused(self) -> bool:
        return self._paused

    @property
    def speaking(self) -> bool:
        """An utterance is under way, paused or not: begun, neither dropped nor finished."""
        return self._live

    @property
    def queued_bytes(self) -> int:
        return self._queued

    @property
    def queued_ms(self) -> float:
        return duration_ms(self._queued, self.sample_rate)

    @property
    def sent_ms(self) -> float:
        """Audio of the present (or last) utterance that went out on the wire, silence in between not counted."""
        return duration_ms(self._sent, self.sample_rate)

    @property
    def far_buffer_ms(self) -> float:
        """Audio of the present (or last) utterance that was sent and that the far side has not played yet."""
        if self._kept is None or not self.far_frames:
            return self._far_ms
        frames = min(self.far_frames, self._since_cut)
        return duration_ms(sum(map(len, islice(reversed(self._kept), frames))), self.sample_rate)

    @far_buffer_ms.setter
    def far_buffer_ms(self, value: float) -> None:
        """For a far side of which no more is known."""
        self._far_ms = value

    @property
    def heard_ms(self) -> float:
        """Audio of the present (or last) utterance that the far party has heard: sent, less the far buffer."""
        return max(0.0, self.sent_ms - self.far_buffer_ms)

    # -- the clock's side -----------------------------------------------------------------------------------

    def take(self, now: float) -> bytes:
        """The next 20 ms frame, silence where there is nothing to say. Called once a tick by the leg."""
        if self._queued and not self._paused and not self._edge and not self._fade_in:
            frame = self._pull(self._frame_bytes)
            if len(frame) < self._frame_bytes:
                frame = self._short(frame)
            if not self._started:
                self._started = True
                self._tell(UtteranceStarted(self._generation, now))
        else:
            frame = self._take_edge(now)
        if self._kept is not None:
            self._kept.append(self._pulled)
            self._pulled = b""
            self._since_cut += 1
        if self.blend is not None:
            frame = self.blend(frame, now)
        for sink in self._sinks:
            sink(frame, now)
        if self._live and not self._open and not self._queued and not self._paused:
            self._live = False
            self._tell(UtteranceFinished(self._generation, now))
        return frame

    def withhold(self, now: float) -> bytes:
        """A tick in which the leg sends no audio of ours (on hold, or DTMF in its place): everything stays queued,
        listeners get silence. Returns that frame."""
        self._fade_in = self._started
        self._fade_out = False
        self._edge = b""
        if self.blend is not None:
            self.blend(self._silence, now)
        for sink in self._sinks:
            sink(self._silence, now)
        return self._silence

    def _take_edge(self, now: float) -> bytes:
        """A frame with a seam in it, or silence."""
        if self._edge:
            frame = self._edge
            self._edge = b""
            if self._queued and not self._paused:
                # The next utterance starts within the frame that the one before fades out in.
                frame += self._pull(self._frame_bytes - len(frame))
                if not self._started:
                    self._started = True
                    self._tell(UtteranceStarted(self._generation, now))
        elif self._fade_out:
            self._fade_out = False
            frame = self._ramp(self._pull(self._fade_samples * BYTES_PER_SAMPLE), rising=False)
        elif self._queued and not self._paused:
            self._fade_in = False
            frame = self._ramp(self._pull(self._frame_bytes), rising=True)
        else:
            if self._open and self._started and not self._dry and not self._paused:
                self._dry = True
                self.underruns += 1
            return self._silence
        return frame + self._silence[len(frame) :]

    def _short(self, frame: bytes) -> bytes:
        """The queue's last, less than a frame: faded out, as what follows (if anything) is not there yet."""
        edge = min(len(frame), self._fade_samples * BYTES_PER_SAMPLE)
        frame = frame[:-edge] + self._ramp(frame[-edge:], rising=False)
        self._fade_in = True
        return frame + self._silence[len(frame) :]

    def _pull(self, size: int) -> bytes:
        """Up to `size` bytes from the queue, counted as sent."""
        head = self._chunks[0]
        end = self._offset + size
        if end < len(head):
            frame = head[self._offset : end]
            self._offset = end
        elif end == len(head):
            # What was written frame by frame goes out as it is.
            frame = head[self._offset :]
            self._chunks.popleft()
            self._offset = 0
        else:
            parts = [head[self._offset :]]
            self._chunks.popleft()
            self._offset = 0
            missing = size - len(parts[0])
            while missing and self._chunks:
                head = self._chunks[0]
                if missing < len(head):
                    parts.append(head[:missing])
                    self._offset = missing
                    break
                parts.append(self._chunks.popleft())
                missing -= len(head)
            frame = b"".join(parts)
        self._queued -= len(frame)
        self._sent += len(frame)
        if self._kept is not None:
            self._pulled += frame
        return frame

    def _ramp(self, pcm: bytes, *, rising: bool) -> bytes:
        """`pcm` with its first 5 ms faded in, or (given 5 ms at most) faded out."""
        samples = np.frombuffer(pcm, np.int16).astype(np.float32)
        count = min(self._fade_samples, len(samples))
        ramp = np.linspace(0.0, 1.0, count, dtype=np.float32)
        samples[:count] *= ramp if rising else ramp[::-1]
        return samples.astype(np.int16).tobytes()

    def _tell(self, event: PlayoutEvent) -> None:
        for handler in self._handlers:
            handler(event)

    def listen(self, sink: FrameSink) -> Unsubscribe:
        """Give `sink` every frame as it is sent, silence included."""
        self._sinks = [*self._sinks, sink]

        def unsubscribe() -> None:
            self._sinks = [s for s in self._sinks if s is not sink]

        return unsubscribe

    def subscribe(self, handler: Callable[[PlayoutEvent], None]) -> Unsubscribe:
        """Tell `handler` when an utterance starts and finishes. Runs on the media clock: it returns at once."""
        self._handlers = [*self._handlers, handler]

        def unsubscribe() -> None:
            self._handlers = [h for h in self._handlers if h is not handler]

        return unsubscribe
