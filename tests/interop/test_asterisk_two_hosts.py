"""A bridge and a real Asterisk on two hosts: calls by each kind of media across a router, behind address translation
on either side, over a network that loses packets or holds them up, and when the link between them is cut."""

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from asterisk_shop import TONE_HZ, AsteriskShop
from bridge_process import BridgeProcess
from free_ports import free_port
from network import FAR, OFFICE, ROUTER_INSIDE, ROUTER_OUTSIDE, Network, inside
from tones import read_wav, tone_seconds

pytestmark = pytest.mark.timeout(120)

WAIT_S = 30.0

WAYS: Mapping[str, str] = {
    "rtp": "media: rtp",
    "ordered": "media: rtp, rtp: {jitter_buffer: true}",
    "outward": "media: websocket, websocket: {connects: us}",
    "inward": "media: websocket, websocket: {connects: asterisk}",
    "audiosocket": "media: audiosocket",
}
"""How audio comes, each by an application of its own; and numbers of callers that play a tone."""

DIALPLAN = """
[callers]
exten => _[a-z].,1,Answer()
 same => n,Gosub(world-hear,s,1(${EXTEN}))
 same => n,Playtones(523)
 same => n,Wait(600)
[ways]
exten => _[a-z].,1,Set(OFFHOOK_APP=${BRIDGE}-${EXTEN})
 same => n,Goto(offhook,700,1)
"""


class FarShop(AsteriskShop):
    """On the far host; its clients reach it there, and it reaches `office`."""

    def __init__(self, folder: Path, network: Network) -> None:
        self._network = network
        super().__init__(folder, dialplan=DIALPLAN)

    def send_media_to(self, office: str, port: int) -> None:
        """Where its WebSocket client finds the bridge."""
        file = self.etc / "offhook/websocket_client.conf"
        lines = file.read_text().splitlines()
        uri = f"uri = ws://{office}:{port}/media"
        file.write_text("".join(f"{uri if line.startswith('uri') else line}\n" for line in lines))
        self.cli("module reload res_websocket_client.so")

    def call(self, way: str, bridge: str) -> None:
        """A caller of the far host is handed to this bridge."""
        self.cli(f"dialplan set global BRIDGE {bridge}")
        self.originate(f"Local/{way}@callers/n", f"{way}@ways")

    def share_heard(self, way: str) -> float:
        """Of its last caller's time so far, how much of it was the tone."""
        newest = max((self.folder / "heard").glob(f"{way}-*.wav16"), key=lambda path: path.stat().st_mtime)
        samples, rate = read_wav(newest)
        return tone_seconds(samples, rate, TONE_HZ) / (len(samples) / rate)

    def _command(self, *arguments: str) -> list[str]:
        command = super()._command(*arguments)
        return self._network.command(self._network.far, command) if arguments[0] == "-f" else command

    def _replaced(self) -> dict[str, Sequence[tuple[str, str, int]]]:
        replaced = super()._replaced()
        for file in ("http.conf", "manager.conf"):
            replaced[file] = [*replaced[file], ("bindaddr = 127.0.0.1\n", f"bindaddr = {FAR}\n", 1)]
        return replaced


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    """This thread is in the office from here on, and what it starts."""
    made = Network()
    try:
        with inside(made.far):
            # docs/asterisk.md: else a caller of `inward` waits behind a dead connection for a quarter of an hour.
            Path("/proc/sys/net/ipv4/tcp_retries2").write_text("5")
        with inside(made.office):
            yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def shop(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FarShop]:
    started = FarShop(tmp_path_factory.mktemp("far") / "asterisk", network)
    yield started
    started.stop()


