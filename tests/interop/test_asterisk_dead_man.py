"""A bridge that dies beside a real Asterisk, and does not come back: its callers go on in the dialplan in time, whatever
their audio comes by. Those who talk with people, or whom a bridge has given back, are none of its callers any more."""

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

sys.path.append(str(Path(__file__).parents[1] / "e2e"))

from asterisk_caller import asterisk_section
from asterisk_shop import AsteriskShop
from bridge_process import BridgeProcess
from free_ports import free_port
from test_asterisk_faults import caller, echoes

DEAD_MAN = "dead_man_s: 3, dead_man_refresh_s: 0.5"
RUN_OUT_S = 15.0
"""A limit of three seconds has run out within this, on a busy machine."""
OUTLAST_S = 4.0

DIALPLAN = """
[from-carrier]
exten => _75X,1,Set(OFFHOOK_APP=${EXTEN})
 same => n,Goto(offhook,${EXTEN},1)
exten => 760,1,Stasis(760)
 same => n,Hangup()
exten => 761,1,Set(TIMEOUT(absolute)=5)
 same => n,Stasis(761)
 same => n,Wait(60)
exten => T,1,Verbose(0,time over at ${EXTEN})
 same => n,Hangup()
"""


@pytest.fixture(scope="module")
def audiosocket_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AsteriskShop]:
    made = AsteriskShop(tmp_path_factory.mktemp("shop") / "asterisk", dialplan=DIALPLAN)
    yield made
    made.stop()


def start_bridge(folder: Path, shop: AsteriskShop, app: str, more: str = "", sections: str = "") -> BridgeProcess:
    settings = f", app: '{app}', agent: echo, {DEAD_MAN}{more}"
    return BridgeProcess(
        folder, variables={"ARI_PASSWORD": shop.password}, more=asterisk_section(shop, more=settings) + sections
    )


def clean(shop: AsteriskShop) -> None:
    """What a bridge leaves that died, and that the next one deletes."""
    shop.hang_up_all()
    for bridge_id in shop.bridges():
        httpx.delete(f"{shop.ari_url}/ari/bridges/{bridge_id}", auth=(shop.username, shop.password), timeout=20)
    shop.assert_empty()


def with_people(shop: AsteriskShop) -> bool:
    return shop.calls_in("offhook-people") == ["s"]


async def until(shop: AsteriskShop, condition: object, what: str, limit_s: float = RUN_OUT_S) -> None:
    await asyncio.to_thread(shop.program.wait_for, condition, limit_s, what)


@pytest.mark.parametrize("media", ["rtp", "websocket", "audiosocket"])
async def test_callers_of_a_bridge_that_died_go_to_people(
    tmp_path: Path, shop: AsteriskShop, audiosocket_port: int, media: str
) -> None:
    sections = f"audiosocket: {{listen: 127.0.0.1, port: {audiosocket_port}}}\n" if media == "audiosocket" else ""
    bridge = start_bridge(tmp_path, shop, "750", f", media: {media}", sections)
    try:
        async with caller() as phone:
            await phone.dial("750", shop.sip_port)
            await echoes(phone)
            # For longer than the limit: while the bridge lives nobody notices it.
            await asyncio.sleep(OUTLAST_S)
            await echoes(phone)
            assert not with_people(shop)
            bridge.kill()
            await until(shop, lambda: with_people(shop), "caller with people")
            await phone.hang_up()
    finally:
        bridge.kill()
        clean(shop)
