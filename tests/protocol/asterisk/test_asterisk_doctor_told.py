"""What the doctor makes of what it is told: Asterisk's time, and a bridge that has not started yet."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from ari_server import AriServer
from free_ports import free_ports
from standin import Exchange, Reply, Standin

from bridge.api.key import load_or_create_key
from bridge.asterisk.settings import AsteriskSettings
from bridge.config import Config
from bridge.doctor_agents import Finding
from bridge.doctor_asterisk import tried_asterisks
from bridge.doctor_asterisk_http import reached
from bridge.doctor_audiosocket import tried_audiosocket
from bridge.view import Api

pytestmark = pytest.mark.usefixtures("ari_password")


class Clock(Standin):
    """An Asterisk that knows one thing: what time it is."""

    def __init__(self, date: str | None) -> None:
        super().__init__()
        self._date = date
        self.route("GET", "/ari/asterisk/info", self._info)

    async def _info(self, exchange: Exchange, reply: Reply) -> None:
        told = {} if self._date is None else {"date": self._date}
        await reply.json({"system": {"version": "22.10.1"}}, headers=told)


async def clock(date: str | None) -> Finding:
    async with Clock(date) as server:
        settings = AsteriskSettings(name="pbx", url=server.http_url, username="offhook", password_env="ARI_PASSWORD")
        found = [finding async for finding in reached(settings, ("rtp",))]
    (told,) = [finding for finding in found if finding.what == "Asterisk pbx, clock"]
    return told


def at(**more: float) -> datetime:
    return datetime.now(UTC) + timedelta(**more)


async def test_a_clock_that_agrees_is_good() -> None:
    assert (await clock(format_datetime(at(), usegmt=True))).state == "ok"
    # Without a zone it is UTC all the same (RFC 9110 5.6.7).
    assert (await clock(format_datetime(at().replace(tzinfo=None)))).state == "ok"


@pytest.mark.parametrize(("hours", "side"), [(1, "ahead of"), (-1, "behind")])
async def test_a_clock_that_is_an_hour_off_is_told_with_the_side(hours: int, side: str) -> None:
    told = await clock(format_datetime(at(hours=hours), usegmt=True))
    assert told.state == "note"
    seconds, _, rest = told.says.partition(" s ")
    assert 3590 <= float(seconds) <= 3610
    assert rest.startswith(f"{side} ours")


@pytest.mark.parametrize("date", [None, "", "tomorrow", "Sat, 99 Nov 2026 18:00:00 GMT"])
async def test_a_clock_that_can_not_be_read_is_told(date: str | None) -> None:
    assert (await clock(date)).says == "it does not tell its time"


# -- beside a bridge that has not started yet -----------------------------------------------------------------------


class Starting(Standin):
    """A bridge while its engines load, as its API tells of it."""

    def __init__(self, code: str) -> None:
        super().__init__()
        self._code = code
        self.route("GET", "/api/asterisk", self._asterisks)
        self.route("GET", "/api/audiosocket/{uuid}", self._call)

    async def _asterisks(self, exchange: Exchange, reply: Reply) -> None:
        await reply.json({"asterisks": [{"name": "pbx", "state": "connecting", "since": None, "last_error": ""}]})

    async def _call(self, exchange: Exchange, reply: Reply) -> None:
        await reply.json({"error": {"code": self._code, "message": ""}}, 404)


def config(ari: AriServer, data_dir: Path, audiosocket_port: int) -> Config:
    first = free_ports(20, rtp=True)
    asterisk = {"name": "pbx", "url": ari.url, "username": "offhook", "password_env": "ARI_PASSWORD"}
    return Config(
        data_dir=data_dir,
        agents={"echo": {"kind": "echo"}},
        routes=[{"agent": "echo"}],
        rtp={"port_min": first, "port_max": first + 19},
        audiosocket={"trunk": "dialplans", "listen": "127.0.0.1", "port": audiosocket_port},
        asterisk=[asterisk],
    )


async def test_a_bridge_that_is_still_starting_is_no_fault(tmp_path: Path) -> None:
    load_or_create_key(tmp_path)
    async with AriServer() as ari, Starting("no-such-call") as bridge:
        # No trial of audio: this is not about it.
        ari.answer_with("DELETE", "bridges", 500)
        api = Api(bridge.http_url, tmp_path)
        found = [finding async for finding in tried_asterisks(config(ari, tmp_path, 1), api, bridge_runs=True)]
    (told,) = [finding for finding in found if finding.what == "Asterisk pbx, application offhook"]
    assert (told.state, told.says.split(",")[0]) == ("note", "the running bridge is still starting")


async def test_calls_without_ari_are_listened_for_and_can_be_announced(tmp_path: Path) -> None:
    load_or_create_key(tmp_path)
    async with AriServer() as ari, Starting("no-such-call") as bridge:
        # Any listener will do.
        made = config(ari, tmp_path, bridge.port)
        found = [finding async for finding in tried_audiosocket(made, Api(bridge.http_url, tmp_path), True)]
        assert [finding.state for finding in found] == ["ok", "ok"]
        (alone,) = [finding async for finding in tried_audiosocket(made, Api(bridge.http_url, tmp_path), False)]
        assert (alone.state, "the dialplan goes on" in alone.says) == ("note", True)


async def test_a_bridge_that_does_not_take_calls_without_ari_yet_is_told(tmp_path: Path) -> None:
    load_or_create_key(tmp_path)
    async with AriServer() as ari, Starting("not-configured") as bridge:
        # Nobody listens at port 1 (tcpmux).
        made = config(ari, tmp_path, 1)
        found = [finding async for finding in tried_audiosocket(made, Api(bridge.http_url, tmp_path), True)]
    assert [finding.state for finding in found] == ["wrong", "wrong"]
    assert "nobody listens on 127.0.0.1 port 1" in found[0].says
    assert "restart it" in found[1].says
