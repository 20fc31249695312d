"""The dead man's limit of channels, put off against a stand-in's REST interface."""

import asyncio
from typing import Any

import pytest
from ari_client import Client, spawn
from ari_server import AriServer, Asked
from structlog.testing import capture_logs

from bridge.asterisk.settings import AsteriskSettings
from bridge.legs.asterisk.dead_man import AT_ONCE, LIMIT, OWN_UNTIL, DeadMan, DeadManLimit

WALL = 1_800_000_000.0

OFTEN = {"dead_man_s": 30.0, "dead_man_refresh_s": 0.02}
SELDOM = {"dead_man_s": 60.0, "dead_man_refresh_s": 20.0}


class House:
    """An Asterisk with channels in the application, and us."""

    def __init__(self, server: AriServer, client: Client) -> None:
        self.server = server
        self.client = client

    async def channel(self, channel_id: str = "c1", **variables: str) -> str:
        await self.server.call_in(channel_id)
        for name, value in variables.items():
            self.server.variables[channel_id, name] = value
        return channel_id

    def shared(self, **settings: Any) -> DeadMan:
        values = {"name": "pbx", "url": self.server.url, "username": "offhook", "password_env": "X", **settings}
        loop = asyncio.get_running_loop()
        return DeadMan(
            self.client.ari,
            AsteriskSettings.model_validate(values),
            loop.time,
            spawn,
            wall=lambda: WALL,
            start_s=0.0,
        )

    def limits_set(self, channel_id: str = "c1") -> list[Asked]:
        asked = self.server.requests(f"channels/{channel_id}/variable", "POST")
        return [one for one in asked if one.query["variable"] == LIMIT]

    def limit(self, channel_id: str = "c1") -> str:
        return self.server.variables.get((channel_id, LIMIT), "")

    def own(self, channel_id: str = "c1") -> str:
        return self.server.variables.get((channel_id, OWN_UNTIL), "unset")


@pytest.fixture
def house(ari: AriServer, client: Client) -> House:
    return House(ari, client)


async def test_it_is_put_off_again_and_again_until_the_channel_is_left(house: House) -> None:
    limit = DeadManLimit(house.shared(**OFTEN))
    limit.begin(await house.channel())
    await house.client.until(lambda: len(house.limits_set()) >= 4)
    assert house.limit() == "30.000"
    assert house.own() == "0"
    # Said once.
    assert len([one for one in house.server.asked if one.query.get("variable") == OWN_UNTIL]) == 1
    assert await limit.lift() == {LIMIT: "0.000", OWN_UNTIL: ""}
    before = len(house.limits_set())
    await asyncio.sleep(0.1)
    assert len(house.limits_set()) == before


async def test_the_dialplans_own_is_kept_in_mind_and_given_back(house: House) -> None:
    limit = DeadManLimit(house.shared(**SELDOM))
    limit.begin(await house.channel(**{LIMIT: "7000.5"}))
    await house.client.until(lambda: house.limit() == "60.000")
    await house.client.until(lambda: house.own() != "unset")
    assert int(house.own()) == pytest.approx(WALL + 7000, abs=30)
    lifted = await limit.lift()
    assert float(lifted[LIMIT]) == pytest.approx(7000, abs=30)
    # An attempt to give the channel back may fail: the next one says the same.
    assert (await limit.lift()).keys() == lifted.keys()


async def test_the_dialplans_own_is_not_put_off_where_it_is_the_nearer_one(house: House) -> None:
    limit = DeadManLimit(house.shared(**OFTEN))
    limit.begin(await house.channel(**{LIMIT: "20"}))
    await house.client.until(lambda: len(house.limits_set()) == 1)
    assert float(house.limit()) <= 20
    await asyncio.sleep(0.1)
    assert len(house.limits_set()) == 1


async def test_what_the_dialplans_own_was_is_learned_from_a_process_before_us(house: House) -> None:
    shared = house.shared(**SELDOM)
    timed, free, new = (DeadManLimit(shared) for _ in range(3))
    timed.begin(await house.channel("c1", **{LIMIT: "33", OWN_UNTIL: f"{WALL + 500:.0f}"}), found=True)
    free.begin(await house.channel("c2", **{LIMIT: "33", OWN_UNTIL: "0"}), found=True)
    new.begin(await house.channel("c3", **{LIMIT: "33"}), found=True)
    for channel_id in ("c1", "c2", "c3"):
        await house.client.until(lambda id=channel_id: bool(house.limits_set(id)))
    now = asyncio.get_running_loop().time()
    assert timed.own_until is not None and timed.own_until - now == pytest.approx(500, abs=30)
    assert free.own_until is None
    assert new.own_until is not None and new.own_until - now == pytest.approx(33, abs=30)


async def test_a_request_under_way_is_waited_for_before_the_channel_is_given_back(house: House) -> None:
    limit = DeadManLimit(house.shared(**SELDOM))
    channel_id = await house.channel()
    house.server.hold(f"channels/{channel_id}/variable")
    limit.begin(channel_id)
    limit.learn()
    lifting = asyncio.create_task(limit.lift())
    await house.client.until(lambda: bool(house.server.requests(f"channels/{channel_id}/variable")))
    assert not lifting.done()
    house.server.let_go()
    await lifting
    assert not house.limits_set()


