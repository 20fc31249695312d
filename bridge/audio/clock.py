"""The media clock: one per process, on an absolute grid; it steps every session each 20 ms.

Sessions are spread over four phases, 5 ms apart, each with its own 20 ms cadence: the event loop is held for a
quarter of the work at a time, and packets leave in four small bursts instead of one. Few sessions share two phases: a
wake-up costs as much as several of them. A session may ask for the phase that suits it (`shift`).
"""

import asyncio
import contextvars
import time
from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import structlog

from bridge.audio.frames import FRAME_S, Unsubscribe

PHASES = 4

FEW = 40
"""With so many sessions or fewer every second phase does."""

CROWD = 12
"""Sessions that any phase takes; more only while it has no more than a quarter above its share."""

CROWDED = 1.25

MAX_CATCH_UP_S = 0.5
"""A clock that is later than this skips ahead: replaying more would only keep it late."""

LATE_S = 0.01
"""A step that starts this late counts as late: half a frame, which a far end's jitter buffer notices."""

WINDOW_S = 10.0
"""How far back lateness is looked at."""

WINDOW_STEPS = 2048
"""Steps over which percentiles are taken: 10 s with all phases in use."""

LOGGED_FAILURES = 5

Hook = Callable[[float], None]
"""Takes the step's time; serves all sessions."""

log = structlog.get_logger(__name__)


class Ticker(Protocol):
    """What the clock steps: one leg's media."""

    def tick(self, now: float) -> None:
        """One step of 20 ms. `now` is the step's own place on the grid (s, monotonic), however late it runs."""
        ...


@dataclass(frozen=True, slots=True)
class ClockStats:
    """How the clock does, over its last 10 s or so; the counters since its start."""

    tickers: int
    steps: int
    late_steps: int
    """Steps that started 10 ms late or more."""
    skipped_steps: int
    """Steps that never ran, the clock being too late."""
    crashes: int
    """Tickers removed for an exception."""
    hook_failures: int
    lateness_ms: float
    """Of the latest step."""
    lateness_p50_ms: float
    lateness_p99_ms: float
    lateness_max_ms: float
    load: float
    """Part of the time that was spent in steps: 1 is all there is."""


@dataclass(slots=True, eq=False)
class _Entry:
    tick: Callable[[float], None]
    ticker: Ticker
    on_crash: Callable[[Exception], None]
    phase: int
    alive: bool = True
    moving: bool = False


def _nearest(wanted: int, phases: int, *, no_more: bool) -> range:
    """By how many phases to move, the best first: earlier by no more than wanted, later by no less, or no more."""
    if wanted > 0:
        return range(min(wanted, phases - 1), 0, -1)
    return range(max(wanted, 1 - phases), 0) if no_more else range(wanted or -phases, -phases, -1)


