"""Where a SIP URI leads (RFC 3263): NAPTR, SRV and addresses from DNS, in the order in which to try them."""

import asyncio
import ipaddress
import random
import socket
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, cast

import dns.asyncresolver
import dns.exception
import dns.nameserver
import dns.resolver
import structlog

from bridge.sip.errors import LocateError
from bridge.sip.flow import Address, Transport
from bridge.sip.uri import Uri
from bridge.sip.via import DEFAULT_PORT, DEFAULT_TLS_PORT

log = structlog.get_logger(__name__)

_SERVICES: dict[Transport, tuple[str, str]] = {
    "udp": ("SIP+D2U", "_sip._udp"),
    "tcp": ("SIP+D2T", "_sip._tcp"),
    "tls": ("SIPS+D2T", "_sips._tcp"),
}
"""NAPTR service and SRV prefix of each transport (RFC 3263 4.1)."""

_MAX_TARGETS = 16
_MAX_RECORDS = 32
"""Of one answer: there is room for thousands, each of which would be ordered and looked up, while calls wait."""
_SYSTEM_THREADS = 4
"""That ask the system for names, which may take long: the process's other work in threads shall not wait for it."""
_MAX_CACHED = 4096
_MAX_BACKGROUND = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolverSettings:
    nameservers: tuple[Address, ...] = ()
    """Empty: those of the system."""
    query_s: float = 3.0
    """How long one question is asked, all name servers together."""
    locate_s: float = 8.0
    """How long all questions for one URI may take."""
    min_ttl_s: float = 5.0
    max_ttl_s: float = 3600.0
    negative_ttl_s: float = 30.0
    """How long it is remembered that there is nothing, or that nobody answered."""
    stale_s: float = 86400.0
    """Answers are used for this long after their time while no name server answers (RFC 8767)."""
    hosts: Path = Path("/etc/hosts")


@dataclass(frozen=True, slots=True)
class Target:
    """One address to try."""

    transport: Transport
    address: Address
    domain: str
    """The host of the URI, whose certificate a TLS server must show (RFC 5922 4): not the name that SRV led to."""


@dataclass(frozen=True, slots=True)
class Srv:
    priority: int
    weight: int
    port: int
    target: str


@dataclass(frozen=True, slots=True)
class Naptr:
    order: int
    preference: int
    service: str
    """In upper case."""
    replacement: str


Record = Srv | Naptr | str
"""An address is a string."""


@dataclass(slots=True)
class _Entry:
    records: tuple[Record, ...]
    expires: float
    usable_until: float
    """While nobody answers."""


@dataclass(slots=True)
class _Found:
    address: Address | None
    expires: float


def order_srv(records: Iterable[Srv], rng: random.Random) -> list[Srv]:
    """By priority, and among equals at random by weight (RFC 2782)."""
    ordered: list[Srv] = []
    waiting = sorted(records, key=lambda record: (record.priority, record.weight))
    while waiting:
        equals = [record for record in waiting if record.priority == waiting[0].priority]
        # Those of weight 0 stand first, so that they have a small chance.
        draw = rng.randint(0, sum(record.weight for record in equals))
        for record in equals:
            draw -= record.weight
            if draw <= 0:
                break
        ordered.append(record)
        waiting.remove(record)
    return ordered


def wanted_transport(uri: Uri, transport: str) -> Transport | None:
    """The transport that is asked for, by `transport` or by the URI; None leaves it to DNS. Raises LocateError."""
    asked = (transport or uri.param("transport") or "").lower()
    if asked not in ("", "udp", "tcp", "tls"):
        raise LocateError(f"{uri}: the transport {asked!r} is none of udp, tcp, tls")
    if uri.scheme != "sips":
        return cast(Transport, asked) if asked else None
    if asked == "udp":
        raise LocateError(f"{uri}: sips does not go over udp")
    return "tls"