def start_bridge(
    folder: Path, shop: FarShop, *, name: str, host: str = FAR, office: str = OFFICE, more: str = ""
) -> tuple[BridgeProcess, Sequence[int]]:
    """In the office, connected, and the ports that it listens at for Asterisk. `name` tells its applications from
    another's; where Asterisk is found is `host`, and where it finds us `office`."""
    entries = "".join(
        f"  - {{name: {way}, url: 'http://{host}:{shop.http_port}', username: offhook, password_env: ARI, "
        f"app: {name}-{way}, agent: echo, heartbeat_s: 2, reconnect_s: 1, request_s: 3, {media}{more}}}\n"
        for way, media in WAYS.items()
    )
    ports = free_port(), free_port()
    listeners = f"audiosocket: {{port: {ports[0]}}}\nwebsocket_listener: {{port: {ports[1]}}}\n"
    shop.send_media_to(office, ports[1])
    bridge = BridgeProcess(
        folder,
        more=f"asterisk:\n{entries}{listeners}",
        variables={"ARI": shop.password, "OFFHOOK_RTP_MEDIA_TIMEOUT_S": "6"},
    )
    wait_until_up(bridge)
    return bridge, ports


def wait_until_up(bridge: BridgeProcess) -> None:
    bridge.wait_for(lambda: {one["state"] for one in bridge.asterisks()} == {"up"}, WAIT_S, "connections")


@pytest.fixture(scope="module")
def bridge(shop: FarShop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BridgeProcess]:
    more = ", dead_man_s: 12, dead_man_refresh_s: 2"
    made, _ports = start_bridge(tmp_path_factory.mktemp("office"), shop, name="plain", more=more)
    yield made
    made.stop()


@pytest.fixture
def whole(network: Network, shop: FarShop) -> Iterator[None]:
    """The network as it should be after the test, and nobody on the line."""
    yield
    network.whole()
    shop.hang_up_all()
    shop.assert_empty(WAIT_S)


def talk(shop: FarShop, bridge: BridgeProcess, *ways: str, name: str = "plain") -> dict[str, str]:
    """Calls by these ways, at once: each hears its own tone from the echo agent. Their ids."""
    before = {way: shop.heard_s(way) for way in ways}
    for way in ways:
        shop.call(way, name)
    for way in ways:
        shop.program.wait_for(lambda way=way: shop.heard_s(way) > before[way] + 0.9, WAIT_S, f"tone by {way}")
    return {call["trunk"]: call["id"] for call in bridge.calls(live=True)}


