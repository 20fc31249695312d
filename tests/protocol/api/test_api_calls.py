"""Calls over HTTP: listed, looked at, dialled, hung up, and every error in one form."""

from dataclasses import replace

import pytest

from bridge.api.control import DialRefused
from bridge.events import Note


def code(response) -> tuple[int, str]:
    body = response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"code", "message"}
    return response.status_code, body["error"]["code"]


async def test_a_call_is_seen_as_soon_as_it_is_recorded(api, client):
    for number in range(20):
        api.bridge.begin(f"c{number}", leg_id=f"leg-{number}@phone")
        found = (await client.get("/api/calls", params={"leg_id": f"leg-{number}@phone"})).json()["calls"]
        assert [call["id"] for call in found] == [f"c{number}"]
        assert found[0]["state"] == "ringing"


async def test_a_call_is_shown_with_its_turns_events_and_full_numbers(api, client):
    api.bridge.whole_call("c1", recording="c1.wav")
    call = (await client.get("/api/calls/c1")).json()
    assert call["from"] == "+4930123456"
    assert (call["state"], call["cause"], call["setup_ms"]) == ("ended", "caller-hung-up", 250.0)
    assert call["recording"] == "/api/calls/c1/recording"
    assert call["started_at"] == "2026-09-21T14:13:20Z"
    assert call["quality"] == {"packets_lost": 3.0}
    (turn,) = call["turns"]
    assert (turn["speaker"], turn["text"], turn["heard_text"], turn["interrupted"]) == (
        "agent",
        "Good evening",
        "Good",
        True,
    )
    assert turn["delays"] == {
        "endpoint_ms": 300.0,
        "stt_ms": 0.0,
        "llm_ms": 12.5,
        "tts_ms": 140.0,
        "reply_ms": 560.0,
        "llm": "openai/gpt-4.1-mini",
        "tools_ms": None,
        "clause_ms": 80.0,
        "playout_ms": 15.0,
        "ahead_ms": None,
        "stt": "deepgram",
        "tts": "cartesia",
    }
    assert [event["name"] for event in call["events"]] == ["call_started", "call_answered", "call_ended"]


async def test_pages_follow_the_cursor(api, client):
    for number in range(25):
        api.bridge.begin(f"c{number:02}", at=1_790_000_000.0 + number)
    seen: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = (await client.get("/api/calls", params={"limit": 10, **cursor})).json()
        seen += [call["id"] for call in page["calls"]]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert seen == [f"c{number:02}" for number in reversed(range(25))]


async def test_filters_reach_the_record(api, client):
    api.bridge.whole_call("c1")
    api.bridge.begin("c2", agent="echo", at=1_790_000_100.0)

    async def ids(**params: object) -> list[str]:
        response = await client.get("/api/calls", params=params)
        assert response.status_code == 200, response.text
        return [call["id"] for call in response.json()["calls"]]

    assert await ids() == ["c2", "c1"]
    assert await ids(agent="echo") == ["c2"]
    assert await ids(cause="caller-hung-up") == ["c1"]
    assert await ids(since="2026-09-21T14:14:00Z") == ["c2"]
    assert await ids(until="2026-09-21T16:14:00+02:00") == ["c1"]
    assert await ids(direction="outbound") == []
    assert await ids(live="false") == ["c1"]
    assert await ids(live="true") == ["c2"]
    assert await ids(live="true", agent="receptionist") == []
    assert await ids(live="true", leg_id="c2@pbx", since="2026-09-21T14:14:00Z", direction="inbound") == ["c2"]


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": 10_000}, "limit"),
        ({"cause": "boredom"}, "cause"),
        ({"since": "yesterday"}, "since"),
        ({"since": "2026-09-21T14:14:00"}, "since"),
        ({"live": "maybe"}, "live"),
        ({"direction": "sideways"}, "direction"),
        ({"cursor": "made-up"}, "cursor"),
    ],
)
async def test_a_wrong_filter_is_a_400_that_names_it(client, params, field):
    response = await client.get("/api/calls", params=params)
    assert code(response) == (400, "invalid-request")
    assert response.json()["error"]["message"].startswith(f"{field}: ")