class Resolver:
    """`transports` are those we have, the preferred one first; `families` the address families."""

    def __init__(
        self,
        settings: ResolverSettings,
        *,
        transports: Sequence[Transport] = ("udp", "tcp", "tls"),
        families: Sequence[int] = (socket.AF_INET, socket.AF_INET6),
        clock: Callable[[], float],
        rng: random.Random | None = None,
    ) -> None:
        self.settings = settings
        self.transports = tuple(transports)
        self.families = tuple(families)
        self._clock = clock
        self._rng = rng or random.Random()
        self._dns = _dns_resolver(settings)
        self._cache: dict[tuple[str, str], _Entry] = {}
        self._asking: dict[tuple[str, str], asyncio.Task[tuple[Record, ...]]] = {}
        self._found: dict[tuple[str, int | None], _Found] = {}
        self._background: dict[tuple[str, int | None], asyncio.Task[None]] = {}
        self._hosts = _HostsFile(settings.hosts)
        self._threads = ThreadPoolExecutor(_SYSTEM_THREADS, thread_name_prefix="names")

    async def locate(self, uri: Uri, transport: str = "") -> tuple[Target, ...]:
        """The addresses of `uri`, in the order to try them; never empty. `transport` overrules the URI's.
        Raises LocateError."""
        if not uri.is_sip:
            raise LocateError(f"{uri} is no SIP URI")
        try:
            async with asyncio.timeout(self.settings.locate_s):
                targets = await self._locate(uri, wanted_transport(uri, transport))
        except TimeoutError as error:
            raise LocateError(f"{uri.host}: no answer from DNS in {self.settings.locate_s:g} s") from error
        if not targets:
            raise LocateError(f"{uri.host} can't be resolved")
        return tuple(targets[:_MAX_TARGETS])

    def find(self, host: str, port: int | None) -> Address | None:
        """The address of a name, at once: from what `warm` found before. None when it is not known yet: then it is
        being looked up. For the hosts of Contact and Record-Route within dialogs."""
        if _is_address(host):
            return (host, port or DEFAULT_PORT)
        found = self._found.get((host.lower(), port))
        if found is None or found.expires <= self._clock():
            self.warm(host, port)
        return found.address if found else None

    def warm(self, host: str, port: int | None) -> None:
        """Look a name up in the background, so that `find` knows it soon."""
        key = (host.lower(), port)
        found = self._found.get(key)
        fresh = found is not None and found.expires > self._clock()
        if fresh or key in self._background or _is_address(host) or len(self._background) >= _MAX_BACKGROUND:
            return
        task = asyncio.get_running_loop().create_task(self._look_up(*key))
        self._background[key] = task
        task.add_done_callback(lambda _: self._background.pop(key, None))

    async def aclose(self) -> None:
        """Stop what is under way."""
        tasks: list[asyncio.Task[Any]] = [*self._background.values(), *self._asking.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._threads.shutdown(wait=False, cancel_futures=True)

    # -- RFC 3263 -------------------------------------------------------------------------------------------

    async def _locate(self, uri: Uri, transport: Transport | None) -> list[Target]:
        host = (uri.param("maddr") or uri.host_address).lower()
        default: Transport = "tls" if uri.scheme == "sips" else "udp"
        domain = uri.host_address.lower()
        if _is_address(host) or uri.port is not None or "." not in host or self._hosts.find(host):
            # Names that stand for one machine have no services: DNS is asked for addresses alone.
            transport = self._supported(transport or default, uri)
            return await self._at(host, uri.port or _port(transport), transport, domain)
        if transport is not None:
            transport = self._supported(transport, uri)
            services = await self._srv(f"{_SERVICES[transport][1]}.{host}")
            if services:
                return await self._of_services(services, transport, domain)
            return await self._at(host, _port(transport), transport, domain)
        return await self._by_service(host, uri, default, domain)

    async def _by_service(self, host: str, uri: Uri, default: Transport, domain: str) -> list[Target]:
        """Neither port nor transport are told: DNS knows."""
        choice = [t for t in self.transports if t == "tls" or uri.scheme != "sips"]
        naptr, srv = await asyncio.gather(
            self._optional(host, "NAPTR"),
            asyncio.gather(*(self._srv(f"{_SERVICES[transport][1]}.{host}") for transport in choice)),
        )
        wanted = {_SERVICES[transport][0]: transport for transport in choice}
        pointers = [record for record in naptr if isinstance(record, Naptr) and record.service in wanted]
        for pointer in sorted(pointers, key=lambda record: (record.order, record.preference)):
            # Only the best that leads anywhere is followed: the next could be less safe than the domain asks for.
            if services := await self._srv(pointer.replacement):
                return await self._of_services(services, wanted[pointer.service], domain)
        for transport, found in zip(choice, srv, strict=True):
            if found:
                return await self._of_services(found, transport, domain)
        transport = self._supported(default, uri)
        return await self._at(host, _port(transport), transport, domain)

    async def _srv(self, name: str) -> list[Srv]:
        records = [record for record in await self._optional(name, "SRV") if isinstance(record, Srv)]
        return order_srv(records, self._rng)

    async def _of_services(self, services: list[Srv], transport: Transport, domain: str) -> list[Target]:
        # "." says that the service is not offered here (RFC 2782).
        services = [service for service in services if service.target][:_MAX_TARGETS]
        found = await asyncio.gather(*(self._optional_addresses(service.target) for service in services))
        return [
            Target(transport, (address, service.port), domain)
            for service, addresses in zip(services, found, strict=True)
            for address in addresses
        ]

    async def _at(self, host: str, port: int, transport: Transport, domain: str) -> list[Target]:
        return [Target(transport, (address, port), domain) for address in await self._addresses(host)]

    def _supported(self, transport: Transport, uri: Uri) -> Transport:
        if transport not in self.transports:
            raise LocateError(f"{uri}: {transport} is not switched on")
        return transport

    # -- addresses ------------------------------------------------------------------------------------------

    async def _addresses(self, host: str) -> list[str]:
        if _is_address(host):
            return [host]
        if listed := self._hosts.find(host):
            return self._usable(listed)
        if "." not in host:
            return self._usable(await self._ask_system(host))
        kinds = {socket.AF_INET6: "AAAA", socket.AF_INET: "A"}
        asked = [kind for family, kind in kinds.items() if family in self.families]
        answers = await asyncio.gather(*(self._query(host, kind) for kind in asked), return_exceptions=True)
        found = [str(record) for answer in answers if not isinstance(answer, BaseException) for record in answer]
        for kind, answer in zip(asked, answers, strict=True):
            if isinstance(answer, BaseException):
                if not found:
                    raise answer
                # One family is enough: the next call shall not wait for the other one.
                self._remember((host, kind), (), self.settings.negative_ttl_s)
        if found:
            return found
        # The system may know names that DNS does not (mDNS, NIS).
        return self._usable(await self._ask_system(host))

    async def _optional_addresses(self, host: str) -> list[str]:
        """One machine of several may have lost its name."""
        try:
            return await self._addresses(host)
        except LocateError as error:
            log.info("server can't be resolved", host=host, error=str(error))
            return []

    def _usable(self, addresses: Iterable[str]) -> list[str]:
        return [a for a in addresses if (socket.AF_INET6 if ":" in a else socket.AF_INET) in self.families]

    async def _ask_system(self, host: str) -> list[str]:
        key = (host, "system")
        entry = self._cache.get(key)
        if entry is None or entry.expires <= self._clock():
            try:
                loop = asyncio.get_running_loop()
                asked = loop.run_in_executor(self._threads, _addresses_by_system, host)
                found = await asyncio.wait_for(asked, self.settings.query_s)
            except (OSError, UnicodeError, RuntimeError):
                # RuntimeError: closed meanwhile.
                found = []
            entry = self._remember(key, tuple(found), self.settings.negative_ttl_s)
        return [str(record) for record in entry.records]

    # -- DNS ------------------------------------------------------------------------------------------------

    async def _optional(self, name: str, kind: str) -> tuple[Record, ...]:
        """Some name servers never answer what they don't know: then it is as if there were no such record."""
        try:
            return await self._query(name, kind)
        except LocateError:
            self._remember((name, kind), (), self.settings.negative_ttl_s)
            return ()

    async def _query(self, name: str, kind: str) -> tuple[Record, ...]:
        """From the cache, or from DNS, once for all who ask at the same time. Raises LocateError without answer."""
        key = (name.lower(), kind)
        entry = self._cache.get(key)
        if entry is not None and entry.expires > self._clock():
            return entry.records
        task = self._asking.get(key)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._ask(key))
            self._asking[key] = task
            task.add_done_callback(lambda done: self._asked(key, done))
        try:
            return await asyncio.shield(task)
        except LocateError:
            if entry is None or entry.usable_until < self._clock():
                raise
            log.warning("DNS does not answer, an old answer is used", name=name, type=kind)
            # The next call shall not wait for it again.
            entry.expires = self._clock() + self.settings.negative_ttl_s
            return entry.records

    def _asked(self, key: tuple[str, str], task: asyncio.Task[tuple[Record, ...]]) -> None:
        del self._asking[key]
        if not task.cancelled():
            # Whoever waited for it has been told; perhaps nobody did any more.
            task.exception()

    async def _ask(self, key: tuple[str, str]) -> tuple[Record, ...]:
        name, kind = key
        settings = self.settings
        if not self._dns.nameservers:
            raise LocateError(f"{name}: no name server is configured")
        try:
            answer = await self._dns.resolve(name, kind, raise_on_no_answer=False, lifetime=settings.query_s)
        except (dns.resolver.NXDOMAIN, dns.resolver.YXDOMAIN):
            return self._remember(key, (), settings.negative_ttl_s).records
        except (dns.exception.DNSException, OSError, ValueError) as error:
            raise LocateError(f"{name} {kind}: {error}") from error
        if answer.rrset is None:
            return self._remember(key, (), settings.negative_ttl_s).records
        ttl = min(max(float(answer.chaining_result.minimum_ttl), settings.min_ttl_s), settings.max_ttl_s)
        records = tuple(_record(rdata, kind) for rdata in islice(answer.rrset, _MAX_RECORDS))
        return self._remember(key, records, ttl).records

    def _remember(self, key: tuple[str, str], records: tuple[Record, ...], ttl_s: float) -> _Entry:
        _make_room(self._cache)
        expires = self._clock() + ttl_s
        entry = _Entry(records, expires, expires + self.settings.stale_s)
        self._cache[key] = entry
        return entry

    async def _look_up(self, host: str, port: int | None) -> None:
        address: Address | None = None
        try:
            address = (await self.locate(Uri("sip", host, port=port), "udp"))[0].address
        except LocateError as error:
            log.info("name in a dialog can't be resolved", host=host, error=str(error))
        _make_room(self._found)
        known = self._found.get((host, port))
        if address is None and known is not None:
            address = known.address
        ttl = self.settings.negative_ttl_s
        self._found[host, port] = _Found(address, self._clock() + ttl)


