"""The engines' work list: which job is next, what gives way when it is full, how long a new job would wait."""

import asyncio
import bisect
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from bridge.providers.local.models import Role


class Priority(IntEnum):
    """What is served first. Lower is more urgent; equals are served in order of arrival."""

    REPLY = 0
    """A caller waits for it in silence: the settled text, the brain's embeddings, the first clause of a reply."""
    PARTIAL = 1
    """A barge-in waits for it, half a second at most; a partial text is short work and worthless when late."""
    NEXT_CLAUSE = 2
    """Needed when the clause before it has been played: seconds from now."""
    BACKGROUND = 3
    """Phrases and texts prepared at start."""


@dataclass(frozen=True, slots=True)
class Reply:
    fields: dict[str, Any]
    payload: bytes


@dataclass(eq=False, slots=True)
class Job:
    """One piece of work and the future its caller waits on. A job whose future is done is of no interest any more."""

    id: int
    role: Role
    fields: dict[str, Any]
    payload: bytes
    priority: Priority
    deadline: float
    """On the clock of `now` everywhere here (s, monotonic)."""
    reply: asyncio.Future[Reply]
    attempts: int = 0

    @property
    def rank(self) -> tuple[int, int]:
        return self.priority, self.id


class QueueFullError(Exception):
    """Nothing in the queue is less urgent than the new job."""


class JobQueue:
    """At most `limit` jobs in order of urgency."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._jobs: list[Job] = []

    def __len__(self) -> int:
        return len(self._jobs)

    def __iter__(self) -> Iterator[Job]:
        return iter(self._jobs)

    def put(self, job: Job) -> Job | None:
        """Queue `job`; returns the less urgent job that gave way to it, if one had to. Raises QueueFullError."""
        displaced = None
        if len(self._jobs) >= self._limit:
            if self._jobs[-1].priority <= job.priority:
                raise QueueFullError
            displaced = self._jobs.pop()
        self.put_back(job)
        return displaced

    def put_back(self, job: Job) -> None:
        """Queue a job that was taken before: it keeps its place and needs no room."""
        bisect.insort(self._jobs, job, key=lambda queued: queued.rank)

    def take(self, now: float) -> Job | None:
        """The most urgent job that somebody still waits for."""
        while self._jobs:
            job = self._jobs.pop(0)
            if not job.reply.done() and job.deadline > now:
                return job
        return None

    def remove(self, job: Job) -> None:
        """Does nothing if it is not queued."""
        if job in self._jobs:
            self._jobs.remove(job)


NEWEST_WEIGHT = 0.2
"""Of the newest job in the running mean of a role's time: about the last ten count."""

FIRST_GUESS_S: dict[Role, float] = {"stt": 0.15, "tts": 0.3, "embed": 0.02}


@dataclass(slots=True)
class LoadMeter:
    """How long jobs take, how long a new one would wait, and since when that is too long."""

    limit_s: float
    patience_s: float
    """Overloaded once the wait has been above `limit_s` for so long."""
    job_s: dict[Role, float] = field(default_factory=lambda: dict(FIRST_GUESS_S))
    """Running mean of the seconds a worker is busy with one job."""
    _above_since: float | None = None

    def finished(self, role: Role, seconds: float) -> None:
        self.job_s[role] += NEWEST_WEIGHT * (seconds - self.job_s[role])

    def wait_s(self, queued: Iterable[Job], running: Iterable[tuple[Role, float]], workers: int) -> float:
        """Seconds until a new urgent job would be taken up. `running`: role and seconds spent of each job at work.

        Background jobs that wait do not count: an urgent job overtakes them."""
        if workers == 0:
            return float("inf")
        ahead = sum(self.job_s[job.role] for job in queued if job.priority is not Priority.BACKGROUND)
        rest = [max(0.0, self.job_s[role] - spent) for role, spent in running]
        # With a worker free nothing is waited for; else a share of everything that is under way and ahead.
        return ahead / workers + (sum(rest) / workers if len(rest) >= workers else 0.0)

    def note(self, wait_s: float, now: float) -> None:
        """Tell the present wait, at each change of it."""
        if wait_s <= self.limit_s:
            self._above_since = None
        elif self._above_since is None:
            self._above_since = now

    def overloaded(self, now: float) -> bool:
        return self._above_since is not None and now - self._above_since >= self.patience_s
