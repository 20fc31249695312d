"""Following a call: Server-Sent Events over a real connection."""

import asyncio
import json
from typing import Any

import httpx
import pytest

from bridge.events import (
    Answered,
    BargeIn,
    CallAnswered,
    DtmfReceived,
    FormCompleted,
    Held,
    MediaLost,
    Note,
    ProviderFailed,
    ToolCalled,
    TransferResult,
)


class Follower:
    """One client of an event stream."""

    def __init__(self, response: httpx.Response) -> None:
        self._lines = response.aiter_lines()
        self.comments = 0

    async def next(self) -> dict[str, Any] | None:
        """The next event, None at the end of the stream."""
        fields: dict[str, str] = {}
        async for line in self._lines:
            if line.startswith(":"):
                self.comments += 1
            elif line:
                name, _, value = line.partition(": ")
                fields[name] = value
            elif fields:
                return {"id": fields.get("id"), "event": fields["event"], "data": json.loads(fields["data"])}
        return None

    async def rest(self) -> list[dict[str, Any]]:
        found = []
        while (event := await self.next()) is not None:
            found.append(event)
        return found


async def follow(client: httpx.AsyncClient, call_id: str, **headers: str) -> list[dict[str, Any]]:
    async with client.stream("GET", f"/api/calls/{call_id}/events", headers=headers) as response:
        assert response.status_code == 200, await response.aread()
        assert response.headers["content-type"].startswith("text/event-stream")
        return await Follower(response).rest()


async def test_a_follower_sees_what_was_what_happens_and_the_end(api, client):
    api.bridge.begin("c1")
    api.log.record("c1", CallAnswered(1_790_000_001.0, 250.0))
    async with client.stream("GET", "/api/calls/c1/events") as response:
        follower = Follower(response)
        assert (await follower.next() or {})["event"] == "call_started"
        assert (await follower.next() or {})["event"] == "call_answered"
        for index in range(5):
            api.bridge.say("c1", index, f"sentence {index}")
            event = await follower.next()
            assert event is not None
            assert event["event"] == "turn_ended"
            assert event["id"] == str(index + 2)
            assert event["data"]["data"]["text"] == f"sentence {index}"
        api.bridge.end("c1")
        (last,) = await follower.rest()
    assert last["event"] == "call_ended"
    assert last["data"]["data"]["cause"] == "caller-hung-up"
    await api.until(lambda: api.live.followers == 0)


async def test_the_replay_of_an_ended_call_is_what_was_seen_live(api, client):
    api.bridge.begin("c1")
    live = asyncio.create_task(follow(client, "c1"))
    await api.until(lambda: api.live.followers == 1)
    for event in (
        Answered(),
        CallAnswered(1_790_000_001.0, 250.0),
        api.bridge.turn(0),
        BargeIn(1.5, True, "words", 200.0),
        ToolCalled(
            "book", {"when": "grüß \n 🎉", "n": float("nan"), "deep": [{"x": None}]}, True, "ok\r\n", 3.0, 4.0
        ),
        FormCompleted("booking", {"people": 4}, 5.0),
        ProviderFailed("tts", "local", "boom", 6.0),
        DtmfReceived("#", 100),
        Held(),
        MediaLost(1000),
        TransferResult(202, "Accepted"),
        Note("x", "y", 1.0),
        api.bridge.turn(1, "data: not\n\nevent: a-new-one\x00"),
    ):
        api.log.record("c1", event)
    api.bridge.end("c1")
    seen = await live
    assert len(seen) == 15
    replayed = await follow(client, "c1")
    # The record keeps texts as every database can.
    seen[13]["data"]["data"]["text"] = seen[13]["data"]["data"]["text"].replace("\x00", "")
    assert replayed == seen


