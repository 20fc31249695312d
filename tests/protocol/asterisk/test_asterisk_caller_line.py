"""The caller's line, asked for seldom and told at the end, against a stand-in's REST interface."""

from pathlib import Path
from typing import Any

import pytest
from ari_client import Client, spawn
from ari_server import AriServer
from test_asterisk_bridge import ends_of, pbx, running, until, with_asterisks

from bridge.app import Bridge
from bridge.events import CallEnded, Cause
from bridge.legs.asterisk.caller_line import CallerLine

pytestmark = pytest.mark.usefixtures("ari_password")

ASKED = "channels/c1/rtp_statistics"
LOSSY = {"txcount": 600, "rxcount": 540, "txploss": 0, "rxploss": 60, "local_normdevjitter": 0.002, "rtt": 0.0}
SEEN_LATER = {**LOSSY, "rxcount": 1080, "rxploss": 120, "txcount": 1200}


class House:
    def __init__(self, server: AriServer, client: Client) -> None:
        self.server = server
        self.client = client

    def says(self, statistics: Any, status: int = 200) -> None:
        """From now on."""
        self.server.forgive()
        self.server.answer_with("GET", ASKED, status, statistics)

    @property
    def asked(self) -> int:
        return len(self.server.requests(ASKED, "GET"))

    def line(self, first_s: float = 3600, every_s: float = 3600, technology: str = "PJSIP") -> CallerLine:
        line = CallerLine(self.client.ari, spawn, first_s=first_s, every_s=every_s, compare_s=0.0, chance=lambda: 0.0)
        line.begin("c1", technology)
        return line

    async def looked(self, line: CallerLine) -> None:
        line.look()
        await line.settled()


@pytest.fixture
def house(ari: AriServer, client: Client) -> House:
    return House(ari, client)


async def test_it_is_asked_for_again_and_again_until_the_end(house: House) -> None:
    house.says(LOSSY)
    line = house.line(first_s=0.0, every_s=0.01)
    await house.client.until(lambda: house.asked >= 3)
    await house.client.until(lambda: line.quality is not None)
    quality = line.quality
    assert quality is not None and (quality.packets_lost, quality.loss_percent) == (60, 10.0)
    line.end(there=False)
    await line.settled()
    asked = house.asked
    await house.client.ari.ping()
    assert house.asked == asked


async def test_the_end_of_a_call_that_we_end_asks_once_more(house: House) -> None:
    line = house.line()
    house.says(LOSSY)
    line.end(there=True)
    await line.settled()
    assert house.asked == 1
    assert line.quality is not None and line.quality.packets_received == 540


async def test_what_the_channel_tells_at_its_end_is_the_last_word(house: House) -> None:
    house.says(LOSSY)
    line = house.line()
    await house.looked(line)
    line.told("RTPAUDIOQOS", "lp=120;rxcount=1080;txcount=1200;rlp=0;rtt=0.000000")
    line.told("RTPAUDIOQOSJITTER", "avgrxjitter=0.004000;avgtxjitter=0.000000")
    line.told("RTPAUDIOQOSBRIDGED", "lp=0;rxcount=1;txcount=1")
    line.end(there=True)
    assert house.asked == 1
    quality = line.quality
    assert quality is not None
    assert (quality.packets_received, quality.packets_lost, quality.jitter_ms) == (1080, 120, 4.0)


@pytest.mark.parametrize(
    ("status", "message"),
    [(403, "Unsupported channel type"), (404, "RTP info not found"), (404, "Channel not found")],
)
async def test_what_asterisk_does_not_know_is_not_asked_for_again_and_is_no_zero(
    house: House, status: int, message: str
) -> None:
    house.says({"message": message}, status)
    line = house.line()
    await house.looked(line)
    await house.looked(line)
    line.end(there=True)
    assert (house.asked, line.quality) == (1, None)


@pytest.mark.parametrize("technology", ["Local", "DAHDI", "IAX2", "AudioSocket"])
async def test_nothing_is_asked_of_channels_without_rtp(house: House, technology: str) -> None:
    line = house.line(technology=technology)
    await house.looked(line)
    line.end(there=True)
    assert (house.asked, line.quality) == (0, None)


