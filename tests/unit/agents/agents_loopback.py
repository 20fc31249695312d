"""A leg in memory with a caller one can script: words are frames of a code, so that every stand-in truly listens."""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping

import numpy as np

from bridge.audio.frames import FRAME_S, FrameSink, Unsubscribe, frame_bytes
from bridge.audio.playout import Playout
from bridge.audio.voice import SpeechStarted, SpeechStopped, VoiceEvent, VoiceSound
from bridge.events import Cause, DtmfReceived, Held, LegEnded, LegEvent, Resumed, TransferResult
from bridge.legs.base import Capability, LegError, LegInfo, LegState, LegStateError, MediaQuality

RATE = 8000
NOISE = 999
"""The code of sound that is no word."""


class WordCode:
    """Words as sample values and back."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}

    def pcm(self, word: str, length_ms: int) -> bytes:
        code = self._codes.setdefault(word, 1000 + len(self._codes))
        return np.full(RATE * length_ms // 1000, code, np.int16).tobytes()

    def word(self, frame: bytes) -> str | None:
        """The word that sounds in the middle of the frame, beyond the fades at its edges."""
        code = self.code(frame)
        return next((word for word, known in self._codes.items() if known == code), None)

    @staticmethod
    def code(frame: bytes) -> int:
        return int(np.frombuffer(frame, np.int16)[len(frame) // 4])


def noise(length_ms: int) -> bytes:
    return np.full(RATE * length_ms // 1000, NOISE, np.int16).tobytes()


class FrameVoiceDetector:
    """Any sound is voice: found after 60 ms, lost after 200 ms."""

    ONSET_FRAMES = 3
    HANGOVER_FRAMES = 10

    def __init__(self, handler: Callable[[VoiceEvent], None]) -> None:
        self._handler: Callable[[VoiceEvent], None] | None = handler
        self._voiced = self._silent = 0
        self._active = False
        self._since = self._last = 0.0
        self.references = 0
        self.voice_db = -23.0
        self.certainty = 1.0

    def push(self, pcm: bytes, now: float) -> None:
        if WordCode.code(pcm):
            self._since = now if not self._voiced else self._since
            self._voiced += 1
            self._silent = 0
            self._last = now + FRAME_S
            if self._voiced >= self.ONSET_FRAMES and not self._active:
                self._active = True
                self._tell(SpeechStarted(self._since))
        else:
            self._voiced = 0
            self._silent += 1
            if self._active and self._silent >= self.HANGOVER_FRAMES:
                self._active = False
                self._tell(SpeechStopped(self._last))

    @property
    def sound(self) -> VoiceSound:
        return VoiceSound(self._last, self.voice_db, self.certainty)

    def reference(self, pcm: bytes, now: float) -> None:
        self.references += 1

    def _tell(self, event: VoiceEvent) -> None:
        if self._handler is not None:
            self._handler(event)

    @property
    def closed(self) -> bool:
        return self._handler is None

    def close(self) -> None:
        self._handler = None


class LoopbackLeg:
    """Fulfils `Leg`. `tick` is its clock; what it sent is kept."""

    def __init__(self, *, capabilities: Capability = ~Capability.NONE, transfer_status: int | None = 200) -> None:
        self.info = LegInfo("loopback", "inbound", "alice", "agent", "test", "leg-1", "127.0.0.1:5060")
        self.capabilities = capabilities
        self.state = LegState.UP
        self.sample_rate = RATE
        self.playout = Playout(RATE)
        self.quality = MediaQuality()
        self.transfers: list[str] = []
        self.replaced: object = None
        """The leg whose far party was to be taken over, in the last of them."""
        self.variables: dict[str, str] = {}
        self.variables_refused = False
        self.music_turns: list[tuple[float, bool]] = []
        """When the music began and stopped."""
        self.music_s = 0.05
        """What it takes to switch it."""
        self.music_refused = False
        self.transfers_stopped = 0
        self.transfer_s = 0.5
        self.transfer_status = transfer_status
        """What the transfer comes to; None: the carrier refuses the request."""
        self.sent: list[tuple[float, bytes]] = []
        self.incoming: deque[bytes] = deque()
        self.sinks: list[FrameSink] = []
        self.handlers: list[Callable[[LegEvent], None]] = []
        self._ended: LegEnded | None = None

    def tick(self, now: float) -> None:
        frame = self.incoming.popleft() if self.incoming else bytes(frame_bytes(RATE))
        for sink in list(self.sinks):
            sink(frame, now)
        self.sent.append((now, self.playout.take(now)))

    async def run_clock(self) -> None:
        loop = asyncio.get_running_loop()
        start, ticks = loop.time(), 0
        while True:
            ticks += 1
            await asyncio.sleep(start + ticks * FRAME_S - loop.time())
            self.tick(loop.time())

    def hear(self, pcm: bytes) -> None:
        """Queue sound of the caller, to arrive in real time."""
        size = frame_bytes(RATE)
        self.incoming.extend(pcm[at : at + size].ljust(size, b"\0") for at in range(0, len(pcm), size))

    def listen(self, sink: FrameSink) -> Unsubscribe:
        self.sinks.append(sink)
        return lambda: self.sinks.remove(sink) if sink in self.sinks else None

    def subscribe(self, handler: Callable[[LegEvent], None]) -> Unsubscribe:
        self.handlers.append(handler)
        if self._ended is not None:
            handler(self._ended)
        return lambda: self.handlers.remove(handler) if handler in self.handlers else None

    def tell(self, event: LegEvent) -> None:
        for handler in list(self.handlers):
            handler(event)

    def press(self, digit: str) -> None:
        self.tell(DtmfReceived(digit, 120))

    def far_hold(self, on: bool) -> None:
        self.tell(Held() if on else Resumed())

    async def ringing(self) -> None:
        pass

    async def answer(self) -> None:
        raise LegStateError("the leg is up")

    async def hangup(self, cause: Cause, detail: str = "") -> None:
        if self._ended is None:
            self.state = LegState.ENDED
            self._ended = LegEnded(cause, detail)
            self.tell(self._ended)

    async def transfer(self, target: str, *, replacing: object = None) -> None:
        if self.transfer_status is None:
            raise LegError("403 Forbidden")
        self.transfers.append(target)
        self.replaced = replacing
        status = self.transfer_status
        asyncio.get_running_loop().call_later(self.transfer_s, lambda: self.tell(TransferResult(status, "so it is")))

    def stop_transfer(self) -> None:
        self.transfers_stopped += 1

    def send_dtmf(self, digits: str, *, tone_ms: int = 120, gap_ms: int = 80) -> None:
        pass

    async def hold(self, on: bool) -> None:
        pass

    async def music(self, on: bool) -> None:
        if self.music_refused:
            raise LegError("no such class")
        await asyncio.sleep(self.music_s)
        self.music_turns.append((asyncio.get_running_loop().time(), on))

    async def set_variables(self, values: Mapping[str, str]) -> None:
        if self.variables_refused:
            raise LegError("404 Channel not found")
        await asyncio.sleep(0.02)
        self.variables.update(values)