async def test_who_comes_back_gets_only_what_is_new(api, client):
    api.bridge.whole_call("ended")
    assert [event["id"] for event in await follow(client, "ended", **{"Last-Event-ID": "1"})] == ["2", "3"]
    api.bridge.begin("live")
    api.bridge.say("live", 0)
    reading = asyncio.create_task(follow(client, "live", **{"Last-Event-ID": "0"}))
    await api.until(lambda: api.live.followers == 1)
    api.bridge.end("live")
    assert [event["id"] for event in await reading] == ["1", "2"]


@pytest.mark.parametrize("last", ["garbage", "-5", "²", ""])
async def test_a_number_that_is_none_means_from_the_start(api, client, last):
    api.bridge.whole_call("c1")
    raw = {"Last-Event-ID": last.encode("latin-1").decode("latin-1")} if last.isascii() else {}
    assert len(await follow(client, "c1", **raw)) == 4


async def test_a_silent_call_keeps_the_stream_alive(start):
    async with start(keepalive_s=0.02) as api, api.client() as client:
        api.bridge.begin("c1")
        async with client.stream("GET", "/api/calls/c1/events") as response:
            lines = response.aiter_lines()
            comments = 0
            async for line in lines:
                comments += line.startswith(":")
                if comments == 3:
                    break
        await api.until(lambda: api.live.followers == 0)


async def test_many_follow_one_call(api, client):
    api.bridge.begin("c1")
    readers = [asyncio.create_task(follow(client, "c1")) for _ in range(30)]
    await api.until(lambda: api.live.followers == 30)
    api.bridge.say("c1", 0)
    api.bridge.end("c1")
    for seen in await asyncio.gather(*readers):
        assert [event["event"] for event in seen] == ["call_started", "turn_ended", "call_ended"]


async def test_a_client_that_never_reads_holds_nobody_up_and_is_let_go_at_the_stop(api, client, caplog):
    api.bridge.begin("c1")
    reader, writer = await asyncio.open_connection("127.0.0.1", api.server.port, limit=1024)
    writer.write(
        b"GET /api/calls/c1/events HTTP/1.1\r\nHost: x\r\nX-API-Key: the-key-of-these-tests-0123456789\r\n\r\n"
    )
    await reader.readline()
    other = asyncio.create_task(follow(client, "c1"))
    await api.until(lambda: api.live.followers == 2)
    # Far more than socket buffers and the history hold.
    for index in range(6000):
        api.bridge.say("c1", index, "x" * 5000)
        if index % 50 == 0:
            await asyncio.sleep(0)
    history = api.live.find("c1")
    assert len(history._events) < 4000
    api.bridge.end("c1")
    assert (await other)[-1]["event"] == "call_ended"
    assert (await client.get("/healthz")).status_code == 200
    await api.server.aclose()
    await api.until(lambda: api.live.followers == 0)
    writer.close()
    assert "Exception" not in caplog.text


async def test_a_client_that_goes_away_leaves_nothing_behind(api, client):
    api.bridge.begin("c1")
    for _ in range(10):
        async with client.stream("GET", "/api/calls/c1/events") as response:
            assert await Follower(response).next() is not None
    await api.until(lambda: api.live.followers == 0)


async def test_too_many_streams_are_refused(start):
    async with start(max_streams=2) as api, api.client() as client:
        api.bridge.begin("c1")
        readers = [asyncio.create_task(follow(client, "c1")) for _ in range(2)]
        await api.until(lambda: api.live.followers == 2)
        response = await client.get("/api/calls/c1/events")
        assert response.status_code == 503
        assert response.json()["error"]["code"] == "too-many-streams"
        api.bridge.end("c1")
        await asyncio.gather(*readers)
        assert len(await follow(client, "c1")) == 2


async def test_the_stop_of_the_bridge_ends_the_streams(api, client):
    api.bridge.begin("c1")
    reading = asyncio.create_task(follow(client, "c1"))
    await api.until(lambda: api.live.followers == 1)
    await api.server.aclose()
    assert [event["event"] for event in await reading] == ["call_started"]
