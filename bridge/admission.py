"""Which calls are taken now: whose they are, and whether there is room for them on the trunk and on the box."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable

import structlog

from bridge.call import new_call_id
from bridge.config import LimitSettings
from bridge.events import CallEnded, CallEvent, CallStarted, Cause
from bridge.legs.base import LegInfo
from bridge.sip.errors import SipSyntaxError
from bridge.sip.flow import Flow
from bridge.sip.message import Request
from bridge.sip.settings import Refusal, Verdict
from bridge.trunks.trunks import TokenBucket, Trunk, TrunkMatch, Trunks

log = structlog.get_logger(__name__)

LOOK_S = 0.25
"""How often the box asks itself whether it can take calls; its answer to OPTIONS is at most this old."""

ROWS_PER_S = 5.0
"""Refused calls that leave a row on the record; a flood beyond is only counted."""

_REMEMBERED = 512


class Admission:
    """Asked before anything is done for a request or for a call of our own. `now` is the user agent's clock (s)."""

    def __init__(
        self,
        limits: LimitSettings,
        trunks: Trunks,
        *,
        now: Callable[[], float],
        clock_lateness_ms: Callable[[], float],
        record: Callable[[str, CallEvent], None],
        describe: Callable[[Request, Flow], LegInfo],
    ) -> None:
        """`clock_lateness_ms` is the media clock's; `record` puts an event of a call on record; `describe` reads the
        call's facts out of an INVITE (SipSyntaxError where it can't)."""
        self.trunks = trunks
        self._limits = limits
        self.now = now
        self._clock_lateness_ms = clock_lateness_ms
        self._record = record
        self._describe = describe
        self._bucket = TokenBucket(limits.calls_per_s)
        self._rows = TokenBucket(ROWS_PER_S)
        self._live: dict[str, tuple[Trunk | None, bool]] = {}
        """By call: its trunk, and whether it takes the embedded engines."""
        self._talking = 0
        self._late: str | None = None
        self._refused: OrderedDict[str, None] = OrderedDict()
        """Call-IDs of late, so that a retransmission leaves no second row."""

    @property
    def limits(self) -> LimitSettings:
        return self._limits

    @limits.setter
    def limits(self, limits: LimitSettings) -> None:
        self._limits = limits
        self._bucket.set(limits.calls_per_s)

    # -- the user agent's question --------------------------------------------------------------------------

    def admit(self, request: Request, flow: Flow) -> Refusal | Verdict | None:
        """For `UserAgentConfig.admit`: None lets a request in that belongs to no call."""
        now = self.now()
        match = self.trunks.identify(request, flow, now)
        if not isinstance(match, TrunkMatch):
            return match
        if request.method == "OPTIONS":
            problem = self.overload() or (self._trunk_full(match.trunk) if match.trunk is not None else None)
            return None if problem is None else self._unavailable("Overloaded")
        if request.method != "INVITE":
            return None
        problem = self.no_room_on_box(match.trunk) or self._too_fast(match.trunk, now)
        if match.trunk is not None:
            match.trunk.attempts += 1
            match.trunk.refused += problem is not None
        if problem is None:
            return None
        self._leave_row(request, flow, match, problem, now)
        return self._unavailable("Too Many Calls")

    def trunk_of(self, request: Request, flow: Flow) -> Trunk | None:
        """The trunk of a request that was let in; None: it is no trunk's."""
        match = self.trunks.recognise(request, flow, self.now())
        return match.trunk if match is not None else None

    # -- room -----------------------------------------------------------------------------------------------

    def overload(self) -> str | None:
        """Why no call at all can be taken now."""
        if self._late is not None:
            return self._late
        if len(self._live) >= self._limits.calls:
            return f"{self._limits.calls} calls are live (limits.calls)"
        return None

    def no_room_on_box(self, trunk: Trunk | None) -> str | None:
        """Why no call can be taken from, or made by way of, `trunk` now, whatever its agent."""
        return self.overload() or (self._trunk_full(trunk) if trunk is not None else None)

    def no_room_to_talk(self, overloaded: Callable[[], str | None]) -> str | None:
        """Why no call can be given to an agent that takes the embedded engines; `overloaded` is theirs to say."""
        if self._talking >= self._limits.conversations:
            return f"{self._limits.conversations} conversations are live (limits.conversations)"
        return overloaded()

    def too_fast(self) -> str | None:
        """Why a call that came in by other ways than SIP can't be taken now: too many did in the last second."""
        return self._too_fast(None, self.now())

    def takes_outbound(self, trunk: Trunk | None) -> str | None:
        """Why we may not place a call now; counts it on the trunk."""
        now = self.now()
        problem = self.no_room_on_box(trunk) or self._too_fast(trunk, now)
        if trunk is not None:
            trunk.attempts += 1
            trunk.refused += problem is not None
        return problem

    def began(self, call_id: str, trunk: str, *, embedded: bool) -> None:
        """A call is live from now on; `trunk` is the name, "" for none."""
        # Kept as an object: a trunk that is removed, and put back later, counts anew.
        known = self.trunks.get(trunk)
        self._live[call_id] = (known, embedded)
        self._talking += embedded
        if known is not None:
            known.calls += 1

    def ended(self, call_id: str) -> None:
        """It is over, and has closed what it opened."""
        trunk, embedded = self._live.pop(call_id)
        self._talking -= embedded
        if trunk is not None:
            trunk.calls -= 1

    async def watch(self) -> None:
        """Look at the media clock every `LOOK_S`; for ever."""
        while True:
            lateness = self._clock_lateness_ms()
            late = lateness > self._limits.clock_lateness_ms
            if late and self._late is None:
                log.warning("refusing new calls", reason=f"the media clock runs {lateness:.0f} ms late")
            elif not late and self._late is not None:
                log.info("taking calls again")
            self._late = f"the media clock runs {lateness:.0f} ms late" if late else None
            await asyncio.sleep(LOOK_S)

    # -- inside ---------------------------------------------------------------------------------------------

    @staticmethod
    def _trunk_full(trunk: Trunk) -> str | None:
        most = trunk.settings.calls
        if most is not None and trunk.calls >= most:
            return f"{most} calls are live on trunk {trunk.name} (calls)"
        return None

    def _too_fast(self, trunk: Trunk | None, now: float) -> str | None:
        if trunk is not None and not trunk.bucket.take(now):
            return f"more than {trunk.bucket.per_s:g} calls a second on trunk {trunk.name} (calls_per_s)"
        if not self._bucket.take(now):
            if trunk is not None:
                trunk.bucket.give_back()
            return f"more than {self._bucket.per_s:g} calls a second (limits.calls_per_s)"
        return None

    def _unavailable(self, reason: str) -> Refusal:
        return Refusal(503, reason, (("Retry-After", str(self._limits.retry_after_s)),))

    def _leave_row(self, request: Request, flow: Flow, match: TrunkMatch, problem: str, now: float) -> None:
        try:
            info = self._describe(request, flow)
        except SipSyntaxError:
            return
        if info.id in self._refused or not self._rows.take(now):
            return
        if len(self._refused) >= _REMEMBERED:
            self._refused.popitem(last=False)
        self._refused[info.id] = None
        call_id, at = new_call_id(), time.time()
        self._record(
            call_id,
            CallStarted(
                direction="inbound",
                from_=info.from_,
                to=info.to,
                trunk=match.name,
                agent="",
                leg_kind=info.kind,
                leg_id=info.id,
                started_at=at,
                headers=info.headers,
            ),
        )
        ended = CallEnded(cause=Cause.REFUSED_BUSY, detail=problem, ended_at=at, recording=None, quality={})
        self._record(call_id, ended)
        log.info("call refused", call=call_id, trunk=match.name, detail=problem, from_=info.from_, to=info.to)