async def test_an_asterisk_out_of_order_is_asked_again_and_what_was_known_stays(house: House) -> None:
    house.says(LOSSY)
    line = house.line()
    await house.looked(line)
    known = line.quality
    for answer in ({"message": "Allocation failed"}, 500), ([], 200), (None, 204), ({"what": "else"}, 200):
        house.says(*answer)
        await house.looked(line)
        assert line.quality == known
    house.says(SEEN_LATER)
    await house.looked(line)
    assert line.quality is not None and line.quality.packets_received == 1080


async def test_another_channel_in_its_place_begins_anew(house: House) -> None:
    house.says(LOSSY)
    line = house.line()
    await house.looked(line)
    house.server.hold(ASKED)
    task = line.look()
    assert task is not None
    line.begin("c2", "PJSIP")
    house.server.let_go()
    await task
    # The answer of before is not the new one's.
    assert line.quality is None


@pytest.mark.parametrize(("later", "heard"), [(541, True), (540, False)])
async def test_whether_packets_of_the_caller_come_is_seen_by_two_looks(house: House, later: int, heard: bool) -> None:
    house.server.answer_with("GET", ASKED, 200, LOSSY, times=1)
    house.server.answer_with("GET", ASKED, 200, {**LOSSY, "rxcount": later})
    assert await house.line().is_heard() is heard


async def test_or_is_not_known(house: House) -> None:
    house.says({"message": "RTP info not found"}, 404)
    assert await house.line().is_heard() is None
    assert await house.line(technology="Local").is_heard() is None


# -- on record ------------------------------------------------------------------------------------------------


async def answered(bridge: Bridge, ari: AriServer) -> dict[str, Any]:
    channel = await ari.call_in("c1", args=["agent=echo"])
    await until(lambda: any(call.answered_at for call in bridge.live_calls()))
    return channel


async def only(ends: list[CallEnded]) -> CallEnded:
    await until(lambda: len(ends) == 1)
    return ends[0]


async def test_a_caller_who_hangs_up_leaves_his_line_on_record(tmp_path: Path) -> None:
    async with AriServer() as ari, running(with_asterisks(tmp_path, pbx(ari))) as bridge:
        ends = ends_of(bridge)
        channel = await answered(bridge, ari)
        # As Asterisk does it: with the BYE, before the end is told.
        value = "ssrc=1;themssrc=2;lp=60;rxjitter=0.000000;rxcount=540;txjitter=0.002;txcount=600;rlp=0;rtt=0.000000"
        await ari.event("ChannelVarset", channel=channel, variable="RTPAUDIOQOS", value=value)
        await ari.hang_up("c1")
        ended = await only(ends)
        assert ended.cause is Cause.CALLER_HUNG_UP
        assert ended.quality["caller_packets_lost"] == 60
        assert ended.quality["caller_loss_percent"] == 10
        assert ended.quality["caller_mos"] < 4
        # Seldom, and never where it was told.
        assert not ari.requests(ASKED)


async def test_so_does_a_call_that_we_end(tmp_path: Path) -> None:
    async with AriServer() as ari, running(with_asterisks(tmp_path, pbx(ari))) as bridge:
        ends = ends_of(bridge)
        await answered(bridge, ari)
        ari.answer_with("GET", ASKED, 200, LOSSY)
        assert await bridge.hang_up(bridge.live_calls()[0].id)
        ended = await only(ends)
        assert ended.quality["caller_packets_lost"] == 60
        assert len(ari.requests(ASKED)) == 1


async def test_an_asterisk_that_does_not_answer_for_it_keeps_no_call_from_ending(tmp_path: Path) -> None:
    async with AriServer() as ari, running(with_asterisks(tmp_path, pbx(ari))) as bridge:
        ends = ends_of(bridge)
        await answered(bridge, ari)
        ari.answer_with("GET", ASKED, 500, {"message": "Allocation failed"})
        assert await bridge.hang_up(bridge.live_calls()[0].id)
        ended = await only(ends)
        assert not any(name.startswith("caller_") for name in ended.quality)
        assert "c1" in ari.continued
