"""A caller made of our user agent and a bare socket: it keeps every RTP packet as it came from the wire."""

import asyncio
import audioop
import socket
import struct
import wave
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bridge.sip import events as sip
from bridge.sip.agent import UserAgent
from bridge.sip.offer_answer import PCMU, LocalMedia, accept_answer, make_offer
from bridge.sip.sdp import parse_sdp
from bridge.sip.settings import UserAgentConfig
from bridge.sip.transport_settings import TransportSettings
from bridge.sip.transports import Transports, open_transports

SILENCE = b"\xff" * 160
LOUD_RMS = 200
LIMIT_S = 60.0
"""Of each wait, on machines that may be busy."""


@dataclass(frozen=True, slots=True)
class Packet:
    at: float
    sequence: int
    timestamp: int
    ssrc: int
    payload_type: int
    payload: bytes

    @property
    def pcm(self) -> bytes:
        return audioop.ulaw2lin(self.payload, 2)

    @property
    def loud(self) -> bool:
        return audioop.rms(self.pcm, 2) > LOUD_RMS


@dataclass
class RawCaller:
    config = UserAgentConfig()
    packets: list[Packet] = field(default_factory=list)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    answered: asyncio.Event = field(default_factory=asyncio.Event)
    refused: int = 0
    loses_each: int = 0
    """So many of its packets and one is lost on its way; 0: none is."""
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _speech: list[bytes] = field(default_factory=list)

    async def open(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.agent = UserAgent(self.config)
        self.sip: Transports = await open_transports(
            self.agent, self._on_event, TransportSettings(hosts=("127.0.0.1",), port=0, tcp=False)
        )
        self.rtp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.rtp.bind(("127.0.0.1", 0))
        self.rtp.setblocking(False)
        self.loop.add_reader(self.rtp, self._receive)

    async def dial(self, user: str, port: int, *, headers: Sequence[tuple[str, str]] = ()) -> str:
        """Returns the SIP Call-ID once the call is answered. `headers` go with the INVITE."""
        self.local = LocalMedia("127.0.0.1", self.rtp.getsockname()[1], codecs=(PCMU,))
        self.offer = make_offer(self.local)
        self.key = self.agent.invite(
            f"sip:{user}@127.0.0.1:{port}",
            self.sip.flow_to(("127.0.0.1", port)),
            self.sip.now(),
            from_="<sip:tester@127.0.0.1>",
            sdp=self.offer.serialise(),
            headers=tuple(headers),
        )
        call_id = self.agent.call_id(self.key)
        self.sip.flush()
        async with asyncio.timeout(LIMIT_S):
            await self.answered.wait()
        assert not self.refused
        self.sending = asyncio.create_task(self._send())
        return call_id

    async def hang_up(self) -> None:
        self.agent.bye(self.key, self.sip.now())
        self.sip.flush()
        async with asyncio.timeout(LIMIT_S):
            await self.ended.wait()

    async def close(self) -> None:
        if self.answered.is_set() and not self.refused:
            self.sending.cancel()
        self.loop.remove_reader(self.rtp)
        self.rtp.close()
        self.sip.close()
        await self.sip.closed

    def speak(self, path: Path) -> None:
        """Queue a WAV (8 kHz mono 16 bit)."""
        with wave.open(str(path), "rb") as file:
            assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (8000, 1, 2)
            encoded = audioop.lin2ulaw(file.readframes(file.getnframes()), 2)
        self._speech.extend(encoded[i : i + 160].ljust(160, b"\xff") for i in range(0, len(encoded), 160))

    async def spoken(self) -> None:
        async with asyncio.timeout(LIMIT_S):
            while self._speech:
                await self._change()

    async def agent_speaks(self, after: int) -> int:
        """The index of the first loud packet from index `after` on."""
        async with asyncio.timeout(LIMIT_S):
            while True:
                for index in range(after, len(self.packets)):
                    if self.packets[index].loud:
                        return index
                await self._change()

    async def agent_finishes(self, quiet_packets: int = 50) -> int:
        """Waits until the last `quiet_packets` packets were silent; the number of packets so far."""
        async with asyncio.timeout(LIMIT_S):
            while any(packet.loud for packet in self.packets[-quiet_packets:]) or len(self.packets) < quiet_packets:
                await self._change()
        return len(self.packets)

    async def packets_come(self, count: int) -> None:
        wanted = len(self.packets) + count
        async with asyncio.timeout(LIMIT_S):
            while len(self.packets) < wanted:
                await self._change()

    def pcm(self, first: int, last: int | None = None) -> bytes:
        return b"".join(packet.pcm for packet in self.packets[first:last])

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    async def _send(self) -> None:
        start, n = self.loop.time(), 0
        while True:
            payload = self._speech.pop(0) if self._speech else SILENCE
            header = struct.pack("!BBHII", 0x80, 0, n & 0xFFFF, n * 160, 0x12345678)
            if not self.loses_each or n % self.loses_each:
                self.rtp.sendto(header + payload, self.remote)
            n += 1
            self._changed.set()
            await asyncio.sleep(max(0.0, start + n * 0.02 - self.loop.time()))

    def _receive(self) -> None:
        data = self.rtp.recv(2048)
        _, kind, sequence, timestamp, ssrc = struct.unpack_from("!BBHII", data)
        self.packets.append(Packet(self.loop.time(), sequence, timestamp, ssrc, kind & 0x7F, data[12:]))
        self._changed.set()

    def _on_event(self, event: sip.Event) -> None:
        match event:
            case sip.Answered(sdp=sdp):
                assert sdp is not None
                agreed = accept_answer(self.offer, parse_sdp(sdp), self.local)
                self.remote = agreed.remote
                self.answered.set()
            case sip.Rejected(status=status):
                self.refused = status
                self.answered.set()
                self.ended.set()
            case sip.ByeReceived() | sip.ByeAnswered() | sip.Lost():
                self.ended.set()
            case _:
                pass
