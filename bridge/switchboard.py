"""The calls that are live: an agent for each that comes in, a place for each that we make, and their end."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Protocol

import structlog

from bridge.admission import Admission
from bridge.api.control import LiveCall
from bridge.call import Call, CallServices, refuse
from bridge.config import Route
from bridge.events import Cause
from bridge.legs.base import Leg, LegInfo
from bridge.router import NOBODY, pick_agent
from bridge.talkers import Talker, Talkers

log = structlog.get_logger(__name__)


class Inbound(Leg, Protocol):
    """A leg that came in."""

    refusal: tuple[Cause, str] | None
    """Why its own endpoint does not take it (no room, no audio possible); None: it does."""


class Switchboard:
    """`take` a leg that came in, or `begin` a call on one that we dialled."""

    def __init__(
        self, admission: Admission, talkers: Talkers, routes: Sequence[Route], services: Callable[[], CallServices]
    ) -> None:
        """`services` are asked for once for each call."""
        self.routes = routes
        """May be replaced: for calls from then on."""
        self.others: Mapping[str, str] = NOBODY
        """By trunk: the agent of calls that no route matches."""
        self.draining = False
        """Calls that come in, and that nobody before us has refused, are turned away."""
        self._admission = admission
        self._talkers = talkers
        self._services = services
        self._calls: dict[str, Call] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._idle = asyncio.Event()

    def __len__(self) -> int:
        return len(self._calls)

    def take(self, leg: Inbound) -> None:
        """Give an inbound call to its agent, or refuse it."""
        if leg.refusal is not None:
            self._refuse(leg, *leg.refusal)
            return
        if self.draining:
            self._refuse(leg, Cause.REFUSED_DRAINING, "the bridge is stopping")
            return
        name = pick_agent(self.routes, leg.info, self.others)
        if name is None:
            self._refuse(leg, Cause.REFUSED_NO_ROUTE, f"no route for {leg.info.to!r}")
        elif (talker := self._talkers.get(name)) is None:
            # Routes are checked when they are read; a dialplan may ask for anybody.
            self._refuse(leg, Cause.REFUSED_NO_ROUTE, f"there is no agent {name!r}")
        elif problem := self._no_room(talker, leg.info):
            self._refuse(leg, Cause.REFUSED_BUSY, problem)
        else:
            self.begin(leg, talker)

    def begin(self, leg: Leg, talker: Talker) -> Call:
        """A call of `talker`'s on this leg."""
        services = self._services()
        call = Call(leg, talker.agent, services, record=talker.record)
        self._calls[call.id] = call
        self._admission.began(call.id, leg.info.trunk, embedded=talker.embedded)
        self._spawn(call.id, self._live_through(call))
        return call

    def find(self, call_id: str) -> Call | None:
        """The live call of this id."""
        return self._calls.get(call_id)

    def hang_up(self, call_id: str) -> bool:
        """Ask a call to end, for who asked by the API; False if it is not live."""
        call = self._calls.get(call_id)
        if call is not None:
            call.end(Cause.API_HUNG_UP)
        return call is not None

    def live_calls(self) -> Sequence[LiveCall]:
        return [_live(call) for call in self._calls.values()]

    async def drain(self, limit_s: float) -> None:
        """Return when no call is live any more, or after `limit_s`, or at `hurry`."""
        if not self._calls:
            return
        log.info("draining", calls=len(self._calls), limit_s=limit_s)
        self._idle.clear()
        try:
            await asyncio.wait_for(self._idle.wait(), limit_s)
        except TimeoutError:
            log.warning("draining took too long", calls=len(self._calls))

    def hurry(self) -> None:
        """End `drain` at once."""
        self._idle.set()

    async def end_all(self, limit_s: float) -> None:
        """Hang up whatever is left; returns when it is done, or after `limit_s`."""
        if self._calls:
            log.warning("hanging up the calls that are left", calls=len(self._calls))
        for call in list(self._calls.values()):
            call.end(Cause.DRAINED, "the bridge stopped")
        if self._tasks:
            await asyncio.wait(list(self._tasks.values()), timeout=limit_s)

    # -- inside ---------------------------------------------------------------------------------------------

    def _no_room(self, talker: Talker, info: LegInfo) -> str | None:
        """Why a call for this agent can't be taken now."""
        admission = self._admission
        problem = admission.no_room_on_box(admission.trunks.get(info.trunk))
        if problem is None and info.kind != "sip":
            # SIP's user agent asked before it made a call of the INVITE.
            problem = admission.too_fast()
        if problem is None and talker.embedded:
            problem = admission.no_room_to_talk(self._talkers.overloaded)
        return problem

    def _refuse(self, leg: Leg, cause: Cause, detail: str) -> None:
        self._spawn(f"refusal of {leg.info.id}", refuse(leg, cause, detail, self._services().record))

    async def _live_through(self, call: Call) -> None:
        try:
            await call.run()
        finally:
            del self._calls[call.id]
            self._admission.ended(call.id)
            if not self._calls:
                self._idle.set()

    def _spawn(self, name: str, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks[name] = task
        task.add_done_callback(lambda done: self._finished(name, done))

    def _finished(self, name: str, task: "asyncio.Task[None]") -> None:
        self._tasks.pop(name, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a call's task failed", task=name, exc_info=error)


def _live(call: Call) -> LiveCall:
    info, quality = call.leg.info, call.leg.quality
    return LiveCall(
        id=call.id,
        direction=info.direction,
        from_=info.from_,
        to=info.to,
        trunk=info.trunk,
        agent=call.agent_name,
        leg_kind=info.kind,
        leg_id=info.id,
        started_at=call.started_at,
        answered_at=call.answered_at,
        quality=quality.numbers() if call.answered_at is not None else {},
        codec=quality.codec,
        srtp=quality.srtp,
        one_way=quality.one_way,
        names=call.names,
    )
