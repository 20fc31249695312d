"""The pool of real worker processes: urgency, deadlines, cancelling, death, hanging, the parent's own end."""

import asyncio
import os
import select
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import own_group
import pytest
from engines_audio import until

from bridge.providers.base import (
    ProviderBusyError,
    ProviderError,
    ProviderTimeoutError,
    ProviderUnavailableError,
)
from bridge.providers.local.engines import LocalEngines
from bridge.providers.local.jobs import Priority, Reply
from bridge.providers.local.models import Role
from bridge.providers.local.pool import EnginePool
from bridge.providers.local.settings import EngineSettings

LONG_TEXT = "The quick brown fox jumps over the lazy dog and runs far away. " * 12


@asynccontextmanager
async def running(*roles: Role, **settings: object) -> AsyncIterator[EnginePool]:
    pool = EnginePool(EngineSettings.model_validate({"workers": 1, **settings}), roles or ["embed"])
    await pool.start()
    try:
        yield pool
    finally:
        await pool.aclose()


def embed(
    pool: EnginePool, text: str = "hello", *, priority: Priority = Priority.REPLY, deadline_s: float = 60
) -> Awaitable[Reply]:
    return pool.run("embed", {"texts": [text]}, priority=priority, deadline_s=deadline_s)


def stop(pool: EnginePool) -> Callable[[], None]:
    """Stop all workers in their tracks; returns what lets those go on that are there still."""
    stopped = [pid for pid, _, _ in pool.workers]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)

    def go_on() -> None:
        for pid, _, _ in pool.workers:
            if pid in stopped:
                os.kill(pid, signal.SIGCONT)

    return go_on


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


async def at_work(pool: EnginePool, jobs: int = 1) -> None:
    await until(lambda: pool.load.running == jobs)


async def test_jobs_of_all_urgencies_are_done_in_order_of_urgency() -> None:
    async with running() as pool:
        go_on = stop(pool)
        done: list[str] = []

        async def ask(name: str, priority: Priority) -> None:
            await embed(pool, name, priority=priority)
            done.append(name)

        async with asyncio.TaskGroup() as group:
            group.create_task(ask("at work", Priority.BACKGROUND))
            await at_work(pool)
            for priority in sorted(Priority, reverse=True):
                group.create_task(ask(priority.name, priority))
            await until(lambda: pool.load.waiting == 4)
            assert pool.load.wait_s > 0
            go_on()
        assert done == ["at work", "REPLY", "PARTIAL", "NEXT_CLAUSE", "BACKGROUND"]
        assert pool.counters["embed"].done == 5
        assert pool.counters["embed"].cpu_s > 0
        assert pool.readings()["engine_jobs_total{role=embed,outcome=done}"] == 5


async def test_a_full_queue_refuses_and_gives_way_to_what_is_more_urgent() -> None:
    async with running(queue=2) as pool:
        go_on = stop(pool)
        first = asyncio.ensure_future(embed(pool))
        await at_work(pool)
        kept = asyncio.ensure_future(embed(pool, priority=Priority.PARTIAL))
        given_up = asyncio.ensure_future(embed(pool, priority=Priority.BACKGROUND))
        await until(lambda: pool.load.waiting == 2)
        with pytest.raises(ProviderBusyError, match="2 jobs are waiting"):
            await embed(pool, priority=Priority.BACKGROUND)
        urgent = asyncio.ensure_future(embed(pool))
        with pytest.raises(ProviderBusyError, match="more urgent"):
            await given_up
        go_on()
        await asyncio.gather(first, kept, urgent)
        assert pool.counters["embed"].refused == 2
        assert pool.counters["embed"].done == 3


async def test_a_job_cancelled_in_the_queue_is_never_done() -> None:
    async with running() as pool:
        go_on = stop(pool)
        first = asyncio.ensure_future(embed(pool))
        await at_work(pool)
        second = asyncio.ensure_future(embed(pool))
        await until(lambda: pool.load.waiting == 1)
        second.cancel()
        await asyncio.wait([second])
        assert pool.load.waiting == 0
        go_on()
        await first
        assert (pool.counters["embed"].done, pool.counters["embed"].cancelled) == (1, 1)


