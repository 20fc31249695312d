"""Those who are not known: how fast they may ask, and who is banned for asking wrongly (no I/O; `now` passed in)."""

import ipaddress
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from bridge.trunks.settings import GuardSettings

CHALLENGED = 0.2
"""What a request that was challenged weighs, as part of a failure: each honest call begins with one."""


@lru_cache(4096)
def source_of(address: str) -> str:
    """What an address is counted under: an IPv4 address, or an IPv6 /64, of which every customer has a whole one.

    Raises ValueError for what is no address."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, 64), strict=False))


@dataclass(frozen=True, slots=True)
class Ban:
    source: str
    """An IPv4 address, or an IPv6 /64."""
    since: float
    until: float
    """Both on the clock of `now`."""
    why: str
    """The failure that brought it."""
    dropped: int
    """Requests of it that were not answered."""


@dataclass(slots=True)
class _Source:
    """What is remembered of a source."""

    tokens: float
    tokens_at: float
    score: float = 0.0
    """Failures, which time takes away."""
    score_at: float = 0.0
    good_until: float = 0.0
    """It has proved who it is: what a forger sends in its name must not get it banned."""


@dataclass(slots=True)
class _Banned:
    since: float
    until: float
    why: str
    dropped: int = 0


class Guard:
    """Memory is bounded: the sources seen last, and as many bans."""

    def __init__(self, settings: GuardSettings) -> None:
        self.settings = settings
        """May be replaced at any time; bans that stand keep their end."""
        self.dropped = 0
        """Requests dropped for a ban or for coming too fast."""
        self.on_ban: Callable[[str, str], None] | None = None
        """Told of each new ban: the address that brought it, and why."""
        self._sources: OrderedDict[str, _Source] = OrderedDict()
        self._bans: OrderedDict[str, _Banned] = OrderedDict()

    def lets_in(self, address: str, now: float) -> bool:
        """Whether a request of `address` is to be looked at at all: no ban, and not too fast. Takes a token."""
        source = source_of(address)
        banned = self._bans.get(source)
        if banned is not None:
            if now < banned.until:
                banned.dropped += 1
                self.dropped += 1
                return False
            del self._bans[source]
        known = self._source(source, now)
        settings = self.settings
        known.tokens = min(settings.burst, known.tokens + (now - known.tokens_at) * settings.requests_per_s)
        known.tokens_at = now
        if known.tokens >= 1:
            known.tokens -= 1
            return True
        if now < known.good_until:
            return True
        self.dropped += 1
        self._fail(address, known, now, "too many requests", CHALLENGED)
        return False

    def is_banned(self, address: str, now: float) -> bool:
        """Whether a ban stands; counts nothing."""
        banned = self._bans.get(source_of(address))
        return banned is not None and now < banned.until

    def failed(self, address: str, now: float, why: str, weight: float = 1.0) -> bool:
        """Count a refused request. True: the address is banned from now on."""
        return self._fail(address, self._source(source_of(address), now), now, why, weight)

    def proved(self, address: str, now: float) -> None:
        """The address has answered a challenge rightly: what was counted against it is forgotten."""
        known = self._source(source_of(address), now)
        known.score = 0.0
        known.good_until = now + max(self.settings.ban_s, self.settings.within_s)

    def bans(self, now: float) -> tuple[Ban, ...]:
        """The bans that stand, the oldest first."""
        return tuple(
            Ban(source, banned.since, banned.until, banned.why, banned.dropped)
            for source, banned in self._bans.items()
            if now < banned.until
        )

    def lift(self, address: str) -> bool:
        """End the ban of an address, or of a source as `bans` names it; False if there is none. ValueError for what
        is no address."""
        try:
            source = str(ipaddress.IPv6Network(address)) if "/" in address else source_of(address)
        except ValueError as error:
            raise ValueError(f"{address!r} is neither an IP address nor an IPv6 /64") from error
        self._sources.pop(source, None)
        return self._bans.pop(source, None) is not None

    def _source(self, source: str, now: float) -> _Source:
        known = self._sources.get(source)
        if known is None:
            while len(self._sources) >= self.settings.sources:
                self._sources.popitem(last=False)
            known = self._sources[source] = _Source(self.settings.burst, now, score_at=now)
        else:
            self._sources.move_to_end(source)
        return known

    def _fail(self, address: str, known: _Source, now: float, why: str, weight: float) -> bool:
        settings = self.settings
        if now < known.good_until or settings.ban_s <= 0:
            return False
        healed = (now - known.score_at) * settings.failures / settings.within_s
        known.score = max(0.0, known.score - healed) + weight
        known.score_at = now
        source = source_of(address)
        # Sums of fifths fall short of whole numbers by a hair.
        if known.score < settings.failures - 1e-6 or source in self._bans:
            return False
        while len(self._bans) >= settings.sources:
            self._bans.popitem(last=False)
        self._bans[source] = _Banned(now, now + settings.ban_s, why)
        del self._sources[source]
        if self.on_ban is not None:
            self.on_ban(address, why)
        return True
