"""One call's audio by chan_websocket: between the socket, the stream on the clock, and what waits in Asterisk."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

import structlog

from bridge.asterisk.far_queue import Counted, FarQueue, Flushed
from bridge.asterisk.media_dialect import (
    MarkProcessed,
    MediaCommands,
    MediaFault,
    MediaStart,
    MediaXoff,
    MediaXon,
    QueueStatus,
    parse_event,
)
from bridge.asterisk.settings import StreamCodec
from bridge.audio.clock import MediaClock
from bridge.audio.codec import PCMA, PCMU, Codec
from bridge.audio.frames import FRAME_S, frame_bytes
from bridge.events import FarFlushed
from bridge.legs.frame_stream import FrameStream
from bridge.legs.media import MediaExpired
from bridge.legs.media_socket import MediaSocket, MediaSocketError
from bridge.rtp.format import RtpLimits

KEPT_FRAMES = 50
"""That can be taken back: more than Asterisk has, unless it was stuck."""

READ_EARLIER_S = FRAME_S / 4
"""Of a connection by TLS the kernel has no times: what is read at a tick came some time in the 20 ms before it. A
moment off the grid, so that no rounding makes a frame of it."""

STUCK_S = 10.0
"""Without room for a frame, and the connection is of no use any more."""

CODECS: Mapping[StreamCodec, tuple[int, Codec | None]] = {
    "ulaw": (8000, PCMU),
    "alaw": (8000, PCMA),
    "slin": (8000, None),
    "slin16": (16000, None),
}
"""Hz, and what encodes it; linear audio goes as it is, little-endian."""

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class WebsocketCounters:
    """Of all the calls of one Asterisk."""

    calls: int = 0
    lost: int = 0
    """Connections that broke."""
    flushes: int = 0
    flush_ms: float = 0.0
    """All together, until Asterisk said that its queue is empty."""
    flush_max_ms: float = 0.0
    flushed_ms: float = 0.0
    """Audio that was dropped so."""
    holes: int = 0
    """Times that Asterisk had no frame when it wanted one."""
    full: int = 0
    """Times that it took no more (XOFF)."""
    stalls: int = 0
    """Times that we waited for it to take more."""
    faults: int = 0
    """Commands that it did not take."""


class WebsocketMedia:
    """One call's: between the socket, the stream on the clock, and what is known of Asterisk's queue."""

    def __init__(
        self,
        clock: MediaClock,
        codec: StreamCodec,
        limits: RtpLimits,
        commands: MediaCommands,
        counters: WebsocketCounters,
    ) -> None:
        rate, encoding = CODECS[codec]
        self.stream = FrameStream(clock, sample_rate=rate, codec=codec, send=self._send, limits=limits)
        self.stream.poll = self._poll
        self.stream.far_spare = self._far_spare
        self.stream.on_shift = self._on_shift
        self.stream.on_close = self._close
        self.stream.playout.keep(KEPT_FRAMES)
        self.stream.playout.far_frames = 1
        self.stream.playout.on_cut = self._cut
        self._clock = clock
        self._codec = codec
        self._encode = None if encoding is None else encoding.encoder()
        self._decode = None if encoding is None else encoding.decoder()
        self._silence = bytes(frame_bytes(rate))
        self._counters = counters
        self._far = FarQueue(commands)
        self._socket: MediaSocket | None = None
        self._started: asyncio.Future[MediaStart] = asyncio.get_running_loop().create_future()
        self._running = False
        self._now = 0.0
        self._stalled_since = 0.0

    def attach(self, socket: MediaSocket) -> None:
        """This is its connection, watched by the loop."""
        if self.stream.closed:
            socket.close()
            return
        self._socket = socket
        socket.on_text = self.on_text
        socket.on_audio = self._on_audio
        socket.on_lost = self._lost

    async def run(self, timeout_s: float) -> None:
        """Asterisk begins, and so do we. Raises TimeoutError, MediaSocketError."""
        try:
            async with asyncio.timeout(timeout_s):
                started = await self._started
        except TimeoutError:
            raise MediaSocketError(f"it connected, and did not begin within {timeout_s:g} s") from None
        if started.format not in ("", self._codec):
            raise MediaSocketError(f"it has {started.format} in place of {self._codec}")
        socket = self._socket
        if socket is None or socket.closed:
            raise MediaSocketError("it began, and was gone")
        socket.watch(False)
        self._running = True
        self._now = self._clock.time()
        self.stream.start()
        socket.send_texts(self._far.probe(self._now))
        self._watch()

    # -- on the clock ---------------------------------------------------------------------------------------

    def _poll(self, now: float) -> None:
        socket = self._socket
        if socket is None or socket.closed:
            return
        self._now = now
        socket.read(now - READ_EARLIER_S)
        blocked = bool(socket.unsent) and not socket.write_unsent()
        stalled = blocked or self._far.stalled(now)
        if stalled:
            self._stall(now)
        elif self.stream.stalled:
            self.stream.stalled = False

    def _stall(self, now: float) -> None:
        if not self.stream.stalled:
            self.stream.stalled = True
            self._stalled_since = now
            self._counters.stalls += 1
        elif now - self._stalled_since > STUCK_S and self._socket is not None:
            self._socket.close()
            self._lost(f"it took no audio for {STUCK_S:.0f} s")

    def _send(self, pcm: bytes) -> None:
        far, socket, now = self._far, self._socket, self.stream.sending_at
        if socket is None:
            return
        copies = 1
        if now >= far.attend_at:
            copies = self._attend(socket, pcm, now)
        far.sent += 1
        if copies:
            far.sent_at = now
            payload = pcm if self._encode is None else self._encode(pcm)
            socket.send_audio(payload)
            if copies == 2:
                socket.send_audio(payload)

    def _attend(self, socket: MediaSocket, pcm: bytes, now: float) -> int:
        """A few times a second: measure Asterisk's queue, put it right."""
        self._far.give_up(now)
        command, copies = self._far.attend(now, silent=pcm == self._silence)
        if command:
            socket.send_texts(command)
            self._watch()
        return copies

    def _cut(self) -> None:
        """The agent is interrupted: what Asterisk has not played is never to be heard."""
        socket = self._socket
        if socket is None or socket.closed or not self._running:
            return
        cut = self._far.cut(self._clock.time())
        socket.send_texts(*cut.commands)
        faded = self.stream.playout.take_back(cut.frames)
        if faded:
            socket.send_audio(faded if self._encode is None else self._encode(faded))
        self._watch()

    def _watch(self) -> None:
        """Have the answer read when it comes: the clock would look up to 20 ms later."""
        if self._socket is not None:
            self._socket.watch(self._far.awaiting, self.stream.crashed)

    def _far_spare(self) -> float | None:
        return self._far.spare_s

    def _on_shift(self, earlier_s: float) -> None:
        self._far.shift(earlier_s)

    # -- from Asterisk --------------------------------------------------------------------------------------

    def _on_audio(self, payload: bytes, arrival: float) -> None:
        if arrival > self._now and not self._timed:
            # Read by the loop, before the next tick would have: no earlier than others, or it would look like jitter.
            arrival = self._now + FRAME_S - READ_EARLIER_S
        self.stream.push(payload if self._decode is None else self._decode(payload), arrival)

    def on_text(self, text: str, arrival: float) -> None:
        now = arrival if self._timed else self._clock.time()
        match parse_event(text):
            case MarkProcessed() as event:
                holes = self._far.holes
                self._far.processed(event, now)
                self._counters.holes += self._far.holes - holes
                self.stream.playout.far_frames = self._far.far_frames
            case QueueStatus() as event:
                self._on_status(event, now)
            case MediaXoff():
                self._far.take_full(True)
                self._counters.full += 1
            case MediaXon():
                self._far.take_full(False)
            case MediaStart() as event:
                if not self._started.done():
                    self._started.set_result(event)
            case MediaFault(text=fault):
                self._counters.faults += 1
                if "MARK_MEDIA" in fault:
                    self._far.refuse_marks()
                if self._counters.faults == 1:
                    log.warning("asterisk did not take a media command", error=fault)
            case _:
                pass
        if self._running:
            self._watch()

    @property
    def _timed(self) -> bool:
        return self._socket is not None and self._socket.timed

    def _on_status(self, event: QueueStatus, now: float) -> None:
        counters, playout = self._counters, self.stream.playout
        match self._far.status(event, now):
            case Counted(frames=frames, believed=believed, since=since):
                if frames > believed:
                    playout.take_back(frames - believed, since=since)
                elif frames < believed:
                    playout.played_after_all(believed - frames)
            case Flushed(took_ms=took_ms, dropped_ms=dropped_ms):
                counters.flushes += 1
                counters.flush_ms += took_ms
                counters.flush_max_ms = max(counters.flush_max_ms, took_ms)
                counters.flushed_ms += dropped_ms
                self.stream.on_event(FarFlushed(round(took_ms, 3), dropped_ms))
            case None:
                pass

    # -- the end --------------------------------------------------------------------------------------------

    def _lost(self, reason: str) -> None:
        if not self._started.done():
            self._started.set_exception(MediaSocketError(reason))
        elif self._running:
            self._counters.lost += 1
            self.stream.on_event(MediaExpired(f"Asterisk's media WebSocket: {reason}"))

    def _close(self) -> None:
        self._running = False
        # Nobody may have come to ask for it.
        if self._started.done() and not self._started.cancelled():
            self._started.exception()
        self._started.cancel()
        if self._socket is not None:
            self._socket.close()
