"""Transfers by Asterisk that come to nothing half-way: the caller is with the agent again, nobody is left alone."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from ari_server import AriServer
from test_asterisk_bridge import ends_of, pbx, running, until, with_asterisks

from bridge.app import Bridge
from bridge.events import Cause, TransferResult
from bridge.transfers import Transfers

pytestmark = pytest.mark.usefixtures("ari_password")


class BusyHouse(AriServer):
    """An Asterisk with a party that hangs up as soon as it is in a bridge with another, before the request that
    brought it there is answered."""

    leaver = ""
    """Its channel."""

    async def _move(self, bridge: dict[str, Any], channel_id: str, into: bool) -> None:
        for other in self.bridges.values():
            if into and other is not bridge and channel_id in other["channels"]:
                other["channels"].remove(channel_id)
        await super()._move(bridge, channel_id, into)
        if "joined" in bridge["name"] and len(bridge["channels"]) == 2:
            await self.hang_up(self.leaver)


async def consulted(bridge: Bridge, ari: AriServer) -> tuple[Transfers, str]:
    """A caller waits, and somebody has been called and has answered, on the channel that is returned."""
    await ari.call_in("c1", args=["agent=echo"])
    await until(lambda: any(call.answered_at for call in bridge.live_calls()))
    call = bridge.calls.find(bridge.live_calls()[0].id)
    assert call is not None
    transfers = call.transfers
    transfers.begin_consult("PJSIP/desk")
    await until(lambda: any(one.path.endswith("/dial") for one in ari.asked))
    (desk,) = [one for one in ari.channels if one.endswith("-out")]
    ari.channels[desk]["state"] = "Up"
    await ari.event("ChannelStateChange", channel=ari.channels[desk])
    await until(lambda: transfers.second is not None and transfers.second.up)
    return transfers, desk


async def test_who_was_called_and_hangs_up_leaves_the_caller_with_the_agent(tmp_path: Path) -> None:
    async with BusyHouse() as ari, running(with_asterisks(tmp_path, pbx(ari))) as bridge:
        transfers, desk = await consulted(bridge, ari)
        ari.leaver = desk
        result = await asyncio.wait_for(transfers.transfer("PJSIP/desk", "attended"), 30)
        assert result == TransferResult(480, "the second party has hung up")
        endpoint = bridge.asterisks.get("pbx")
        assert endpoint is not None
        await until(lambda: not endpoint.joined and len(ari.bridges) == 1)
        # In the call's own bridge again, with the agent.
        (own,) = ari.bridges.values()
        assert "c1" in own["channels"] and len(own["channels"]) == 2
        # Whatever was asked of Asterisk before is done when this is.
        await transfers.set_variables({"STILL": "here"})
        assert "c1" not in ari.continued and len(bridge.live_calls()) == 1


async def test_caller_who_hangs_up_leaves_nobody_waiting(tmp_path: Path) -> None:
    async with BusyHouse() as ari, running(with_asterisks(tmp_path, pbx(ari))) as bridge:
        ends = ends_of(bridge)
        transfers, desk = await consulted(bridge, ari)
        ari.leaver = "c1"
        transfers.begin_transfer("PJSIP/desk", "attended")
        await until(lambda: len(ends) == 1)
        assert ends[0].cause is Cause.CALLER_HUNG_UP
        await until(lambda: desk not in ari.channels and not ari.bridges)


async def test_a_refer_that_asterisk_refuses_leaves_the_caller_with_the_agent(tmp_path: Path, ari: AriServer) -> None:
    async with running(with_asterisks(tmp_path, pbx(ari))) as bridge:
        transfers, _ = await consulted(bridge, ari)
        await transfers.release()
        ari.answer_with("POST", "channels/c1/redirect", 422, {"message": "Endpoint parameter is not valid"})
        result = await asyncio.wait_for(transfers.transfer("PJSIP/1002", "blind"), 30)
        assert result.status == 500
        await until(lambda: len(ari.bridges) == 1)
        (own,) = ari.bridges.values()
        assert "c1" in own["channels"]
