"""Asking the record: filters, pages, one call."""

from datetime import UTC, datetime

import pytest

from bridge.events import Cause
from bridge.store.call_log import CallLog
from bridge.store.errors import CursorError, StoreError
from bridge.store.records import CallFilter


@pytest.fixture
async def full(store, events):
    """A store with 25 calls, ten seconds apart, the last one live; two start at the same moment."""
    log = CallLog(store)
    log.start()
    for number in range(25):
        at = events.t0 + 10 * (number if number != 7 else 6)
        call_id = f"call{number:02}"
        agent = "echo" if number % 5 == 0 else "receptionist"
        direction = "outbound" if number == 3 else "inbound"
        log.record(call_id, events.started(at, agent=agent, leg_id=f"leg{number}", direction=direction))
        if number != 24:
            cause = Cause.MEDIA_TIMEOUT if number == 4 else Cause.CALLER_HUNG_UP
            log.record(call_id, events.ended(at + 5, cause=cause))
    assert await log.flush_and_close() == 0
    return store


async def ids(store, **wanted) -> list[str]:
    return [call.id for call in (await store.list_calls(CallFilter(**wanted), limit=100)).calls]


async def test_calls_come_newest_first(full):
    found = await ids(full)
    assert found[:2] == ["call24", "call23"]
    assert len(found) == 25
    assert found.index("call07") < found.index("call06"), "of two at the same moment the higher id comes first"


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({"agent": "echo"}, ["call20", "call15", "call10", "call05", "call00"]),
        ({"cause": "media-timeout"}, ["call04"]),
        ({"direction": "outbound"}, ["call03"]),
        ({"leg_id": "leg11"}, ["call11"]),
        ({"leg_id": "leg"}, []),
        ({"live": True}, ["call24"]),
        ({"agent": "echo", "cause": "media-timeout"}, []),
    ],
)
async def test_each_filter_takes_what_fits(full, wanted, found):
    assert await ids(full, **wanted) == found


async def test_only_ended_calls(full):
    assert len(await ids(full, live=False)) == 24


async def test_since_is_included_and_until_is_not(full, events):
    since = datetime.fromtimestamp(events.t0 + 100, UTC)
    until = datetime.fromtimestamp(events.t0 + 120, UTC)
    assert await ids(full, since=since, until=until) == ["call11", "call10"]


@pytest.mark.parametrize("limit", [1, 2, 7, 25, 30])
async def test_pages_show_every_call_once(full, limit):
    seen: list[str] = []
    cursor = None
    while True:
        page = await full.list_calls(limit=limit, cursor=cursor)
        seen += [call.id for call in page.calls]
        assert len(page.calls) <= limit
        if page.next_cursor is None:
            break
        cursor = page.next_cursor
    assert seen == await ids(full)


async def test_a_page_is_not_moved_by_calls_that_come_meanwhile(full, events):
    first = await full.list_calls(limit=10)
    log = CallLog(full)
    log.start()
    log.record("new", events.started(events.t0 + 10_000))
    await log.flush_and_close()
    second = await full.list_calls(limit=10, cursor=first.next_cursor)
    assert second.calls[0].id == "call14"


@pytest.mark.parametrize("cursor", ["", "x", "AAAA", "bm90aGluZw==", "é", "MjAyNi0wMS0wMSB4"])
async def test_a_made_up_cursor_is_refused(full, cursor):
    with pytest.raises(CursorError):
        await full.list_calls(cursor=cursor)


async def test_a_call_that_is_not_there_is_none(full):
    assert await full.get_call("nobody") is None
    assert await full.get_call("' OR 1=1 --") is None


async def test_a_database_that_is_gone_is_a_store_error(full):
    async with full._writer.begin() as connection:
        await connection.exec_driver_sql("DROP TABLE events")
    with pytest.raises(StoreError, match="no such table"):
        await full.get_call("call01")