def end(bridge: BridgeProcess, calls: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """What is on record of calls that still are up."""
    assert {call["id"] for call in bridge.calls(live=True)} == set(calls.values())
    for call_id in calls.values():
        bridge.hang_up(call_id)
    return {way: bridge.wait_until_ended(call_id) for way, call_id in calls.items()}


def goes_on(shop: FarShop, *ways: str) -> None:
    """More of the tone is heard, from now on."""
    before = {way: shop.heard_s(way) for way in ways}
    for way in ways:
        shop.program.wait_for(lambda way=way: shop.heard_s(way) > before[way] + 1.5, WAIT_S, f"tone by {way}")


@pytest.mark.usefixtures("whole")
def test_a_bridge_behind_address_translation_is_reached_at_media_address(
    network: Network, shop: FarShop, tmp_path: Path
) -> None:
    network.translate("office")
    more = f", media_address: {ROUTER_OUTSIDE}"
    bridge, ports = start_bridge(tmp_path, shop, name="behind", office=ROUTER_OUTSIDE, more=more)
    try:
        # What we open ourselves needs nothing at the router.
        end(bridge, talk(shop, bridge, "outward", name="behind"))
        network.forward("office", ("udp", f"{bridge.rtp_min}-{bridge.rtp_max}"))
        network.forward("office", *(("tcp", str(port)) for port in ports))
        records = end(bridge, talk(shop, bridge, *WAYS, name="behind"))
        assert {record["one_way"] for record in records.values()} == {""}
        bridge.stop()
    finally:
        bridge.kill()


@pytest.mark.usefixtures("whole")
def test_an_asterisk_behind_address_translation_is_answered_where_its_audio_comes_from(
    network: Network, shop: FarShop, tmp_path: Path
) -> None:
    network.translate("far")
    network.forward("far", ("tcp", str(shop.http_port)))
    bridge, _ports = start_bridge(tmp_path, shop, name="before", host=ROUTER_INSIDE)
    try:
        records = end(bridge, talk(shop, bridge, *WAYS, name="before"))
        assert {record["one_way"] for record in records.values()} == {""}
        bridge.stop()
    finally:
        bridge.kill()


@pytest.mark.usefixtures("whole")
def test_each_kind_of_media_finds_the_way_across_a_router(shop: FarShop, bridge: BridgeProcess) -> None:
    for way, record in end(bridge, talk(shop, bridge, *WAYS)).items():
        assert (record["cause"], record["one_way"], record["trunk"]) == ("api-hung-up", "", way)


@pytest.mark.usefixtures("whole")
def test_a_network_that_loses_packets_leaves_calls_that_can_be_understood(
    network: Network, shop: FarShop, bridge: BridgeProcess
) -> None:
    network.lose(3)
    calls = talk(shop, bridge, *WAYS)
    goes_on(shop, *WAYS)
    shares = {way: shop.share_heard(way) for way in WAYS}
    assert min(shares.values()) > 0.2, shares
    quality = end(bridge, calls)["rtp"]["quality"]
    assert quality["packets_lost"] > 0
    assert quality["concealed_ms"] > 0


@pytest.mark.usefixtures("whole")
def test_a_network_in_which_packets_overtake_each_other_is_put_right(
    network: Network, shop: FarShop, bridge: BridgeProcess
) -> None:
    network.delay(0.02, 0.06, overtaking=True)
    ways = [way for way in WAYS if way != "rtp"]
    calls = talk(shop, bridge, *ways)
    goes_on(shop, *ways)
    shares = {way: shop.share_heard(way) for way in ways}
    assert min(shares.values()) > 0.2, shares
    end(bridge, calls)


@pytest.mark.usefixtures("whole")
def test_calls_go_on_after_a_cut_that_is_shorter_than_their_limits(
    network: Network, shop: FarShop, bridge: BridgeProcess
) -> None:
    # Asterisk's own jitter buffer may stay shut after a hole (docs/asterisk.md).
    ways = [way for way in WAYS if way != "ordered"]
    calls = talk(shop, bridge, *ways)
    network.cut()
    time.sleep(0.7)
    network.join()
    goes_on(shop, *ways)
    for way in ("outward", "inward", "audiosocket"):
        bridge.hang_up(calls.pop(way))
    network.cut()
    time.sleep(3.5)
    network.join()
    goes_on(shop, *calls)
    bridge.wait_for(lambda: len(bridge.calls(live=True)) == len(calls), WAIT_S, "end of the others")
    end(bridge, calls)


@pytest.mark.usefixtures("whole")
def test_a_link_that_is_gone_ends_calls_here_gives_callers_to_people_there_and_leaves_nothing(
    network: Network, shop: FarShop, bridge: BridgeProcess
) -> None:
    calls = talk(shop, bridge, *WAYS)
    files = bridge.open_files()
    network.cut()
    records = {way: bridge.wait_until_ended(call_id) for way, call_id in calls.items()}
    assert {record["cause"] for record in records.values()} == {"media-timeout"}
    assert records["rtp"]["detail"] == "no RTP for 6 s"
    bridge.wait_for(lambda: {one["state"] for one in bridge.asterisks()} == {"down"}, WAIT_S, "state")
    shop.program.wait_for(
        lambda: len(shop.calls_in("offhook-people")) == len(WAYS), WAIT_S, "callers who are with people"
    )
    network.join()
    wait_until_up(bridge)
    # Of ours: the callers are with people.
    shop.program.wait_for(
        lambda: not shop.bridges() and all(name.startswith("Local/") for name in shop.channels()),
        WAIT_S,
        "end of media channels and bridges",
    )
    bridge.wait_until_idle()
    bridge.wait_for(lambda: bridge.open_files() <= files, WAIT_S, "end of sockets")
    end(bridge, talk(shop, bridge, "rtp"))
