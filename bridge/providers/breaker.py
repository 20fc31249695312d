"""A circuit breaker: a provider that keeps failing is left alone for a while, then tried with one request.

Sans-IO: times are passed in (`now`, seconds, monotonic).
"""

from collections import deque
from dataclasses import dataclass
from enum import Enum
from typing import Annotated

from pydantic import Field, model_validator

from bridge.settings import Section

MAX_OUTCOMES = 1000
"""Outcomes remembered within the window; of a busier provider the latest ones tell enough."""


class BreakerSettings(Section):
    """When a provider is left alone, and for how long."""

    failures: Annotated[int, Field(ge=1)] = 3
    """Failures within `window_s` that open it ..."""
    share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """... if they are this share of all requests in that time: one in a hundred of a busy box is no outage."""
    window_s: Annotated[float, Field(gt=0)] = 60
    cool_down_s: Annotated[float, Field(gt=0)] = 10
    """How long it is left alone at first; doubled each time that the trial after it fails."""
    max_cool_down_s: Annotated[float, Field(gt=0)] = 120
    fatal_cool_down_s: Annotated[float, Field(gt=0)] = 60
    """The same after one failure that won't mend itself soon (a refused key, a model that does not exist)."""
    trial_s: Annotated[float, Field(gt=0)] = 15
    """A trial of which nothing was heard by then is taken for given up, and the next one is let through."""

    @model_validator(mode="after")
    def _grows(self) -> "BreakerSettings":
        if self.max_cool_down_s < self.cool_down_s:
            raise ValueError(f"max_cool_down_s ({self.max_cool_down_s}) is below cool_down_s ({self.cool_down_s})")
        return self


class State(Enum):
    CLOSED = "closed"
    """In use."""
    OPEN = "open"
    """Left alone."""
    HALF_OPEN = "half-open"
    """The cool-down is over: one request may try it."""


@dataclass(frozen=True, slots=True)
class _Outcome:
    at: float
    failed: bool


class Breaker:
    """Ask `allows` before a request, `began` it, and tell how it ended."""

    def __init__(self, settings: BreakerSettings) -> None:
        self._settings = settings
        self._outcomes: deque[_Outcome] = deque(maxlen=MAX_OUTCOMES)
        self._open_until: float | None = None
        """None: closed."""
        self._cool_down_s = settings.cool_down_s
        self._trial_until: float | None = None
        """A trial is under way; None: there is none."""
        self.opened = 0
        """Times it opened, of a closed or a half-open one."""
        self.reason = ""
        """Why it opened last."""

    def state(self, now: float) -> State:
        if self._open_until is None:
            return State.CLOSED
        return State.HALF_OPEN if now >= self._open_until else State.OPEN

    def allows(self, now: float) -> bool:
        """Whether a request may be made: it is closed, or half-open with no trial under way."""
        match self.state(now):
            case State.CLOSED:
                return True
            case State.OPEN:
                return False
            case State.HALF_OPEN:
                return self._trial_until is None or now >= self._trial_until

    def began(self, now: float) -> None:
        """A request is made; of a half-open one it is the trial."""
        if self.state(now) is State.HALF_OPEN:
            self._trial_until = now + self._settings.trial_s

    def succeeded(self, now: float) -> None:
        """A request did what it should."""
        if self._open_until is not None:
            self._open_until = self._trial_until = None
            self._cool_down_s = self._settings.cool_down_s
            self._outcomes.clear()
        self._outcomes.append(_Outcome(now, failed=False))

    def failed(self, now: float, reason: str, *, fatal: bool = False) -> None:
        """A request failed; `fatal`: the next one would as well."""
        state = self.state(now)
        self._outcomes.append(_Outcome(now, failed=True))
        if state is State.HALF_OPEN:
            self._cool_down_s = min(self._cool_down_s * 2, self._settings.max_cool_down_s)
            self._open(now, reason, fatal)
        elif state is State.CLOSED and (fatal or self._too_many(now)):
            self._open(now, reason, fatal)

    def abandoned(self) -> None:
        """A request ended for another reason (the caller hung up, or went on talking): it says nothing."""
        self._trial_until = None

    def retry_in_s(self, now: float) -> float:
        """How long until it is tried again; 0: it may be used."""
        return 0.0 if self._open_until is None else max(0.0, self._open_until - now)

    def _too_many(self, now: float) -> bool:
        while self._outcomes and now - self._outcomes[0].at > self._settings.window_s:
            self._outcomes.popleft()
        failures = sum(outcome.failed for outcome in self._outcomes)
        return failures >= self._settings.failures and failures >= self._settings.share * len(self._outcomes)

    def _open(self, now: float, reason: str, fatal: bool) -> None:
        cool_down_s = self._cool_down_s
        if fatal:
            cool_down_s = max(cool_down_s, self._settings.fatal_cool_down_s)
        self._open_until = now + cool_down_s
        self._trial_until = None
        self._outcomes.clear()
        self.opened += 1
        self.reason = reason
