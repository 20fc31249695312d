"""A call's second leg: somebody else is dialled while the caller waits or talks, and may then be joined with it."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Literal, Protocol

import structlog

from bridge.agent_line import AgentLine
from bridge.audio.frames import Unsubscribe
from bridge.bridging import EARLY, RINGING, TALKING, TELLING, WAITING, Junction, Routing, Voice, bridged
from bridge.caller_music import CallerMusic
from bridge.causes import q850_of_status
from bridge.events import (
    AgentPart,
    Answered,
    Bridged,
    Cause,
    DtmfReceived,
    Held,
    LegEnded,
    LegEvent,
    Progress,
    Resumed,
    SecondAnswered,
    SecondDialled,
    SecondEnded,
    SecondEvent,
    TransferAsked,
    Unbridged,
)
from bridge.legs.base import Capability, Leg, LegError, LegState

log = structlog.get_logger(__name__)

Meanwhile = Literal["waits", "talks", "rings"]
"""What the caller does while there is a second leg and they are not joined: waits with the hold tone, talks with the
agent, or hears the second leg ring."""

DTMF_MS = (50, 3000)
"""Bounds of a digit's length as it is passed on."""


class Dial(Protocol):
    """Calls somebody on behalf of a caller."""

    async def __call__(
        self, target: str, caller: Leg, *, headers: Sequence[tuple[str, str]] = (), timeout_s: float
    ) -> Leg:
        """An outbound leg that rings: `target` is a URI, or a number for the way that the caller came by. Unanswered
        it ends after `timeout_s`. Raises LegError."""
        ...


class SecondLegError(LegError):
    """The second leg did not come about."""

    def __init__(self, ended: LegEnded) -> None:
        super().__init__(f"{ended.cause.value} {ended.detail}".strip())
        self.ended = ended

    @property
    def status(self) -> int:
        """As a SIP status."""
        if self.ended.status is not None:
            return self.ended.status
        return 408 if self.ended.cause is Cause.NO_ANSWER else 503


