"""The trunks that are configured: which one a request comes from, and what is known of each."""

import ipaddress
import os
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from bridge.settings import PasswordError
from bridge.sip.digest import Credentials, DigestServer, Secret
from bridge.sip.errors import SipSyntaxError
from bridge.sip.flow import Flow
from bridge.sip.message import Request
from bridge.sip.registration import RegistrationStatus
from bridge.sip.settings import Refusal, Verdict
from bridge.trunks.guard import CHALLENGED, Guard
from bridge.trunks.settings import Strangers, TrunkSettings
from bridge.trunks.status import LivenessStatus, TrunkState, TrunkStatus

How = Literal["network", "host", "certificate", "digest", "allowed"]

_CACHED = 4096


@dataclass(frozen=True, slots=True)
class _Network:
    """As numbers: every new address is held against all networks."""

    version: int
    address: int
    mask: int
    prefix: int

    @classmethod
    def of(cls, text: str) -> "_Network":
        network = ipaddress.ip_network(text)
        return cls(network.version, int(network.network_address), int(network.netmask), network.prefixlen)

    def holds(self, version: int, address: int) -> bool:
        return version == self.version and address & self.mask == self.address


class TrunkError(Exception):
    """The trunks can't be set up as configured; the message names the trunk and what is missing."""


class TokenBucket:
    """So many a second, and as many at once."""

    def __init__(self, per_s: float | None) -> None:
        """None: no limit."""
        self._per_s = per_s
        self._tokens = self._size
        self._at = 0.0

    @property
    def per_s(self) -> float | None:
        return self._per_s

    @property
    def _size(self) -> float:
        return max(1.0, self._per_s or 0.0)

    def set(self, per_s: float | None) -> None:
        """Change the limit; what is used up stays used up."""
        self._per_s = per_s
        self._tokens = min(self._tokens, self._size)

    def take(self, now: float) -> bool:
        """Take one; False: there is none left."""
        if self._per_s is None:
            return True
        self._tokens = min(self._size, self._tokens + max(0.0, now - self._at) * self._per_s)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def give_back(self) -> None:
        """What was taken was not used."""
        self._tokens = min(self._size, self._tokens + 1)


class Trunk:
    """One trunk as it is now: its settings, and what happens on it. Changed by the bridge as calls come and go."""

    def __init__(self, settings: TrunkSettings, credentials: Credentials | None) -> None:
        self.settings = settings
        self.credentials = credentials
        self.bucket = TokenBucket(settings.calls_per_s)
        self.calls = 0
        """Live now, both ways."""
        self.attempts = 0
        """Calls tried since the start, both ways, refused ones too."""
        self.refused = 0
        """Of them, those turned away by a limit."""
        self.last_error = ""
        self.last_error_at: float | None = None
        """On the clock of `now`."""
        self.registration: RegistrationStatus | None = None
        self.liveness: LivenessStatus | None = None
        self.addresses: frozenset[str] = frozenset()
        """Where its host, registrar and proxy are, as DNS said last."""

    @property
    def name(self) -> str:
        return self.settings.name

    def failed(self, error: str, now: float) -> None:
        """Note the trunk's last error."""
        self.last_error, self.last_error_at = error, now

    @property
    def state(self) -> TrunkState:
        """Whether calls go through, as far as is known."""
        registration, liveness = self.registration, self.liveness
        if registration is not None and registration.state != "registered":
            return registration.state
        if liveness is not None:
            return liveness.state
        return "up" if registration is not None else "unwatched"

    def status(self) -> TrunkStatus:
        settings = self.settings
        return TrunkStatus(
            name=settings.name,
            host=settings.host,
            transport=settings.transport,
            state=self.state,
            registration=self.registration,
            liveness=self.liveness,
            calls=self.calls,
            max_calls=settings.calls,
            attempts=self.attempts,
            refused=self.refused,
            last_error=self.last_error,
            last_error_at=self.last_error_at,
        )


