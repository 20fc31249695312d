"""How one provider does in one role: its breaker and its counters, shared by all chains that it stands in."""

from collections.abc import Callable, Mapping

import structlog

from bridge.providers.base import ProviderError, ProviderUnavailableError, ProviderUnfitError, Role
from bridge.providers.breaker import Breaker, BreakerSettings, State

log = structlog.get_logger(__name__)

Observe = Callable[[Role, str, float], None]
"""Told how long a request of a role took at a provider (s)."""


def _ignore(role: Role, provider: str, seconds: float) -> None:
    pass


class Health:
    """Told of every request; read by chains (`usable`) and by the metrics."""

    def __init__(
        self,
        role: Role,
        provider: str,
        settings: BreakerSettings,
        *,
        now: Callable[[], float],
        observe: Observe = _ignore,
    ) -> None:
        """`now` gives the time (s, monotonic)."""
        self.role: Role = role
        self.provider = provider
        self.breaker = Breaker(settings)
        self._now = now
        self._observe = observe
        self.requests = 0
        self.failures = 0
        self.abandoned = 0
        self.switches = 0
        """Times a call left it for the next of its chain."""

    @property
    def usable(self) -> bool:
        return self.breaker.allows(self._now())

    def began(self) -> float:
        """A request is made; returns the time, for `answered`."""
        now = self._now()
        self.requests += 1
        self.breaker.began(now)
        return now

    def answered(self, since: float) -> None:
        """The first of a result is there, of the request begun at `since`."""
        self._observe(self.role, self.provider, max(0.0, self._now() - since))

    def succeeded(self) -> None:
        """A request did what it should."""
        now = self._now()
        recovered = self.breaker.state(now) is not State.CLOSED
        self.breaker.succeeded(now)
        if recovered:
            log.info("provider works again", role=self.role, provider=self.provider)

    def failed(self, error: ProviderError) -> None:
        """A request failed."""
        now = self._now()
        self.failures += 1
        opened = self.breaker.opened
        if isinstance(error, ProviderUnfitError):
            # It works, for others.
            self.breaker.abandoned()
            return
        # A refused key, a missing model and a server that is gone are not mended by asking again at once.
        self.breaker.failed(now, str(error), fatal=isinstance(error, ProviderUnavailableError))
        if self.breaker.opened != opened:
            log.warning(
                "provider is left alone for a while",
                role=self.role,
                provider=self.provider,
                seconds=round(self.breaker.retry_in_s(now)),
                error=str(error),
            )

    def gave_up(self) -> None:
        """A request was not waited for to the end, for a reason that is not the provider's."""
        self.abandoned += 1
        self.breaker.abandoned()

    def switched(self) -> None:
        self.switches += 1

    def readings(self) -> Mapping[str, float]:
        """For `bridge.api.metrics`."""
        labels = f'role="{self.role}",provider="{self.provider}"'
        state = self.breaker.state(self._now())
        readings = {
            f"provider_requests_total{{{labels}}}": float(self.requests),
            f"provider_requests_failed_total{{{labels}}}": float(self.failures),
            f"provider_requests_abandoned_total{{{labels}}}": float(self.abandoned),
            f"provider_switches_total{{{labels}}}": float(self.switches),
            f"provider_breaker_opened_total{{{labels}}}": float(self.breaker.opened),
        }
        for other in State:
            readings[f'provider_breaker{{{labels},state="{other.value}"}}'] = float(other is state)
        return readings