class SecondLeg:
    """One second leg, from dialling to its end. `on_over` is told once, when it is over for whatever reason."""

    def __init__(
        self,
        target: str,
        caller: Leg,
        line: AgentLine,
        tell: Callable[[SecondEvent], None],
        at_ms: Callable[[], float],
        on_over: Callable[["SecondLeg", LegEnded], None],
        music: CallerMusic,
    ) -> None:
        """`music` plays while the caller waits, where its carrier has some; else it hears our hold tone."""
        self.target = target
        self.leg: Leg | None = None
        self.agent_part: AgentPart | None = None
        """Set while the two parties are joined."""
        self.was_joined = False
        """They have talked with each other."""
        self.ended: LegEnded | None = None
        self._caller = caller
        self._line = line
        self._tell = tell
        self._at_ms = at_ms
        self._on_over = on_over
        self._music = music
        self._meanwhile: Meanwhile = "talks"
        self._agent_apart = False
        self._early = False
        self._settled = asyncio.Event()
        """Answered, or over."""
        self._unsubscribe: Unsubscribe | None = None
        self._junction = Junction(caller)
        if line.held:
            self._junction.caller_hold.begin(music=True)
        self._junction.carrier_plays = lambda: music.playing
        line.ear = self._junction.agent_hears

    @property
    def up(self) -> bool:
        return self.leg is not None and self.leg.state is LegState.UP and self.ended is None

    async def reach(
        self,
        dial: Dial,
        *,
        meanwhile: Meanwhile,
        agent_apart: bool,
        ring_s: float,
        headers: Sequence[tuple[str, str]] = (),
    ) -> None:
        """Dial; returns when the second party has answered. With `agent_apart` the agent neither hears nor is heard
        until then. Raises SecondLegError: by then the caller is back with the agent."""
        self._tell(SecondDialled(self.target, self._at_ms()))
        self.wait(meanwhile, agent_apart=agent_apart)
        try:
            try:
                leg = await dial(self.target, self._caller, headers=headers, timeout_s=ring_s)
            except LegError as error:
                self._over(LegEnded(Cause.REJECTED, str(error), "us"))
            else:
                if self.ended is not None:
                    # It was given up while the name was looked up.
                    await leg.hangup(Cause.CANCELLED)
                else:
                    self.leg = leg
                    self._unsubscribe = leg.subscribe(self._on_event)
            await self._settled.wait()
        except asyncio.CancelledError:
            await self.release(Cause.CANCELLED)
            raise
        if self.ended is not None:
            raise SecondLegError(self.ended)

    def wait(self, meanwhile: Meanwhile, *, agent_apart: bool) -> None:
        """Part the two, or set what the caller does until they are joined."""
        was_joined, self.agent_part = self.agent_part is not None, None
        self._meanwhile, self._agent_apart = meanwhile, agent_apart
        self._route()
        self._line.apart = agent_apart
        if was_joined:
            self._tell(Unbridged(self._at_ms()))

    def tell(self) -> None:
        """The caller waits without the agent; the second party hears its own playout alone, for a word about the
        caller."""
        self._meanwhile, self._agent_apart = "waits", True
        self._set(TELLING)
        self._line.apart = True

    def join(self, agent: AgentPart) -> None:
        """Let the caller and the second party talk. Raises LegError if it is not up."""
        if not self.up:
            raise LegError("the second party has not answered")
        self.agent_part = agent
        self.was_joined = True
        self._set(bridged(agent))
        # An agent that leaves is not told to wait: it has its last things to do.
        self._line.apart = agent == "muted"
        self._tell(Bridged(self.target, agent, self._at_ms()))

    async def release(self, cause: Cause, detail: str = "") -> None:
        """End it, in whatever state it is. Idempotent."""
        if self.leg is not None and self.leg.state is not LegState.ENDED:
            try:
                await self.leg.hangup(cause, detail)
            except LegError as error:
                log.warning("second leg could not be hung up", error=str(error))
        self._over(LegEnded(cause, detail))

    def caller_event(self, event: LegEvent) -> None:
        """Pass on what the caller's leg told."""
        match event:
            case DtmfReceived() if self.agent_part is not None and self.leg is not None:
                _relay(event, self.leg)
            case Held(music=music):
                self._junction.caller_hold.begin(music=music)
            case Resumed():
                self._junction.caller_hold.end()
            case _:
                pass

    # -- inside ---------------------------------------------------------------------------------------------

    def _on_event(self, event: LegEvent) -> None:
        leg = self.leg
        assert leg is not None
        match event:
            case Progress(early_media=True):
                self._early = True
                self._junction.attach(leg)
                self._route()
            case Answered():
                self._junction.attach(leg)
                self._tell(SecondAnswered(self.target, leg.info.id, self._at_ms()))
                self._settled.set()
            case DtmfReceived() if self.agent_part is not None:
                _relay(event, self._caller)
            case Held(music=music):
                self._junction.second_hold.begin(music=music)
            case Resumed():
                self._junction.second_hold.end()
            case TransferAsked():
                leg.refuse_transfer(603)
            case LegEnded():
                self._over(event)
            case _:
                pass

    def _route(self) -> None:
        match self._meanwhile:
            case "waits":
                routing = WAITING
            case "talks":
                routing = TALKING
            case "rings":
                routing = EARLY if self._early else RINGING
        self._set(routing.without_agent() if self._agent_apart else routing)

    def _set(self, routing: Routing) -> None:
        self._junction.routing = routing
        self._music.want("waiting", Voice.HOLD in routing.caller)

    def _over(self, ended: LegEnded) -> None:
        if self.ended is not None:
            return
        self.ended = ended
        if self._unsubscribe is not None:
            self._unsubscribe()
        self._junction.close()
        self._music.want("waiting", False)
        self._line.ear = None
        was_joined, self.agent_part = self.agent_part is not None, None
        q850 = ended.q850 if ended.q850 is not None or ended.status is None else q850_of_status(ended.status)
        self._tell(SecondEnded(self.target, ended.cause, ended.detail, ended.by, ended.status, q850, self._at_ms()))
        if was_joined:
            self._tell(Unbridged(self._at_ms()))
        self._settled.set()
        self._on_over(self, ended)


def _relay(event: DtmfReceived, to: Leg) -> None:
    if Capability.DTMF_SEND not in to.capabilities or to.state is not LegState.UP:
        return
    shortest, longest = DTMF_MS
    try:
        to.send_dtmf(event.digit, tone_ms=max(shortest, min(event.duration_ms, longest)))
    except LegError as error:
        log.info("digit not passed on", error=str(error))
