"""A real Asterisk 22 that is reached by TLS: ARI, the manager interface and media both ways; and what is told of
certificates that are not to be trusted, and of ports that speak something else."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
from asterisk_line import AsteriskLine, asterisk_line, up
from asterisk_shop import AsteriskShop
from bridge_process import BridgeProcess
from certificates import Authority, KeyPair
from contract import Listener, say, tone
from free_ports import free_port, free_ports
from sip_line import Line

from bridge.asterisk.ami import Ami
from bridge.asterisk.ari import Ari, AriUnavailableError
from bridge.asterisk.settings import AmiSettings, AsteriskSettings, WebsocketListenerSettings
from bridge.config import Config
from bridge.doctor_agents import Finding
from bridge.doctor_asterisk import tried_asterisks
from bridge.legs.asterisk.websocket import WebsocketTransport
from bridge.legs.asterisk.websocket_listener import WebsocketListener
from bridge.legs.base import LegError
from bridge.rtp.format import DEFAULT_LIMITS
from bridge.view import Api

pytestmark = pytest.mark.timeout(120)

WAIT_S = 30.0

TLS = """\
[general]
tlsenable = yes
tlsbindaddr = 127.0.0.1:{port}
tlscertfile = {folder}/served.pem
tlsprivatekey = {folder}/served.key
"""

CLIENT = """\
uri = wss://localhost:{port}/media
tls_enabled = yes
ca_list_file = {ca}
"""


class TlsShop(AsteriskShop):
    """One whose HTTP server, manager interface and WebSocket client have TLS; `serve` chooses the certificate."""

    def __init__(self, folder: Path, authority: Authority) -> None:
        self.ca = authority.certificate
        self.good = authority.issue("good")
        self.bad = {
            "nobody whom we trust vouches": Authority(folder / "stranger").issue("stranger"),
            "is not for 127.0.0.1": authority.issue("elsewhere", host="pbx.example.com", address="192.0.2.1"),
            "has expired": authority.issue("expired", days=-1),
        }
        self.https_port, self.ami_tls_port = free_port(), free_port()
        self._served = folder
        self._put(self.good)
        super().__init__(folder / "asterisk")

    @property
    def https_url(self) -> str:
        return f"https://127.0.0.1:{self.https_port}"

    def serve(self, pair: KeyPair) -> None:
        """To those who connect from now on."""
        self._put(pair)
        self.cli("module reload http")
        # Unlike the HTTP server it looks at its certificate only if its configuration is new.
        os.utime(self.etc / "manager.conf")
        self.cli("manager reload")

    def _put(self, pair: KeyPair) -> None:
        shutil.copy(pair.certificate, self._served / "served.pem")
        shutil.copy(pair.key, self._served / "served.key")

    def _replaced(self) -> dict[str, Sequence[tuple[str, str, int]]]:
        replaced = super()._replaced()
        for file, port in (("http.conf", self.https_port), ("manager.conf", self.ami_tls_port)):
            lines = TLS.format(port=port, folder=self._served)
            replaced[file] = [*replaced[file], ("[general]\n", lines, 1)]
        uri = f"uri = ws://127.0.0.1:{self.websocket_port}/media\n"
        client = CLIENT.format(port=self.websocket_port, ca=self.ca)
        file = "offhook/websocket_client.conf"
        replaced[file] = [*replaced[file], (uri, client, 1)]
        return replaced


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[TlsShop]:
    started = TlsShop(tmp_path_factory.mktemp("tls"), authority)
    yield started
    started.stop()


async def until(true: Callable[[], Any], what: str) -> None:
    async with asyncio.timeout(WAIT_S):
        while not true():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def ari(shop: TlsShop, url: str = "", **settings: Any) -> AsyncIterator[Ari]:
    values = {"name": "pbx", "url": url or shop.https_url, "username": shop.username, "password_env": "ARI"}
    made = Ari(AsteriskSettings(**values, **settings), lambda event: None, environ={"ARI": shop.password})
    made.start()
    try:
        yield made
    finally:
        await made.aclose()


@asynccontextmanager
async def ami(shop: TlsShop, port: int, **settings: Any) -> AsyncIterator[Ami]:
    values = {"host": "127.0.0.1", "port": port, "username": "offhook", "password_env": "AMI"}
    made = Ami(AmiSettings(**values, **settings), "pbx", environ={"AMI": shop.ami_password}, reconnect_s=0.2)
    made.start()
    try:
        yield made
    finally:
        await made.aclose()


def lines(logs: Sequence[Any]) -> list[str]:
    return [one["event"] for one in logs if one["log_level"] in ("warning", "error")]


# -- certificates -------------------------------------------------------------------------------------------


async def test_an_asterisk_is_reached_by_tls_with_a_certificate_that_our_file_vouches_for(shop: TlsShop) -> None:
    with structlog.testing.capture_logs() as logs:
        async with ari(shop, ca=shop.ca) as one, ami(shop, shop.ami_tls_port, tls=True, ca=shop.ca) as manager:
            await until(lambda: one.state == manager.state == "up" and one.rest_over_socket, "connections")
            assert await one.channels() == []
            assert await one.request("GET", "channels", over_http=True) == []
            assert {queue.name for queue in await manager.queues()} == {"office"}
    assert lines(logs) == []


async def test_the_very_certificate_can_be_named_in_place_of_its_authority(shop: TlsShop) -> None:
    async with ari(shop, ca=shop.good.certificate) as one:
        await until(lambda: one.state == "up", "connection")


@pytest.mark.parametrize("said", ["nobody whom we trust vouches", "is not for 127.0.0.1", "has expired"])
async def test_a_certificate_that_is_not_to_be_trusted_is_told_of_once_and_nothing_goes_there(
    shop: TlsShop, said: str
) -> None:
    await asyncio.to_thread(shop.serve, shop.bad[said])
    try:
        with structlog.testing.capture_logs() as logs:
            async with (
                ari(shop, ca=shop.ca, reconnect_s=0.2) as one,
                ami(shop, shop.ami_tls_port, tls=True, ca=shop.ca) as manager,
            ):
                await until(lambda: said in one.last_error and said in manager.last_error, "reasons")
                assert (one.state, manager.state) == ("down", "down")
                with pytest.raises(AriUnavailableError, match=said):
                    await one.channels()
                # It is tried again, and put right there: nobody has to do anything here.
                await asyncio.to_thread(shop.serve, shop.good)
                await until(lambda: one.state == manager.state == "up", "connections")
    finally:
        await asyncio.to_thread(shop.serve, shop.good)
    assert sorted(lines(logs)) == ["manager interface down", "no connection to Asterisk, trying again"]


async def test_whoever_checks_no_certificate_is_warned_and_connected(shop: TlsShop) -> None:
    await asyncio.to_thread(shop.serve, shop.bad["is not for 127.0.0.1"])
    try:
        with structlog.testing.capture_logs() as logs:
            async with (
                ari(shop, verify=False) as one,
                ami(shop, shop.ami_tls_port, tls=True, verify=False) as manager,
            ):
                await until(lambda: one.state == manager.state == "up", "connections")
                assert await one.request("GET", "channels", over_http=True) == []
    finally:
        await asyncio.to_thread(shop.serve, shop.good)
    assert all("certificate is not checked" in line for line in lines(logs))
    assert len(lines(logs)) == 2


async def test_a_file_of_authorities_that_is_put_right_is_read_again(shop: TlsShop, tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    async with ari(shop, ca=file, reconnect_s=0.2) as one:
        await until(lambda: f"ca {file}: No such file" in one.last_error, "reason")
        with pytest.raises(AriUnavailableError, match="No such file"):
            await one.channels()
        shutil.copy(shop.bad["nobody whom we trust vouches"].certificate, file)
        await until(lambda: "nobody whom we trust vouches" in one.last_error, "reason")
        shutil.copy(shop.ca, file)
        await until(lambda: one.state == "up", "connection")
        assert await one.request("GET", "channels", over_http=True) == []


async def test_ports_that_speak_something_else_are_told_as_such(shop: TlsShop) -> None:
    with structlog.testing.capture_logs() as logs:
        async with (
            ari(shop, f"http://127.0.0.1:{shop.https_port}", reconnect_s=0.2) as plain,
            ari(shop, f"https://127.0.0.1:{shop.http_port}", reconnect_s=0.2) as encrypted,
            ami(shop, shop.ami_tls_port) as plain_manager,
            ami(shop, shop.ami_port, tls=True) as encrypted_manager,
        ):
            for one, said in (
                (plain, "url must begin with https"),
                (encrypted, "it speaks no TLS at this port"),
                (plain_manager, "set tls: true"),
                (encrypted_manager, "it speaks no TLS at this port"),
            ):
                await until(lambda one=one: one.last_error, "reason")  # type: ignore[misc] # of this turn
                assert said in one.last_error
                assert one.state == "down"
            for one in (plain, encrypted):
                with pytest.raises(AriUnavailableError, match=r"https|no TLS"):
                    await one.channels()
            # Some more attempts.
            await asyncio.sleep(1)
    assert len(lines(logs)) == 4


# -- media --------------------------------------------------------------------------------------------------


@asynccontextmanager
async def by_websocket(shop: TlsShop, own: KeyPair | None, connects: str) -> AsyncIterator[AsteriskLine]:
    """Calls whose audio comes by WebSocket; `own` is the certificate of our listener."""
    files = {} if own is None else {"certificate": own.certificate, "key": own.key}
    listener = WebsocketListener(WebsocketListenerSettings(listen="127.0.0.1", port=shop.websocket_port, **files))
    listener.start()

    def make(sip: Line, settings: AsteriskSettings) -> Any:
        return {"websocket": WebsocketTransport(sip.clock, settings, DEFAULT_LIMITS, listener)}

    settings = {"url": shop.https_url, "ca": shop.ca, "media": "websocket", "websocket": {"connects": connects}}
    try:
        async with asterisk_line(shop, more=make, **settings) as line:
            yield line
    finally:
        await listener.aclose()


@pytest.mark.parametrize("connects", ["us", "asterisk"])
async def test_audio_goes_both_ways_by_an_encrypted_websocket(shop: TlsShop, connects: str) -> None:
    async with by_websocket(shop, shop.good, connects) as line:
        near, far = await line.call()
        await near.answer()
        await up(near, far)
        at_near, at_far = Listener(near), Listener(far)
        say(near, tone(near, 600.0, 3000))
        say(far, tone(far, 440.0, 3000))
        await at_near.hears_tone(440.0)
        await at_far.hears_tone(600.0)


async def test_a_certificate_of_ours_that_asterisk_does_not_trust_fails_the_call_and_says_so(shop: TlsShop) -> None:
    async with by_websocket(shop, shop.bad["nobody whom we trust vouches"], "asterisk") as line:
        near, _far = await line.call()
        with pytest.raises(LegError, match=r"by wss to port .*ca_list_file"):
            await near.answer()


async def test_an_asterisk_that_wants_tls_where_we_have_none_fails_the_call_and_says_so(shop: TlsShop) -> None:
    async with by_websocket(shop, None, "asterisk") as line:
        near, _far = await line.call()
        with pytest.raises(LegError, match="it is to connect by ws to port"):
            await near.answer()


# -- the bridge and its doctor ------------------------------------------------------------------------------

BRIDGE = """
asterisk:
  - name: pbx
    url: {url}
    username: offhook
    password_env: ARI
    ca: {ca}
    agent: echo
    media: websocket
    ami: {{host: 127.0.0.1, port: {ami}, tls: true, ca: {ca}, username: offhook, password_env: AMI}}
