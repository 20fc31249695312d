"""Keeps the trunks: registrations and keep-alives on a running endpoint. One timer, and a task for each look-up."""

import asyncio
import contextlib
from collections.abc import Coroutine, Sequence
from typing import Protocol

import structlog

from bridge.sip.agent import UserAgent
from bridge.sip.errors import LocateError
from bridge.sip.events import RequestAnswered
from bridge.sip.flow import Flow
from bridge.sip.registration import Account, Registrations, RegistrationStatus, RegistrationTiming
from bridge.sip.uri import Uri
from bridge.trunks.liveness import Liveness, Peer
from bridge.trunks.settings import TrunkSettings
from bridge.trunks.status import LivenessStatus
from bridge.trunks.trunks import Trunk, Trunks

log = structlog.get_logger(__name__)

LOOK_AGAIN_S = 300.0
"""How often the addresses of a trunk that is neither registered nor asked by OPTIONS are looked up (`trust_host`)."""


class Ways(Protocol):
    """What is needed of `Transports`."""

    def now(self) -> float: ...

    def flush(self) -> None: ...

    async def locate(self, uri: Uri | str, *, transport: str = "") -> tuple[Flow, ...]: ...


class TrunkKeeper:
    """Give it the agent's `RequestAnswered` events by `answered`. `start` once the endpoint is open; `update` after
    the configuration of the trunks has changed."""

    def __init__(
        self, trunks: Trunks, agent: UserAgent, ways: Ways, *, timing: RegistrationTiming | None = None
    ) -> None:
        self._trunks = trunks
        self._ways = ways
        self._registrations = Registrations(
            agent,
            locate=lambda name: self._locate(name, self._registrations),
            changed=self._registered,
            timing=timing,
        )
        self._liveness = Liveness(agent, locate=lambda name: self._locate(name, self._liveness), changed=self._heard)
        self._kept: set[str] = set()
        self._registering: set[str] = set()
        self._looked_up: dict[str, dict[str, frozenset[str]]] = {}
        """By trunk and URI: the addresses, for `trust_host`."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._looking: asyncio.TimerHandle | None = None
        self._idle = asyncio.Event()
        self._closed = False

    def start(self) -> None:
        self.update()
        self._look_again()

    def update(self) -> None:
        """Take up the trunks as they are configured now."""
        now = self._ways.now()
        trunks = {trunk.name: trunk for trunk in self._trunks}
        for name in self._kept - trunks.keys():
            self._registrations.remove(name, now)
            self._liveness.remove(name)
            self._looked_up.pop(name, None)
        for name, trunk in trunks.items():
            self._update(trunk, now, new=name not in self._kept)
        self._kept = set(trunks)
        self._go_on()

    def answered(self, event: RequestAnswered) -> bool:
        """Take an event of the agent's; False: it is nobody's here."""
        now = self._ways.now()
        taken = self._registrations.answered(event, now) or self._liveness.answered(event, now)
        if taken:
            if self._registrations.idle:
                self._idle.set()
            self._go_on(flush=False)
        return taken

    def connection_lost(self, flow: Flow, why: str) -> None:
        """A connection has ended: what was registered over it is void (`Transports.on_connection_lost`)."""
        self._registrations.lost(flow, self._ways.now())
        self._go_on()

    def retry(self, name: str) -> bool:
        """Register again at once; False: no such trunk registers."""
        if self._registrations.status(name) is None:
            return False
        self._registrations.retry(name, self._ways.now())
        self._go_on()
        return True

    async def unregister(self, limit_s: float) -> None:
        """Take all registrations back, and wait for the answers, `limit_s` at most."""
        self._liveness.stop()
        self._registrations.unregister_all(self._ways.now())
        self._go_on()
        self._idle.clear()
        if not self._registrations.idle:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), limit_s)

    async def aclose(self) -> None:
        """Stop; nothing is sent any more."""
        self._closed = True
        for handle in (self._timer, self._looking):
            if handle is not None:
                handle.cancel()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    # -- one trunk ------------------------------------------------------------------------------------------

    def _update(self, trunk: Trunk, now: float, *, new: bool) -> None:
        settings, name = trunk.settings, trunk.name
        if settings.registers:
            self._registering.add(name)
            self._registrations.add(name, _account(trunk), now)
            trunk.registration = self._registrations.status(name)
        else:
            self._registering.discard(name)
            self._registrations.remove(name, now)
            trunk.registration = None
        if settings.host and settings.options_s:
            self._liveness.add(name, _peer(trunk), now)
        else:
            self._liveness.remove(name)
            trunk.liveness = None
        known = self._looked_up.get(name, {})
        if gone := known.keys() - _whereabouts(settings):
            # It has moved: who is at the old place is nobody we know.
            for uri in gone:
                del known[uri]
            self._trunks.learn(name, frozenset[str]().union(*known.values()))
        if (new or gone) and settings.host and settings.trust_host:
            self._start(self._look_up(name, settings))

    def _registered(self, name: str, status: RegistrationStatus) -> None:
        trunk = self._trunks.get(name)
        if trunk is None or name not in self._registering:
            return
        before, trunk.registration = trunk.registration, status
        if status.error and (before is None or status.failures != before.failures):
            trunk.failed(f"REGISTER: {status.error}", self._ways.now())
        if before is None or before.state != status.state:
            say = log.warning if status.state in ("failed", "refused") else log.info
            say("registration", trunk=name, state=status.state, error=status.error, registrar=status.registrar)

    def _heard(self, name: str, status: LivenessStatus) -> None:
        trunk = self._trunks.get(name)
        if trunk is None:
            return
        before, trunk.liveness = trunk.liveness, status
        if status.error and status.error != (before.error if before is not None else ""):
            trunk.failed(f"OPTIONS: {status.error}", self._ways.now())
        if before is not None and before.state != status.state:
            say = log.warning if status.state == "down" else log.info
            say("trunk", trunk=name, state=status.state, error=status.error)

    # -- where it is ----------------------------------------------------------------------------------------

    def _locate(self, name: str, asker: Registrations | Liveness) -> None:
        trunk = self._trunks.get(name)
        if trunk is None:
            return
        settings = trunk.settings
        hop = settings.next_hop
        if asker is self._registrations and not settings.outbound_proxy:
            hop = settings.registrar_uri
        self._start(self._find(name, hop, settings.transport, asker))

    async def _find(self, name: str, uri: str, transport: str, asker: Registrations | Liveness) -> None:
        try:
            flows: Sequence[Flow] = await self._ways.locate(uri, transport=transport)
        except LocateError as error:
            asker.unlocated(name, str(error), self._ways.now())
        else:
            self._learn(name, uri, flows)
            asker.located(name, flows, self._ways.now())
        self._go_on()

    async def _look_up(self, name: str, settings: TrunkSettings) -> None:
        """Note where calls of the trunk may come from."""
        for uri in _whereabouts(settings):
            try:
                flows = await self._ways.locate(uri, transport=settings.transport)
            except LocateError as error:
                log.info("trunk not found", trunk=name, uri=uri, error=str(error))
            else:
                self._learn(name, uri, flows)

    def _learn(self, name: str, uri: str, flows: Sequence[Flow]) -> None:
        trunk = self._trunks.get(name)
        if trunk is None or uri not in _whereabouts(trunk.settings):
            # It was taken out, or moved, while it was looked up.
            return
        known = self._looked_up.setdefault(name, {})
        known[uri] = frozenset(flow.remote[0] for flow in flows)
        self._trunks.learn(name, frozenset[str]().union(*known.values()))

    def _look_again(self) -> None:
        for trunk in self._trunks:
            if trunk.settings.host and trunk.settings.trust_host:
                self._start(self._look_up(trunk.name, trunk.settings))
        self._looking = asyncio.get_running_loop().call_later(LOOK_AGAIN_S, self._look_again)

    # -- inside ---------------------------------------------------------------------------------------------

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work, name="look-up of a trunk")
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a look-up failed", exc_info=error)

    def _go_on(self, *, flush: bool = True) -> None:
        """Send what there is to send, and set the timer anew."""
        if self._closed:
            return
        if flush:
            self._ways.flush()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        times = [at for at in (self._registrations.timer(), self._liveness.timer()) if at is not None]
        if times:
            self._timer = asyncio.get_running_loop().call_at(min(times), self._due)

    def _due(self) -> None:
        self._timer = None
        now = self._ways.now()
        self._registrations.handle_timer(now)
        self._liveness.handle_timer(now)
        self._go_on()


def _whereabouts(settings: TrunkSettings) -> frozenset[str]:
    """The URIs that calls of the trunk may come from."""
    places = {settings.registrar, settings.outbound_proxy}
    if settings.host:
        places |= {settings.next_hop, f"sip:{settings.host}{settings.port_text}"}
    if settings.registers:
        places.add(settings.registrar_uri)
    return frozenset(places - {""})


def _account(trunk: Trunk) -> Account:
    settings = trunk.settings
    return Account(
        aor=settings.aor,
        registrar=settings.registrar_uri,
        contact_user=settings.contact_user or settings.username.replace("@", "%40"),
        credentials=trunk.credentials,
        expires_s=settings.register_expires_s,
        route=settings.route,
    )


def _peer(trunk: Trunk) -> Peer:
    settings = trunk.settings
    user = settings.caller or settings.username.replace("@", "%40") or "offhook"
    return Peer(
        uri=f"sip:{settings.host}{settings.port_text}{settings.transport_text}",
        from_=f"<sip:{user}@{settings.from_host or settings.host}>",
        interval_s=settings.options_s,
        credentials=trunk.credentials,
        route=settings.route,
    )
