"""Registration as a client (RFC 3261 10.2), for any number of accounts, without I/O: one timer queue for all.

registrations.add(name, account, now)     it asks `locate(name)` for the way to the registrar
registrations.located(name, flows, now)   the owner has found it (or `unlocated`, with the reason)
registrations.answered(event, now)        the agent's `RequestAnswered`
registrations.timer(), handle_timer(now)  as with the agent
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from bridge.sip.agent import UserAgent
from bridge.sip.digest import Credentials, DigestClient
from bridge.sip.errors import SipSyntaxError
from bridge.sip.events import RequestAnswered, RequestKey
from bridge.sip.flow import Address, Flow
from bridge.sip.message import Response
from bridge.sip.timers import TimerQueue, Timers
from bridge.sip.uri import NameAddr, Uri

RegistrationState = Literal["registering", "registered", "failed", "refused", "unregistering", "unregistered"]

_REFUSED = frozenset({401, 403, 404, 405, 407, 410, 420, 421, 501, 505, 600, 603, 604})
"""Somebody has to change something first: our account, or the configuration."""

MAX_EXPIRES_S = 86_400


@dataclass(frozen=True, slots=True)
class Account:
    """What is registered, and where."""

    aor: str
    """Address of record: a SIP URI."""
    registrar: str
    """Request-URI: a SIP URI without a user."""
    contact_user: str
    """User part of our Contact, %-escaped as a URI has it."""
    credentials: Credentials | None = None
    expires_s: int = 600
    """Asked for; the registrar grants what it likes."""
    route: tuple[str, ...] = ()
    """Route values: an outbound proxy."""


@dataclass(frozen=True, slots=True)
class RegistrationTiming:
    margin_s: float = 600.0
    """A registration is refreshed so long before it runs out, or at half its time where that is later."""
    retry_s: float = 4.0
    """Wait after a first failure; it doubles with each."""
    max_retry_s: float = 180.0
    refused_retry_s: float = 900.0
    """Wait after a refusal (403, a wrong password): soon again would be taken for an attack."""
    reconnect_s: float = 2.0
    """A registration whose connection is lost is renewed within it, at a random moment."""
    max_retry_after_s: float = 3600.0
    """Longer ones are cut."""
    pace_s: float = 0.02
    """First attempts of many accounts follow each other at this distance."""
    jitter: float = 0.2
    """Every wait is shorter by up to this part, so that boxes which failed together don't return together."""


@dataclass(frozen=True, slots=True)
class RegistrationStatus:
    """How it stands with one registration. Times are on the clock of `now`."""

    state: RegistrationState = "registering"
    """`failed`: another attempt follows soon; `refused`: our account is not taken: seldom. A registration whose
    refresh failed stays `registered` until it runs out."""
    until: float | None = None
    """When what was granted last runs out."""
    next_at: float | None = None
    """The next attempt; None while one is under way."""
    error: str = ""
    """What went wrong with the last attempt, "" when nothing did."""
    failures: int = 0
    """In a row."""
    round_trip_ms: float | None = None
    """Of the last attempt that was answered, a challenge included."""
    registrar: str = ""
    """Where it is registered: `transport:address:port`."""
    service_route: tuple[str, ...] = ()
    """Route values for our requests by way of this registrar (RFC 3608)."""
    path: tuple[str, ...] = ()
    """The proxies between the registrar and us (RFC 3327)."""
    seen_as: Address | None = None
    """Our address as the registrar sees it."""


@dataclass(slots=True)
class _Registration:
    name: str
    account: Account
    timers: Timers
    digest: DigestClient | None
    expires_s: int
    status: RegistrationStatus = field(default_factory=RegistrationStatus)
    flow: Flow | None = None
    """Where it is registered, or was tried last."""
    ways: list[Flow] = field(default_factory=list)
    """What is left to be tried in this attempt."""
    contact: str = ""
    """As registered, with brackets."""
    call_id: str = ""
    cseq: int = 0
    key: RequestKey | None = None
    """The request that is under way."""
    sent_at: float = 0.0
    raised: bool = False
    """A 423 was met in this attempt."""
    leaving: bool = False
    taking_back: bool = False
    """The request under way is the one that unregisters."""
    removed: bool = False


