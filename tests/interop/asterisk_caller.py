"""A caller of an Asterisk who may hang up at any moment, and what a bridge beside that Asterisk needs in its
configuration."""

import asyncio
import math

import numpy as np
from asterisk_shop import AsteriskShop
from raw_caller import LIMIT_S, RawCaller

from bridge.audio.codec import PCMU
from bridge.sip.offer_answer import PCMU as PCMU_SDP
from bridge.sip.offer_answer import LocalMedia, make_offer

RATE_HZ = 8000
HEARD = 15
"""Packets in a row of a tone that is heard."""


def asterisk_section(shop: AsteriskShop, *, port: int | None = None, name: str = "pbx", more: str = "") -> str:
    """`asterisk:` of a bridge's configuration; the password is in ARI_PASSWORD. `port`: of a proxy in front."""
    url = f"http://127.0.0.1:{port or shop.http_port}"
    login = f"username: {shop.username}, password_env: ARI_PASSWORD"
    return f"asterisk:\n  - {{name: {name}, url: '{url}', {login}{more}}}\n"


class Caller(RawCaller):
    """`RawCaller`, with more ways to behave."""

    def begin(self, number: str, port: int) -> None:
        """Send the INVITE; wait for nothing."""
        self.local = LocalMedia("127.0.0.1", self.rtp.getsockname()[1], codecs=(PCMU_SDP,))
        self.offer = make_offer(self.local)
        self.key = self.agent.invite(
            f"sip:{number}@127.0.0.1:{port}",
            self.sip.flow_to(("127.0.0.1", port)),
            self.sip.now(),
            from_="<sip:tester@127.0.0.1>",
            sdp=self.offer.serialise(),
        )
        self.sip.flush()
        self.sending = asyncio.create_task(self._send_once_answered())

    async def _send_once_answered(self) -> None:
        await self.answered.wait()
        if not self.refused:
            await self._send()

    def give_up(self) -> None:
        """CANCEL or BYE, as it is."""
        self.agent.hangup(self.key, self.sip.now())
        self.sip.flush()

    def say_tone(self, hz: float, seconds: float) -> None:
        """Queue a tone."""
        t = np.arange(int(RATE_HZ * seconds)) / RATE_HZ
        pcm = (8000 * np.sin(2 * math.pi * hz * t)).astype("<i2").tobytes()
        encode = PCMU.encoder()
        self._speech.extend(encode(pcm[i : i + 320].ljust(320, b"\0")) for i in range(0, len(pcm), 320))

    def hears(self, hz: float, since: int = 0, packets: int = HEARD) -> bool:
        """Whether so many packets in a row, from index `since` on, are this tone."""
        run = 0
        for packet in self.packets[since:]:
            samples = np.frombuffer(packet.pcm, "<i2").astype(float)
            loud = np.sqrt(np.mean(samples**2)) > 500
            peak = float(np.argmax(np.abs(np.fft.rfft(samples * np.hanning(len(samples)), 1024)))) * RATE_HZ / 1024
            run = run + 1 if loud and abs(peak - hz) < 40 else 0
            if run >= packets:
                return True
        return False

    async def until_hears(self, hz: float, since: int = 0, limit_s: float = LIMIT_S) -> None:
        async with asyncio.timeout(limit_s):
            if self.hears(hz, since):
                return
            # From here on the newest will do: to look at all of them with each that comes would take all the time.
            while not self.hears(hz, max(since, len(self.packets) - HEARD)):
                await self._change()

    async def is_echoed(self, hz: float) -> None:
        """Say a tone until it comes back. A busy machine may drop some of it on its way."""
        since = len(self.packets)
        async with asyncio.timeout(LIMIT_S):
            while not self.hears(hz, max(since, len(self.packets) - HEARD)):
                if not self._speech:
                    self.say_tone(hz, 1.5)
                await self._change()

    async def until_ended(self, limit_s: float = LIMIT_S) -> None:
        async with asyncio.timeout(limit_s):
            await self.ended.wait()