"""


def test_a_bridge_has_all_of_it_by_tls(shop: TlsShop, own_bridge: Callable[..., BridgeProcess]) -> None:
    section = BRIDGE.format(url=shop.https_url, ca=shop.ca, ami=shop.ami_tls_port)
    bridge = own_bridge(more=section, variables={"ARI": shop.password, "AMI": shop.ami_password})
    bridge.wait_for(lambda: bridge.asterisks()[0]["state"] == "up", WAIT_S, "connection")
    shop.call_in("700")
    shop.program.wait_for(lambda: shop.heard_s("tone") > 0.5, WAIT_S, "its own tone from the echo agent")
    (call,) = bridge.calls(live=True)
    bridge.hang_up(call["id"])
    bridge.wait_until_ended(call["id"])
    assert "office" in bridge.command("asterisk", "pbx", "--queues").stdout
    bridge.stop()
    shop.assert_empty()


async def findings(shop: TlsShop, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> list[Finding]:
    """What the doctor finds."""
    monkeypatch.setenv("ARI", shop.password)
    monkeypatch.setenv("AMI", shop.ami_password)
    ami = {"host": "127.0.0.1", "port": shop.ami_tls_port, "tls": True, "ca": shop.ca}
    login = {"username": "offhook", "password_env": "ARI"}
    asterisk = {"name": "pbx", "url": shop.https_url, "ca": shop.ca, "ami": {**ami, **login, "password_env": "AMI"}}
    first = free_ports(20, rtp=True)
    made = Config(
        agents={"echo": {"kind": "echo"}},
        routes=[{"agent": "echo"}],
        rtp={"port_min": first, "port_max": first + 19},
        websocket_listener={
            "listen": "127.0.0.1",
            "port": shop.websocket_port,
            "certificate": shop.good.certificate,
            "key": shop.good.key,
        },
        asterisk=[{**asterisk, **login, **changes}],
    )
    nobody = Api("http://127.0.0.1:9", Path())
    return [finding async for finding in tried_asterisks(made, nobody, bridge_runs=False)]


async def test_the_doctor_finds_nothing_wrong_with_tls_as_it_should_be(
    shop: TlsShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = await findings(shop, monkeypatch, media="websocket", websocket={"connects": "asterisk"})
    assert [finding for finding in found if finding.state == "wrong"] == []
    assert {finding.what for finding in found if finding.state == "ok"} >= {
        "Asterisk pbx",
        "Asterisk pbx, events",
        "Asterisk pbx, media websocket",
        "Asterisk pbx, AMI",
    }


async def test_the_doctor_tells_what_is_wrong_with_tls_and_where_to_mend_it(
    shop: TlsShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    unknown = {"ca": shop.bad["nobody whom we trust vouches"].certificate}
    (ari,) = [one.says for one in await findings(shop, monkeypatch, ami=None, **unknown) if one.state == "wrong"]
    assert "`ca` names a file of who does. In http.conf set tlsenable = yes" in ari
    plain = {"url": f"https://127.0.0.1:{shop.http_port}", "ami": None}
    (ari,) = [one.says for one in await findings(shop, monkeypatch, **plain) if one.state == "wrong"]
    assert "it speaks no TLS at this port. In http.conf set tlsenable = yes" in ari
    unchecked = await findings(shop, monkeypatch, verify=False, ca=None)
    (note,) = [one.says for one in unchecked if one.what == "Asterisk pbx, certificate"]
    assert "whoever gets in between can read the password" in note
