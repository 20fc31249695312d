"""The histories of live calls that event streams are read from."""

import asyncio

from bridge.api.live import CHUNK, LiveEvents
from bridge.events import CallEnded, CallEvent, CallStarted, Cause, DtmfReceived
from bridge.store.records import Recorded

STARTED = CallStarted("inbound", "a", "b", "t", "agent", "sip", "x", 1.0)
ENDED = CallEnded(Cause.CALLER_HUNG_UP, "", 2.0, None, {})


def item(seq: int, event: CallEvent | None = None) -> Recorded:
    return Recorded("c", seq, 1.0, event or DtmfReceived("1", 100))


def begun(keep: int = 2000) -> LiveEvents:
    live = LiveEvents(keep=keep)
    live.publish(item(0, STARTED))
    return live


async def everything(live: LiveEvents, after: int = -1) -> tuple[list[int], int]:
    """What a follower that starts now reads until the end: numbers, and how many it was told it missed."""
    history = live.find("c")
    assert history is not None
    seen: list[int] = []
    missed = 0
    while True:
        chunk = await history.after(after, 10)
        seen += [event.seq for event in chunk.events]
        missed += chunk.missed
        after = seen[-1] if seen else after
        if chunk.over:
            return seen, missed


async def test_a_late_follower_reads_from_the_start_and_on_to_the_end():
    live = begun()
    live.publish(item(1))
    reading = asyncio.create_task(everything(live))
    await asyncio.sleep(0)
    for seq in range(2, 3 * CHUNK):
        live.publish(item(seq))
    live.publish(item(3 * CHUNK, ENDED))
    assert await reading == (list(range(3 * CHUNK + 1)), 0)


async def test_many_followers_read_the_same():
    live = begun()
    readers = [asyncio.create_task(everything(live)) for _ in range(20)]
    await asyncio.sleep(0)
    live.publish(item(1))
    await asyncio.sleep(0)
    live.publish(item(2, ENDED))
    assert await asyncio.gather(*readers) == [([0, 1, 2], 0)] * 20


async def test_who_comes_back_goes_on_where_it_was():
    live = begun()
    for seq in range(1, 10):
        live.publish(item(seq))
    reading = asyncio.create_task(everything(live, after=6))
    await asyncio.sleep(0)
    live.publish(item(10, ENDED))
    assert await reading == ([7, 8, 9, 10], 0)


async def test_an_ended_call_is_forgotten_but_read_to_the_end_by_who_follows_it():
    live = begun()
    history = live.find("c")
    assert history is not None
    live.publish(item(1, ENDED))
    live.publish(item(2))
    assert live.find("c") is None
    chunk = await history.after(-1, 10)
    assert [event.seq for event in chunk.events] == [0, 1]
    assert chunk.over
    assert (await history.after(1, 10)).over


async def test_memory_is_bounded_and_the_slow_are_told_what_they_missed():
    live = begun(keep=50)
    history = live.find("c")
    assert history is not None
    for seq in range(1, 1000):
        live.publish(item(seq))
    assert len(history._events) <= 100
    chunk = await history.after(-1, 10)
    assert chunk.missed == chunk.events[0].seq
    assert chunk.events[-1].seq == 999
    assert (await history.after(998, 10)).missed == 0


async def test_nothing_new_is_an_empty_chunk():
    live = begun()
    history = live.find("c")
    assert history is not None
    chunk = await history.after(0, 0)
    assert (list(chunk.events), chunk.missed, chunk.over) == ([], 0, False)


async def test_a_number_from_the_future_waits_for_what_comes():
    live = begun()
    history = live.find("c")
    assert history is not None
    assert not (await history.after(10**9, 0)).events


async def test_the_stop_of_the_bridge_ends_every_stream():
    live = begun()
    reading = asyncio.create_task(everything(live))
    await asyncio.sleep(0)
    live.close()
    assert await reading == ([0], 0)
    live.publish(item(0, STARTED))
    assert live.find("c") is None, "no stream begins any more"


async def test_events_of_a_call_that_never_started_are_ignored():
    live = LiveEvents()
    live.publish(item(5))
    assert live.find("c") is None
