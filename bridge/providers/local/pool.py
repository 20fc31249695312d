"""The pool of worker processes: takes jobs by urgency, keeps deadlines, replaces workers that die or hang."""

import asyncio
import contextlib
import itertools
import os
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog

from bridge.providers.base import ProviderBusyError, ProviderError, ProviderTimeoutError, ProviderUnavailableError
from bridge.providers.local.jobs import Job, JobQueue, LoadMeter, Priority, QueueFullError, Reply
from bridge.providers.local.models import ROLES, Role
from bridge.providers.local.settings import EngineSettings
from bridge.providers.local.wire import Message
from bridge.providers.local.worker_process import WorkerDiedError, WorkerProcess, WorkerUnusableError

log = structlog.get_logger(__name__)

PROVIDER = "local"

ATTEMPTS = 2
"""A job whose worker died is given to another one, once: it may be what killed it."""

FIRST_BACKOFF_S = 0.25

CLOSE_GRACE_S = 2.0

Progress = Callable[[str], None]


@dataclass(slots=True)
class RoleCounters:
    """What has become of a role's jobs since the start."""

    done: int = 0
    failed: int = 0
    """The engine raised, or the worker died twice."""
    expired: int = 0
    refused: int = 0
    """The queue was full, then or later when something more urgent came."""
    cancelled: int = 0
    cpu_s: float = 0.0
    busy_s: float = 0.0
    """Seconds a worker was occupied, waiting for a core included."""


@dataclass(frozen=True, slots=True)
class PoolLoad:
    waiting: int
    running: int
    workers: int
    alive: int
    wait_s: float
    """How long a new urgent job would wait (infinite with no worker)."""


@dataclass(slots=True)
class _Slot:
    """A place for a worker, filled again when it is lost."""

    number: int
    started: asyncio.Future[None]
    worker: WorkerProcess | None = None
    """Set while it is ready to work."""
    job: Job | None = None
    since: float = 0.0
    """When `job` was given to it."""
    waiter: asyncio.Future[None] | None = None
    """Set while it is idle; woken by a new job or by the worker's death."""
    engines: dict[str, str] = field(default_factory=dict)
    rss_mb: float = 0.0


