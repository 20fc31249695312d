"""The media of a call with two legs: who hears whom, through us, on the media clock.

A junction sits between the caller's leg, a second leg and the agent. It is stepped by the two legs' own ticks: each
gives it the frame that it received and takes the one that it sends, so there is no task, queue or timer per frame.
What the caller hears is what the leg's playout tells its listeners, so a recording goes on as before.
"""

import audioop
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import Flag, auto
from functools import lru_cache

import numpy as np

from bridge.audio.frames import FRAME_MS, Unsubscribe, frame_bytes
from bridge.audio.playout import Playout
from bridge.audio.resample import FrameResampler
from bridge.audio.tones import HOLD, HOLD_LEVEL, LEVEL, RINGBACK, cadence
from bridge.events import AgentPart
from bridge.legs.base import Leg

MAX_WAITING_FRAMES = 3
"""Frames between the two legs' ticks, which lie less than one apart. More gather only while a leg sends nothing (DTMF
in the place of audio); the oldest go, so that the conversation does not stay late for it."""


QUIET_TICKS = 100
"""Two seconds of nothing from a party that holds us: it has no music, whatever it said."""

QUIET_LEVEL = 8
"""Peak of a frame (of 32767) that counts as nothing: A-law's silence is no zero."""


class Voice(Flag):
    """Who and what can be heard."""

    NOBODY = 0
    CALLER = auto()
    SECOND = auto()
    AGENT = auto()
    HOLD = auto()
    """Our hold tone."""
    RINGBACK = auto()


@dataclass(frozen=True, slots=True)
class Routing:
    """What each party hears."""

    caller: Voice
    second: Voice
    agent: Voice

    def without_agent(self) -> "Routing":
        """The agent neither heard nor hearing."""
        return replace(self, caller=self.caller & ~Voice.AGENT, second=self.second & ~Voice.AGENT, agent=Voice.NOBODY)


TALKING = Routing(Voice.AGENT, Voice.HOLD, Voice.CALLER)
"""Caller and agent talk on; the second leg rings, or waits."""
WAITING = Routing(Voice.HOLD, Voice.HOLD, Voice.NOBODY)
"""Both legs wait."""
TELLING = Routing(Voice.HOLD, Voice.NOBODY, Voice.NOBODY)
"""The caller waits; the second party hears what is written to its own playout, alone."""
RINGING = Routing(Voice.RINGBACK | Voice.AGENT, Voice.NOBODY, Voice.CALLER)
"""The caller hears the second leg ring, and the agent where it says something about it."""
EARLY = Routing(Voice.SECOND | Voice.AGENT, Voice.NOBODY, Voice.CALLER)
"""The same where the second leg brings its own ringback."""
BRIDGED = Routing(Voice.SECOND, Voice.CALLER, Voice.NOBODY)
CONFERENCE = Routing(Voice.SECOND | Voice.AGENT, Voice.CALLER | Voice.AGENT, Voice.CALLER | Voice.SECOND)


def bridged(agent: AgentPart) -> Routing:
    """Who hears whom once the two legs are joined."""
    return CONFERENCE if agent == "mixed" else BRIDGED


class FramePipe:
    """Frames from one leg's ticks to the other's, at the other's sample rate."""

    def __init__(self, in_rate: int, out_rate: int) -> None:
        """Rates in Hz."""
        self._resampler = None if in_rate == out_rate else FrameResampler(in_rate, out_rate)
        self._frames: deque[bytes] = deque(maxlen=MAX_WAITING_FRAMES)
        self.dropped = 0
        """Frames that nobody took in time."""

    def push(self, frame: bytes) -> None:
        """Put in one frame (20 ms) at `in_rate`."""
        if self._resampler is not None:
            frame = self._resampler.convert(frame)
        self.dropped += len(self._frames) == MAX_WAITING_FRAMES
        self._frames.append(frame)

    def take(self) -> bytes | None:
        """The next frame at `out_rate`, None where none is there."""
        return self._frames.popleft() if self._frames else None


class Hold:
    """Whether a party that holds us lets us hear anything meanwhile."""

    __slots__ = ("_music", "_quiet")

    def __init__(self) -> None:
        self._music = False
        self._quiet: int | None = None
        """Ticks without music; None: we are not held."""

    def begin(self, *, music: bool) -> None:
        """It holds us, and says whether it goes on sending."""
        self._music = music
        self._quiet = 0 if music else QUIET_TICKS

    def end(self) -> None:
        self._quiet = None

    def hear(self, frame: bytes | None) -> None:
        """What came of it in a tick."""
        if self._quiet is not None and self._music:
            self._quiet = 0 if frame and audioop.max(frame, 2) > QUIET_LEVEL else self._quiet + 1

    @property
    def silent(self) -> bool:
        return self._quiet is not None and self._quiet >= QUIET_TICKS


