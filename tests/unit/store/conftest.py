"""What the tests of the record share: a store in a file of its own, and calls to put on it."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from bridge.events import CallAnswered, CallEnded, CallEvent, CallStarted, Cause, TurnDelays, TurnEnded
from bridge.store.store import Store

T0 = 1_790_000_000.0
"""Unix time (s) at which the calls of these tests begin."""


class Events:
    """Events of an ordinary call."""

    t0 = T0

    @staticmethod
    def started(
        at: float = T0, *, agent: str = "receptionist", leg_id: str = "a84b4c76e66710@pbx", direction: str = "inbound"
    ) -> CallStarted:
        assert direction in ("inbound", "outbound")
        return CallStarted(direction, "+4930123456", "agent", "private", agent, "sip", leg_id, at)

    @staticmethod
    def answered(at: float = T0 + 1) -> CallAnswered:
        return CallAnswered(at, 250.0)

    @staticmethod
    def ended(at: float = T0 + 60, *, cause: Cause = Cause.CALLER_HUNG_UP, recording: str | None = None) -> CallEnded:
        return CallEnded(cause, "BYE", at, recording, {"packets_received": 2950.0, "jitter_ms": 1.5})

    @staticmethod
    def turn(index: int = 0, text: str = "Good evening") -> TurnEnded:
        return TurnEnded(
            index, "agent", text, 100.0, 1900.0, "Good", 800.0, True, TurnDelays(reply_ms=640.0), "why not"
        )

    def whole_call(self, at: float = T0, **started: str) -> list[CallEvent]:
        return [self.started(at, **started), self.answered(at + 1), self.turn(), self.ended(at + 60)]


@pytest.fixture
def events() -> Events:
    return Events()


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'offhook.sqlite3'}"


@pytest.fixture
async def store(url: str) -> AsyncIterator[Store]:
    opened = await Store.open(url, busy_timeout_s=0.05)
    yield opened
    await opened.aclose()


@pytest.fixture
def wall_clock() -> Callable[[], float]:
    return lambda: T0 + 5
