"""SIP endpoints on loopback that call each other over real sockets; leaving checks that nothing is left of it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from free_ports import free_ports

from bridge.audio.clock import MediaClock
from bridge.legs.media import MediaPlane
from bridge.legs.sip import SipLeg, SipLegOptions
from bridge.legs.sip_endpoint import SipEndpoint, SipEndpointSettings
from bridge.rtp.settings import RtpSettings
from bridge.sip.offer_answer import PCMU, Codec

WAIT_S = 30.0
"""Of each wait, on machines that may be busy."""

RTP_PORTS = 160


def rtp_settings(ports: int = RTP_PORTS, **more: Any) -> RtpSettings:
    """So many ports that are free and nobody else's: what fades on them of another test's call is heard by nobody."""
    first = free_ports(ports, rtp=True)
    return RtpSettings(port_min=first, port_max=first + ports - 1, **more)


class Line:
    """`far` calls `near`; whoever calls `third` gets a leg of it. `call` makes a leg ring at `near`."""

    def __init__(
        self,
        rtp: RtpSettings,
        codecs: tuple[Codec, ...],
        far_codecs: tuple[Codec, ...],
        third_codecs: tuple[Codec, ...],
        near_options: SipLegOptions,
        far_options: SipLegOptions,
    ) -> None:
        self.clock = MediaClock()
        self.media = MediaPlane(self.clock, rtp, host="127.0.0.1")
        self.incoming: asyncio.Queue[SipLeg] = asyncio.Queue()
        self.at_far: asyncio.Queue[SipLeg] = asyncio.Queue()
        self.at_third: asyncio.Queue[SipLeg] = asyncio.Queue()
        self.near = self._endpoint(codecs, self.incoming, near_options)
        self.far = self._endpoint(far_codecs, self.at_far, far_options)
        self.third = self._endpoint(third_codecs, self.at_third, SipLegOptions())

    def _endpoint(
        self, codecs: tuple[Codec, ...], incoming: "asyncio.Queue[SipLeg]", options: SipLegOptions
    ) -> SipEndpoint:
        settings = SipEndpointSettings(host="127.0.0.1", port=0, codecs=codecs, t1_s=0.1, leg=options)
        return SipEndpoint(settings, self.media, incoming.put_nowait)

    @property
    def endpoints(self) -> tuple[SipEndpoint, ...]:
        return self.near, self.far, self.third

    async def call(self, timeout_s: float = 10) -> tuple[SipLeg, SipLeg]:
        far = await self.far.dial(uri(self.near, "agent"), from_user="caller", timeout_s=timeout_s)
        return await taken(self.incoming), far


def uri(endpoint: SipEndpoint, user: str) -> str:
    host, port = endpoint.address
    return f"sip:{user}@{host}:{port}"


async def taken(queue: "asyncio.Queue[SipLeg]") -> SipLeg:
    return await asyncio.wait_for(queue.get(), WAIT_S)


@asynccontextmanager
async def line(
    *,
    rtp: RtpSettings | None = None,
    codecs: tuple[Codec, ...] = (PCMU,),
    far_codecs: tuple[Codec, ...] = (PCMU,),
    third_codecs: tuple[Codec, ...] = (PCMU,),
    near_options: SipLegOptions | None = None,
    far_options: SipLegOptions | None = None,
) -> AsyncIterator[Line]:
    made = Line(
        rtp or rtp_settings(),
        codecs,
        far_codecs,
        third_codecs,
        near_options or SipLegOptions(),
        far_options or SipLegOptions(),
    )
    before = asyncio.all_tasks()
    for endpoint in made.endpoints:
        await endpoint.start()
    made.clock.start()
    try:
        yield made
    finally:
        for endpoint in (made.third, made.far, made.near):
            await endpoint.aclose()
        left = made.media.ports.in_use, len(made.media.mux), *(len(endpoint.legs) for endpoint in made.endpoints)
        calls = [endpoint.agent.call_count for endpoint in made.endpoints]
        stepped = made.clock.stats.tickers
        await made.clock.aclose()
        made.media.close()
        assert left == (0, 0, 0, 0, 0)
        assert calls == [0, 0, 0]
        assert stepped == 0
        # Not who leaves: that may be another task than who came.
        assert {task.get_name() for task in asyncio.all_tasks() - before - {asyncio.current_task()}} == set()
