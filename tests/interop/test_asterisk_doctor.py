"""`offhook doctor` on a real Asterisk: one that is set up as shipped, and ones that lack something."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from asterisk16_shop import Asterisk16
from asterisk_shop import AsteriskShop
from bridge_process import BridgeProcess
from free_ports import free_port, free_ports

from bridge.asterisk.ari import Ari
from bridge.asterisk.ari_events import Channel
from bridge.asterisk.settings import AsteriskSettings
from bridge.audio.clock import MediaClock
from bridge.config import Config
from bridge.doctor_agents import Finding
from bridge.doctor_asterisk import tried_asterisks
from bridge.doctor_asterisk_dialplan import Seen
from bridge.doctor_asterisk_media import try_media
from bridge.legs.asterisk.rtp import RtpTransport
from bridge.legs.media import MediaPlane
from bridge.view import Api

pytestmark = pytest.mark.timeout(120)

StartBridge = Callable[..., BridgeProcess]

WAIT_S = 30.0


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AsteriskShop]:
    started = AsteriskShop(tmp_path_factory.mktemp("doctor"), websocket_port=free_port())
    yield started
    started.stop()


@pytest.fixture(autouse=True)
def passwords(shop: AsteriskShop, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("ARI", shop.password)
    monkeypatch.setenv("AMI", shop.ami_password)
    monkeypatch.setenv("WRONG", "not-the-one")
    yield
    # Whatever was found wrong: nothing of the trial stays.
    shop.assert_empty()


def config(shop: AsteriskShop, *, routes: Any = (), ami: Any = None, **changes: Any) -> Config:
    first = free_ports(20, rtp=True)
    asterisk = {
        "name": "pbx",
        "url": shop.ari_url,
        "username": "offhook",
        "password_env": "ARI",
        "request_s": 20.0,
        "ami": {"host": "127.0.0.1", "port": shop.ami_port, "username": "offhook", "password_env": "AMI"}
        | (ami or {}),
        **changes,
    }
    return Config(
        agents={"echo": {"kind": "echo"}},
        routes=[{"agent": "echo"}, *routes],
        rtp={"port_min": first, "port_max": first + 19},
        audiosocket={"listen": "127.0.0.1", "port": free_port()},
        websocket_listener={"listen": "127.0.0.1", "port": shop.websocket_port},
        asterisk=[asterisk],
    )


async def findings(made: Config) -> list[Finding]:
    nobody = Api("http://127.0.0.1:9", Path())
    found = [finding async for finding in tried_asterisks(made, nobody, bridge_runs=False)]
    assert await asyncio.to_thread(applications, made) == []
    return found


def applications(made: Config) -> list[str]:
    """Those that the doctor has left registered with Asterisk."""
    asterisk = made.asterisk[0]
    try:
        answer = httpx.get(f"{asterisk.url}/ari/applications", auth=("offhook", os.environ["ARI"]), timeout=WAIT_S)
    except httpx.ConnectError:
        return []
    listed = answer.json() if answer.status_code == 200 else []
    return [one["name"] for one in listed if one["name"].startswith("offhook-doctor")]


def wrong(found: list[Finding]) -> list[str]:
    return [f"{one.what.removeprefix('Asterisk pbx')}: {one.says}" for one in found if one.state == "wrong"]


def told(found: list[Finding], what: str) -> Finding:
    (one,) = [one for one in found if one.what == f"Asterisk pbx{what}"]
    return one


async def test_a_shop_as_shipped_has_nothing_wrong_and_audio_goes_both_ways_by_each_transport(
    shop: AsteriskShop,
) -> None:
    routes = [{"agent": "echo", "media": "audiosocket"}, {"agent": "echo", "media": "websocket"}]
    found = await findings(config(shop, routes=routes))
    assert wrong(found) == []
    assert {one.what.removeprefix("Asterisk pbx") for one in found if one.state == "ok"} == {
        "",
        ", version",
        ", clock",
        ", events",
        ", permission",
        ", modules",
        ", media rtp",
        ", media audiosocket",
        ", media websocket",
        ", AMI",
        ", AMI permissions",
        ", if Offhook dies",
        ", dialplan",
    }
    assert "no bridge runs here" in told(found, ", application offhook").says


async def test_a_context_that_has_no_place_for_callers_when_offhook_dies_is_told(shop: AsteriskShop) -> None:
    shop.cli("dialplan add extension 1,1,Stasis,offhook,agent=sales into abrupt")
    shop.cli("dialplan add extension 1,1,Stasis,another into foreign")
    try:
        found = told(await findings(config(shop)), ", if Offhook dies")
    finally:
        shop.cli("dialplan remove context abrupt")
        shop.cli("dialplan remove context foreign")
    assert found.state == "note"
    assert "hung up on after 60 s: Stasis() is in abrupt, without" in found.says


@pytest.mark.parametrize(("calls", "state", "says"), [(100, "ok", "100 are let in"), (101, "wrong", "Set calls: 99")])
async def test_ports_for_fewer_calls_than_are_let_in_are_told(
    shop: AsteriskShop, calls: int, state: str, says: str
) -> None:
    shop.cli("module load func_config.so")
    try:
        found = told(await findings(config(shop, calls=calls)), ", RTP ports")
    finally:
        shop.cli("module unload func_config.so")
    assert found.state == state
    assert f"{shop.rtp_min} to {shop.rtp_max} are enough for 100 calls" in found.says
    assert says in found.says


@pytest.mark.parametrize("codec", ["alaw", "slin", "g722"])
async def test_each_codec_of_rtp_carries_the_tone(shop: AsteriskShop, codec: str) -> None:
    found = await findings(config(shop, rtp={"codec": codec}))
    assert wrong(found) == []
    assert codec in told(found, ", media rtp").says


async def test_asterisk_connects_to_us_by_websocket(shop: AsteriskShop) -> None:
    found = await findings(config(shop, media="websocket", websocket={"connects": "asterisk"}))
    assert wrong(found) == []
    assert told(found, ", media websocket").state == "ok"


async def test_a_wrong_password_is_told_and_nothing_else_is_tried(shop: AsteriskShop) -> None:
    found = await findings(config(shop, password_env="WRONG", ami={"password_env": "WRONG"}))
    (ari, ami) = wrong(found)
    assert "refuses user 'offhook' or the password" in ari
    assert "ari.conf" in ari
    assert ami.startswith(", AMI: user 'offhook' is refused (Authentication failed)")
    assert len([one for one in found if one.state != "note"]) == 2


async def test_an_asterisk_that_is_not_there_is_told_with_where_to_look(shop: AsteriskShop) -> None:
    found = await findings(config(shop, url=f"http://127.0.0.1:{free_port()}", ami={"port": free_port()}))
    (ari, ami) = wrong(found)
    assert "http.conf" in ari
    assert "manager.conf" in ami


async def test_a_prefix_that_http_conf_does_not_have_is_told(shop: AsteriskShop) -> None:
    found = await findings(config(shop, url=f"{shop.ari_url}/pbx"))
    assert "has no ARI" in wrong(found)[0]
    assert "prefix" in wrong(found)[0]


async def test_a_user_that_may_only_read_is_told(shop: AsteriskShop) -> None:
    file = shop.etc / "offhook/ari.conf"
    before = file.read_text()
    file.write_text(before.replace("read_only = no", "read_only = yes"))
    shop.cli("module reload res_ari.so")
    try:
        found = await findings(config(shop))
    finally:
        file.write_text(before)
        shop.cli("module reload res_ari.so")
    (problem,) = wrong(found)
    assert problem.startswith(", permission: user 'offhook' may only read: set read_only = no")
    # AMI tells what a channel could not be asked for.
    assert told(found, ", dialplan").state == "ok"


async def test_a_manager_user_that_may_not_write_is_told(shop: AsteriskShop) -> None:
    file = shop.etc / "offhook/manager.conf"
    before = file.read_text()
    file.write_text(before.replace("write = call,agent,reporting,originate", "write = agent"))
    shop.cli("manager reload")
    try:
        found = await findings(config(shop))
    finally:
        file.write_text(before)
        shop.cli("manager reload")
    (problem,) = wrong(found)
    assert problem.startswith(
        ", AMI permissions: user 'offhook' has no actions for calls by AMI, device states, transfers by AMI"
    )


async def test_a_manager_user_that_may_not_read_of_calls_is_told(shop: AsteriskShop) -> None:
    file = shop.etc / "offhook/manager.conf"
    before = file.read_text()
    file.write_text(before.replace("read = system,call,agent", "read = system,agent"))
    shop.cli("manager reload")
    try:
        found = await findings(config(shop))
    finally:
        file.write_text(before)
        shop.cli("manager reload")
    assert wrong(found) == []
    assert "gets no events of calls: set read = system,call,agent" in told(found, ", AMI permissions").says


@pytest.mark.parametrize(
    ("module", "changes", "said"),
    [
        ("chan_rtp", {}, {", modules: chan_rtp.so is not running, for media: rtp", ", media rtp: "}),
        ("codec_alaw", {"rtp": {"codec": "alaw"}}, {", modules: codec_alaw.so is not running, for codec alaw"}),
        ("app_amd", {}, {", dialplan: app_amd.so is not running, for the amd_context"}),
    ],
)
async def test_a_module_that_is_missing_is_told_with_how_to_load_it(
    shop: AsteriskShop, module: str, changes: dict[str, Any], said: set[str]
) -> None:
    shop.cli(f"module unload {module}.so")
    try:
        found = await findings(config(shop, **changes))
    finally:
        shop.cli(f"module load {module}.so")
    problems = wrong(found)
    assert len(problems) == len(said)
    for start in said:
        assert any(problem.startswith(start) for problem in problems), problems
    assert f"load = {module}.so" in "".join(problems)


async def test_a_media_address_that_asterisk_can_not_send_to_is_told(shop: AsteriskShop) -> None:
    # A broadcast address: nothing is ever sent there.
    (problem,) = wrong(await findings(config(shop, media_address="127.255.255.255")))
    assert problem.startswith(", media rtp: no media channel on Asterisk 'pbx': POST channels/externalMedia: 500")
    assert "media_address 127.255.255.255" in problem


class _Behind(Ari):
    """Asterisk is told a port that is not ours, as behind a NAT that maps it elsewhere."""

    async def external_media(self, channel_id: str, *, external_host: str = "", **how: Any) -> Channel:
        return await super().external_media(channel_id, external_host=f"127.0.0.1:{free_port()}", **how)


class _Misled(RtpTransport):
    """Sends to where no Asterisk listens, as behind a firewall that lets RTP through one way."""

    async def _remote(self, made: Channel) -> tuple[str, int]:
        return "127.0.0.1", free_port()


@asynccontextmanager
async def trial(
    made: Config, connection: type[Ari] = Ari, transport: type[RtpTransport] = RtpTransport
) -> AsyncIterator[Callable[[], Coroutine[Any, Any, Finding]]]:
    own = made.asterisk[0].model_copy(update={"app": "offhook-doctor-trial"})
    clock = MediaClock()
    clock.start()
    plane = MediaPlane(clock, made.rtp)
    ari = connection(own, lambda event: None)
    ari.start()
    try:
        deadline = time.monotonic() + WAIT_S
        while ari.state != "up":
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
        yield lambda: try_media(made, own, ari, transport(plane, own), [], Seen())
        assert plane.ports.in_use == 0
    finally:
        await ari.aclose()
        plane.close()
        await clock.aclose()


async def test_rtp_that_does_not_reach_us_is_told_with_the_address_and_the_ports(shop: AsteriskShop) -> None:
    made = config(shop)
    async with trial(made, connection=_Behind) as try_it:
        finding = await try_it()
    assert finding.state == "wrong"
    assert finding.says.startswith("nothing that Asterisk sends by RTP to 127.0.0.1 arrives here")
    assert f"UDP ports {made.rtp.port_min} to {made.rtp.port_max}" in finding.says


async def test_rtp_that_does_not_reach_asterisk_is_told_with_its_ports(shop: AsteriskShop) -> None:
    async with trial(config(shop), transport=_Misled) as try_it:
        finding = await try_it()
    assert finding.state == "wrong"
    assert finding.says.startswith("what Asterisk sends arrives here, but what we send by RTP to 127.0.0.1")
    assert "rtp.conf" in finding.says


async def test_one_who_has_seen_enough_leaves_nothing_behind(shop: AsteriskShop) -> None:
    async with trial(config(shop), connection=_Behind) as try_it:
        task = asyncio.create_task(try_it())
        deadline = time.monotonic() + WAIT_S
        while len(await asyncio.to_thread(shop.channels)) < 2:
            assert time.monotonic() < deadline
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()
        await asyncio.to_thread(shop.assert_empty)


async def test_an_old_asterisk_is_told_what_it_can_not_do_and_does_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = Asterisk16(tmp_path / "asterisk")
    monkeypatch.setenv("ARI", old.password)
    monkeypatch.setenv("AMI", old.ami_password)
    try:
        found = await findings(config(old, routes=[{"agent": "echo", "media": "websocket"}]))
        await asyncio.to_thread(old.assert_empty)
    finally:
        old.stop()
    assert told(found, ", media rtp").state == "ok"
    assert told(found, ", dialplan").state == "ok"
    assert wrong(found)[0].startswith(", version: media: websocket needs 20.16, 22.6 or later, and this is 16.28.0")


async def test_contexts_that_are_missing_are_told(shop: AsteriskShop) -> None:
    found = await findings(config(shop, transfer_context="sales-desk"))
    (problem,) = wrong(found)
    assert problem.startswith(", dialplan: there is no context 'sales-desk' (transfer_context)")
    assert "extensions.conf" in problem


def test_beside_a_running_bridge_its_application_stays_its_own(shop: AsteriskShop, own_bridge: StartBridge) -> None:
    listener = free_port()
    asterisk = (
        "asterisk:\n"
        f"  - {{name: pbx, url: '{shop.ari_url}', username: offhook, password_env: ARI, agent: echo,\n"
        f"     media: audiosocket, ami: {{host: 127.0.0.1, port: {shop.ami_port}, username: offhook,"
        " password_env: AMI}}\n"
        f"audiosocket: {{listen: 127.0.0.1, port: {listener}, trunk: dialplans}}\n"
    )
    bridge = own_bridge(more=asterisk, variables={"ARI": shop.password, "AMI": shop.ami_password})
    bridge.wait_for(lambda: [one["state"] for one in bridge.asterisks()] == ["up"], WAIT_S, "connection")
    since = bridge.asterisks()[0]["since"]
    done = bridge.command("doctor")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ok     Asterisk pbx, application offhook: the running bridge has it" in done.stdout
    assert "ok     Asterisk pbx, media audiosocket: a tone was heard both ways" in done.stdout
    assert f"ok     audiosocket dialplans: the running bridge listens on 127.0.0.1 port {listener}" in done.stdout
    assert "ok     audiosocket dialplans, API: calls can be announced" in done.stdout
    (one,) = bridge.asterisks()
    assert (one["state"], one["since"], one["ami_state"]) == ("up", since, "up")

    shown = bridge.command("asterisk")
    assert shown.returncode == 0
    assert shown.stdout.splitlines()[1].split()[:2] == ["pbx", "up"]
    queues = bridge.command("asterisk", "pbx", "--queues")
    assert queues.returncode == 0
    assert queues.stdout.startswith("office (")
    assert bridge.command("asterisk", "nobody", "--queues").returncode == 1

    # Another process takes the application.
    def lost() -> bool:
        return bool(bridge.asterisks()[0]["state"] == "replaced")

    async def take() -> list[str]:
        settings = AsteriskSettings(
            name="thief", url=shop.ari_url, username="offhook", password_env="ARI", request_s=20.0
        )
        thief = Ari(settings, lambda event: None)
        thief.start()
        try:
            await asyncio.to_thread(bridge.wait_for, lost, WAIT_S, "loss of the application")
            told = await asyncio.to_thread(bridge.command, "doctor")
            back = await asyncio.to_thread(bridge.command, "asterisk", "pbx", "--reconnect")
            return [told.stdout, back.stdout, str(back.returncode)]
        finally:
            await thief.aclose()

    doctor, back, code = asyncio.run(take())
    assert "wrong  Asterisk pbx, application offhook: another process has taken it from the running bridge" in doctor
    assert code == "0", back
