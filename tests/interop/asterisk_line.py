"""Callers of ours at a real Asterisk, and our endpoint behind it: a call is a leg on each side."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "legs"))

from asterisk_shop import AsteriskShop
from free_ports import free_ports
from sip_line import Line, line

from bridge.asterisk.settings import AsteriskSettings, MediaKind
from bridge.events import Cause
from bridge.legs.asterisk.endpoint import AsteriskEndpoint
from bridge.legs.asterisk.leg import AsteriskLeg
from bridge.legs.asterisk.media import MediaTransport
from bridge.legs.asterisk.reconcile import Waits
from bridge.legs.asterisk.rtp import RtpTransport
from bridge.legs.base import LegState
from bridge.legs.sip import SipLeg
from bridge.rtp.settings import RtpSettings

WAIT_S = 20.0
RTP_PORTS = 80
WAITS = Waits(look_s=60.0, watch_s=0.2, beat_s=0.2, second_look_s=1.0)
PASSWORD = "OFFHOOK_ARI_PASSWORD"

MoreTransports = Callable[[Line, AsteriskSettings], Mapping[MediaKind, MediaTransport]]
"""Makes those beside RTP."""


class AsteriskLine:
    """`sip.far` and `sip.third` are callers; `incoming` are the legs that the endpoint hands on."""

    def __init__(
        self,
        shop: AsteriskShop,
        sip: Line,
        settings: AsteriskSettings,
        more: MoreTransports = lambda sip, settings: {},
    ) -> None:
        self.shop = shop
        self.sip = sip
        self.settings = settings
        self._more = more
        self.incoming: asyncio.Queue[AsteriskLeg] = asyncio.Queue()
        self.endpoint = self.new_endpoint()

    def new_endpoint(self) -> AsteriskEndpoint:
        """Another process's, so to speak."""
        return AsteriskEndpoint(
            self.settings,
            clock=self.sip.clock,
            transports={
                "rtp": RtpTransport(self.sip.media, self.settings),
                **self._more(self.sip, self.settings),
            },
            on_leg=self.take,
            environ={PASSWORD: self.shop.password},
            waits=WAITS,
        )

    def take(self, leg: AsteriskLeg) -> None:
        """What a bridge does with a call: one that there is no room for is turned away."""
        if leg.refusal is None:
            self.incoming.put_nowait(leg)
        else:
            leg.hang_up(*leg.refusal)

    async def call(self, number: str = "700", caller: Any = None) -> tuple[AsteriskLeg, SipLeg]:
        """Near and far side of a call that is not yet answered."""
        far = await self.dial(number, caller)
        return await self.taken(), far

    async def dial(self, number: str = "700", caller: Any = None) -> SipLeg:
        return await (caller or self.sip.far).dial(self.shop.address(number), from_user="+4930111", timeout_s=60)

    async def taken(self) -> AsteriskLeg:
        return await asyncio.wait_for(self.incoming.get(), WAIT_S)

    async def up(self, endpoint: AsteriskEndpoint | None = None) -> None:
        """Connected."""
        watched = endpoint or self.endpoint
        await self.until(lambda: watched.ari.state == "up", "connection to Asterisk")

    async def until(self, condition: Any, what: str) -> None:
        try:
            async with asyncio.timeout(WAIT_S):
                while not condition():
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise AssertionError(f"no {what} within {WAIT_S} s; Asterisk said:\n{self.shop.program.tail()}") from None

    async def nothing_left(self) -> None:
        """On either side: no channel, no bridge, no leg, no port."""
        for leg in self.sip.far.legs + self.sip.third.legs:
            await leg.hangup(Cause.AGENT_HUNG_UP)
        await asyncio.to_thread(self.shop.assert_empty)
        await self.until(lambda: not self.endpoint.legs, "end of all legs")
        await self.until(lambda: not self.endpoint.busy, "end of all tasks")


@asynccontextmanager
async def asterisk_line(
    shop: AsteriskShop, *, more: MoreTransports = lambda sip, settings: {}, **settings: Any
) -> AsyncIterator[AsteriskLine]:
    """An endpoint that is connected; leaving it checks that nothing is left of it, here or on Asterisk."""
    first = free_ports(RTP_PORTS, rtp=True)
    rtp = settings.pop("rtp_settings", None) or {}
    async with line(rtp=RtpSettings(port_min=first, port_max=first + RTP_PORTS - 1, **rtp)) as sip:
        made = AsteriskLine(shop, sip, settings_of(shop, **settings), more)
        made.endpoint.start()
        try:
            await made.up()
            yield made
            await made.nothing_left()
        finally:
            await made.endpoint.aclose()


def settings_of(shop: AsteriskShop, **settings: Any) -> AsteriskSettings:
    values: Mapping[str, Any] = {
        "name": "pbx",
        "url": shop.ari_url,
        "username": shop.username,
        "password_env": PASSWORD,
        "request_s": 10.0,
        "reconnect_s": 0.5,
        **settings,
    }
    return AsteriskSettings(**values)


async def up(near: AsteriskLeg, far: SipLeg) -> None:
    """Both sides of an answered call."""
    async with asyncio.timeout(WAIT_S):
        while near.state is not LegState.UP or far.state is not LegState.UP:
            await asyncio.sleep(0.01)