class EnginePool:
    """`start`, then `run` jobs; `aclose` in the end. Everything happens on one event loop."""

    def __init__(self, settings: EngineSettings, roles: Sequence[Role] = ROLES) -> None:
        self._settings = settings
        self._roles = tuple(roles)
        self._size = settings.workers or max(2, min(4, os.cpu_count() or 1))
        self._queue = JobQueue(settings.queue)
        self._meter = LoadMeter(settings.overload_wait_s, settings.overload_after_s)
        self._slots: list[_Slot] = []
        self._idle: deque[_Slot] = deque()
        self._tasks: list[asyncio.Task[None]] = []
        self._closing: set[asyncio.Task[None]] = set()
        """Workers on their way out."""
        self._ids = itertools.count()
        self._progress: Progress = lambda line: None
        self._last_loss = ""
        self._now: Callable[[], float] = time.monotonic
        """The event loop's time once it is known; deadlines are on it."""
        self.counters: dict[Role, RoleCounters] = {role: RoleCounters() for role in roles}
        self.restarts = 0
        """Workers replaced since the start."""
        self.retries = 0
        """Jobs given to a second worker."""

    async def start(self, progress: Progress = lambda line: None) -> None:
        """Start all workers and wait until each has loaded its models. `progress` gets a line a step.

        Raises ProviderUnavailableError, with nothing left running."""
        loop = asyncio.get_running_loop()
        self._now = loop.time
        self._progress = progress
        self._slots = [_Slot(number, loop.create_future()) for number in range(self._size)]
        self._tasks = [asyncio.create_task(self._keep(slot), name=f"engine-{slot.number}") for slot in self._slots]
        try:
            await asyncio.gather(*(slot.started for slot in self._slots))
        except (WorkerDiedError, WorkerUnusableError) as error:
            await self.aclose()
            raise ProviderUnavailableError(PROVIDER, str(error)) from error
        except asyncio.CancelledError:
            await self.aclose()
            raise

    async def aclose(self) -> None:
        """End the workers and fail what waits. May be called at any time, more than once."""
        for task in self._tasks:
            task.cancel()
        for tasks in (self._tasks, self._closing):
            if tasks:
                await asyncio.wait(tasks)
        self._tasks = []
        for slot in self._slots:
            if not slot.started.cancel() and not slot.started.cancelled():
                slot.started.exception()  # seen: two workers may have failed, and one error was raised
        for job in list(self._queue):
            self._queue.remove(job)
            self._fail(job, ProviderUnavailableError(PROVIDER, "the engines are closed"))

    async def run(
        self, role: Role, fields: dict[str, Any], payload: bytes = b"", *, priority: Priority, deadline_s: float
    ) -> Reply:
        """Have a worker do one job within `deadline_s` seconds from now. Cancelling drops a job that still waits.

        Raises ProviderBusyError, ProviderTimeoutError, ProviderUnavailableError, or ProviderError if the engine
        failed."""
        if not self._tasks:
            raise ProviderUnavailableError(PROVIDER, "the engines are not running")
        loop = asyncio.get_running_loop()
        counters = self.counters[role]
        job = Job(next(self._ids), role, fields, payload, priority, loop.time() + deadline_s, loop.create_future())
        self._enqueue(job)
        try:
            async with asyncio.timeout_at(job.deadline):
                return await job.reply
        except TimeoutError:
            counters.expired += 1
            raise ProviderTimeoutError(PROVIDER, f"{role} took longer than {deadline_s:g} s") from None
        except asyncio.CancelledError:
            counters.cancelled += 1
            raise
        finally:
            self._queue.remove(job)
            self._note_load()

    @property
    def load(self) -> PoolLoad:
        alive = [slot for slot in self._slots if slot.worker]
        running = [slot for slot in alive if slot.job]
        return PoolLoad(len(self._queue), len(running), self._size, len(alive), self._wait_s())

    @property
    def job_s(self) -> dict[Role, float]:
        """Running mean of the seconds one job of each role takes."""
        return dict(self._meter.job_s)

    @property
    def engines(self) -> dict[str, str]:
        """Which engine serves each role, e.g. `{"stt": "moonshine"}`; empty until one worker is ready."""
        return next((dict(slot.engines) for slot in self._slots if slot.worker), {})

    @property
    def workers(self) -> list[tuple[int, bool, float]]:
        """Of each living worker: its process id, whether it has a job, and its memory (MB) when it was ready."""
        return [(slot.worker.pid, slot.job is not None, slot.rss_mb) for slot in self._slots if slot.worker]

    def overloaded(self) -> str | None:
        """Why a new caller should be refused, None while there is room for one."""
        if not any(slot.worker for slot in self._slots):
            return f"no engine worker is running: {self._last_loss or 'not started'}"
        self._note_load()
        if self._meter.overloaded(self._now()):
            wait_s, limit_s = self._wait_s(), self._meter.limit_s
            return f"work for the engines waits {wait_s:.1f} s; engines.overload_wait_s is {limit_s:g}"
        return None

    def readings(self) -> Mapping[str, float]:
        """Everything worth a metric, by name and label."""
        load = self.load
        readings: dict[str, float] = {
            "engine_jobs_waiting": load.waiting,
            "engine_jobs_running": load.running,
            "engine_workers": load.workers,
            "engine_workers_alive": load.alive,
            "engine_wait_seconds": load.wait_s,
            "engine_worker_restarts_total": self.restarts,
            "engine_job_retries_total": self.retries,
        }
        for role, counters in self.counters.items():
            for outcome in ("done", "failed", "expired", "refused", "cancelled"):
                readings[f"engine_jobs_total{{role={role},outcome={outcome}}}"] = getattr(counters, outcome)
            readings[f"engine_cpu_seconds_total{{role={role}}}"] = counters.cpu_s
            readings[f"engine_busy_seconds_total{{role={role}}}"] = counters.busy_s
            readings[f"engine_job_seconds{{role={role}}}"] = self._meter.job_s[role]
        return readings

    def _enqueue(self, job: Job) -> None:
        try:
            displaced = self._queue.put(job)
        except QueueFullError:
            self.counters[job.role].refused += 1
            raise ProviderBusyError(PROVIDER, f"{len(self._queue)} jobs are waiting already") from None
        if displaced is not None:
            self.counters[displaced.role].refused += 1
            self._fail(displaced, ProviderBusyError(PROVIDER, "gave way to something more urgent"))
        self._wake()
        self._note_load()

    def _wake(self) -> None:
        while self._idle:
            waiter = self._idle.popleft().waiter
            if waiter is not None and not waiter.done():
                waiter.set_result(None)
                return

    @staticmethod
    def _fail(job: Job, error: ProviderError) -> None:
        if not job.reply.done():
            job.reply.set_exception(error)

    def _wait_s(self) -> float:
        now = self._now()
        alive = [slot for slot in self._slots if slot.worker]
        running = [(slot.job.role, now - slot.since) for slot in alive if slot.job]
        return self._meter.wait_s(self._queue, running, len(alive))

    def _note_load(self) -> None:
        self._meter.note(self._wait_s(), self._now())

    # -- one worker's life ----------------------------------------------------------------------------------

    async def _keep(self, slot: _Slot) -> None:
        """Keep a worker running in `slot` until cancelled."""
        backoff = FIRST_BACKOFF_S
        while True:
            done_before = sum(counters.done for counters in self.counters.values())
            try:
                await self._live(slot)
            except (WorkerDiedError, WorkerUnusableError) as error:
                self._last_loss = str(error)
                if not slot.started.done():
                    slot.started.set_exception(error)
                    return
                log.warning("engine worker lost", worker=slot.number, error=str(error), restart_in_s=backoff)
            if sum(counters.done for counters in self.counters.values()) > done_before:
                backoff = FIRST_BACKOFF_S
            self._wake()  # it may have been woken for a job that it did not live to take
            await asyncio.sleep(backoff)
            backoff = min(2 * backoff, self._settings.restart_backoff_max_s)
            self.restarts += 1

    async def _live(self, slot: _Slot) -> None:
        """One worker, from its start to its death. Raises WorkerDiedError or WorkerUnusableError."""
        grace_s = CLOSE_GRACE_S
        try:
            worker = await WorkerProcess.start(self._settings, self._roles)
        except OSError as error:
            raise WorkerDiedError(f"can't start a worker: {error}") from error
        try:
            await self._load(slot, worker)
            worker.on_exit(lambda: self._on_exit(slot, worker))
            slot.worker = worker
            if not slot.started.done():
                slot.started.set_result(None)
            await self._work(slot, worker)
        except (WorkerDiedError, WorkerUnusableError):
            grace_s = 0.0
            raise
        finally:
            slot.worker = None
            # The process must be waited for even if this task is cancelled in the midst of it.
            closing = asyncio.ensure_future(worker.aclose(grace_s))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
            await asyncio.shield(closing)

    async def _load(self, slot: _Slot, worker: WorkerProcess) -> None:
        try:
            async with asyncio.timeout(self._settings.start_s):
                while (message := await worker.receive()).op == "loaded":
                    slot.engines[message.fields["role"]] = message.fields["engine"]
                    self._progress(
                        f"engine worker {slot.number + 1} of {self._size}: {message.fields['role']} "
                        f"({message.fields['engine']}) loaded in {message.fields['seconds']:.1f} s"
                    )
        except TimeoutError:
            raise WorkerDiedError(f"worker {worker.pid} did not load in {self._settings.start_s:g} s") from None
        if message.op == "unusable":
            raise WorkerUnusableError(message.fields["error"])
        slot.rss_mb = message.fields["rss_mb"]

    async def _work(self, slot: _Slot, worker: WorkerProcess) -> None:
        while True:
            job = self._queue.take(self._now())
            if job is None:
                await self._wait_for_work(slot, worker)
                continue
            slot.job, slot.since = job, self._now()
            job.attempts += 1
            try:
                message = await self._exchange(worker, job)
            except WorkerDiedError as error:
                self._lost(job, error)
                raise
            except asyncio.CancelledError:
                self._fail(job, ProviderUnavailableError(PROVIDER, "the engines are closed"))
                raise
            finally:
                slot.job = None
            self._settle(job, message, self._now() - slot.since)

    async def _wait_for_work(self, slot: _Slot, worker: WorkerProcess) -> None:
        """Raises WorkerDiedError if the worker dies meanwhile."""
        if worker.exited:
            raise WorkerDiedError(f"worker {worker.pid} ended after its last job")
        slot.waiter = asyncio.get_running_loop().create_future()
        self._idle.append(slot)
        try:
            await slot.waiter
        finally:
            slot.waiter = None
            with contextlib.suppress(ValueError):
                self._idle.remove(slot)

    @staticmethod
    def _on_exit(slot: _Slot, worker: WorkerProcess) -> None:
        if slot.worker is worker and slot.waiter is not None and not slot.waiter.done():
            slot.waiter.set_exception(WorkerDiedError(f"worker {worker.pid} ended while it was idle"))

    async def _exchange(self, worker: WorkerProcess, job: Job) -> Message:
        worker.send(Message("job", {**job.fields, "id": job.id, "role": job.role}, job.payload))
        try:
            async with asyncio.timeout_at(job.deadline + self._settings.hang_margin_s):
                message = await worker.receive()
        except TimeoutError:
            raise WorkerDiedError(f"worker {worker.pid} hung in a {job.role} job") from None
        if message.fields.get("id") != job.id:
            raise WorkerDiedError(
                f"worker {worker.pid} answered {message.op} {message.fields.get('id')} to job {job.id}"
            )
        return message

    def _settle(self, job: Job, message: Message, seconds: float) -> None:
        counters = self.counters[job.role]
        counters.cpu_s += message.fields.pop("cpu_s")
        counters.busy_s += seconds
        self._meter.finished(job.role, seconds)
        if message.op == "done":
            counters.done += 1
            if not job.reply.done():
                job.reply.set_result(Reply(message.fields, message.payload))
        else:
            counters.failed += 1
            error = str(message.fields["error"])
            log.warning("engine job failed", role=job.role, error=error)
            self._fail(job, ProviderError(PROVIDER, f"{job.role}: {error}"))
        self._note_load()

    def _lost(self, job: Job, error: WorkerDiedError) -> None:
        """The worker died with `job`: another one shall try it, unless it had its chances."""
        if job.reply.done():
            return
        if job.attempts < ATTEMPTS and job.deadline > self._now():
            self.retries += 1
            self._queue.put_back(job)
            self._wake()
        else:
            self.counters[job.role].failed += 1
            self._fail(job, ProviderError(PROVIDER, f"{job.role}: {error}"))