class Registrations:
    """All accounts of one user agent. A name stays the owner's; `status` is there from `add` to `remove`."""

    def __init__(
        self,
        agent: UserAgent,
        *,
        locate: Callable[[str], None],
        changed: Callable[[str, RegistrationStatus], None] = lambda name, status: None,
        timing: RegistrationTiming | None = None,
        rng: random.Random | None = None,
    ) -> None:
        """`locate(name)` asks for the way to an account's registrar; `located` or `unlocated` answers, at once or
        later. `changed` is told each new status."""
        self._agent = agent
        self._locate = locate
        self._changed = changed
        self._timing = timing or RegistrationTiming()
        self._rng = rng or random.Random()
        self._queue = TimerQueue()
        self._all: dict[str, _Registration] = {}
        self._requests: dict[RequestKey, _Registration] = {}
        self._next_start = 0.0

    # -- the owner's verbs ----------------------------------------------------------------------------------

    def add(self, name: str, account: Account, now: float) -> None:
        """Register `account`, and keep it registered. An account of that name whose settings are the same stays as
        it is; another one is unregistered."""
        present = self._all.get(name)
        if present is not None:
            if present.account == account and not present.leaving:
                return
            self.remove(name, now)
        digest = None if account.credentials is None else DigestClient(account.credentials)
        registration = _Registration(name, account, self._timers_of(name), digest, account.expires_s)
        self._all[name] = registration
        self._next_start = at = max(now, self._next_start + self._timing.pace_s)
        self._wait_until(registration, at)

    def remove(self, name: str, now: float) -> None:
        """Unregister, and forget the account at once."""
        registration = self._all.pop(name, None)
        if registration is not None:
            registration.removed = True
            self._leave(registration, now)

    def unregister_all(self, now: float) -> None:
        """Take back every registration; `idle` tells when all registrars have answered."""
        for registration in self._all.values():
            self._leave(registration, now)

    def retry(self, name: str, now: float) -> None:
        """Register again at once, whatever was being waited for (the network is back, the password is new)."""
        registration = self._all.get(name)
        if registration is not None and registration.key is None and not registration.leaving:
            self._wait_until(registration, now)

    def lost(self, flow: Flow, now: float) -> None:
        """A connection has ended: calls come over it no more, so what is registered by it is registered again."""
        for registration in self._all.values():
            used = registration.flow
            if used is not None and _same_way(used, flow) and registration.key is None and not registration.leaving:
                self._wait_until(registration, now + self._rng.random() * self._timing.reconnect_s)

    def located(self, name: str, flows: Sequence[Flow], now: float) -> None:
        """The ways to the registrar, the preferred first."""
        registration = self._all.get(name)
        if registration is None or registration.key is not None or registration.leaving:
            return
        if not flows:
            self.unlocated(name, "the registrar has no address", now)
            return
        ways = list(flows)
        if registration.status.state == "registered":
            # The registrar that has it is asked to go on, unless DNS has dropped it.
            ways.sort(key=lambda flow: registration.flow is None or not _same_way(flow, registration.flow))
        registration.ways = ways
        registration.raised = False
        self._send(registration, now)

    def unlocated(self, name: str, why: str, now: float) -> None:
        """The registrar can't be found."""
        registration = self._all.get(name)
        if registration is not None and registration.key is None and not registration.leaving:
            self._failed(registration, why, now)

    def answered(self, event: RequestAnswered, now: float) -> bool:
        """Take the agent's event; False: it is not of a registration."""
        registration = self._requests.pop(event.key, None)
        if registration is None:
            return False
        registration.key = None
        registration.cseq = event.request.cseq.number
        registration.call_id = event.request.call_id
        if registration.leaving:
            self._left(registration, event.response, now)
        elif event.response is None:
            self._next_way(registration, "no answer", now)
        else:
            round_trip_ms = (now - registration.sent_at) * 1000
            registration.status = replace(registration.status, round_trip_ms=round_trip_ms)
            self._take(registration, event.response, now)
        return True

    # -- for the adapter, and to look at --------------------------------------------------------------------

    def timer(self) -> float | None:
        """When to call `handle_timer` next, None for never."""
        return self._queue.next()

    def handle_timer(self, now: float) -> None:
        """Do what is due. Harmless too early."""
        self._queue.run(now)

    def status(self, name: str) -> RegistrationStatus | None:
        registration = self._all.get(name)
        return registration.status if registration is not None else None

    @property
    def idle(self) -> bool:
        """Whether no request is under way."""
        return not self._requests

    # -- one attempt ----------------------------------------------------------------------------------------

    def _send(self, registration: _Registration, now: float) -> None:
        """Register by the next way there is."""
        flow = registration.ways.pop(0)
        registration.flow = flow
        registration.contact = self._contact(registration, flow)
        state: RegistrationState = "registered" if registration.status.state == "registered" else "registering"
        self._show(registration, state=state, next_at=None)
        self._request(registration, registration.expires_s, now)

    def _request(self, registration: _Registration, expires_s: int, now: float) -> None:
        account, flow = registration.account, registration.flow
        assert flow is not None
        headers = [("Contact", registration.contact), ("Expires", str(expires_s)), ("Supported", "path")]
        try:
            key = self._agent.request(
                "REGISTER",
                account.registrar,
                flow,
                now,
                from_=f"<{account.aor}>",
                to=f"<{account.aor}>",
                headers=headers,
                call_id=registration.call_id,
                cseq=registration.cseq + 1,
                route=account.route,
                credentials=registration.digest,
            )
        except SipSyntaxError as error:
            self._failed(registration, str(error), now)
            return
        registration.key = key
        registration.sent_at = now
        self._requests[key] = registration

    def _take(self, registration: _Registration, response: Response, now: float) -> None:
        """A final response."""
        status = response.status
        told = f"{status} {response.reason}".strip()
        if 200 <= status < 300:
            self._granted(registration, response, now)
        elif status == 423:
            self._too_brief(registration, response, told, now)
        elif status in _REFUSED:
            self._refused(registration, told, now)
        elif status == 503 or status == 408:
            self._next_way(registration, told, now, _retry_after(response))
        else:
            self._failed(registration, told, now, _retry_after(response))

    def _granted(self, registration: _Registration, response: Response, now: float) -> None:
        granted = _granted_s(response, registration.contact, registration.expires_s)
        if granted <= 0:
            self._failed(registration, "the registrar granted no time", now)
            return
        # Counted from the sending: an answer may have been long on its way.
        until = registration.sent_at + granted
        wait = max(granted / 2, granted - self._timing.margin_s)
        registration.status = replace(
            registration.status,
            state="registered",
            until=until,
            error="",
            failures=0,
            registrar=str(registration.flow),
            service_route=_items(response, "Service-Route"),
            path=_items(response, "Path"),
            seen_as=_seen_as(response),
        )
        self._wait_until(registration, max(now + 1.0, registration.sent_at + self._shortened(wait)))
        registration.timers.set("expired", until)

    def _too_brief(self, registration: _Registration, response: Response, told: str, now: float) -> None:
        """423: ask for as much as the registrar wants at least."""
        wanted = _seconds(response.headers.get("Min-Expires"))
        if registration.raised or wanted is None or not registration.expires_s < wanted <= MAX_EXPIRES_S:
            self._failed(registration, told, now)
            return
        registration.raised = True
        registration.expires_s = wanted
        self._request(registration, wanted, now)

    def _next_way(self, registration: _Registration, why: str, now: float, retry_after_s: float = 0.0) -> None:
        if registration.ways:
            registration.status = replace(registration.status, error=f"{registration.flow}: {why}")
            self._send(registration, now)
        else:
            self._failed(registration, why, now, retry_after_s)

    def _failed(self, registration: _Registration, why: str, now: float, retry_after_s: float = 0.0) -> None:
        timing, failures = self._timing, registration.status.failures
        wait = self._shortened(min(timing.max_retry_s, timing.retry_s * 2 ** min(failures, 16)))
        wait = max(wait, min(retry_after_s, timing.max_retry_after_s))
        self._note_failure(registration, "failed", why, now)
        self._wait_until(registration, now + wait)

    def _refused(self, registration: _Registration, why: str, now: float) -> None:
        self._note_failure(registration, "refused", why, now)
        # The registrar has most likely dropped what it had of us.
        registration.timers.stop("expired")
        registration.status = replace(registration.status, until=None)
        self._wait_until(registration, now + self._shortened(self._timing.refused_retry_s))

    def _note_failure(
        self, registration: _Registration, state: Literal["failed", "refused"], why: str, now: float
    ) -> None:
        status = registration.status
        still = state == "failed" and status.state == "registered" and (status.until or 0.0) > now
        registration.status = replace(
            status, state="registered" if still else state, error=why, failures=status.failures + 1
        )

    # -- leaving --------------------------------------------------------------------------------------------

    def _leave(self, registration: _Registration, now: float) -> None:
        if registration.leaving:
            return
        registration.leaving = True
        registration.timers.stop_all()
        if registration.key is not None:
            # What is under way may yet be granted: taken back once it is answered.
            self._show(registration, state="unregistering", next_at=None)
        elif registration.status.until is not None and registration.status.until > now:
            self._show(registration, state="unregistering", next_at=None)
            self._take_back(registration, now)
        else:
            self._show(registration, state="unregistered", next_at=None)

    def _take_back(self, registration: _Registration, now: float) -> None:
        registration.taking_back = True
        self._request(registration, 0, now)

    def _left(self, registration: _Registration, response: Response | None, now: float) -> None:
        """Something of an account that leaves was answered: the last REGISTER, or the one that takes it back."""
        granted = response is not None and 200 <= response.status < 300
        if granted and not registration.taking_back:
            self._take_back(registration, now)
            return
        error = "" if granted else "unregistering was not answered" if response is None else str(response.status)
        self._show(registration, state="unregistered", until=None, next_at=None, error=error)

    # -- inside ---------------------------------------------------------------------------------------------

    def _timers_of(self, name: str) -> Timers:
        def fire(what: str, now: float) -> None:
            registration = self._all.get(name)
            if registration is None:
                return
            if what == "expired":
                self._expired(registration)
            else:
                self._show(registration, next_at=None)
                self._locate(name)

        return Timers(self._queue, fire)

    def _expired(self, registration: _Registration) -> None:
        under_way = registration.key is not None
        error = registration.status.error or "the registration ran out"
        self._show(registration, state="registering" if under_way else "failed", until=None, error=error)

    def _wait_until(self, registration: _Registration, at: float) -> None:
        registration.timers.set("attempt", at)
        self._show(registration, next_at=at)

    def _show(self, registration: _Registration, **changes: object) -> None:
        registration.status = replace(registration.status, **changes)  # type: ignore[arg-type]  # by name, as given
        if not registration.removed:
            self._changed(registration.name, registration.status)

    def _shortened(self, wait: float) -> float:
        return wait * (1 - self._rng.random() * self._timing.jitter)

    def _contact(self, registration: _Registration, flow: Flow) -> str:
        ours = NameAddr.parse(self._agent.contact(flow))
        return str(replace(ours, uri=replace(ours.uri, user=registration.account.contact_user)))


