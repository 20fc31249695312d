"""Whether trunks are alive, asked by OPTIONS, without I/O: one timer queue for all (RFC 3261 11)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from bridge.sip.agent import UserAgent
from bridge.sip.digest import Credentials, DigestClient
from bridge.sip.errors import SipSyntaxError
from bridge.sip.events import RequestAnswered, RequestKey
from bridge.sip.flow import Flow
from bridge.sip.message import Response
from bridge.sip.timers import TimerQueue, Timers
from bridge.trunks.status import LivenessStatus

ANSWER_S = 4.0
"""An answer is missed when it has not come by then: three retransmissions at T1."""

DOWN_AFTER = 2
"""Missed answers in a row: one may be a lost packet's fault."""

_NOT_TAKING_CALLS = frozenset({408, 502, 503, 504})
"""Every other status shows life: many a peer answers OPTIONS with 404 or 405."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Whom to ask."""

    uri: str
    """Request-URI."""
    from_: str
    interval_s: float
    credentials: Credentials | None = None
    route: tuple[str, ...] = ()


@dataclass(slots=True)
class _Asked:
    name: str
    peer: Peer
    timers: Timers
    digest: DigestClient | None
    status: LivenessStatus = field(default_factory=lambda: LivenessStatus("unknown"))
    key: RequestKey | None = None
    sent_at: float = 0.0
    late: bool = False
    """The answer that is waited for was counted as missed."""


class Liveness:
    """All trunks that are asked. The first one is asked a moment after `add`, each next at an even distance."""

    def __init__(
        self,
        agent: UserAgent,
        *,
        locate: Callable[[str], None],
        changed: Callable[[str, LivenessStatus], None] = lambda name, status: None,
    ) -> None:
        """As `Registrations`: `locate(name)` asks for the way, `located` or `unlocated` answers."""
        self._agent = agent
        self._locate = locate
        self._changed = changed
        self._queue = TimerQueue()
        self._all: dict[str, _Asked] = {}
        self._requests: dict[RequestKey, _Asked] = {}

    def add(self, name: str, peer: Peer, now: float) -> None:
        """Ask `peer` from now on. One of that name which is the same goes on as it is."""
        present = self._all.get(name)
        if present is not None:
            if present.peer == peer:
                return
            self.remove(name)
        digest = None if peer.credentials is None else DigestClient(peer.credentials)
        asked = self._all[name] = _Asked(name, peer, self._timers_of(name), digest)
        # Spread over the interval, so that a hundred trunks are not asked in one burst.
        asked.timers.set("ask", now + min(1.0, 0.02 * len(self._all)))
        self._changed(name, asked.status)

    def remove(self, name: str) -> None:
        """Ask no more."""
        asked = self._all.pop(name, None)
        if asked is not None:
            asked.timers.stop_all()

    def stop(self) -> None:
        """Ask nobody any more."""
        for name in list(self._all):
            self.remove(name)

    def located(self, name: str, flows: Sequence[Flow], now: float) -> None:
        asked = self._all.get(name)
        if asked is None or asked.key is not None:
            return
        if not flows:
            self.unlocated(name, "it has no address", now)
            return
        try:
            key = self._agent.request(
                "OPTIONS",
                asked.peer.uri,
                flows[0],
                now,
                from_=asked.peer.from_,
                route=asked.peer.route,
                credentials=asked.digest,
                alternatives=flows[1:],
            )
        except SipSyntaxError as error:
            self._missed(asked, str(error))
            return
        asked.key, asked.sent_at, asked.late = key, now, False
        self._requests[key] = asked
        asked.timers.set("missed", now + ANSWER_S)

    def unlocated(self, name: str, why: str, now: float) -> None:
        asked = self._all.get(name)
        if asked is not None:
            self._missed(asked, why)

    def answered(self, event: RequestAnswered, now: float) -> bool:
        """Take the agent's event; False: it is of something else."""
        asked = self._requests.pop(event.key, None)
        if asked is None:
            return False
        asked.key = None
        if self._all.get(asked.name) is not asked:
            return True
        asked.timers.stop("missed")
        if event.response is None:
            if not asked.late:
                self._missed(asked, "no answer")
        else:
            self._heard(asked, event.response, (now - asked.sent_at) * 1000)
        return True

    def timer(self) -> float | None:
        return self._queue.next()

    def handle_timer(self, now: float) -> None:
        self._queue.run(now)

    # -- inside ---------------------------------------------------------------------------------------------

    def _timers_of(self, name: str) -> Timers:
        def fire(what: str, now: float) -> None:
            asked = self._all.get(name)
            if asked is None:
                return
            if what == "missed":
                asked.late = True
                self._missed(asked, f"no answer within {ANSWER_S:g} s")
                return
            asked.timers.set("ask", now + asked.peer.interval_s)
            if asked.key is None:
                self._locate(name)
            elif asked.late:
                # The one before is still being repeated: no answer to it by now is one more missed.
                self._missed(asked, "no answer")

        return Timers(self._queue, fire)

    def _heard(self, asked: _Asked, response: Response, round_trip_ms: float) -> None:
        up = response.status not in _NOT_TAKING_CALLS
        told = "" if up else f"{response.status} {response.reason}".strip()
        self._set(asked, LivenessStatus("up" if up else "down", round_trip_ms, 0, told))

    def _missed(self, asked: _Asked, why: str) -> None:
        missed = asked.status.missed + 1
        state = "down" if missed >= DOWN_AFTER else asked.status.state
        self._set(asked, replace(asked.status, state=state, missed=missed, error=why))

    def _set(self, asked: _Asked, status: LivenessStatus) -> None:
        asked.status = status
        self._changed(asked.name, status)
