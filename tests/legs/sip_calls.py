"""A whole call on real endpoints, with an agent that says one tone and notes what it hears and is told."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from contract import Listener, say, tone
from sip_line import WAIT_S, Line, line, taken

from bridge.agents.base import AgentDone, CallSession
from bridge.audio.recording import Recordings
from bridge.audio.tones import tone_level
from bridge.call import Call, CallServices
from bridge.events import CallEvent, Cause, LegEvent
from bridge.legs.base import Leg
from bridge.legs.sip import SipLeg, SipLegOptions
from bridge.sip.offer_answer import PCMU, Codec
from bridge.transfers import TransferLimits

AGENT_HZ, CALLER_HZ, THIRD_HZ = 700.0, 900.0, 1200.0
HOLD_HZ, RINGBACK_HZ = 440.0, 480.0
LOUD = 3000

E = TypeVar("E", bound=CallEvent)


class ToneAgent:
    """Says its tone without end, until it is told to finish."""

    name = "tone"

    def __init__(self) -> None:
        self.warmed = asyncio.Event()
        self.started = asyncio.Event()
        self.finish: asyncio.Future[AgentDone] = asyncio.get_running_loop().create_future()
        self.line: Leg
        self.frames: list[bytes] = []
        self.told: list[LegEvent] = []
        self.cancelled = False

    async def warm(self) -> None:
        self.warmed.set()

    async def run(self, session: CallSession) -> AgentDone:
        self.line = leg = session.leg
        unsubscribes = [
            leg.listen(lambda pcm, now: self.frames.append(pcm)),
            leg.subscribe(self.told.append),
        ]
        say(leg, tone(leg, AGENT_HZ, 60_000))
        self.started.set()
        try:
            return await asyncio.shield(self.finish)
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        finally:
            leg.playout.drop()
            for unsubscribe in unsubscribes:
                unsubscribe()

    def kinds(self) -> list[str]:
        return [type(event).__name__ for event in self.told]


@dataclass
class Stage:
    """`call` is up: `caller` (the far end's leg) has been answered by `agent`."""

    line: Line
    call: Call
    agent: ToneAgent
    near: SipLeg
    caller: SipLeg
    task: "asyncio.Task[None]"
    recordings: Path
    events: list[CallEvent] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def of(self, kind: type[E]) -> list[E]:
        return [event for event in self.events if isinstance(event, kind)]

    async def recorded(self, kind: type[E], count: int = 1) -> E:
        async with asyncio.timeout(WAIT_S):
            while len(self.of(kind)) < count:
                self.changed.clear()
                await self.changed.wait()
        return self.of(kind)[count - 1]

    async def third(self) -> "Party":
        """Whoever was called at the third endpoint; it rings."""
        return Party(await taken(self.line.at_third), THIRD_HZ)

    async def agent_hears(self, *tones: float) -> None:
        """Exactly these parties."""
        await until(lambda: heard(self.agent.frames, self.near.sample_rate) == set(tones))

    async def ended(self) -> None:
        await asyncio.wait_for(asyncio.shield(self.task), WAIT_S)


class Party(Listener):
    """A person on a phone, who hums."""

    def __init__(self, leg: SipLeg, hz: float) -> None:
        super().__init__(leg)
        self.sip = leg
        self.hz = hz

    async def pick_up(self) -> None:
        await self.sip.answer()
        self.hum()

    def hum(self) -> None:
        say(self.leg, tone(self.leg, self.hz, 60_000))

    async def hears(self, *tones: float) -> None:
        """Exactly these parties (the hold tone and ringback apart)."""
        await until(lambda: heard(self.frames, self.leg.sample_rate) == set(tones))

    async def hears_our_tone(self, hz: float) -> None:
        await until(lambda: tone_level(b"".join(self.frames[-5:]), hz, self.leg.sample_rate) > 400)


def heard(frames: Sequence[bytes], rate: int) -> set[float]:
    pcm = b"".join(frames[-10:])
    return {hz for hz in (AGENT_HZ, CALLER_HZ, THIRD_HZ) if tone_level(pcm, hz, rate) > LOUD}


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await asyncio.sleep(0.02)


@asynccontextmanager
async def stage(
    tmp_path: Path,
    *,
    codecs: tuple[Codec, ...] = (PCMU,),
    third_codecs: tuple[Codec, ...] = (PCMU,),
    near_options: SipLegOptions | None = None,
    far_options: SipLegOptions | None = None,
    record: bool = False,
    limits: TransferLimits | None = None,
) -> AsyncIterator[Stage]:
    async with line(
        codecs=codecs, third_codecs=third_codecs, near_options=near_options, far_options=far_options
    ) as made:
        recordings = Recordings(tmp_path)
        recordings.start()

        async def dial(target: str, caller: Leg, *, headers: Sequence[tuple[str, str]] = (), timeout_s: float) -> Leg:
            return await made.near.dial(target, from_user=caller.info.from_, timeout_s=timeout_s, headers=headers)

        near, caller = await made.call()
        agent = ToneAgent()
        events: list[CallEvent] = []
        changed = asyncio.Event()

        def note(call_id: str, event: CallEvent) -> None:
            events.append(event)
            changed.set()

        services = CallServices(
            record=note,
            open_voice=_no_voice,
            open_recording=lambda call_id, rate, failed, at: recordings.open(call_id, rate, failed, started_at=at),
            clock=made.clock.time,
            max_call_s=60,
            dial=dial,
            transfer_limits=limits or TransferLimits(ring_s=20),
        )
        call = Call(near, agent, services, record=record)
        task = asyncio.create_task(call.run(), name="call")
        await asyncio.wait_for(agent.started.wait(), WAIT_S)
        made_stage = Stage(made, call, agent, near, caller, task, tmp_path, events, changed)
        try:
            yield made_stage
        finally:
            call.end(Cause.API_HUNG_UP)
            await asyncio.wait_for(task, WAIT_S)
            await recordings.aclose()
        assert near.playout.blend is None
        assert call.transfers.second is None
        assert call.transfers._tasks == set()


def _no_voice(sample_rate: int, handler: object) -> object:
    raise AssertionError("the tone agent has no use for voice activity")
