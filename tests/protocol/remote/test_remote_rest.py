"""The carriers' REST verbs on a bot's live call, through the official SDKs and by hand."""

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest
from remote_bot import Bot
from remote_call import SECRET, BotCall
from starlette.applications import Starlette
from telnyx import AsyncTelnyx, AuthenticationError, UnprocessableEntityError

from bridge.api.carrier import CarrierRest
from bridge.api.server import HttpServer
from bridge.events import Cause

Begin = Callable[..., BotCall]


@pytest.fixture
async def rest(call: Begin) -> AsyncIterator[tuple[str, list[BotCall]]]:
    """The base URL of an API, and the calls it finds."""
    calls: list[BotCall] = []

    def find(call_id: str) -> object:
        return next((found for one in calls if (found := one.agent.calls.get(call_id))), None)

    server = HttpServer(CarrierRest(Starlette(), find=find), "127.0.0.1", 0)  # type: ignore[arg-type] # a subset
    await server.start()
    yield f"http://127.0.0.1:{server.port}", calls
    await server.aclose()


@pytest.fixture
async def one(bot: Bot, call: Begin, rest: tuple[str, list[BotCall]]) -> BotCall:
    begun = call(transfer_to=["sip:*@pbx.example"])
    rest[1].append(begun)
    await bot.event("start")
    return begun


def twilio(base: str, secret: str = SECRET) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=f"{base}/2010-04-01/Accounts/AC1/Calls", auth=("AC1", secret), trust_env=False)


async def test_bot_hangs_up_as_its_carrier_lets_it(bot: Bot, one: BotCall, rest: tuple[str, list[BotCall]]) -> None:
    if bot.protocol == "twilio":
        async with twilio(rest[0]) as http:
            answer = await http.post(f"/{bot.call_sid}.json", data={"Status": "completed"})
            assert answer.json()["status"] == "completed"
    else:
        async with AsyncTelnyx(api_key=SECRET, base_url=f"{rest[0]}/v2", max_retries=0) as client:
            answer = await client.calls.actions.hangup(bot.call_sid)
            assert answer.data is not None
            assert answer.data.result == "ok"
    assert (await one.done()).cause is Cause.AGENT_HUNG_UP


async def test_bot_transfers_to_allowed_targets_alone(
    bot: Bot, one: BotCall, rest: tuple[str, list[BotCall]]
) -> None:
    forbidden, allowed = "sip:200@elsewhere.example", "sip:200@pbx.example"
    if bot.protocol == "twilio":
        async with twilio(rest[0]) as http:

            async def dial(target: str) -> httpx.Response:
                twiml = f"<Response><Dial><Sip>{target}</Sip></Dial></Response>"
                return await http.post(f"/{bot.call_sid}.json", data={"Twiml": twiml})

            refused = await dial(forbidden)
            assert (refused.status_code, refused.json()["code"]) == (400, 13224)
            assert one.leg.transfers == []
            assert (await dial(allowed)).status_code == 200
    else:
        async with AsyncTelnyx(api_key=SECRET, base_url=f"{rest[0]}/v2", max_retries=0) as client:
            with pytest.raises(UnprocessableEntityError, match="transfer_to"):
                await client.calls.actions.transfer(bot.call_sid, to=forbidden)
            assert one.leg.transfers == []
            await client.calls.actions.transfer(bot.call_sid, to=allowed)
    assert (await one.done()).cause is Cause.TRANSFERRED
    assert one.leg.transfers == [allowed]


async def test_wrong_secret_learns_nothing(bot: Bot, one: BotCall, rest: tuple[str, list[BotCall]]) -> None:
    unknown = "CA" + "0" * 32
    async with twilio(rest[0], "wrong") as http, twilio(rest[0]) as right:
        answers = [
            await http.post(f"/{bot.call_sid}.json", data={"Status": "completed"}),
            await http.post(f"/{unknown}.json", data={"Status": "completed"}),
            await right.post(f"/{unknown}.json", data={"Status": "completed"}),
        ]
    assert [answer.status_code for answer in answers] == [401, 401, 401]
    assert len({answer.text for answer in answers}) == 1
    async with AsyncTelnyx(api_key="wrong", base_url=f"{rest[0]}/v2", max_retries=0) as client:
        with pytest.raises(AuthenticationError):
            await client.calls.actions.hangup(bot.call_sid)
    assert not one.task.done()


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400),
        ({"Status": "ringing"}, 400),
        ({"Twiml": "<Response><Say>hi</Say></Response>"}, 400),
        ({"Twiml": '<!DOCTYPE x [<!ENTITY a "b">]><Response><Dial>&a;</Dial></Response>'}, 400),
        ({"Twiml": "<Response>"}, 400),
        ({"Twiml": "x" * 100_000}, 400),
        ({"Twiml": "<Response><Hangup/></Response>"}, 200),
    ],
)
async def test_what_a_call_can_be_updated_with(
    bot: Bot, one: BotCall, rest: tuple[str, list[BotCall]], body: dict[str, str], status: int
) -> None:
    sid = bot.call_sid if bot.protocol == "twilio" else f"CA{one.id}"
    async with twilio(rest[0]) as http:
        assert (await http.post(f"/{sid}.json", data=body)).status_code == status
    await asyncio.sleep(0)
    assert one.task.done() is False or status == 200


@pytest.mark.parametrize(
    "path", ["/v2/calls/", "/v2/calls/x", "/v2/calls/v3:x/actions/hangup", "/2010-04-01/Accounts/"]
)
async def test_paths_that_there_are_not_say_no_more_than_a_wrong_key(
    rest: tuple[str, list[BotCall]], path: str
) -> None:
    basic = base64.b64encode(b"AC:").decode()
    async with httpx.AsyncClient(base_url=rest[0], trust_env=False) as http:
        for headers in ({}, {"Authorization": f"Basic {basic}"}, {"Authorization": "Bearer"}):
            assert (await http.post(path, headers=headers)).status_code == 401


def test_the_secret_is_named_not_written(tmp_path: Path) -> None:
    from bridge.agents.remote import RemoteCalls, make_remote
    from bridge.agents.remote_settings import RemoteSettings

    with pytest.raises(ValueError, match="OFFHOOK_NO_SUCH"):
        make_remote("bot", RemoteSettings(url=("ws://x/",), password_env="OFFHOOK_NO_SUCH"), RemoteCalls())
    with pytest.raises(ValueError, match="PCMU alone"):
        RemoteSettings(url=("ws://x/",), encoding="PCMA")
    with pytest.raises(ValueError, match="not a ws"):
        RemoteSettings(url=("http://x/",))
