"""Which job is next, what gives way, how long a new one would wait."""

import asyncio
import itertools

import pytest

from bridge.providers.local.jobs import Job, JobQueue, LoadMeter, Priority, QueueFullError

ids = itertools.count()


def job(priority: Priority = Priority.REPLY, deadline: float = 100.0) -> Job:
    loop = asyncio.get_running_loop()
    return Job(next(ids), "tts", {}, b"", priority, deadline, loop.create_future())


def take_all(queue: JobQueue, now: float = 0.0) -> list[Job]:
    taken = []
    while (job := queue.take(now)) is not None:
        taken.append(job)
    return taken


async def test_urgent_jobs_overtake_and_equals_keep_their_order() -> None:
    queue = JobQueue(10)
    background, first, partial, second, clause = (
        job(Priority.BACKGROUND),
        job(Priority.REPLY),
        job(Priority.PARTIAL),
        job(Priority.REPLY),
        job(Priority.NEXT_CLAUSE),
    )
    for each in (background, first, partial, second, clause):
        queue.put(each)
    assert take_all(queue) == [first, second, partial, clause, background]


async def test_a_full_queue_refuses_what_is_not_more_urgent() -> None:
    queue = JobQueue(1)
    queue.put(job(Priority.PARTIAL))
    for priority in (Priority.PARTIAL, Priority.BACKGROUND):
        with pytest.raises(QueueFullError):
            queue.put(job(priority))
    assert len(queue) == 1


async def test_in_a_full_queue_the_newest_of_the_least_urgent_gives_way() -> None:
    queue = JobQueue(3)
    clause, old, new, urgent = (
        job(Priority.NEXT_CLAUSE),
        job(Priority.BACKGROUND),
        job(Priority.BACKGROUND),
        job(Priority.REPLY),
    )
    for each in (clause, old, new):
        assert queue.put(each) is None
    assert queue.put(urgent) is new
    assert take_all(queue) == [urgent, clause, old]


async def test_expired_and_answered_jobs_are_not_taken() -> None:
    queue = JobQueue(10)
    late, cancelled, good = job(deadline=1.0), job(), job()
    for each in (late, cancelled, good):
        queue.put(each)
    cancelled.reply.cancel()
    assert take_all(queue, now=1.0) == [good]


async def test_a_job_put_back_keeps_its_place_even_in_a_full_queue() -> None:
    queue = JobQueue(2)
    first, second, third = job(), job(), job()
    queue.put(first)
    queue.put(second)
    assert queue.take(0.0) is first
    queue.put(third)
    queue.put_back(first)
    assert take_all(queue) == [first, second, third]


async def test_removing_a_job_twice_does_nothing() -> None:
    queue = JobQueue(2)
    only = job()
    queue.put(only)
    queue.remove(only)
    queue.remove(only)
    assert len(queue) == 0


def meter() -> LoadMeter:
    return LoadMeter(limit_s=0.5, patience_s=2.0, job_s={"stt": 0.1, "tts": 0.4, "embed": 0.01})


def test_with_a_free_worker_nothing_is_waited_for() -> None:
    assert meter().wait_s([], [("tts", 0.1)], workers=2) == 0.0


async def test_the_wait_is_what_is_under_way_and_ahead_shared_by_the_workers() -> None:
    queued = [job(), job()]
    # Rests of 0.3 and 0 s, then 0.8 s of queue, on two workers.
    assert meter().wait_s(queued, [("tts", 0.1), ("stt", 0.5)], workers=2) == pytest.approx(0.55)


async def test_background_work_does_not_count_as_wait() -> None:
    assert meter().wait_s([job(Priority.BACKGROUND)], [("stt", 0.1)], workers=1) == 0.0


def test_without_a_worker_the_wait_is_infinite() -> None:
    assert meter().wait_s([], [], workers=0) == float("inf")


def test_the_mean_follows_the_newest_jobs() -> None:
    measured = meter()
    for _ in range(50):
        measured.finished("tts", 1.0)
    assert measured.job_s["tts"] == pytest.approx(1.0, abs=0.01)
    assert measured.job_s["stt"] == 0.1


def test_a_short_peak_is_no_overload_and_a_long_one_is() -> None:
    measured = meter()
    measured.note(0.6, now=10.0)
    assert not measured.overloaded(11.9)
    measured.note(0.9, now=11.0)
    assert measured.overloaded(12.0)


def test_overload_is_over_with_the_wait() -> None:
    measured = meter()
    measured.note(0.6, now=10.0)
    measured.note(0.5, now=12.0)
    assert not measured.overloaded(20.0)
    measured.note(0.6, now=20.0)
    assert not measured.overloaded(21.0)
