"""Audio by chan_websocket of a real Asterisk 22: in both directions of connecting, in each codec and dialect."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from asterisk_line import AsteriskLine, asterisk_line, up
from asterisk_shop import AsteriskShop
from contract import LegContract
from sip_line import Line

from bridge.asterisk.settings import AsteriskSettings, WebsocketListenerSettings
from bridge.legs.asterisk.leg import AsteriskLeg
from bridge.legs.asterisk.websocket import WebsocketTransport
from bridge.legs.asterisk.websocket_listener import WebsocketListener
from bridge.legs.base import Leg
from bridge.legs.sip import SipLeg
from bridge.rtp.format import DEFAULT_LIMITS

PASSED_ON = """
[caller](+type=endpoint)
moh_passthrough=yes
"""
"""Hold is the phone's own business: Asterisk tells it, and plays no music of its own."""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AsteriskShop]:
    started = AsteriskShop(tmp_path_factory.mktemp("shop"), pjsip=PASSED_ON)
    yield started
    started.stop()


@asynccontextmanager
async def by_websocket(
    shop: AsteriskShop, *, listens: bool = True, **websocket: Any
) -> AsyncIterator[tuple[AsteriskLine, WebsocketTransport]]:
    """Calls whose audio comes by WebSocket. `websocket` are settings of it."""
    listener = WebsocketListener(WebsocketListenerSettings(listen="127.0.0.1", port=shop.websocket_port))
    made: list[WebsocketTransport] = []

    def make(sip: Line, settings: AsteriskSettings) -> Any:
        made.append(WebsocketTransport(sip.clock, settings, DEFAULT_LIMITS, listener))
        return {"websocket": made[0]}

    if listens:
        listener.start()
    try:
        async with asterisk_line(shop, more=make, media="websocket", websocket=websocket) as line:
            yield line, made[0]
    finally:
        await listener.aclose()


async def answered(line: AsteriskLine) -> tuple[AsteriskLeg, SipLeg]:
    near, far = await line.call()
    await near.answer()
    await up(near, far)
    return near, far


class TestWhereWeConnect(LegContract):
    @pytest.fixture(autouse=True)
    def _at(self, shop: AsteriskShop) -> None:
        self.shop = shop

    @asynccontextmanager
    async def offered(self) -> AsyncIterator[tuple[Leg, Leg]]:
        async with by_websocket(self.shop, connects="us") as (line, _):
            yield await line.call()


class TestWhereAsteriskConnects(LegContract):
    @pytest.fixture(autouse=True)
    def _at(self, shop: AsteriskShop) -> None:
        self.shop = shop

    @asynccontextmanager
    async def offered(self) -> AsyncIterator[tuple[Leg, Leg]]:
        async with by_websocket(self.shop, connects="asterisk") as (line, _):
            yield await line.call()
