"""What the API says of a live call's supervisors: who is called, in which mode, and each refusal."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from bridge.legs.base import BadTargetError, LegError, LegStateError
from bridge.legs.supervision import Mode, NoSuchSupervisorError, Supervisor


class PaperSupervision:
    """Whoever is called answers at once; refuses it all when told to."""

    def __init__(self) -> None:
        self.present: dict[str, Supervisor] = {}
        self.refusal: LegError | None = None

    @property
    def supervisors(self) -> Sequence[Supervisor]:
        return tuple(self.present.values())

    async def begin(self, endpoint: str, mode: Mode) -> Supervisor:
        if self.refusal is not None:
            raise self.refusal
        one = Supervisor(str(len(self.present) + 1), endpoint, mode, "ringing")
        self.present[one.id] = replace(one, state="connected")
        return one

    async def change(self, id: str, mode: Mode) -> Supervisor:
        self.present[id] = replace(self._find(id), mode=mode)
        return self.present[id]

    async def stop(self, id: str) -> None:
        del self.present[self._find(id).id]

    def _find(self, id: str) -> Supervisor:
        if id not in self.present:
            raise NoSuchSupervisorError(f"no supervisor {id!r}")
        return self.present[id]


PATH = "/api/calls/c1/supervise"


@pytest.fixture
def supervision(api) -> PaperSupervision:
    api.bridge.begin("c1")
    made = PaperSupervision()
    api.bridge.supervisions["c1"] = made
    return made


async def test_a_supervisor_comes_changes_and_goes(client, supervision):
    answer = await client.post(PATH, json={"endpoint": "PJSIP/2001"})
    assert answer.status_code == 202
    assert answer.json() == {"id": "1", "endpoint": "PJSIP/2001", "mode": "listen", "state": "ringing"}
    answer = await client.put(f"{PATH}/1", json={"mode": "whisper"})
    changed = {"id": "1", "endpoint": "PJSIP/2001", "mode": "whisper", "state": "connected"}
    assert (answer.status_code, answer.json()) == (200, changed)
    assert (await client.get(PATH)).json() == {"supervisors": [changed]}
    assert (await client.delete(f"{PATH}/1")).status_code == 204
    assert (await client.get(PATH)).json() == {"supervisors": []}


async def test_nobody_under_this_id_is_a_404(client, supervision):
    for answer in (await client.put(f"{PATH}/7", json={"mode": "barge"}), await client.delete(f"{PATH}/7")):
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "no-such-supervisor")


@pytest.mark.parametrize(
    ("refusal", "status", "code"),
    [
        (BadTargetError("'sip:x@y': Asterisk calls SIP by an endpoint of its own"), 400, "bad-target"),
        (LegStateError("only a call that is up can be supervised"), 409, "wrong-state"),
    ],
)
async def test_a_refusal_says_why(client, supervision, refusal, status, code):
    supervision.refusal = refusal
    answer = await client.post(PATH, json={"endpoint": "PJSIP/2001"})
    assert answer.status_code == status
    assert answer.json()["error"] == {"code": code, "message": str(refusal)}


@pytest.mark.parametrize(
    ("method", "below", "body"),
    [
        ("POST", "", {"endpoint": "PJSIP/2001"}),
        ("GET", "", None),
        ("PUT", "/1", {"mode": "barge"}),
        ("DELETE", "/1", None),
    ],
)
async def test_calls_that_can_not_be_supervised(api, client, method, below, body):
    api.bridge.begin("c1")
    api.bridge.whole_call("over")
    for call, expected in {
        "c1": (501, "not-supported"),
        "over": (409, "call-ended"),
        "nobody": (404, "no-such-call"),
    }.items():
        answer = await client.request(method, f"/api/calls/{call}/supervise{below}", json=body)
        assert (answer.status_code, answer.json()["error"]["code"]) == expected


@pytest.mark.parametrize(
    "body", [{}, {"endpoint": "PJSIP/1", "mode": "shout"}, {"endpoint": "PJSIP/1", "x": 1}, {"mode": "listen"}]
)
async def test_a_wrong_request_is_a_400_and_calls_nobody(client, supervision, body):
    assert (await client.post(PATH, json=body)).status_code == 400
    assert supervision.supervisors == ()
