"""A running bridge, told by its API to hand callers over: a caller, the echo agent and a desk, over real sockets."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "legs"))

from free_ports import free_port, free_ports
from sip_calls import CALLER_HZ, THIRD_HZ, Party
from sip_line import Line, line, taken

from bridge.app import Bridge
from bridge.config import Config
from bridge.events import Answered, Cause, FarPartyChanged, LegEnded, TransferAsked, TransferResult
from bridge.legs.sip import SipLegOptions

RTP_PORTS = 40


@dataclass
class Office:
    """A bridge, and two phones on `line`: `far` calls, `third` is the desk."""

    bridge: Bridge
    line: Line
    http: httpx.AsyncClient
    call_id: str
    caller: Party

    @property
    def desk(self) -> str:
        host, port = self.line.third.address
        return f"sip:desk@{host}:{port}"

    async def ask(self, method: str, verb: str, **body: Any) -> int:
        path = f"/api/calls/{self.call_id}/{verb}"
        response = await self.http.request(method, path, json=body if method == "POST" else None)
        return response.status_code

    async def picks_up(self) -> Party:
        third = Party(await taken(self.line.at_third), THIRD_HZ)
        await third.pick_up()
        return third

    async def events(self, *, until: str) -> list[dict[str, Any]]:
        async with asyncio.timeout(30):
            while True:
                events = (await self.http.get(f"/api/calls/{self.call_id}")).json()["events"]
                if any(event["name"] == until for event in events):
                    return events
                await asyncio.sleep(0.05)


@asynccontextmanager
async def office(tmp_path: Path, far_options: SipLegOptions | None = None) -> AsyncIterator[Office]:
    rtp_port = free_ports(RTP_PORTS, rtp=True)
    settings = Config(
        data_dir=tmp_path / "data",
        sip={"listen": "127.0.0.1", "port": free_port()},
        http={"port": free_port()},
        rtp={"port_min": rtp_port, "port_max": rtp_port + RTP_PORTS - 1},
        agents={"echo": {"kind": "echo"}},
        routes=[{"agent": "echo"}],
        limits={"clock_lateness_ms": 1000},
    )
    async with Bridge.run(settings, lambda text: None) as bridge, line(far_options=far_options) as phones:
        key = (tmp_path / "data" / "api-key").read_text().strip()
        leg = await phones.far.dial(f"sip:echo@127.0.0.1:{settings.sip.port}", from_user="caller")
        caller = Party(leg, CALLER_HZ)
        await caller.event(Answered)
        caller.hum()
        await caller.hears(CALLER_HZ)
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{settings.http.port}", headers={"Authorization": f"Bearer {key}"}, timeout=30
        ) as http:
            calls = (await http.get("/api/calls", params={"live": "true"})).json()["calls"]
            yield Office(bridge, phones, http, calls[0]["id"], caller)
        bridge.stop()
    assert bridge.media.ports.in_use == 0
    assert bridge.sip.agent.call_count == 0


async def test_a_caller_is_put_through_to_a_desk_whose_carrier_does_no_transfers(tmp_path: Path) -> None:
    async with office(tmp_path) as at:
        assert await at.ask("POST", "transfer", target=at.desk) == 202
        desk = await at.picks_up()
        await at.caller.hears(THIRD_HZ)
        await desk.hears(CALLER_HZ)
        await desk.sip.hangup(Cause.AGENT_HUNG_UP)
        await at.caller.event(LegEnded)
        events = await at.events(until="call_ended")
        names = [event["name"] for event in events]
        assert names.index("second_dialled") < names.index("second_answered") < names.index("bridged")
        ended = next(event["data"] for event in events if event["name"] == "call_ended")
        assert ended["cause"] == "transferred"


async def test_a_caller_is_transferred_by_its_own_carrier(tmp_path: Path) -> None:
    async with office(tmp_path, SipLegOptions(accept_refer=True)) as at:
        dialled = []

        async def obey(asked: TransferAsked) -> None:
            leg = await at.line.far.dial(asked.target, from_user="caller", headers=asked.headers)
            at.caller.sip.follow_transfer(leg)

        at.caller.sip.subscribe(
            lambda event: (
                dialled.append(asyncio.create_task(obey(event))) if isinstance(event, TransferAsked) else None
            )
        )
        assert await at.ask("POST", "transfer", target=at.desk) == 202
        desk = await at.picks_up()
        await at.caller.hears(THIRD_HZ)
        await desk.hears(CALLER_HZ)
        assert any(isinstance(event, FarPartyChanged) for event in at.caller.events)
        events = await at.events(until="call_ended")
        assert [e["data"]["status"] for e in events if e["name"] == "transfer_result"] == [200]


async def test_a_desk_is_consulted_joined_parted_and_let_go(tmp_path: Path) -> None:
    async with office(tmp_path) as at:
        assert await at.ask("POST", "bridge") == 409
        assert await at.ask("POST", "consult", target=at.desk) == 202
        desk = await at.picks_up()
        await at.caller.hears()
        await at.events(until="second_answered")
        assert await at.ask("POST", "consult", target=at.desk) == 409
        assert await at.ask("POST", "bridge", agent="muted") == 204
        await at.caller.hears(THIRD_HZ)
        assert await at.ask("DELETE", "bridge") == 204
        await at.caller.hears(CALLER_HZ)
        assert await at.ask("DELETE", "consult") == 204
        await desk.event(LegEnded)
        assert await at.ask("PUT", "hold") == 204
        await at.caller.hears()
        assert await at.ask("DELETE", "hold") == 204
        await at.caller.hears(CALLER_HZ)


async def test_a_busy_desk_returns_the_caller_to_the_agent(tmp_path: Path) -> None:
    async with office(tmp_path) as at:
        assert await at.ask("POST", "transfer", target=at.desk, mode="bridge") == 202
        third = await taken(at.line.at_third)
        third.hang_up(Cause.BUSY)
        events = await at.events(until="transfer_result")
        over = next(event["data"] for event in events if event["name"] == "second_ended")
        assert (over["cause"], over["status"], over["q850"], over["by"]) == ("busy", 486, 17, "far")
        await at.caller.hears(CALLER_HZ)


@pytest.mark.parametrize("verb", ["transfer", "consult"])
async def test_a_target_that_nobody_can_call_leaves_the_caller_where_it_is(tmp_path: Path, verb: str) -> None:
    async with office(tmp_path) as at:
        body: dict[str, Any] = {"mode": "bridge"} if verb == "transfer" else {}
        assert await at.ask("POST", verb, target="sip:desk@no-such-host.invalid", **body) == 202
        events = await at.events(until="second_ended")
        assert "no-such-host" in next(event["data"]["detail"] for event in events if event["name"] == "second_ended")
        await at.caller.hears(CALLER_HZ)
        assert TransferResult(200, "bridged") not in at.caller.events