class Junction:
    """Joins the caller's leg, a second one and the agent. The agent is heard through the caller's playout, and hears
    what `agent_hears` makes of each frame of the caller's.

    `routing` may be changed at any time; it holds from the next tick on."""

    def __init__(self, caller: Leg) -> None:
        """The leg has media by now: its sample rate is final."""
        rate = caller.sample_rate
        self.routing = TALKING
        self.caller_hold = Hold()
        """The caller's side holds us: without music of its own the second party hears that it waits."""
        self.second_hold = Hold()
        self._caller = caller
        self._second: Leg | None = None
        self._silence = bytes(frame_bytes(rate))
        self._second_silence = b""
        self._to_second = FramePipe(rate, rate)
        self._from_second = FramePipe(rate, rate)
        self._caller_frame = self._silence
        self._second_frame: bytes | None = None
        self._hold = _Loop(hold_tone(rate), len(self._silence))
        self._ringback = _Loop(ringback_tone(rate), len(self._silence))
        self._second_playout: Playout | None = None
        self._unlisten: Unsubscribe | None = None
        self.carrier_plays: Callable[[], bool] = lambda: False
        """Whether the caller has its carrier's music, so that our hold tone stays out of it."""
        caller.playout.blend = self._to_caller

    def attach(self, second: Leg) -> None:
        """Take the second leg in: it has media by now. Called again when its sample rate may have changed."""
        self._detach()
        self._second = second
        rate, second_rate = self._caller.sample_rate, second.sample_rate
        self._second_silence = bytes(frame_bytes(second_rate))
        self._to_second = FramePipe(rate, second_rate)
        self._from_second = FramePipe(second_rate, rate)
        self._second_playout = second.playout
        self._second_playout.blend = self._speak_to_second
        self._unlisten = second.listen(self._hear_second)

    def close(self) -> None:
        """Part the legs: each hears its own playout again. Idempotent."""
        self._detach()
        # Compared by equality: each look at a method makes a new object.
        if self._caller.playout.blend == self._to_caller:
            self._caller.playout.blend = None

    def _detach(self) -> None:
        if self._unlisten is not None:
            self._unlisten()
        if self._second_playout is not None and self._second_playout.blend == self._speak_to_second:
            self._second_playout.blend = None
        self._second = self._second_playout = self._unlisten = None
        self._second_frame = None

    @property
    def frames_dropped(self) -> int:
        """Frames that went from one leg and never to the other."""
        return self._to_second.dropped + self._from_second.dropped

    # -- on the clock: the caller's tick ----------------------------------------------------------------------

    def agent_hears(self, pcm: bytes, now: float) -> bytes:
        """A frame of the caller's came; returns what the agent hears of this tick."""
        self._caller_frame = pcm
        self._second_frame = self._from_second.take()
        self.caller_hold.hear(pcm)
        self.second_hold.hear(self._second_frame)
        return self._mixed(self.routing.agent, b"")

    def _to_caller(self, own: bytes, now: float) -> bytes:
        routing = self.routing
        to_second = routing.second
        if self.caller_hold.silent and Voice.CALLER in to_second:
            to_second |= Voice.HOLD
        to_caller = routing.caller
        if self.second_hold.silent and Voice.SECOND in to_caller:
            to_caller |= Voice.HOLD
        if Voice.HOLD in to_caller and self.carrier_plays():
            to_caller &= ~Voice.HOLD
        if Voice.HOLD in to_second | to_caller:
            self._hold.step()
        if Voice.RINGBACK in to_caller:
            self._ringback.step()
        if self._second is not None:
            self._to_second.push(self._mixed(to_second, own))
        return self._mixed(to_caller, own)

    def _mixed(self, voices: Voice, own: bytes) -> bytes:
        """What those voices sound like together; `own` is the agent's frame."""
        frames = []
        if Voice.CALLER in voices:
            frames.append(self._caller_frame)
        if Voice.SECOND in voices and self._second_frame is not None:
            frames.append(self._second_frame)
        if Voice.AGENT in voices and own != self._silence:
            frames.append(own)
        if Voice.HOLD in voices:
            frames.append(self._hold.frame)
        if Voice.RINGBACK in voices:
            frames.append(self._ringback.frame)
        return mix(frames) or self._silence

    # -- on the clock: the second leg's tick ------------------------------------------------------------------

    def _hear_second(self, pcm: bytes, now: float) -> None:
        self._from_second.push(pcm)

    def _speak_to_second(self, own: bytes, now: float) -> bytes:
        """`own`: what was written to the second leg's own playout (an announcement to it alone)."""
        frame = self._to_second.take()
        if frame is None:
            return own
        return frame if own == self._second_silence else mix((own, frame))


def mix(frames: Iterable[bytes]) -> bytes:
    """The sum of frames of one length, cut at full scale; b"" of none."""
    parts = tuple(frames)
    if len(parts) < 2:
        return parts[0] if parts else b""
    total = np.frombuffer(parts[0], "<i2").astype(np.int32)
    for part in parts[1:]:
        total += np.frombuffer(part, "<i2")
    return np.clip(total, -32768, 32767).astype("<i2").tobytes()


class _Loop:
    """A tone that goes on, a frame a tick."""

    def __init__(self, pcm: bytes, size: int) -> None:
        self._pcm = pcm
        self._size = size
        self._at = -size
        self.frame = bytes(size)

    def step(self) -> None:
        self._at += self._size
        if self._at >= len(self._pcm):
            self._at = 0
        self.frame = self._pcm[self._at : self._at + self._size]


@lru_cache(8)
def hold_tone(sample_rate: int) -> bytes:
    """One period, whole frames, int16 mono."""
    return _period(HOLD, sample_rate, HOLD_LEVEL)


@lru_cache(8)
def ringback_tone(sample_rate: int) -> bytes:
    """One period, whole frames, int16 mono."""
    return _period(RINGBACK, sample_rate, LEVEL // 3)


def _period(pattern: tuple[tuple[float, ...], int, int], sample_rate: int, level: int) -> bytes:
    duration_ms = (pattern[1] + pattern[2]) // FRAME_MS * FRAME_MS
    return cadence(pattern, duration_ms, sample_rate, level=level)