async def test_a_job_cancelled_at_work_leaves_the_worker_well() -> None:
    async with running() as pool:
        go_on = stop(pool)
        first = asyncio.ensure_future(embed(pool))
        await at_work(pool)
        first.cancel()
        go_on()
        await embed(pool)
        assert pool.restarts == 0


async def test_an_expired_job_is_told_so_and_never_done() -> None:
    async with running() as pool:
        go_on = stop(pool)
        first = asyncio.ensure_future(embed(pool))
        await at_work(pool)
        with pytest.raises(ProviderTimeoutError, match=r"embed took longer than 0.05 s"):
            await embed(pool, deadline_s=0.05)
        go_on()
        await first
        await embed(pool)
        assert (pool.counters["embed"].done, pool.counters["embed"].expired) == (2, 1)


async def test_an_engines_error_fails_its_job_alone() -> None:
    async with running() as pool:
        with pytest.raises(ProviderError, match="embed: KeyError"):
            await pool.run("embed", {}, priority=Priority.REPLY, deadline_s=60)
        await embed(pool)
        assert (pool.counters["embed"].failed, pool.restarts) == (1, 0)


async def test_a_killed_worker_is_replaced_and_its_job_done_by_another() -> None:
    async with running("tts", workers=2) as pool:
        go_on = stop(pool)
        work = asyncio.ensure_future(
            pool.run("tts", {"text": LONG_TEXT[:63], "sample_rate": 8000}, priority=Priority.REPLY, deadline_s=60)
        )
        await at_work(pool)
        (victim,) = [pid for pid, busy, _ in pool.workers if busy]
        os.kill(victim, signal.SIGKILL)
        await until(lambda: victim not in [pid for pid, _, _ in pool.workers])
        go_on()
        assert len((await work).payload) > 16000
        assert pool.retries == 1
        await until(lambda: pool.load.alive == 2)
        assert victim not in [pid for pid, _, _ in pool.workers]
        assert pool.restarts == 1


async def test_a_job_that_kills_two_workers_is_given_up() -> None:
    async with running("tts", workers=2) as pool:
        stop(pool)
        work = asyncio.ensure_future(
            pool.run("tts", {"text": LONG_TEXT, "sample_rate": 8000}, priority=Priority.REPLY, deadline_s=60)
        )
        for _ in range(2):
            await at_work(pool)
            (victim,) = [pid for pid, busy, _ in pool.workers if busy]
            os.kill(victim, signal.SIGKILL)
            await until(lambda: pool.load.running == 0 or victim not in [pid for pid, _, _ in pool.workers])  # noqa: B023
        with pytest.raises(ProviderError, match="killed by signal 9"):
            await work


async def test_a_worker_that_dies_idle_is_replaced_and_missed_meanwhile() -> None:
    async with running() as pool:
        assert pool.overloaded() is None
        os.kill(pool.workers[0][0], signal.SIGKILL)
        await until(lambda: pool.load.alive == 0)
        refusal = pool.overloaded()
        assert refusal is not None
        assert refusal.startswith("no engine worker is running: worker ")
        await embed(pool)
        assert pool.overloaded() is None


async def test_a_hung_worker_is_killed_and_replaced() -> None:
    async with running(hang_margin_s=0.1) as pool:
        hung = pool.workers[0][0]
        stop(pool)
        with pytest.raises(ProviderTimeoutError):
            await embed(pool, deadline_s=0.1)
        await embed(pool)
        assert pool.workers[0][0] != hung
        assert gone(hung)


async def test_closing_fails_what_is_under_way_and_leaves_no_process() -> None:
    async with running() as pool:
        stop(pool)
        (pid,) = [pid for pid, _, _ in pool.workers]
        jobs = [asyncio.ensure_future(embed(pool)) for _ in range(2)]
        await until(lambda: pool.load.waiting == 1)
        await pool.aclose()
        for job in jobs:
            with pytest.raises(ProviderUnavailableError, match="closed"):
                await job
        assert gone(pid)
        with pytest.raises(ProviderUnavailableError, match="not running"):
            await embed(pool)