def _same_way(one: Flow, other: Flow) -> bool:
    return (one.transport, one.remote) == (other.transport, other.remote)


def _granted_s(response: Response, contact: str, asked_s: int) -> int:
    """How long the registrar keeps our Contact (RFC 3261 10.2.1.1, 10.3 step 8): its `expires`, else the response's
    Expires, else what we asked for."""
    default = _seconds(response.headers.get("Expires"))
    ours = NameAddr.parse(contact).uri
    try:
        bindings = [NameAddr.parse(item) for item in response.headers.items_of("Contact")]
    except SipSyntaxError:
        bindings = []
    for binding in bindings:
        if _same_contact(binding.uri, ours):
            own = _seconds(binding.param("expires"))
            if own is not None:
                return own
    return default if default is not None else asked_s


def _same_contact(one: Uri, other: Uri) -> bool:
    return (one.user, one.host, one.port or 5060) == (other.user, other.host, other.port or 5060)


def _seconds(text: str | None) -> int | None:
    text = (text or "").strip()
    return min(int(text[:9]), MAX_EXPIRES_S) if text.isascii() and text.isdigit() else None


def _retry_after(response: Response) -> float:
    digits = (response.headers.get("Retry-After") or "").strip().partition(";")[0].partition("(")[0]
    return float(_seconds(digits) or 0)


def _items(response: Response, name: str) -> tuple[str, ...]:
    try:
        return tuple(response.headers.items_of(name))
    except SipSyntaxError:
        return ()


def _seen_as(response: Response) -> Address | None:
    """Our address by `received` and `rport` of our own Via (RFC 3581)."""
    try:
        via = response.via
    except SipSyntaxError:
        return None
    received, rport = via.param("received"), _seconds(via.param("rport"))
    if not received and not rport:
        return None
    return (received or via.host.strip("[]"), rport or via.port or 5060)