async def test_what_is_not_there_is_a_404(client):
    assert code(await client.get("/api/calls/nobody")) == (404, "no-such-call")
    assert code(await client.delete("/api/calls/nobody")) == (404, "no-such-call")
    assert code(await client.get("/api/calls/nobody/events")) == (404, "no-such-call")
    assert code(await client.get("/api/calls/nobody/recording")) == (404, "no-such-call")
    assert code(await client.get("/nope")) == (404, "not-found")
    assert code(await client.get("/api/calls/")) == (404, "not-found")
    assert code(await client.put("/api/calls")) == (405, "method-not-allowed")
    assert code(await client.get("/api/calls/" + "x" * 100)) == (400, "invalid-request")
    assert code(await client.get("/api/calls/%00")) == (400, "invalid-request")


async def test_dialling_is_accepted_with_the_call_s_id(api, client):
    response = await client.post(
        "/api/calls",
        json={"to": "sip:+4930123456@10.0.0.5:5070;transport=udp", "agent": "echo", "from": "100", "timeout_s": 20},
    )
    assert response.status_code == 202
    assert response.json() == {"id": "dialled1"}
    assert response.headers["location"] == "/api/calls/dialled1"
    (request,) = api.bridge.dialled
    assert (request.to, request.agent) == ("sip:+4930123456@10.0.0.5:5070;transport=udp", "echo")
    assert (request.from_, request.timeout_s) == ("100", 20)
    assert (await client.get("/api/calls/dialled1")).json()["direction"] == "outbound"


WRONG_DIALS = (
    {},
    {"to": "sip:a@b"},
    {"agent": "echo"},
    {"to": "a@b", "agent": "echo"},
    {"to": "http://a@b", "agent": "echo"},
    {"to": "sip:a@b\r\nRoute: <sip:evil>", "agent": "echo"},
    {"to": "sip:a@b\n", "agent": "echo"},
    {"to": "sip:a@b>;x=<", "agent": "echo"},
    {"to": "sip:a b@c", "agent": "echo"},
    {"to": "sip:a@b\u0000", "agent": "echo"},
    {"to": "sip:" + "a" * 300, "agent": "echo"},
    {"to": 5, "agent": "echo"},
    {"to": "sip:a@b", "agent": ""},
    {"to": "sip:a@b", "agent": "echo", "from": "x\r\ny"},
    {"to": "sip:a@b", "agent": "echo", "from": "x>"},
    {"to": "sip:a@b", "agent": "echo", "timeout_s": 0},
    {"to": "sip:a@b", "agent": "echo", "timeout_s": 1e9},
    {"to": "sip:a@b", "agent": "echo", "timeout_s": "NaN"},
    {"to": "sip:a@b", "agent": "echo", "surprise": 1},
    [],
    "sip:a@b",
    None,
)


async def test_a_wrong_request_to_dial_is_refused_before_the_bridge_sees_it(api, client):
    for body in WRONG_DIALS:
        assert code(await client.post("/api/calls", json=body)) == (400, "invalid-request"), body
    assert api.bridge.dialled == []


async def test_what_can_not_be_dialled_is_told_what_can(client):
    answer = await client.post("/api/calls", json={"to": "agent smith", "agent": "echo"})
    message = answer.json()["error"]["message"]
    assert message.startswith(
        "to: 'agent smith' can't be dialled: it is a SIP URI (sip:USER@HOST), with `trunk` a number"
    )
    assert "PJSIP/1001" in message


async def test_a_body_that_is_no_json_is_a_400(client):
    for content in (b"", b"{", b"\xff\xfe", b"[" * 10_000):
        response = await client.post("/api/calls", content=content, headers={"Content-Type": "application/json"})
        assert code(response) == (400, "invalid-request"), content[:10]


