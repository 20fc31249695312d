"""What every kind of leg must do: the shared tests of the Leg contract.

A carrier's test module subclasses `LegContract` and says how a call is made (`connect`); everything else is here.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field

import numpy as np
import pytest

from bridge.audio.frames import frame_bytes
from bridge.events import Answered, Cause, DtmfReceived, Held, LegEnded, LegEvent, Progress, Resumed
from bridge.legs.base import (
    Capability,
    Leg,
    LegState,
    LegStateError,
    NotCapableError,
    TransferFailedError,
)

WAIT_S = 30.0
"""Of each wait, on machines that may be busy."""


@dataclass
class Listener:
    """Collects what a leg hears and tells, and waits for it."""

    leg: Leg
    frames: list[bytes] = field(default_factory=list)
    events: list[LegEvent] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.leg.listen(self._on_frame)
        self.leg.subscribe(self._on_event)

    def _on_frame(self, pcm: bytes, now: float) -> None:
        self.frames.append(pcm)
        self.changed.set()

    def _on_event(self, event: LegEvent) -> None:
        self.events.append(event)
        self.changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    async def event(self, kind: type[LegEvent]) -> LegEvent:
        await self.until(lambda: any(isinstance(event, kind) for event in self.events))
        return next(event for event in self.events if isinstance(event, kind))

    async def hears_tone(self, hz: float) -> None:
        await self.until(lambda: len(self.frames) >= 10 and dominant_hz(self.frames[-10:], self.leg) == hz)


def tone(leg: Leg, hz: float, ms: int) -> bytes:
    t = np.arange(leg.sample_rate * ms // 1000) / leg.sample_rate
    return (8000 * np.sin(2 * np.pi * hz * t)).astype(np.int16).tobytes()


def dominant_hz(frames: list[bytes], leg: Leg) -> float | None:
    """The loudest frequency (to 5 Hz) in 200 ms of frames, None if they are quiet."""
    samples = np.frombuffer(b"".join(frames), np.int16).astype(float)
    if np.sqrt(np.mean(samples**2)) < 1000:
        return None
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum) * leg.sample_rate / len(samples))


def say(leg: Leg, pcm: bytes) -> None:
    generation = leg.playout.begin()
    assert leg.playout.write(generation, pcm)
    leg.playout.end(generation)


class LegContract(ABC):
    """`near` is the leg under test; `far` is the other party, as a leg of ours where the carrier allows that."""

    @abstractmethod
    def offered(self) -> AbstractAsyncContextManager[tuple[Leg, Leg]]:
        """An inbound leg that is not yet answered, and its far side. Leaving it checks that nothing is left."""

    async def test_state_follows_the_call(self) -> None:
        async with self.offered() as (near, _far):
            assert near.state is LegState.OFFERED
            assert near.info.direction == "inbound"
            await near.ringing()
            await near.answer()
            assert near.state is LegState.UP
            await near.hangup(Cause.AGENT_HUNG_UP)
            assert near.state is LegState.ENDED

    async def test_frames_come_every_tick_and_are_20_ms_long(self) -> None:
        async with self.offered() as (near, _far):
            listener = Listener(near)
            await near.answer()
            await listener.until(lambda: len(listener.frames) >= 25)
            assert {len(frame) for frame in listener.frames} == {frame_bytes(near.sample_rate)}

    async def test_audio_goes_both_ways(self) -> None:
        async with self.offered() as (near, far):
            near_side, far_side = Listener(near), Listener(far)
            await near.answer()
            await far_side.until(lambda: far.state is LegState.UP)
            say(near, tone(near, 440, 3000))
            say(far, tone(far, 880, 3000))
            await far_side.hears_tone(440)
            await near_side.hears_tone(880)

    async def test_playout_tells_what_was_sent(self) -> None:
        async with self.offered() as (near, far):
            far_side = Listener(far)
            await near.answer()
            say(near, tone(near, 440, 200))
            await far_side.until(lambda: not near.playout.speaking)
            assert near.playout.sent_ms == 200

    async def test_hangup_is_told_once_and_last_and_keeps_the_first_cause(self) -> None:
        async with self.offered() as (near, _far):
            listener = Listener(near)
            await near.answer()
            await near.hangup(Cause.AGENT_HUNG_UP, "done")
            await near.hangup(Cause.INTERNAL_ERROR, "again")
            ends = [event for event in listener.events if isinstance(event, LegEnded)]
            assert [(end.cause, end.detail, end.by) for end in ends] == [(Cause.AGENT_HUNG_UP, "done", "us")]
            assert listener.events[-1] is ends[0]

    async def test_the_far_side_hangs_up(self) -> None:
        async with self.offered() as (near, far):
            listener = Listener(near)
            await near.answer()
            await listener.until(lambda: len(listener.frames) > 5)
            await far.hangup(Cause.AGENT_HUNG_UP)
            ended = await listener.event(LegEnded)
            assert isinstance(ended, LegEnded)
            assert ended.cause is Cause.CALLER_HUNG_UP

    async def test_no_frame_comes_after_the_end(self) -> None:
        async with self.offered() as (near, far):
            listener = Listener(near)
            await near.answer()
            await listener.until(lambda: len(listener.frames) > 5)
            await near.hangup(Cause.AGENT_HUNG_UP)
            heard = len(listener.frames)
            far_side = Listener(far)
            await far_side.event(LegEnded)
            assert len(listener.frames) == heard

    async def test_a_late_subscriber_is_told_of_the_end(self) -> None:
        async with self.offered() as (near, _far):
            await near.hangup(Cause.REFUSED_BUSY)
            late = Listener(near)
            assert [type(event) for event in late.events] == [LegEnded]

    async def test_an_ended_leg_can_not_be_answered(self) -> None:
        async with self.offered() as (near, _far):
            await near.hangup(Cause.REFUSED_BUSY)
            with pytest.raises(LegStateError):
                await near.answer()

    async def test_a_leg_is_answered_once(self) -> None:
        async with self.offered() as (near, _far):
            await near.answer()
            with pytest.raises(LegStateError):
                await near.answer()

    async def test_digits_go_both_ways_or_are_declared_impossible(self) -> None:
        async with self.offered() as (near, far):
            near_side, far_side = Listener(near), Listener(far)
            await near.answer()
            await far_side.until(lambda: far.state is LegState.UP)
            for leg, other in ((near, far_side), (far, near_side)):
                if Capability.DTMF_SEND not in leg.capabilities:
                    with pytest.raises(NotCapableError):
                        leg.send_dtmf("1")
                    continue
                leg.send_dtmf("19*#", tone_ms=100, gap_ms=60)
                await other.until(lambda other=other: len(digits(other)) >= 4)
                assert digits(other) == "19*#"

    async def test_digits_that_are_none_are_refused(self) -> None:
        async with self.offered() as (near, _far):
            await near.answer()
            if Capability.DTMF_SEND in near.capabilities:
                with pytest.raises(ValueError, match="X"):
                    near.send_dtmf("12x")

    async def test_hold_and_resume_reach_the_far_side(self) -> None:
        async with self.offered() as (near, far):
            far_side = Listener(far)
            await near.answer()
            await far_side.until(lambda: far.state is LegState.UP)
            if Capability.HOLD not in near.capabilities:
                with pytest.raises(NotCapableError):
                    await near.hold(True)
                return
            await near.hold(True)
            await far_side.event(Held)
            await near.hold(False)
            await far_side.event(Resumed)

    async def test_a_transfer_that_the_far_side_refuses_is_an_error_and_the_call_goes_on(self) -> None:
        async with self.offered() as (near, far):
            near_side, far_side = Listener(near), Listener(far)
            await near.answer()
            await far_side.until(lambda: far.state is LegState.UP)
            if Capability.TRANSFER not in near.capabilities:
                with pytest.raises(NotCapableError):
                    await near.transfer("sip:human@127.0.0.1")
                return
            with pytest.raises(TransferFailedError):
                await near.transfer("sip:human@127.0.0.1")
            assert near.state is far.state is LegState.UP
            say(far, tone(far, 880, 3000))
            await near_side.hears_tone(880)

    async def test_only_a_leg_that_is_up_can_be_transferred(self) -> None:
        async with self.offered() as (near, _far):
            with pytest.raises(LegStateError):
                await near.transfer("sip:human@127.0.0.1")

    async def test_early_media_goes_both_ways_and_on_after_the_answer(self) -> None:
        async with self.offered() as (near, far):
            near_side, far_side = Listener(near), Listener(far)
            if Capability.EARLY_MEDIA not in near.capabilities:
                with pytest.raises(NotCapableError):
                    await near.early_media()
                return
            await near.early_media()
            say(near, tone(near, 440, 3000))
            progress = await far_side.event(Progress)
            assert isinstance(progress, Progress) and progress.early_media
            await far_side.hears_tone(440)
            assert near.state is far.state is LegState.OFFERED
            say(far, tone(far, 880, 3000))
            await near_side.hears_tone(880)
            heard = len(near_side.frames)
            await near.answer()
            await far_side.event(Answered)
            say(near, tone(near, 660, 3000))
            await far_side.hears_tone(660)
            await near_side.until(lambda: len(near_side.frames) > heard + 20)

    async def test_a_caller_hangs_up_during_early_media(self) -> None:
        async with self.offered() as (near, far):
            near_side, far_side = Listener(near), Listener(far)
            if Capability.EARLY_MEDIA not in near.capabilities:
                return
            await near.early_media()
            await far_side.event(Progress)
            await far.hangup(Cause.CANCELLED)
            ended = await near_side.event(LegEnded)
            assert isinstance(ended, LegEnded)
            assert (ended.cause, ended.by) == (Cause.CANCELLED, "far")


def digits(listener: Listener) -> str:
    return "".join(event.digit for event in listener.events if isinstance(event, DtmfReceived))
