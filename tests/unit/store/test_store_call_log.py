"""The way onto the record: nothing waits, nothing is lost at a clean stop, and a failing database loses the least."""

import asyncio
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bridge.events import (
    CallEnded,
    CallStarted,
    Cause,
    DtmfReceived,
    FormCompleted,
    OneWay,
    OneWayAudio,
    ToolCalled,
    TurnEnded,
)
from bridge.store.call_log import CallLog
from bridge.store.records import CallHistory, Recorded
from bridge.store.store import Store


@contextmanager
def locked(url: str) -> Iterator[None]:
    """Another process's lock on the database, for as long as the block runs."""
    connection = sqlite3.connect(Path(url.removeprefix("sqlite:///")), isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        connection.close()


async def has_problem(log: CallLog) -> None:
    """Until the writer has found the database locked."""
    deadline = time.monotonic() + 20
    while log.problem is None:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def settled(log: CallLog) -> None:
    """Until everything is written, retries included."""
    deadline = time.monotonic() + 20
    while not await log.settle():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def names(history: CallHistory) -> list[str]:
    return [event.name for event in history.events]


async def texts(store: Store, call_id: str) -> list[str]:
    history = await store.get_call(call_id)
    return [turn.text for turn in history.turns] if history else []


async def test_a_whole_call_is_on_record_as_it_happened(store, events, wall_clock):
    log = CallLog(store, wall_clock=wall_clock)
    log.start()
    for event in (*events.whole_call()[:2], DtmfReceived("5", 120), *events.whole_call()[2:]):
        log.record("c1", event)
    assert await log.settle()
    history = await store.get_call("c1")
    call = history.call
    assert (call.from_, call.to, call.agent, call.leg_id) == (
        "+4930123456",
        "agent",
        "receptionist",
        "a84b4c76e66710@pbx",
    )
    assert call.started_at.timestamp() == events.t0
    assert call.answered_at.timestamp() == events.t0 + 1
    assert call.ended_at.timestamp() == events.t0 + 60
    assert (call.cause, call.detail, call.setup_ms) == ("caller-hung-up", "BYE", 250.0)
    assert call.quality == {"packets_received": 2950.0, "jitter_ms": 1.5}
    assert [event.name for event in history.events] == [
        "call_started",
        "call_answered",
        "dtmf_received",
        "call_ended",
    ]
    assert [event.seq for event in history.events] == [0, 1, 2, 4]
    (turn,) = history.turns
    assert (turn.seq, turn.index, turn.speaker, turn.heard_text, turn.heard_ms) == (3, 0, "agent", "Good", 800.0)
    assert (turn.interrupted, turn.delays.reply_ms, turn.delays.stt_ms, turn.why) == (True, 640.0, None, "why not")
    assert turn.at.timestamp() == wall_clock()
    assert await log.flush_and_close() == 0


async def test_how_a_calls_media_was_is_on_record(store, events):
    log = CallLog(store)
    log.start()
    log.record("c1", events.started())
    log.record("c1", OneWayAudio(OneWay.NOT_ARRIVING, "nobody takes RTP at 10.0.0.1:4000"))
    quality = {"mos": 4.31, "mos_remote": 1.0, "round_trip_ms": 40.0}
    ended = CallEnded(
        Cause.CALLER_HUNG_UP,
        "",
        events.t0 + 9,
        None,
        quality,
        codec="G722",
        srtp="AEAD_AES_128_GCM",
        one_way=OneWay.NOT_ARRIVING,
    )
    log.record("c1", ended)
    assert await log.flush_and_close() == 0
    history = await store.get_call("c1")
    call = history.call
    assert (call.codec, call.srtp, call.one_way) == ("G722", "AEAD_AES_128_GCM", "our audio does not arrive")
    assert call.quality == quality
    assert history.events[1].data == {
        "reason": "our audio does not arrive",
        "detail": "nobody takes RTP at 10.0.0.1:4000",
    }


async def test_settle_makes_what_was_recorded_visible_without_waiting_for_the_interval(store, events):
    log = CallLog(store, interval_s=3600)
    log.start()
    log.record("c1", events.started())
    assert await log.settle(timeout_s=20)
    assert await store.get_call("c1") is not None
    await log.flush_and_close()


async def test_a_clean_stop_writes_everything(store, events):
    log = CallLog(store, interval_s=3600, batch_events=7)
    log.start()
    log.record("c1", events.started())
    for index in range(500):
        log.record("c1", events.turn(index, f"turn {index}"))
    assert await log.flush_and_close() == 0
    assert await texts(store, "c1") == [f"turn {index}" for index in range(500)]


async def test_a_stop_right_after_the_start_is_clean(store):
    log = CallLog(store)
    log.start()
    assert await log.flush_and_close() == 0


async def test_events_recorded_before_the_start_are_written(store, events):
    log = CallLog(store)
    log.record("c1", events.started())
    log.start()
    assert await log.flush_and_close() == 0
    assert await store.get_call("c1") is not None


async def test_a_locked_database_is_tried_again_and_nothing_is_lost(store, url, events):
    log = CallLog(store, interval_s=0.001)
    log.start()
    with locked(url):
        for event in events.whole_call():
            log.record("c1", event)
        await has_problem(log)
        assert "locked" in (log.problem or "")
        assert log.stats.queued == 4
        assert not await log.settle(timeout_s=20), "says at once that it can't"
    await settled(log)
    assert log.problem is None
    assert log.stats.failures >= 1
    assert (log.stats.written, log.stats.dropped, log.stats.rejected) == (4, 0, 0)
    assert await log.flush_and_close() == 0
    assert await texts(store, "c1") == ["Good evening"]


async def test_a_stop_waits_for_the_lock_to_go(store, url, events):
    log = CallLog(store, interval_s=0.001)
    log.start()
    with locked(url):
        log.record("c1", events.started())
        await has_problem(log)
        closing = asyncio.create_task(log.flush_and_close(deadline_s=30))
        await asyncio.sleep(0)
    assert await closing == 0
    assert await store.get_call("c1") is not None


async def test_a_stop_gives_up_at_its_deadline_and_says_how_much_is_lost(store, url, events):
    log = CallLog(store, interval_s=0.001)
    log.start()
    with locked(url):
        log.record("c1", events.started())
        log.record("c1", events.turn())
        await has_problem(log)
        assert await log.flush_and_close(deadline_s=0.2) == 2
    log.record("c1", events.turn())
    assert log.stats.dropped == 3, "recorded after the close counts as lost too"


async def test_a_full_queue_drops_the_oldest_that_is_not_essential(store, url, events):
    log = CallLog(store, interval_s=0.001, max_events=20, batch_events=1)
    log.start()
    booking = FormCompleted("booking", {"people": 4}, 1000.0)
    with locked(url):
        log.record("c1", events.started())
        await has_problem(log)
        log.record("c1", events.answered())
        log.record("c1", booking)
        for index in range(40):
            log.record("c1", events.turn(index, f"turn {index}"))
        log.record("c1", events.ended())
        assert log.stats.queued == 20
        assert log.stats.dropped == 24
    await settled(log)
    assert await texts(store, "c1") == [f"turn {index}" for index in range(24, 40)]
    history = await store.get_call("c1")
    assert [event.name for event in history.events] == [
        "call_started",
        "call_answered",
        "form_completed",
        "call_ended",
    ]
    assert history.call.cause == "caller-hung-up"
    await log.flush_and_close()


async def test_essential_events_are_refused_only_at_the_hard_cap_and_then_whole_calls(store, url, events):
    log = CallLog(store, interval_s=0.001, max_events=10, batch_events=1)
    log.start()
    with locked(url):
        log.record("first", events.started())
        await has_problem(log)
        for number in range(30):
            log.record(f"call{number}", events.started())
        assert log.stats.queued == 20
        log.record("call29", events.turn())
        log.record("call29", events.ended())
    await settled(log)
    # A later event of a call that has no row would be refused by the database.
    assert log.stats.rejected == 0
    assert len((await store.list_calls(limit=100)).calls) == 20
    log.record("call29", events.started())
    assert await log.settle(timeout_s=20)
    await log.flush_and_close()


async def test_an_event_that_the_database_refuses_does_not_take_others_with_it(store, events):
    log = CallLog(store, interval_s=3600)
    log.start()
    log.record("good", events.started())
    log.record("never-started", events.turn())
    log.record("bad-time", CallStarted("inbound", "a", "b", "t", "x", "sip", "y", 1e30))
    log.record("good", events.turn(2**80, "an index no column can hold"))
    log.record("good", events.turn(0, "kept"))
    log.record("good", events.ended())
    assert await log.settle(timeout_s=20)
    assert log.problem is None
    assert (log.stats.written, log.stats.rejected, log.stats.failures) == (3, 3, 0)
    assert await texts(store, "good") == ["kept"]
    assert await log.flush_and_close() == 0


async def test_any_text_a_caller_can_cause_is_recorded(store, events):
    log = CallLog(store)
    log.start()
    log.record("c1", CallStarted("inbound", "a\x00b", "caf\udce9", "t", "x", "sip", "\ud800", events.t0))
    log.record("c1", TurnEnded(0, "caller", "x" * 100_000, 0.0, float("nan"), "\x00", float("inf")))
    log.record("c1", ToolCalled("t", {"k": float("nan"), "o": object()}, False, "r", 1.0, 1.0))
    assert await log.flush_and_close() == 0
    assert log.stats.rejected == 0
    assert len((await store.get_call("c1")).turns[0].text) == 20_001


async def test_events_are_numbered_per_call_and_subscribers_see_each_even_while_nothing_can_be_written(
    store, url, events
):
    log = CallLog(store, interval_s=0.001)
    log.start()
    seen: list[Recorded] = []
    unsubscribe = log.subscribe(seen.append)
    with locked(url):
        log.record("a", events.started())
        log.record("b", events.started())
        log.record("a", events.turn())
        log.record("a", events.ended())
        log.record("a", DtmfReceived("1", 100))
        assert [(item.call_id, item.seq) for item in seen] == [("a", 0), ("b", 0), ("a", 1), ("a", 2), ("a", 3)]
        unsubscribe()
        log.record("b", events.ended())
        assert len(seen) == 5
    await settled(log)
    await log.flush_and_close()


async def test_long_runs_keep_no_memory_of_old_calls(store, events):
    log = CallLog(store)
    log.start()
    for number in range(1500):
        log.record(f"c{number}", events.started())
        log.record(f"c{number}", events.ended())
    assert await log.flush_and_close() == 0
    assert len(log._next_seq) == 1000
    assert (await store.list_calls(limit=1)).calls[0].cause == "caller-hung-up"


@pytest.mark.parametrize("batch", [1, 3, 100])
async def test_batches_of_any_size_write_the_same(store, events, batch):
    log = CallLog(store, batch_events=batch)
    log.start()
    for event in events.whole_call():
        for call_id in ("a", "b", "c"):
            log.record(call_id, event)
    assert await log.flush_and_close() == 0
    for call_id in ("a", "b", "c"):
        history = await store.get_call(call_id)
        assert [event.seq for event in history.events] == [0, 1, 3]
        assert history.call.cause == "caller-hung-up"