class MediaClock:
    """Sans-IO in `run`; `start` drives it on the running asyncio loop."""

    def __init__(
        self,
        *,
        phases: int = PHASES,
        time_now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`time_now` is asked how late a step is and how long it took."""
        self._now = time_now
        self._phases: list[list[_Entry]] = [[] for _ in range(phases)]
        self._counts = [0] * phases
        """Entries of each phase, those that are on their way there included."""
        self._moves: list[tuple[int, _Entry, int]] = []
        """After the step of which phase an entry is moved, and where to."""
        self._entries: dict[int, _Entry] = {}
        """By the ticker's identity."""
        self._before: list[Hook] = []
        self._after: list[Hook] = []
        self._interval = FRAME_S / phases
        self._origin = time_now()
        self._step = 0
        """Number of the next step on the grid; its phase is the number modulo `phases`."""
        self._steps = self._late = self._skipped = self._crashes = self._hook_failures = 0
        self._lateness = array("d", bytes(8 * WINDOW_STEPS))
        self._busy = array("d", bytes(8 * WINDOW_STEPS))
        self._stepped_at = array("d", bytes(8 * WINDOW_STEPS))
        self._latest = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._context = contextvars.Context()
        """Nobody's: what begins in a step must not carry the marks (in the log) of the call that armed it."""

    # -- membership -----------------------------------------------------------------------------------------

    def add(self, ticker: Ticker, on_crash: Callable[[Exception], None]) -> None:
        """Step `ticker` each 20 ms from now on. If it raises it is removed and `on_crash` told; others go on."""
        if id(ticker) in self._entries:
            raise ValueError("the ticker is on the clock already")
        if not self._entries:
            self._resume()
        entry = _Entry(ticker.tick, ticker, on_crash, 0)
        self._entries[id(ticker)] = entry
        phase = entry.phase = min(self._used(), key=self._counts.__getitem__)
        self._counts[phase] += 1
        # A new list: the present one may be under way.
        self._phases[phase] = [*self._phases[phase], entry]
        self._arm()

    def remove(self, ticker: Ticker) -> None:
        """Step it no more, not even in the step under way. Twice does nothing."""
        entry = self._entries.pop(id(ticker), None)
        if entry:
            entry.alive = False
            self._leave(entry)
            going = next((to for _, moved, to in self._moves if moved is entry), entry.phase)
            self._counts[going] -= 1
            self._moves = [move for move in self._moves if move[1] is not entry]

    def shift(self, ticker: Ticker, by_s: float, *, no_more: bool = False) -> float:
        """Have `ticker` stepped earlier from its next step on, by as many phases as fit in `by_s` (later, by as many
        as it takes, where that is negative; with `no_more` by as many as fit in it, too). Once, two steps are then
        further apart or nearer by that. Returns the time (s) by which the steps come earlier; 0 where the phases
        there have their fill, for an unknown ticker, or one that is being moved."""
        entry = self._entries.get(id(ticker))
        if entry is None or entry.moving:
            return 0.0
        phases = by_s / self._interval
        # A hair less than a whole phase is one: both are sums of fractions.
        wanted = int(phases + 0.01) if phases > 0 else -int((0.01 if no_more else 0.99) - phases)
        for count in _nearest(wanted, len(self._phases), no_more=no_more):
            to = (entry.phase - count) % len(self._phases)
            if to in self._used() and self._has_room(to):
                # Who is to come later steps aside when its new phase has just passed.
                after = entry.phase if count > 0 else to
                self._moves.append((after, entry, to))
                self._counts[entry.phase] -= 1
                self._counts[to] += 1
                entry.moving = True
                return count * self._interval
        return 0.0

    @property
    def spacing_s(self) -> float:
        """How far apart the phases are that so many sessions are spread over."""
        return self._used().step * self._interval

    def _used(self) -> range:
        """The phases that so many sessions are spread over."""
        few = len(self._entries) <= FEW and len(self._phases) == PHASES
        return range(0, len(self._phases), 2 if few else 1)

    def _has_room(self, phase: int) -> bool:
        share = len(self._entries) / len(self._used())
        return self._counts[phase] < max(CROWD, CROWDED * share)

    def _leave(self, entry: _Entry) -> None:
        # A new list: the present one may be under way.
        self._phases[entry.phase] = [e for e in self._phases[entry.phase] if e is not entry]

    def _move(self, passed: int) -> None:
        """The step of phase `passed` is over: whoever waited for that takes up its new one."""
        for after, entry, to in self._moves:
            if after == passed:
                self._leave(entry)
                self._phases[to] = [*self._phases[to], entry]
                entry.phase = to
                entry.moving = False
        self._moves = [move for move in self._moves if move[0] != passed]

    def before_tick(self, hook: Hook) -> Unsubscribe:
        """Call `hook` with the step's time before the sessions of each step: it receives (`RtpMux.poll`)."""
        self._before = [*self._before, hook]

        def unsubscribe() -> None:
            self._before = [h for h in self._before if h is not hook]

        return unsubscribe

    def after_tick(self, hook: Hook) -> Unsubscribe:
        """Call `hook` with the step's time after the sessions of each step (a quarter of them): batch work."""
        self._after = [*self._after, hook]

        def unsubscribe() -> None:
            self._after = [h for h in self._after if h is not hook]

        return unsubscribe

    # -- stepping -------------------------------------------------------------------------------------------

    def run(self, now: float) -> float | None:
        """Do every step that is due at `now`; returns when the next one is, or None with nothing to step."""
        behind = int((now - MAX_CATCH_UP_S - self._due()) / self._interval)
        if behind > 0:
            self._step += behind
            self._skipped += behind
        while self._entries and (due := self._due()) <= now:
            phase = self._step % len(self._phases)
            self._step += 1
            if self._phases[phase]:
                self._run_step(self._phases[phase], due)
            if self._moves:
                self._move(phase)
        return self._next_due() if self._entries else None

    def _run_step(self, entries: list[_Entry], due: float) -> None:
        began = self._now()
        for hook in self._before:
            self._call(hook, due)
        for entry in entries:
            if entry.alive:
                # By a name: called as if it were a method it would take longer.
                tick = entry.tick
                try:
                    tick(due)
                except Exception as error:  # noqa: BLE001 -- the edge of one call: it ends alone
                    self._crash(entry, error)
        for hook in self._after:
            self._call(hook, due)
        index = self._steps % WINDOW_STEPS
        self._latest = max(0.0, began - due)
        self._lateness[index] = self._latest
        self._busy[index] = self._now() - began
        self._stepped_at[index] = began
        self._steps += 1
        self._late += self._latest >= LATE_S

    def _call(self, hook: Hook, due: float) -> None:
        try:
            hook(due)
        except Exception:
            # It serves all calls and stays: the next step may go well. Fifty tracebacks a second would be a flood.
            self._hook_failures += 1
            if self._hook_failures <= LOGGED_FAILURES:
                log.exception("a hook of the media clock failed", failures=self._hook_failures)

    def _crash(self, entry: _Entry, error: Exception) -> None:
        self._crashes += 1
        self.remove(entry.ticker)
        try:
            entry.on_crash(error)
        except Exception:
            log.exception("the owner of a crashed session failed as well")

    def _due(self) -> float:
        return self._origin + self._step * self._interval

    def _next_due(self) -> float:
        """When the next step with anything in it is due."""
        count = len(self._phases)
        ahead = next(n for n in range(count) if self._phases[(self._step + n) % count])
        return self._origin + (self._step + ahead) * self._interval

    def _resume(self) -> None:
        """Go on after a time without tickers: the grid stays, the steps meanwhile are nobody's."""
        self._step = max(self._step, int((self._now() - self._origin) / self._interval) + 1)

    # -- the event loop -------------------------------------------------------------------------------------

    def start(self) -> None:
        """Run on the current event loop, whose time must be `time_now`'s (both are the monotonic clock)."""
        self._loop = asyncio.get_running_loop()
        self._resume()
        self._arm()

    def stop(self) -> None:
        """Step no more."""
        self._loop = None
        if self._timer:
            self._timer.cancel()
            self._timer = None

    async def aclose(self) -> None:
        """`stop`, for an exit stack."""
        self.stop()

    def _arm(self) -> None:
        """Wake at the next step; anew where a phase came to life before the one that is waited for."""
        if self._loop and self._entries:
            due = self._next_due()
            if self._timer is None or due < self._timer.when():
                if self._timer:
                    self._timer.cancel()
                self._timer = self._loop.call_at(due, self._wake, context=self._context)

    def _wake(self) -> None:
        self._timer = None
        self.run(self._now())
        self._arm()

    # -- what it tells --------------------------------------------------------------------------------------

    def time(self) -> float:
        """The time base of ticks, frames and voice events (s, monotonic)."""
        return self._now()

    def lateness_p99_ms(self) -> float:
        """Of the last 10 s: what admission control looks at. 0 where nothing was stepped in that time: what was
        late an hour ago must not keep calls away for good."""
        return self._lateness_at(0.99)

    def _lateness_at(self, part: float) -> float:
        count = min(self._steps, WINDOW_STEPS)
        since = self._now() - WINDOW_S
        recent = sorted(
            late for late, at in zip(self._lateness[:count], self._stepped_at[:count], strict=True) if at >= since
        )
        return recent[min(int(len(recent) * part), len(recent) - 1)] * 1000 if recent else 0.0

    @property
    def stats(self) -> ClockStats:
        """Sorts the window: for a metric scrape, not for each frame."""
        return ClockStats(
            tickers=len(self._entries),
            steps=self._steps,
            late_steps=self._late,
            skipped_steps=self._skipped,
            crashes=self._crashes,
            hook_failures=self._hook_failures,
            lateness_ms=self._latest * 1000,
            lateness_p50_ms=self._lateness_at(0.5),
            lateness_p99_ms=self._lateness_at(0.99),
            lateness_max_ms=self._lateness_at(1.0),
            load=self._load(),
        )

    def _load(self) -> float:
        # By the clock, not by the number of steps: phases come into use, and streams move between them.
        count = min(self._steps, WINDOW_STEPS)
        now = self._now()
        seconds = min(WINDOW_S, now - min(self._stepped_at[:count], default=now))
        busy = zip(self._busy[:count], self._stepped_at[:count], strict=True)
        return sum(busy_s for busy_s, at in busy if at >= now - WINDOW_S) / seconds if seconds else 0.0

    def readings(self) -> Mapping[str, float]:
        """For the metrics: name to value; `_total` marks counters."""
        stats = self.stats
        return {
            "clock_sessions": float(stats.tickers),
            "clock_steps_total": float(stats.steps),
            "clock_late_steps_total": float(stats.late_steps),
            "clock_skipped_steps_total": float(stats.skipped_steps),
            "clock_crashes_total": float(stats.crashes),
            "clock_hook_failures_total": float(stats.hook_failures),
            "clock_lateness_ms": stats.lateness_ms,
            "clock_lateness_p50_ms": stats.lateness_p50_ms,
            "clock_lateness_p99_ms": stats.lateness_p99_ms,
            "clock_lateness_max_ms": stats.lateness_max_ms,
            "clock_load": stats.load,
        }
