"""A real Asterisk's manager interface: queues, devices, calls of the old kind, and what happens when it goes away."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from asterisk_shop import AsteriskShop

from bridge.asterisk.ami import Ami, AmiRefusedError
from bridge.asterisk.ami_events import (
    AmiDown,
    AmiEvent,
    AmiUp,
    DeviceStateChanged,
    OtherEvent,
    QueueCallerChanged,
    QueueMemberChanged,
)
from bridge.asterisk.settings import AmiSettings

pytestmark = pytest.mark.timeout(120)

WAIT_S = 30.0

QUEUES = """\
[support]
strategy = rrmemory
joinempty = yes
timeout = 1
member => Local/nowhere@world/n,0,Änne Müller,PJSIP/desk
"""
DIALPLAN = """\
[waiting]
exten => support,1,Answer()
 same => n,Queue(support)
exten => parked,1,Answer()
 same => n,Wait(600)
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AsteriskShop]:
    started = AsteriskShop(tmp_path_factory.mktemp("ami"), queues=QUEUES, dialplan=DIALPLAN)
    yield started
    started.stop()


async def until(true: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + WAIT_S
    while not (found := true()):
        assert time.monotonic() < deadline, f"no {what} within {WAIT_S} s"
        await asyncio.sleep(0.02)
    return found


@asynccontextmanager
async def connected(shop: AsteriskShop, password: str = "") -> AsyncIterator[tuple[Ami, list[AmiEvent]]]:
    settings = AmiSettings(
        host="127.0.0.1", port=shop.ami_port, username="offhook", password_env="AMI", request_s=20.0
    )
    ami = Ami(settings, "pbx", environ={"AMI": password or shop.ami_password}, reconnect_s=0.5)
    events: list[AmiEvent] = []
    ami.subscribe(events.append)
    ami.start()
    try:
        await until(lambda: ami.state != "connecting", "answer to the login")
        yield ami, events
    finally:
        await ami.aclose()


async def test_a_caller_joins_a_queue_and_leaves_it(shop: AsteriskShop) -> None:
    who = {"Context": "waiting", "Exten": "support", "Priority": "1"}
    async with connected(shop) as (ami, events):
        before = {queue.name: queue for queue in await ami.queues()}
        assert {"support", "office"} <= before.keys()
        (member,) = before["support"].members
        assert (member.name, member.interface, member.state_interface, member.membership) == (
            "Änne Müller",
            "Local/nowhere@world/n",
            "PJSIP/desk",
            "static",
        )
        await ami.action("Originate", Channel="Local/parked@waiting/n", **who)

        def joined() -> list[QueueCallerChanged]:
            return [one for one in events if isinstance(one, QueueCallerChanged) and one.change == "joined"]

        (came,) = await until(joined, "caller in the queue")
        assert (came.caller.queue, came.caller.position, came.waiting) == ("support", 1, 1)
        (queue,) = await ami.queues("support")
        assert (queue.waiting, queue.callers[0].channel_id) == (1, came.caller.channel_id)
        await ami.action("Hangup", Channel=came.caller.channel)
        changes = await until(
            lambda: (
                (found := [one.change for one in events if isinstance(one, QueueCallerChanged)])[-1:] == ["left"]
                and found
            ),
            "end of the wait",
        )
        assert changes == ["joined", "abandoned", "left"]
    await asyncio.to_thread(shop.assert_empty)


async def test_members_come_pause_and_go(shop: AsteriskShop) -> None:
    async with connected(shop) as (ami, events):
        who = {"Queue": "support", "Interface": "PJSIP/deaf"}
        await ami.action("QueueAdd", **who, MemberName="Ben", Penalty=3)
        await ami.action("QueuePause", **who, Paused=True, Reason="lunch")
        (queue,) = await ami.queues("support")
        ben = next(member for member in queue.members if member.name == "Ben")
        assert (ben.paused, ben.paused_reason, ben.penalty, ben.membership) == (True, "lunch", 3, "dynamic")
        await ami.action("QueueRemove", **who)
        await until(lambda: sum(isinstance(one, QueueMemberChanged) for one in events) >= 3, "three changes")
        changes = [(one.change, one.member.name) for one in events if isinstance(one, QueueMemberChanged)]
        assert changes == [("added", "Ben"), ("paused", "Ben"), ("removed", "Ben")]
        with pytest.raises(AmiRefusedError, match="Unable to remove interface"):
            await ami.action("QueueRemove", **who)


async def test_a_device_is_free_then_in_use(shop: AsteriskShop) -> None:
    async with connected(shop) as (ami, events):
        assert await ami.device_state("PJSIP/desk") == "NOT_INUSE"
        assert await ami.device_state("PJSIP/nobody-at-all") == "INVALID"
        await ami.action("Originate", Channel="PJSIP/desk", Context="waiting", Exten="parked", Priority=1)
        await until(lambda: DeviceStateChanged("PJSIP/desk", "INUSE") in events, "change of the device")
        assert await ami.device_state("PJSIP/desk") == "INUSE"
        await asyncio.to_thread(shop.hang_up_all)
        await until(lambda: events[-1:] and DeviceStateChanged("PJSIP/desk", "NOT_INUSE") in events, "free device")
    await asyncio.to_thread(shop.assert_empty)


async def test_a_call_is_made_redirected_and_hung_up_as_vicidial_does(shop: AsteriskShop) -> None:
    async with connected(shop) as (ami, events):
        (answer,) = await ami.action(
            "Originate",
            Channel="PJSIP/tone@carrier",
            Context="waiting",
            Exten="parked",
            Priority=1,
            Variable=["CAMPAIGN=spring", "LEAD=42"],
        )

        def outcome(action_id: str) -> Any:
            return next(
                (
                    one.fields
                    for one in events
                    if isinstance(one, OtherEvent)
                    and one.name == "OriginateResponse"
                    and one.fields["ActionID"] == action_id
                ),
                None,
            )

        made = await until(lambda: outcome(answer["ActionID"]), "outcome of the call")
        assert made["Response"] == "Success"
        assert await ami.variable("LEAD", made["Channel"]) == "42"
        await ami.action("Redirect", Channel=made["Channel"], Context="waiting", Exten="support", Priority=1)
        await until(lambda: any(isinstance(one, QueueCallerChanged) for one in events), "caller in the queue")
        rows = await ami.action("CoreShowChannels")
        assert "Queue" in {row.get("Application") for row in rows}
        await ami.action("Hangup", Channel=made["Channel"], Cause=16)
        (busy,) = await ami.action("Originate", Channel="PJSIP/busy@carrier", Application="Wait", Data="1")
        failed = await until(lambda: outcome(busy["ActionID"]), "outcome of the call to the busy one")
        assert failed["Response"] == "Failure"
        with pytest.raises(AmiRefusedError) as told:
            await ami.action("Command", Command="core show channels")
        assert told.value.denied
    await asyncio.to_thread(shop.assert_empty)


async def test_functions_of_the_dialplan_are_read(shop: AsteriskShop) -> None:
    async with connected(shop) as (ami, _):
        assert await ami.variable("DIALPLAN_EXISTS(offhook-queue)") == "1"
        assert await ami.variable("DIALPLAN_EXISTS(nowhere)") == "0"


async def test_a_wrong_password_is_told(shop: AsteriskShop) -> None:
    async with connected(shop, "not-the-one") as (ami, _):
        assert ami.state == "unauthorized"
        assert "Authentication failed" in ami.last_error


async def test_a_killed_asterisk_is_met_again(shop: AsteriskShop) -> None:
    async with connected(shop) as (ami, events):
        await asyncio.to_thread(shop.kill)
        await until(lambda: ami.state == "down", "end of the connection")
        await asyncio.to_thread(shop.start)
        await until(lambda: ami.state == "up", "new connection")
        assert "support" in {queue.name for queue in await ami.queues()}
        await asyncio.to_thread(shop.restart)
        await until(lambda: ami.connects == 3 and ami.state == "up", "connection after a restart")
        kinds = [type(one) for one in events if isinstance(one, AmiUp | AmiDown)]
        assert kinds == [AmiUp, AmiDown, AmiUp, AmiDown, AmiUp]
