"""What the API does to live calls: each request reaches the call, and its refusals come back as 409."""

import pytest

from bridge.legs.base import LegError, LegStateError


class PaperCall:
    """Notes what is asked of it; refuses it all when told to."""

    def __init__(self) -> None:
        self.asked: list[tuple[object, ...]] = []
        self.refusal: LegError | None = None

    def _note(self, *what: object) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.asked.append(what)

    def begin_transfer(self, target: str, mode: str = "auto", *, announce: str = "") -> None:
        self._note("transfer", target, mode, *([announce] if announce else []))

    def begin_consult(self, target: str, *, caller: str = "waits") -> None:
        self._note("consult", target, caller)

    def bridge(self, agent: str = "muted") -> None:
        self._note("bridge", agent)

    def unbridge(self) -> None:
        self._note("unbridge")

    async def release(self) -> None:
        self._note("release")

    async def hold(self, on: bool) -> None:
        self._note("hold", on)

    def send_dtmf(self, digits: str) -> None:
        self._note("dtmf", digits)

    async def set_variables(self, values: dict[str, str]) -> None:
        self._note("variables", values)


REQUESTS = [
    ("POST", "transfer", {"target": "sip:desk@10.0.0.1"}, 202, ("transfer", "sip:desk@10.0.0.1", "auto")),
    ("POST", "transfer", {"target": "+4930123", "mode": "attended"}, 202, ("transfer", "+4930123", "attended")),
    ("POST", "transfer", {"target": "queue:support"}, 202, ("transfer", "queue:support", "auto")),
    ("POST", "transfer", {"target": "dialplan:s@sales,2"}, 202, ("transfer", "dialplan:s@sales,2", "auto")),
    (
        "POST",
        "transfer",
        {"target": "PJSIP/1001", "mode": "attended", "announce": "Ada calls."},
        202,
        ("transfer", "PJSIP/1001", "attended", "Ada calls."),
    ),
    ("POST", "consult", {"target": "200"}, 202, ("consult", "200", "waits")),
    ("POST", "consult", {"target": "200", "caller": "talks"}, 202, ("consult", "200", "talks")),
    ("DELETE", "consult", None, 204, ("release",)),
    ("POST", "bridge", {}, 204, ("bridge", "muted")),
    ("POST", "bridge", {"agent": "mixed"}, 204, ("bridge", "mixed")),
    ("DELETE", "bridge", None, 204, ("unbridge",)),
    ("PUT", "hold", None, 204, ("hold", True)),
    ("DELETE", "hold", None, 204, ("hold", False)),
    ("POST", "dtmf", {"digits": "12#"}, 204, ("dtmf", "12#")),
    ("PUT", "variables", {"variables": {"A_1": "x"}}, 204, ("variables", {"A_1": "x"})),
]


@pytest.fixture
def call(api) -> PaperCall:
    api.bridge.begin("c1")
    made = PaperCall()
    api.bridge.verbs["c1"] = made
    return made


@pytest.mark.parametrize(("method", "verb", "body", "status", "asked"), REQUESTS)
async def test_a_request_reaches_the_call(client, call, method, verb, body, status, asked):
    response = await client.request(method, f"/api/calls/c1/{verb}", json=body)
    assert response.status_code == status, response.text
    assert call.asked == [asked]


@pytest.mark.parametrize(("method", "verb", "body", "status", "asked"), REQUESTS)
async def test_what_does_not_fit_the_call_is_a_409_that_says_why(client, call, method, verb, body, status, asked):
    call.refusal = LegStateError("the call is not up")
    response = await client.request(method, f"/api/calls/c1/{verb}", json=body)
    assert response.status_code == 409
    assert response.json()["error"] == {"code": "wrong-state", "message": "the call is not up"}
    call.refusal = LegError("this call can dial nobody")
    response = await client.request(method, f"/api/calls/c1/{verb}", json=body)
    assert response.json()["error"]["code"] == "not-possible"


@pytest.mark.parametrize(("method", "verb", "body", "status", "asked"), REQUESTS)
async def test_nothing_can_be_done_to_a_call_that_is_not_live(api, client, method, verb, body, status, asked):
    api.bridge.whole_call("over")
    gone = await client.request(method, f"/api/calls/over/{verb}", json=body)
    assert (gone.status_code, gone.json()["error"]["code"]) == (409, "call-ended")
    nobody = await client.request(method, f"/api/calls/nobody/{verb}", json=body)
    assert (nobody.status_code, nobody.json()["error"]["code"]) == (404, "no-such-call")


@pytest.mark.parametrize(
    ("verb", "body"),
    [
        ("transfer", {}),
        ("transfer", {"target": ""}),
        ("transfer", {"target": "desk@10.0.0.1"}),
        ("transfer", {"target": "tel:+4930123"}),
        ("transfer", {"target": "sip:a@b\r\nX: y"}),
        ("transfer", {"target": "sip:a@b>;x=<"}),
        ("transfer", {"target": "sip:a@b?Replaces=x"}),
        ("transfer", {"target": "200", "mode": "magic"}),
        ("transfer", {"target": "200", "extra": 1}),
        ("transfer", {"target": "200", "announce": "Ada calls."}),
        ("transfer", {"target": "200", "mode": "attended", "announce": "x" * 2001}),
        ("transfer", {"target": "queue:a b"}),
        ("transfer", {"target": "dialplan:s"}),
        ("transfer", {"target": "PJSIP/10&PJSIP/11"}),
        ("consult", {"target": "Local/s@x,n"}),
        ("consult", {"target": "200", "caller": "sleeps"}),
        ("bridge", {"agent": "asleep"}),
        ("dtmf", {"digits": "12x"}),
        ("dtmf", {"digits": ""}),
    ],
)
async def test_a_wrong_request_is_a_400_and_asks_nothing(client, call, verb, body):
    assert (await client.post(f"/api/calls/c1/{verb}", json=body)).status_code == 400
    assert call.asked == []


@pytest.mark.parametrize(
    "variables",
    [{}, {"A B": "x"}, {"CALLERID(num)": "x"}, {"OFFHOOK_STATUS": "x"}, {"A": 1}, {f"A{n}": "" for n in range(51)}],
)
async def test_variables_that_nobody_may_set_are_a_400(client, call, variables):
    response = await client.put("/api/calls/c1/variables", json={"variables": variables})
    assert response.status_code == 400, response.text
    assert call.asked == []