async def test_a_huge_body_is_refused_whether_its_size_is_told_or_not(client):
    async def pieces():
        for _ in range(100):
            yield b" " * 10_000

    headers = {"Content-Type": "application/json"}
    assert code(await client.post("/api/calls", content=b" " * 100_000, headers=headers)) == (413, "too-large")
    assert code(await client.post("/api/calls", content=pieces(), headers=headers)) == (413, "too-large")


async def test_a_refused_dial_is_told_as_the_bridge_says(api, client):
    api.bridge.refusal = DialRefused(503, "draining", "the bridge stops and takes no new calls")
    response = await client.post("/api/calls", json={"to": "sip:a@b", "agent": "echo"})
    assert code(response) == (503, "draining")
    assert "takes no new calls" in response.json()["error"]["message"]


async def test_live_call_shows_how_its_media_is_doing(api, client):
    api.bridge.begin("c1")
    calls = api.bridge.calls
    calls["c1"] = replace(calls["c1"], quality={"mos": 4.2}, codec="PCMU", one_way="no audio from the caller")
    (call,) = (await client.get("/api/calls", params={"live": "true"})).json()["calls"]
    assert (call["quality"], call["codec"], call["srtp"]) == ({"mos": 4.2}, "PCMU", "")
    assert call["one_way"] == "no audio from the caller"


async def test_hanging_up_ends_a_live_call_once(api, client):
    api.bridge.begin("c1")
    response = await client.delete("/api/calls/c1")
    assert (response.status_code, response.content) == (204, b"")
    assert code(await client.delete("/api/calls/c1")) == (409, "call-ended")
    assert (await client.get("/api/calls/c1")).json()["cause"] == "api-hung-up"


async def test_a_crash_in_a_route_is_a_500_in_the_same_form_and_the_next_request_works(api, client):
    api.metrics.register(lambda: {"Not A Name": 1.0})
    response = await client.get("/metrics")
    assert code(response) == (500, "internal-error")
    assert "Not A Name" not in response.text
    assert (await client.get("/api/calls")).status_code == 200


async def test_answers_are_for_no_cache_and_of_no_other_type(api, client):
    for path in ("/api/calls", "/metrics", "/docs", "/nope"):
        response = await client.get(path)
        assert response.headers["cache-control"] == "no-store"
        assert response.headers["x-content-type-options"] == "nosniff"
        assert "server" not in response.headers


# -- health -------------------------------------------------------------------------------------------------


async def test_the_probes_say_one_word_to_strangers_and_the_reasons_to_who_has_the_key(api, client):
    async with api.client(key=None) as stranger:
        assert (await stranger.get("/healthz")).json() == {"status": "ok"}
        assert (await stranger.get("/readyz")).json() == {"status": "ready"}
        assert (await client.get("/readyz")).json() == {"status": "ready", "reasons": [], "live_calls": 0}
        api.bridge.reasons = ["draining: 1 call is left"]
        api.bridge.begin("c1")
        response = await stranger.get("/readyz")
        assert (response.status_code, response.json()) == (503, {"status": "not-ready"})
        response = await client.get("/readyz")
        assert response.status_code == 503
        assert response.json() == {
            "status": "not-ready",
            "reasons": ["draining: 1 call is left"],
            "live_calls": 1,
        }
        assert (await stranger.get("/healthz")).status_code == 200


async def test_metrics_count_calls_and_requests_by_route(api, client):
    api.bridge.whole_call("c1")
    await client.get("/api/calls/c1")
    await client.get("/api/calls/c2")
    await client.get("/whatever/123")
    async with api.client(key=None) as stranger:
        await stranger.get("/secret/path")
    text = (await client.get("/metrics")).text
    assert 'offhook_calls_ended_total{agent="receptionist",cause="caller-hung-up",direction="inbound"} 1.0' in text
    assert 'offhook_http_requests_total{method="GET",route="/api/calls/{call_id}",status="200"} 1.0' in text
    assert 'offhook_http_requests_total{method="GET",route="/api/calls/{call_id}",status="404"} 1.0' in text
    assert 'offhook_http_requests_total{method="GET",route="unmatched",status="404"} 1.0' in text
    assert 'offhook_http_requests_total{method="GET",route="unmatched",status="401"} 1.0' in text
    assert "whatever" not in text
    assert "process_resident_memory_bytes" in text
    assert "offhook_record_events_written_total 4.0" in text
    assert "offhook_record_events_queued 0.0" in text