async def test_a_broken_model_is_told_at_the_start_and_nothing_is_left(tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a model")
    pool = EnginePool(EngineSettings(workers=4, embed_model=broken), ["embed"])
    with pytest.raises(ProviderUnavailableError, match=r"broken\.onnx"):
        await pool.start()
    assert children() == []
    assert pool.workers == []
    assert pool.overloaded() is not None


async def test_missing_models_are_all_told_before_anything_is_loaded(tmp_path: Path) -> None:
    settings = EngineSettings(piper_voice=tmp_path / "none.onnx", embed_model=tmp_path / "none_either.onnx")
    engines = LocalEngines(settings, tmp_path)
    with pytest.raises(ProviderUnavailableError, match=r"none\.onnx.*engines\.piper_voice.*none_either\.onnx"):
        await engines.start()
    await engines.aclose()


async def test_a_worker_that_does_not_load_in_time_is_given_up() -> None:
    pool = EnginePool(EngineSettings(workers=1, start_s=0.01), ["embed"])
    with pytest.raises(ProviderUnavailableError, match=r"did not load in 0\.01 s"):
        await pool.start()


async def test_cancelling_the_start_leaves_no_process() -> None:
    pool = EnginePool(EngineSettings(workers=1), ["embed"])
    starting = asyncio.ensure_future(pool.start())
    await until(lambda: children() != [])
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert children() == []


def children() -> list[int]:
    task = Path(f"/proc/self/task/{os.getpid()}/children")
    return [int(pid) for pid in task.read_text().split()]


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_no_worker_outlives_its_parent(end: signal.Signals) -> None:
    parent = own_group.start(
        [sys.executable, str(Path(__file__).with_name("engines_parent.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdin is not None
    assert parent.stdout is not None
    workers = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(workers) == 2
    watches = [os.pidfd_open(pid) for pid in workers]
    parent.send_signal(end)
    for watch in watches:
        ended, _, _ = select.select([watch], [], [], 60)
        assert ended
        os.close(watch)
    parent.wait()
    own_group.kill(parent.pid)
    parent.stdin.close()
    parent.stdout.close()


async def test_signals_to_the_group_leave_the_workers_to_the_parent() -> None:
    async with running() as pool:
        (pid,) = [pid for pid, _, _ in pool.workers]
        os.kill(pid, signal.SIGINT)
        os.kill(pid, signal.SIGTERM)
        await embed(pool)
        assert [pid] == [pid for pid, _, _ in pool.workers]


def test_what_libraries_print_does_not_get_into_the_protocol() -> None:
    code = (
        "import os; from bridge.providers.local.worker import open_channel; channel = open_channel();"
        "print('from python', flush=True); os.system('echo from C'); channel.send('done', {'id': 1}, b'xyz')"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as worker:
        assert worker.stdout is not None
        assert worker.stderr is not None
        stdout, stderr = worker.stdout.read(), worker.stderr.read()
    header = b'{"op": "done", "id": 1}'
    assert stdout == len(header).to_bytes(4, "big") + (3).to_bytes(4, "big") + header + b"xyz"
    assert stderr.split(b"\n")[:2] == [b"from python", b"from C"]


async def test_a_worker_is_nicer_than_its_parent_by_what_is_configured() -> None:
    async with running(niceness=7) as pool:
        (pid,) = [pid for pid, _, _ in pool.workers]
        assert os.getpriority(os.PRIO_PROCESS, pid) == os.getpriority(os.PRIO_PROCESS, 0) + 7


async def test_a_worker_never_takes_more_than_one_core() -> None:
    async with running("stt", "tts", "embed") as pool:
        await pool.run("tts", {"text": LONG_TEXT[:63], "sample_rate": 8000}, priority=Priority.REPLY, deadline_s=60)
        await pool.run(
            "stt", {"sample_rate": 8000, "language": "en"}, bytes(32_000), priority=Priority.REPLY, deadline_s=60
        )
        await embed(pool, LONG_TEXT)
        for counters in pool.counters.values():
            assert counters.cpu_s <= counters.busy_s * 1.05 + 0.02