async def test_a_failure_is_said_once_and_its_end_too(house: House) -> None:
    shared = house.shared(**OFTEN)
    limits = [DeadManLimit(shared) for _ in range(2)]
    with capture_logs() as logs:
        for index, limit in enumerate(limits):
            limit.begin(await house.channel(f"c{index}"))
        await house.client.until(lambda: house.limit("c0") == house.limit("c1") == "30.000")
        house.server.answer_with("POST", "channels/c", 500, {"message": "Allocation failed"}, times=7)
        count = len(house.limits_set("c0"))
        await house.client.until(lambda: len(house.limits_set("c0")) > count + 8)
        for limit in limits:
            await limit.lift()
    said = [log["event"] for log in logs if "dead man" in log["event"]]
    assert said == ["callers' dead man's limits can't be put off", "callers' dead man's limits are put off again"]


async def test_without_the_function_in_asterisk_there_is_none_and_that_is_said_once(house: House) -> None:
    shared = house.shared(**OFTEN)
    house.server.answer_with("GET", "channels/c", 500, {"message": "Unable to read provided function"})
    with capture_logs() as logs:
        for index in range(2):
            limit = DeadManLimit(shared)
            limit.begin(await house.channel(f"c{index}"))
            limit.learn()
            assert await limit.lift() == {}
    assert [log["log_level"] for log in logs if "func_timeout" in log["event"]] == ["warning"]
    assert not house.server.requests("channels/c0/variable", "POST")


@pytest.mark.parametrize(("extension", "warned"), [("T", 0), ("e", 0), ("s", 1)])
async def test_a_dialplan_without_a_place_for_callers_is_told_of_once(
    house: House, extension: str, warned: int
) -> None:
    shared = house.shared(**SELDOM)
    there = {f"DIALPLAN_EXISTS(shop,{name},1)": str(int(name == extension)) for name in ("T", "e")}
    with capture_logs() as logs:
        for index in range(2):
            limit = DeadManLimit(shared)
            limit.begin(await house.channel(f"c{index}", **there), "shop")
            await house.client.until(lambda id=f"c{index}": bool(house.limits_set(id)))
            await limit.lift()
    assert len([log for log in logs if "extension T" in log["event"]]) == warned


async def test_switched_off_it_only_learns_the_dialplans_own(house: House) -> None:
    limit = DeadManLimit(house.shared(dead_man_s=0))
    limit.begin(await house.channel(**{LIMIT: "7000"}))
    limit.learn()
    assert await limit.lift() == {}
    limit.resume()
    await limit.wait(90)
    assert limit.own_until is not None
    assert not house.limits_set()


async def test_what_keeps_it_from_being_put_off_is_waited_out(house: House) -> None:
    limit = DeadManLimit(house.shared(**OFTEN))
    limit.begin(await house.channel())
    await house.client.until(lambda: len(house.limits_set()) >= 2)
    await limit.wait(90)
    assert house.limit() == "120.000"
    limit.resume()
    await house.client.until(lambda: house.limit() == "30.000")
    await limit.lift()


async def test_a_transfer_at_the_very_beginning_does_not_cost_the_dialplan_its_own(house: House) -> None:
    limit = DeadManLimit(house.shared(**SELDOM))
    limit.begin(await house.channel(**{LIMIT: "7000"}))
    assert await limit.lift() == {}
    limit.resume()
    await house.client.until(lambda: bool(house.limits_set()))
    assert float((await limit.lift())[LIMIT]) == pytest.approx(7000, abs=30)


async def test_many_that_begin_together_ask_a_few_at_a_time_and_none_holds_up_its_channels_end() -> None:
    async with AriServer(rest_over_socket=False) as server:
        client = Client(server.url)
        await client.up(over_socket=False)
        house = House(server, client)
        shared = house.shared(**SELDOM)
        limits = [DeadManLimit(shared) for _ in range(20)]
        server.hold("channels/c")
        for index, limit in enumerate(limits):
            limit.begin(await house.channel(f"c{index}"))
            limit.learn()
        await client.until(lambda: len(server.requests("channels/c")) == AT_ONCE)
        # Its turn has not come: there is nothing to wait for, and it asks nothing later.
        assert await limits[-1].lift() == {}
        assert len(server.requests("channels/c")) == AT_ONCE
        server.let_go()
        for index in range(len(limits) - 1):
            await client.until(lambda index=index: house.limit(f"c{index}") == "60.000")
        assert not server.requests(f"channels/c{len(limits) - 1}")
        await client.ari.aclose()


async def test_one_that_is_set_does_not_wait_for_those_that_begin() -> None:
    async with AriServer(rest_over_socket=False) as server:
        client = Client(server.url)
        await client.up(over_socket=False)
        house = House(server, client)
        shared = house.shared(**OFTEN)
        live, *others = (DeadManLimit(shared) for _ in range(AT_ONCE + 2))
        live.begin(await house.channel("c1"))
        await client.until(lambda: len(house.limits_set("c1")) >= 2)
        server.hold("channels/new")
        for index, limit in enumerate(others):
            limit.begin(await house.channel(f"new{index}"))
            limit.learn()
        await client.until(lambda: len(server.requests("channels/new")) == AT_ONCE)
        before = len(house.limits_set("c1"))
        await client.until(lambda: len(house.limits_set("c1")) >= before + 3)
        server.let_go()
        for limit in (live, *others):
            await limit.lift()
        await client.ari.aclose()


async def test_one_that_could_not_be_lifted_when_it_was_switched_off_is_lifted_later(house: House) -> None:
    shared = house.shared(**OFTEN)
    limit = DeadManLimit(shared)
    limit.begin(await house.channel())
    await house.client.until(lambda: house.limit() == "30.000")
    house.server.answer_with("POST", "channels/c1", 500, {"message": "Allocation failed"}, times=3)
    values = {"name": "pbx", "url": house.server.url, "username": "offhook", "password_env": "X"}
    shared.settings = AsteriskSettings.model_validate({**values, "dead_man_s": 0, "dead_man_refresh_s": 0.02})
    await house.client.until(lambda: house.limit() == "0.000")
