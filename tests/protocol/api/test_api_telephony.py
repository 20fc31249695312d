"""Requests that reach a telephone system, and each way in which that can fail: its status, its code, its words."""

from collections.abc import Sequence
from typing import Any

import pytest

from bridge.legs.base import (
    BadTargetError,
    LegError,
    LegStateError,
    NotCapableError,
    NotPermittedError,
    PeerDownError,
    PeerRefusedError,
    PeerTimeoutError,
    TransferFailedError,
    UnknownTargetError,
)
from bridge.legs.media import MediaUnavailableError
from bridge.legs.supervision import NoSuchSupervisorError, Supervisor

REQUESTS: tuple[tuple[str, str, Any], ...] = (
    ("POST", "transfer", {"target": "PJSIP/1001"}),
    ("POST", "consult", {"target": "PJSIP/1001"}),
    ("DELETE", "consult", None),
    ("POST", "bridge", {}),
    ("DELETE", "bridge", None),
    ("PUT", "hold", None),
    ("DELETE", "hold", None),
    ("POST", "dtmf", {"digits": "1"}),
    ("PUT", "variables", {"variables": {"A": "x"}}),
    ("POST", "supervise", {"endpoint": "PJSIP/2001"}),
    ("GET", "supervise", None),
    ("PUT", "supervise/1", {"mode": "barge"}),
    ("DELETE", "supervise/1", None),
)

FAILURES: tuple[tuple[LegError, int, str], ...] = (
    (BadTargetError("no target"), 400, "bad-target"),
    (NotPermittedError("not in `dial`"), 403, "not-permitted"),
    (UnknownTargetError("no endpoint PJSIP/nix"), 404, "no-such-target"),
    (NoSuchSupervisorError("no supervisor 7"), 404, "no-such-supervisor"),
    (LegStateError("the call is not up"), 409, "wrong-state"),
    (LegError("another transfer is under way"), 409, "not-possible"),
    (TransferFailedError("the far end did not get through", 480), 409, "not-possible"),
    (NotCapableError("a call by sip has no variables"), 501, "not-supported"),
    (PeerRefusedError("POST channels: 500 Allocation failed"), 502, "trunk-refused"),
    (MediaUnavailableError("no RTP port is free"), 503, "no-ports"),
    (PeerDownError("no connection to Asterisk 'pbx'"), 503, "trunk-down"),
    (PeerTimeoutError("no answer within 5 s"), 504, "trunk-timeout"),
)


class Failing:
    """A live call, and its supervision, that fail whatever is asked."""

    def __init__(self, error: LegError) -> None:
        self._error = error

    @property
    def supervisors(self) -> Sequence[Supervisor]:
        raise self._error

    def begin_transfer(self, *_: Any, **__: Any) -> None:
        raise self._error

    begin_consult = bridge = unbridge = send_dtmf = begin_transfer

    async def release(self, *_: Any) -> None:
        raise self._error

    hold = set_variables = begin = change = stop = release


@pytest.mark.parametrize(("error", "status", "code"), FAILURES, ids=lambda value: str(value)[:40])
async def test_a_failure_has_its_status_whatever_was_asked(api, client, error, status, code) -> None:
    api.bridge.begin("c1")
    api.bridge.verbs["c1"] = api.bridge.supervisions["c1"] = Failing(error)
    for method, below, body in REQUESTS:
        answer = await client.request(method, f"/api/calls/c1/{below}", json=body)
        assert answer.status_code == status, (method, below)
        assert answer.json() == {"error": {"code": code, "message": str(error)}}
        assert ("retry-after" in answer.headers) == (status == 503)


async def test_the_description_has_every_status_that_such_a_request_may_get(client) -> None:
    paths = (await client.get("/openapi.json")).json()["paths"]
    described = {
        (method.upper(), path.removeprefix("/api/calls/{call_id}/").replace("{supervisor_id}", "1")): operation
        for path, methods in paths.items()
        for method, operation in methods.items()
    }
    wanted = {"401", *(str(status) for _, status, _ in FAILURES)}
    for method, below, _ in REQUESTS:
        assert wanted <= set(described[method, below]["responses"]), (method, below)


async def test_nobody_can_be_told_of_a_caller_in_a_queue(api, client) -> None:
    api.bridge.begin("c1")
    api.bridge.verbs["c1"] = Failing(LegError("never asked"))
    body = {"target": "queue:support", "mode": "attended", "announce": "Ada calls."}
    answer = await client.post("/api/calls/c1/transfer", json=body)
    assert answer.status_code == 400
    assert "nobody answers in queue:support before the caller is in the queue" in answer.json()["error"]["message"]


@pytest.mark.parametrize("to", ["dialplan:s@sales", "dialplan:100@ext-local,1", "queue:support", "PJSIP/1001"])
async def test_places_of_an_asterisk_can_be_dialled(api, client, to) -> None:
    answer = await client.post("/api/calls", json={"to": to, "trunk": "pbx", "agent": "echo"})
    assert answer.status_code == 202, answer.text
    assert api.bridge.dialled[0].to == to
