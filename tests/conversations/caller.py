"""A caller on a line of any quality: speaks, makes noises, presses keys, holds, hangs up; keeps what the wire brings.

Everything that is sent is mixed per 20 ms: voice and noises, the line's own noise, a background, the agent's echo.
"""

import asyncio
import audioop
import random
import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import sounds
from raw_caller import RawCaller
from situation import LineModel

from bench.vad_signals import Samples
from bridge.sip import events as sip
from bridge.sip.offer_answer import Direction, make_offer, revised
from bridge.sip.settings import DEFAULT_ALLOW, UserAgentConfig

FRAME = 160
KEY_MS = 120
KEY_GAP_MS = 80
KEYS = "0123456789*#ABCD"
BACKGROUND_S = 12.0
"""Then it begins anew."""


class CallOverError(Exception):
    """The call ended while the script had more to do."""


@dataclass(frozen=True, slots=True)
class Said:
    """One sound of the caller's, in loop time (s)."""

    what: str
    began: float
    ended: float


class LineCaller(RawCaller):
    """`RawCaller` with a line between it and the bridge. It lets itself be transferred."""

    config = UserAgentConfig(allow=(*DEFAULT_ALLOW, "REFER"))

    def __init__(self, line: LineModel, seed: int) -> None:
        super().__init__()
        self.line = line
        self.said: list[Said] = []
        self.referred_to: list[str] = []
        self.late_ms = 0.0
        """How late its voice left, at worst: the machine had no time for it."""
        self._random = random.Random(seed)
        self._mouth: deque[Samples] = deque()
        self._saying: tuple[str, float] | None = None
        self._keys: deque[tuple[int, int]] = deque()
        """Events still to be sent, a frame each: key, duration in timestamp units; -1: a pause."""
        self._noise = self._background()
        self._quiet = False

    # -- what it does -----------------------------------------------------------------------------------------

    def utter(self, what: str, samples: Samples) -> None:
        """Say it from the next packet on."""
        scaled = samples * 10 ** (self.line.gain_db / 20)
        padded = np.concatenate([scaled, np.zeros(-len(scaled) % FRAME)])
        self._saying = (what, 0.0)
        self._mouth.extend(padded[at : at + FRAME] for at in range(0, len(padded), FRAME))

    def press(self, keys: str) -> None:
        """RFC 4733 events, 120 ms each with 80 ms between."""
        for key in keys:
            frames = KEY_MS // 20
            self._keys.extend((KEYS.index(key), n * FRAME) for n in range(1, frames + 1))
            self._keys.extend((-1, 0) for _ in range(KEY_GAP_MS // 20))

    async def done(self) -> None:
        """Wait until all was said and pressed."""
        await self.until(lambda: not self._mouth and not self._keys and self._saying is None, 90)

    async def hold(self, on: bool) -> None:
        """Put the agent on hold as telephones do, without music; returns at once."""
        direction: Direction = "inactive" if on else "sendrecv"
        self.local = replace(self.local, direction=direction, version=self.local.version + 1)
        self.offer = revised(self.offer, make_offer(self.local, self.offer))
        self.agent.reinvite(self.key, self.offer.serialise(), self.sip.now())
        self.sip.flush()
        self._quiet = on

    async def until(self, condition: Callable[[], bool], within_s: float) -> None:
        """Raises CallOverError, and TimeoutError."""
        async with asyncio.timeout(within_s):
            while not condition():
                if self.ended.is_set():
                    raise CallOverError
                await self._change()

    def silent_for(self, seconds: float) -> bool:
        """The agent has been, as far as packets tell."""
        newest = self.packets[-max(1, int(seconds * 50)) :]
        return len(self.packets) >= seconds * 50 and not any(packet.loud for packet in newest)

    # -- what goes out ----------------------------------------------------------------------------------------

    async def _send(self) -> None:
        start, n = self.loop.time(), 0
        key_began = 0
        while True:
            timestamp = n * FRAME
            if self._mouth:
                self.late_ms = max(self.late_ms, 1000 * (self.loop.time() - start - n * 0.02))
            if self._quiet and not self._mouth:
                pass
            elif self._keys and not self._mouth:
                key, duration = self._keys.popleft()
                if key < 0:
                    self._transmit(n, 0, timestamp, audioop.lin2ulaw(self._mix(n), 2))
                else:
                    first = duration == FRAME
                    key_began = timestamp if first else key_began
                    last = duration * 1000 // 8000 >= KEY_MS
                    event = struct.pack("!BBH", key, 0x80 * last + 10, duration)
                    self._transmit(n, 0x80 * first + (self.events_type or 101), key_began, event)
            else:
                self._transmit(n, 0, timestamp, audioop.lin2ulaw(self._mix(n), 2))
            n += 1
            self._changed.set()
            await asyncio.sleep(max(0.0, start + n * 0.02 - self.loop.time()))

    def _mix(self, n: int) -> bytes:
        now = self.loop.time()
        at = n * FRAME % (len(self._noise) - FRAME)
        frame = self._noise[at : at + FRAME].copy()
        if self._mouth:
            if self._saying is not None and not self._saying[1]:
                self._saying = (self._saying[0], now)
            frame += self._mouth.popleft()
        elif self._saying is not None:
            self.said.append(Said(*self._saying, now))
            self._saying = None
        if (echo := self.line.echo) is not None:
            index = len(self.packets) - 1 - echo.delay_ms // 20
            if index >= 0:
                heard = np.frombuffer(self.packets[index].pcm, np.int16)
                frame[: len(heard)] += heard[:FRAME] * 10 ** (echo.db / 20)
        return np.clip(np.rint(frame), -32768, 32767).astype("<i2").tobytes()

    def _transmit(self, n: int, kind: int, timestamp: int, payload: bytes) -> None:
        if self._random.random() < self.line.loss:
            return
        packet = struct.pack("!BBHII", 0x80, kind, n & 0xFFFF, timestamp & 0xFFFFFFFF, 0x12345678) + payload
        if self.line.jitter_ms:
            self.loop.call_later(self._random.random() * self.line.jitter_ms / 1000, self._put, packet)
        else:
            self._put(packet)

    def _put(self, packet: bytes) -> None:
        if self.rtp.fileno() >= 0:
            self.rtp.sendto(packet, self.remote)

    def _background(self) -> Samples:
        noise = sounds.line_noise(BACKGROUND_S)
        if (behind := self.line.background) is not None:
            made = sounds.sound(behind.sound, BACKGROUND_S, behind.db)
            noise = noise + np.resize(made, len(noise))
        return noise

    # -- what comes in ----------------------------------------------------------------------------------------

    events_type: int | None = None

    def _on_event(self, event: sip.Event) -> None:
        match event:
            case sip.Answered(sdp=sdp) if self.answered.is_set() is False and sdp is not None:
                super()._on_event(event)
                self.events_type = _events_type(sdp)
            case sip.Referred(key=key, target=target):
                self.referred_to.append(target)
                now = self.sip.now()
                self.agent.accept_refer(key, now)
                self.agent.notify(key, 200 if self.line.transfer == "obeys" else 486, now)
                self.sip.flush()
            case _:
                super()._on_event(event)
        self._changed.set()


def _events_type(sdp: bytes) -> int | None:
    for line in sdp.decode().splitlines():
        if line.startswith("a=rtpmap:") and "telephone-event/8000" in line:
            return int(line.removeprefix("a=rtpmap:").split()[0])
    return None