# -- a record that fails ------------------------------------------------------------------------------------


async def test_a_broken_record_is_a_503_and_live_calls_can_still_be_seen_and_hung_up(api, client):
    api.bridge.begin("c1")
    assert (await client.get("/api/calls/c1")).status_code == 200
    async with api.store._writer.begin() as connection:
        for table in ("events", "turns", "calls"):
            await connection.exec_driver_sql(f"DROP TABLE {table}")
    assert code(await client.get("/api/calls")) == (503, "record-unavailable")
    assert code(await client.get("/api/calls/c1")) == (503, "record-unavailable")
    live = (await client.get("/api/calls", params={"live": "true"})).json()["calls"]
    assert [call["id"] for call in live] == ["c1"]
    api.bridge.say("c1", 0)
    await api.until(lambda: api.log.problem is not None)
    response = await client.get("/readyz")
    assert response.status_code == 503
    assert "the record can't be written" in response.json()["reasons"][0]
    async with client.stream("GET", "/api/calls/c1/events") as stream:
        assert (await client.delete("/api/calls/c1")).status_code == 204
        names = [line async for line in stream.aiter_lines() if line.startswith("event: ")]
    assert names == ["event: call_started", "event: turn_ended", "event: call_ended"]


# -- description --------------------------------------------------------------------------------------------


async def test_every_route_is_described_with_its_errors_and_nothing_else_is(api, client):
    schema = (await client.get("/openapi.json")).json()
    assert set(schema["paths"]) == {
        "/api/calls",
        "/api/calls/{call_id}",
        "/api/calls/{call_id}/events",
        "/api/calls/{call_id}/recording",
        "/api/calls/{call_id}/transfer",
        "/api/calls/{call_id}/consult",
        "/api/calls/{call_id}/bridge",
        "/api/calls/{call_id}/hold",
        "/api/calls/{call_id}/dtmf",
        "/api/calls/{call_id}/variables",
        "/api/calls/{call_id}/supervise",
        "/api/calls/{call_id}/supervise/{supervisor_id}",
        "/api/calls/{call_id}/trace",
        "/api/calls/{call_id}/pcap",
        "/api/sip/trace",
        "/api/trunks",
        "/api/trunks/{name}/register",
        "/api/asterisk",
        "/api/asterisk/{name}/reconnect",
        "/api/asterisk/{name}/queues",
        "/api/asterisk/{name}/devices/{device}",
        "/api/bans",
        "/api/bans/{source}",
        "/healthz",
        "/readyz",
        "/metrics",
    }
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            assert operation["summary"], (method, path)
            assert operation["description"], (method, path)
            assert "422" not in operation["responses"], (method, path)
            assert operation["responses"]["401"]["content"]["application/json"]["schema"] == {
                "$ref": "#/components/schemas/ErrorBody"
            }
    assert "HTTPValidationError" not in schema["components"]["schemas"]
    assert schema["security"] == [{"bearer": []}, {"header": []}]


async def test_the_page_of_the_description_needs_nothing_from_elsewhere(client):
    response = await client.get("/docs")
    assert response.headers["content-type"].startswith("text/html")
    assert "/api/calls/{call_id}/recording" in response.text
    assert "<script" not in response.text
    assert "http://" not in response.text
    assert "https://" not in response.text
    assert "default-src 'none'" in response.headers["content-security-policy"]


async def test_a_note_says_why_there_is_no_recording(api, client):
    api.bridge.whole_call("c1", extra=[Note("recording-unavailable", "no space left on device", 5.0)])
    response = await client.get("/api/calls/c1/recording")
    assert code(response) == (404, "no-recording")
    assert "no space left on device" in response.json()["error"]["message"]
