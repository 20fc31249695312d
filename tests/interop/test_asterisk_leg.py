"""The Asterisk leg keeps the Leg contract, on calls through a real Asterisk: its audio by RTP."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from asterisk_line import asterisk_line
from asterisk_shop import AsteriskShop
from contract import LegContract

from bridge.legs.base import Leg

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


class TestAsteriskLeg(LegContract):
    @pytest.fixture(autouse=True)
    def _at(self, shop: AsteriskShop) -> None:
        self.shop = shop

    @asynccontextmanager
    async def offered(self) -> AsyncIterator[tuple[Leg, Leg]]:
        async with asterisk_line(self.shop) as line:
            near, far = await line.call()
            yield near, far