class _HostsFile:
    """The system's own list of names, read again when it has changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read_at: float | None = None
        self._names: dict[str, list[str]] = {}

    def find(self, host: str) -> list[str]:
        try:
            changed = self._path.stat().st_mtime
            if changed != self._read_at:
                self._names, self._read_at = self._read(), changed
        except OSError:
            self._names, self._read_at = {}, None
        found = self._names.get(host)
        if found is None and (host == "localhost" or host.endswith(".localhost")):
            return ["127.0.0.1", "::1"]
        return found or []

    def _read(self) -> dict[str, list[str]]:
        names: dict[str, list[str]] = {}
        for line in self._path.read_text(errors="replace").splitlines():
            address, *hosts = line.partition("#")[0].split() or [""]
            if _is_address(address):
                for host in hosts:
                    names.setdefault(host.lower(), []).append(address)
        return names


def _dns_resolver(settings: ResolverSettings) -> dns.asyncresolver.Resolver:
    resolver = dns.asyncresolver.Resolver(configure=False)
    if settings.nameservers:
        resolver.nameservers = [dns.nameserver.Do53Nameserver(*address) for address in settings.nameservers]
    else:
        try:
            resolver = dns.asyncresolver.Resolver()
        except dns.resolver.NoResolverConfiguration:
            log.info("no name server is configured: only addresses and the names of the hosts file can be resolved")
    # Half a question's time for the first server, so that the second one has a chance.
    resolver.timeout = settings.query_s / 2
    return resolver


def _addresses_by_system(host: str) -> list[str]:
    """What the C library says, in its order; takes its time. Raises OSError, UnicodeError."""
    return list(dict.fromkeys(str(info[4][0]) for info in socket.getaddrinfo(host, None, type=socket.SOCK_DGRAM)))


def _record(rdata: Any, kind: str) -> Record:
    """A record without dnspython's types."""
    if kind == "SRV":
        target = rdata.target.to_text(omit_final_dot=True)
        return Srv(rdata.priority, rdata.weight, rdata.port, "" if target == "." else target.lower())
    if kind == "NAPTR":
        replacement = rdata.replacement.to_text(omit_final_dot=True).lower()
        return Naptr(rdata.order, rdata.preference, rdata.service.decode("ascii", "replace").upper(), replacement)
    return str(rdata.address)


def _make_room(cache: dict[Any, Any]) -> None:
    """The oldest go first."""
    while len(cache) >= _MAX_CACHED:
        del cache[next(iter(cache))]


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _port(transport: Transport) -> int:
    return DEFAULT_TLS_PORT if transport == "tls" else DEFAULT_PORT
