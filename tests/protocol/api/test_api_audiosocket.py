"""Announcing calls by AudioSocket and asking for their end, as a dialplan's CURL() and a program do."""

import uuid
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI

from bridge.api.audiosocket import audiosocket_router
from bridge.api.edge import Edge
from bridge.api.errors import install_handlers
from bridge.asterisk.dialplan_calls import ANNOUNCED_S, Announcement, DialplanCalls
from bridge.events import Cause

CALL = uuid.UUID("40325ec2-5efd-4bd3-805f-53576e581d13")
PATH = f"/api/audiosocket/{CALL}"


class Box:
    def __init__(self) -> None:
        self.calls = DialplanCalls()
        self.configured = True
        self.now = 100.0
        app = FastAPI()
        install_handlers(app)
        app.include_router(
            audiosocket_router(lambda: self.calls if self.configured else None, lambda: self.now), prefix=""
        )
        app.add_middleware(Edge, counted=lambda *_: None)
        self.app = app
        self.http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://box")

    def announced(self) -> Announcement:
        found = self.calls.begin(CALL, self.now)
        assert found is not None
        return found


@pytest.fixture
async def box() -> AsyncIterator[Box]:
    made = Box()
    async with made.http:
        yield made


async def test_a_program_announces_a_call(box: Box) -> None:
    answer = await box.http.put(
        PATH,
        json={
            "from": "+4930123",
            "to": "700",
            "name": "Ada",
            "agent": "sales",
            "version": "16.28.0",
            "follows": False,
            "variables": {"Campaign": "spring\r\nsale"},
        },
    )
    assert answer.status_code == 204
    assert box.announced() == Announcement(
        from_="+4930123",
        to="700",
        display_name="Ada",
        agent="sales",
        version="16.28.0",
        follows=False,
        variables={"campaign": "spring sale"},
    )


async def test_a_form_has_what_stasis_takes_as_arguments(box: Box) -> None:
    answer = await box.http.post(
        PATH,
        content="from=1001&to=702&agent=desk&args=campaign%3Dspring+sale%2Cagent%3Dsales%2Cdid%3D%2B4930%2Cvip&call-id=ab@c"
        "&asterisk-channel=PJSIP%2Fcarrier-00000001",
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    )
    assert answer.status_code == 200
    announced = box.announced()
    assert (announced.agent, announced.to) == ("sales", "+4930")
    assert announced.variables == {
        "campaign": "spring sale",
        "agent": "sales",
        "did": "+4930",
        "arg4": "vip",
        "call-id": "ab@c",
        "asterisk-channel": "PJSIP/carrier-00000001",
    }


@pytest.mark.parametrize("number", ["%2B4930123", "+4930123"])
async def test_a_dialplan_announces_a_call_by_a_form(box: Box, number: str) -> None:
    answer = await box.http.post(
        PATH,
        content=f"from={number}&to=700&name=Ada+Byron&agent=&version=22.10.1&campaign=spring",
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    )
    assert (answer.status_code, answer.text) == (200, "OK")
    announced = box.announced()
    assert announced == Announcement(
        from_="+4930123", to="700", display_name="Ada Byron", version="22.10.1", variables={"campaign": "spring"}
    )
    assert announced.sends_digits and announced.follows


async def test_a_call_can_be_announced_with_nothing_known(box: Box) -> None:
    assert (await box.http.post(PATH)).text == "OK"
    assert box.announced() == Announcement()


async def test_a_form_says_that_the_dialplan_does_not_go_on(box: Box) -> None:
    await box.http.post(PATH, content="follows=no")
    assert not box.announced().follows


@pytest.mark.parametrize("body", ["no form", "a b=1", "1x=2", "x" * 65 + "=1", "\xff=1"])
async def test_what_is_no_announcement_is_refused(box: Box, body: str) -> None:
    answer = await box.http.post(PATH, content=body.encode("latin-1"))
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "invalid-request"


async def test_too_many_variables_are_refused(box: Box) -> None:
    many = {f"v{index}": "x" for index in range(100)}
    assert (await box.http.put(PATH, json={"variables": many})).status_code == 400
    assert (await box.http.post(PATH, data=many)).status_code == 400
    assert (await box.http.post(PATH, content="a=" + "x" * 70_000)).status_code == 413


async def test_a_live_call_can_not_be_announced_again(box: Box) -> None:
    await box.http.put(PATH, json={})
    box.announced()
    assert (await box.http.put(PATH, json={})).status_code == 409
    assert (await box.http.post(PATH)).json()["error"]["code"] == "call-live"


async def test_the_life_of_a_call_as_a_dialplan_sees_it(box: Box) -> None:
    async def value(field: str) -> str:
        return (await box.http.get(PATH, params={"field": field})).text

    assert await value("status") == "UNKNOWN"
    await box.http.post(PATH, content="from=100")
    assert await value("status") == "ANNOUNCED"
    box.announced()
    assert await value("status") == "LIVE"
    box.calls.set_variables(CALL, {"OFFHOOK_CALL_ID": "abc", "OFFHOOK_SUMMARY": "Wants bicycles.\nTen."})
    box.calls.send_to(CALL, "dialplan:200@sales,3")
    box.calls.end(CALL, Cause.TRANSFERRED, "dialplan:200@sales,3", box.now, was_up=True)
    assert [await value(name) for name in ("status", "kind", "context", "extension", "priority")] == [
        "TRANSFER",
        "dialplan",
        "sales",
        "200",
        "3",
    ]
    assert await value("OFFHOOK_SUMMARY") == "Wants bicycles. Ten."
    assert await value("queue") == ""
    text = (await box.http.get(PATH, params={"format": "text"})).text
    assert "status=TRANSFER\n" in text and "OFFHOOK_CALL_ID=abc\n" in text


async def test_the_end_of_a_call_as_a_program_sees_it(box: Box) -> None:
    await box.http.put(PATH, json={})
    box.announced()
    box.calls.send_to(CALL, "queue:support")
    box.calls.end(CALL, Cause.TRANSFERRED, "queue:support", box.now, was_up=True)
    answer = await box.http.get(PATH)
    assert answer.json() == {
        "uuid": str(CALL),
        "status": "TRANSFER",
        "cause": "transferred",
        "detail": "queue:support",
        "target": "queue:support",
        "kind": "queue",
        "context": "",
        "extension": "",
        "priority": "",
        "queue": "support",
        "endpoint": "",
        "variables": {},
    }


async def test_an_unknown_call_is_not_found(box: Box) -> None:
    answer = await box.http.get(PATH)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "no-such-call")
    await box.http.put(PATH, json={})
    box.now += ANNOUNCED_S
    assert (await box.http.get(PATH)).status_code == 404
    assert (await box.http.get("/api/audiosocket/none")).status_code == 400


async def test_without_a_trunk_nothing_can_be_announced(box: Box) -> None:
    box.configured = False
    assert (await box.http.put(PATH, json={})).json()["error"]["code"] == "not-configured"
    assert (await box.http.get(PATH)).status_code == 404


async def test_the_description_can_be_made(box: Box) -> None:
    schema = box.app.openapi()
    assert set(schema["paths"]["/api/audiosocket/{uuid}"]) == {"put", "post", "get"}