@dataclass(frozen=True, slots=True)
class TrunkMatch:
    """Whom a request comes from."""

    trunk: Trunk | None
    """None: no trunk, but a network that calls are taken from all the same (`sip.allow_from`)."""
    how: How
    username: str = ""
    """The digest user."""

    @property
    def name(self) -> str:
        return self.trunk.name if self.trunk is not None else ""


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A configuration whose passwords are all there."""

    settings: tuple[TrunkSettings, ...]
    credentials: Mapping[str, Credentials]
    """By trunk."""
    users: Mapping[str, tuple[Secret, str]]
    """By digest user: the password, and the trunk."""


def prepare(settings: Sequence[TrunkSettings], environ: Mapping[str, str] = os.environ) -> _Prepared:
    """Read the passwords of all trunks. Raises TrunkError with one line for each that is missing."""
    problems: list[str] = []
    credentials: dict[str, Credentials] = {}
    users: dict[str, tuple[Secret, str]] = {}
    for trunk in settings:
        try:
            if trunk.username:
                credentials[trunk.name] = Credentials(trunk.username, trunk.password(environ), trunk.realm)
        except PasswordError as error:
            problems.append(f"trunk {trunk.name!r}: {error}")
        for user in trunk.users:
            try:
                users[user.username] = (Secret(user.password(environ)), trunk.name)
            except PasswordError as error:
                problems.append(f"trunk {trunk.name!r}, user {user.username!r}: {error}")
    if problems:
        raise TrunkError("\n".join(problems))
    return _Prepared(tuple(settings), credentials, users)


class Trunks:
    """All trunks; tells whose a request is. `now` is always the user agent's clock (s)."""

    def __init__(
        self,
        prepared: _Prepared,
        *,
        guard: Guard,
        allow_from: Iterable[str] = (),
        strangers: Strangers = "refuse",
        realm: str = "offhook",
        nonce_lifetime_s: float = 60.0,
        algorithms: Sequence[str] = ("SHA-256", "MD5"),
        peer_names: Callable[[Flow], frozenset[str]] | None = None,
    ) -> None:
        """`peer_names` gives the names in the client certificate of a TLS flow."""
        self.guard = guard
        self.peer_names = peer_names
        self._trunks: dict[str, Trunk] = {}
        self._digest = DigestServer(realm, self._secret, algorithms=algorithms, nonce_lifetime_s=nonce_lifetime_s)
        self.apply(prepared, allow_from=allow_from, strangers=strangers)

    def apply(self, prepared: _Prepared, *, allow_from: Iterable[str], strangers: Strangers) -> None:
        """Take up a configuration; a trunk that was there before keeps its state and its counts."""
        before, self._trunks = self._trunks, {}
        self._networks: list[tuple[_Network, Trunk]] = []
        self._certificates: list[tuple[str, Trunk]] = []
        self._users = dict(prepared.users)
        self._strangers = strangers
        self._allowed = [_Network.of(network) for network in allow_from]
        for settings in prepared.settings:
            credentials = prepared.credentials.get(settings.name)
            trunk = before.get(settings.name)
            if trunk is None:
                trunk = Trunk(settings, credentials)
            else:
                trunk.settings, trunk.credentials = settings, credentials
                trunk.bucket.set(settings.calls_per_s)
            self._trunks[settings.name] = trunk
            self._networks += [(_Network.of(network), trunk) for network in settings.networks]
            self._certificates += [(name.lower(), trunk) for name in settings.certificate_names]
        # The narrowest network says most about who it is.
        self._networks.sort(key=lambda entry: entry[0].prefix, reverse=True)
        self._by_address: OrderedDict[str, tuple[tuple[tuple[Trunk, How], ...], bool]] = OrderedDict()
        """By address: its trunks, and whether it is allowed without one."""

    def __iter__(self) -> Iterator[Trunk]:
        return iter(self._trunks.values())

    def get(self, name: str) -> Trunk | None:
        return self._trunks.get(name)

    def status(self) -> tuple[TrunkStatus, ...]:
        return tuple(trunk.status() for trunk in self._trunks.values())

    def readings(self) -> Mapping[str, float]:
        """For the metrics."""
        readings: dict[str, float] = {"guard_dropped_total": float(self.guard.dropped)}
        for trunk in self._trunks.values():
            label = f'{{trunk="{trunk.name}"}}'
            if trunk.state != "unwatched":
                readings[f"trunk_up{label}"] = float(trunk.state == "up")
            readings[f"trunk_calls_live{label}"] = float(trunk.calls)
            readings[f"trunk_calls_refused_total{label}"] = float(trunk.refused)
            if trunk.liveness is not None and trunk.liveness.round_trip_ms is not None:
                readings[f"trunk_round_trip_seconds{label}"] = trunk.liveness.round_trip_ms / 1000
        return readings

    def learn(self, name: str, addresses: Iterable[str]) -> None:
        """Take note where a trunk's hosts are, for `trust_host`."""
        trunk = self._trunks.get(name)
        if trunk is not None and trunk.addresses != (found := frozenset(addresses)):
            trunk.addresses = found
            self._by_address.clear()

    # -- who is it ------------------------------------------------------------------------------------------

    def identify(self, request: Request, flow: Flow, now: float) -> TrunkMatch | Refusal | Verdict:
        """Whom a request outside any dialog comes from, or how a stranger is to be answered. Counts what strangers
        do; for a request that was let in, `recognise` gives the same match and counts nothing."""
        address = flow.remote[0]
        match = self._known(request, flow)
        if match is not None:
            return match
        if not self.guard.lets_in(address, now):
            return Verdict.SILENT
        if self._users and self._digest.is_answered(request):
            verdict = self._digest.check(request, now)
            if verdict.username:
                self.guard.proved(address, now)
                return self._digest_match(verdict.username)
            if verdict.failed:
                self.guard.failed(address, now, f"{verdict.why} (user {verdict.claimed[:32]!r})")
                return Refusal(403) if verdict.status == 401 else Refusal(verdict.status, verdict.reason)
            self.guard.failed(address, now, verdict.why, CHALLENGED)
            return Refusal(verdict.status, verdict.reason, verdict.headers)
        if self._challenges(request):
            self.guard.failed(address, now, "challenges not answered", CHALLENGED)
            return Refusal(401, headers=self._digest.challenge(now))
        self.guard.failed(address, now, f"{request.method} from no trunk")
        return Verdict.SILENT if self._strangers == "silent" else Refusal(403)

    def recognise(self, request: Request, flow: Flow, now: float) -> TrunkMatch | None:
        """The match of a request that `identify` has let in."""
        match = self._known(request, flow)
        if match is not None or not self._users:
            return match
        verdict = self._digest.check(request, now)
        return self._digest_match(verdict.username) if verdict.username else None

    def _known(self, request: Request, flow: Flow) -> TrunkMatch | None:
        """By address or certificate."""
        address = flow.remote[0]
        found = self._by_address.get(address)
        if found is None:
            found = self._look_up(address)
            if len(self._by_address) >= _CACHED:
                self._by_address.popitem(last=False)
            self._by_address[address] = found
        trunks, allowed = found
        if trunks:
            return TrunkMatch(*_pick(trunks, request))
        if flow.transport == "tls" and self._certificates and self.peer_names is not None:
            names = {name.lower() for name in self.peer_names(flow)}
            for wanted, trunk in self._certificates:
                if any(_bears(name, wanted) for name in names):
                    return TrunkMatch(trunk, "certificate")
        # A digest that is right says more than a network that anybody may call from.
        if allowed and not (self._users and self._digest.is_answered(request)):
            return TrunkMatch(None, "allowed")
        return None

    def _look_up(self, address: str) -> tuple[tuple[tuple[Trunk, How], ...], bool]:
        """The trunks at an address, those of its narrowest networks first; whether it is allowed without one."""
        parsed = _parsed(address)
        version, number = parsed.version, int(parsed)
        found: dict[str, tuple[Trunk, How]] = {}
        for network, trunk in self._networks:
            if network.holds(version, number):
                found.setdefault(trunk.name, (trunk, "network"))
        for trunk in self._trunks.values():
            if trunk.settings.trust_host and str(parsed) in trunk.addresses:
                found.setdefault(trunk.name, (trunk, "host"))
        return tuple(found.values()), any(network.holds(version, number) for network in self._allowed)

    def _challenges(self, request: Request) -> bool:
        """Whether a stranger is asked who he is."""
        if self._strangers == "challenge":
            return True
        if self._strangers == "refuse":
            return bool(self._users)
        try:
            # To others we are not there; a peer of ours must be able to begin.
            return request.from_.uri.user_text in self._users
        except SipSyntaxError:
            return False

    def _secret(self, username: str) -> Secret | None:
        entry = self._users.get(username)
        return entry[0] if entry is not None else None

    def _digest_match(self, username: str) -> TrunkMatch:
        return TrunkMatch(self._trunks[self._users[username][1]], "digest", username)


def _parsed(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    parsed = ipaddress.ip_address(address.partition("%")[0])
    return (parsed.ipv4_mapped or parsed) if isinstance(parsed, ipaddress.IPv6Address) else parsed


def _pick(found: Sequence[tuple[Trunk, How]], request: Request) -> tuple[Trunk, How]:
    """Of several trunks at one address (two accounts at a carrier) the one whose registered user is called."""
    if len(found) > 1:
        try:
            called = request.target.user
        except SipSyntaxError:
            called = ""
        for entry in found:
            if called and called in (entry[0].settings.contact_user, entry[0].settings.username):
                return entry
    return found[0]


def _bears(name: str, wanted: str) -> bool:
    """Whether a certificate's name is the wanted one; `*.` in what is wanted stands for one label."""
    if wanted.startswith("*."):
        return name.partition(".")[2] == wanted[2:]
    return name == wanted
