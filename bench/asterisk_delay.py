"""How late audio through Asterisk is, each way, frame by frame; which are lost, and where; how soon it is silent.

The endpoint of the bridge runs in this process, with its media plane and clock but without agents and voice
detection; callers in another (`bench.asterisk_callers`). Frames are numbered (`bench.frame_codes`).
"""

import asyncio
import contextlib
import pickle
import random
import sys
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.asterisk_callers import Heard
from bench.frame_codes import NUMBERS, Seen, decode, encode, follow
from bench.served import quantile
from bridge.asterisk.ari import Ari
from bridge.asterisk.settings import (
    AsteriskSettings,
    AudioSocketSettings,
    MediaKind,
    WebsocketListenerSettings,
)
from bridge.audio.clock import MediaClock
from bridge.audio.frames import FRAME_S, frame_bytes
from bridge.events import Cause, FarFlushed, LegEvent
from bridge.legs.asterisk.audiosocket import AudioSocketTransport
from bridge.legs.asterisk.endpoint import AsteriskEndpoint
from bridge.legs.asterisk.leg import AsteriskLeg
from bridge.legs.asterisk.media import LegMedia, MediaTransport
from bridge.legs.asterisk.rtp import RtpTransport
from bridge.legs.asterisk.websocket import WebsocketTransport
from bridge.legs.asterisk.websocket_listener import WebsocketListener
from bridge.legs.audiosocket_server import AudioSocketServer
from bridge.legs.base import LegError
from bridge.legs.frame_stream import FrameStream
from bridge.legs.media import MediaPlane, MediaStream
from bridge.rtp.settings import RtpSettings

PASSWORD = "ARI_PASSWORD"
SETTLE_S = 5.0
"""Jitter buffers have found their depth, Asterisk's queues theirs."""
CUT_EVERY_S = 1.0
SILENT_S = 0.6
"""A cut is over by then."""
NUMBERS_EACH = 160
"""Of each leg: what a caller hears says whose it is."""
MOST_CALLS = NUMBERS // NUMBERS_EACH
RTP_HEADER = 12
AGAIN = 10
"""Times that a leg's numbers are sent over in one piece."""
PAUSE_FRAMES = 15
"""After each: agents breathe, and in silence Asterisk's queue is put right (`bridge.asterisk.far_queue`)."""

HEADER = (
    f"{'media':>12}{'calls':>6}{'in p50':>8}{'p95':>6}{'at us p50':>10}{'p95':>6}{'out p50':>8}{'p95':>6}"
    f"{'lost in':>8}{'by us':>6}{'lost out':>9}{'of':>7}{'buffer':>7}{'silent p50':>11}{'p95':>6}"
    f"{'flushed p50':>12}{'p95':>6}{'ticks late':>11}{'late*':>6}"
)
FOOTNOTE = """agents say numbers for 3.2 s, then pause for 0.3 s, over and over; callers say them without a pause
added delay, ms. in: the caller's packet sent to its last sample with our listeners, jitter buffer
included; at us: to its arrival at our socket (kernel's time; AudioSocket: not measured); out: frame taken from the
playout to its arrival at the caller (kernel's time)
lost in: frames of callers that our listeners never got; by us: those of them that had come to our socket and were
dropped or stretched beyond reading; lost out: frames taken from the playout that no caller got
buffer: our jitter buffer's depth at the end, median, ms
silent: from the agent being cut off until the last packet with sound at the caller; flushed: until Asterisk said that
its queue is empty
* packets that the callers themselves sent more than 5 ms late"""


@dataclass(slots=True, eq=False)
class _Leg:
    """One call, and what is known of it."""

    leg: AsteriskLeg
    first: int
    """Number of its first frame."""
    listened: list[tuple[bytes, float]] = field(default_factory=list)
    taken: list[tuple[bytes, float]] = field(default_factory=list)
    cuts: list[float] = field(default_factory=list)

    async def run(self) -> None:
        """Answer, and talk without end."""
        try:
            await self.leg.ringing()
            await self.leg.answer()
        except LegError as error:
            print(f"       a call was not answered: {error}")
            return
        self.leg.listen(lambda pcm, now: self.listened.append((pcm, time.monotonic())))
        self.leg.playout.listen(lambda pcm, now: self.taken.append((pcm, time.monotonic())))
        self.talk()

    def talk(self) -> None:
        playout = self.leg.playout
        generation = playout.begin()
        rate_hz = playout.sample_rate
        numbers = range(self.first, self.first + NUMBERS_EACH)
        sentence = b"".join(encode(number, rate_hz) for number in numbers) + bytes(
            PAUSE_FRAMES * frame_bytes(rate_hz)
        )
        playout.write(generation, sentence * AGAIN)

    def cut(self) -> None:
        """As an agent that is interrupted."""
        self.cuts.append(time.monotonic())
        self.leg.playout.drop()


class _Tapped:
    """A transport that notes what comes to the sockets of its calls."""

    def __init__(self, transport: MediaTransport) -> None:
        self._transport = transport
        self.kind, self.codec, self.sample_rate = transport.kind, transport.codec, transport.sample_rate
        self.arrived: list[list[tuple[bytes, float]]] = []
        """Of each call: PCM and its time."""

    async def open(self, ari: Ari, channel_id: str) -> LegMedia:
        media = await self._transport.open(ari, channel_id)
        frames: list[tuple[bytes, float]] = []
        self.arrived.append(frames)
        if isinstance(media, MediaStream):
            decoder = _decoder(self.codec)

            def tap(incoming: bool, packet: bytes, address: Any, at: float) -> None:
                if incoming:
                    frames.append((decoder(packet[RTP_HEADER:]), at))

            media.tap(tap)
        elif isinstance(media, FrameStream):
            push = media.push

            def noting(pcm: bytes, arrival: float) -> None:
                frames.append((pcm, arrival))
                push(pcm, arrival)

            media.push = noting  # type: ignore[method-assign]  # each frame's way to the stream leads by here
        return media


def _decoder(codec: str) -> Any:
    from bridge.audio.codec import find_codec

    found = find_codec("PCMU" if codec == "ulaw" else codec, 8000)
    assert found is not None
    return found.decoder()


class Bench:
    """The bridge's side of the calls."""

    def __init__(self, settings: AsteriskSettings, password: str, audiosocket_port: int) -> None:
        self.clock = MediaClock()
        self._media = MediaPlane(self.clock, RtpSettings(), host="0.0.0.0")
        self._audiosocket = AudioSocketServer(
            AudioSocketSettings(listen="127.0.0.1", port=audiosocket_port), self.clock
        )
        limits = self._media.limits
        websockets = WebsocketListener(WebsocketListenerSettings())
        makers: dict[MediaKind, MediaTransport] = {
            "rtp": RtpTransport(self._media, settings),
            "websocket": WebsocketTransport(self.clock, settings, limits, websockets),
            "audiosocket": AudioSocketTransport(self._audiosocket, settings, limits),
        }
        self.transport = _Tapped(makers[settings.media])
        self.calls: list[_Leg] = []
        self.flushed_ms: list[float] = []
        self._tasks: list[asyncio.Task[None]] = []
        self.endpoint = AsteriskEndpoint(
            settings,
            clock=self.clock,
            transports={settings.media: self.transport},
            on_leg=self._on_leg,
            environ={PASSWORD: password},
        )

    def _on_leg(self, leg: AsteriskLeg) -> None:
        call = _Leg(leg, len(self.calls) * NUMBERS_EACH)
        self.calls.append(call)
        leg.subscribe(self._on_event)
        self._tasks.append(asyncio.create_task(call.run()))

    def _on_event(self, event: LegEvent) -> None:
        if isinstance(event, FarFlushed):
            self.flushed_ms.append(event.took_ms)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        await self._audiosocket.start()
        self.clock.start()
        self.endpoint.start()
        try:
            async with asyncio.timeout(30):
                while self.endpoint.ari.state != "up":  # noqa: ASYNC110 -- nobody tells
                    await asyncio.sleep(0.05)
            yield
        finally:
            for call in self.calls:
                call.leg.hang_up(Cause.DRAINED)
            await self.endpoint.aclose()
            await self._audiosocket.aclose()
            self.clock.stop()
            self._media.close()

    async def cut_off(self) -> None:
        """Interrupt each call once, each at a moment of its own, and have it talk again."""
        loop = asyncio.get_running_loop()
        for call in self.calls:
            after_s = random.uniform(0, CUT_EVERY_S - SILENT_S - 0.1)
            loop.call_later(after_s, call.cut)
            loop.call_later(after_s + SILENT_S, call.talk)
        await asyncio.sleep(CUT_EVERY_S)


async def measure(
    bench: Bench, sip_port: int, user: str, calls: int, rate: float, seconds: float, cuts: int, file: Path
) -> str:
    """One row. `cuts`: how often each call is cut off at the end."""
    assert calls <= MOST_CALLS
    async with bench.running():
        whole_s = SETTLE_S + seconds + cuts * CUT_EVERY_S + 1.0
        command = [
            "-m",
            "bench.asterisk_callers",
            str(sip_port),
            user,
            str(calls),
            str(rate),
            str(whole_s),
            str(file),
        ]
        callers = await asyncio.create_subprocess_exec(sys.executable, *command, cwd=Path(__file__).parent.parent)
        try:
            while len(bench.calls) < calls and callers.returncode is None:  # noqa: ASYNC110 -- nobody tells
                await asyncio.sleep(0.05)
            await asyncio.sleep(1.0 + SETTLE_S)
            before = bench.clock.stats
            since = time.monotonic()
            await asyncio.sleep(seconds)
            until = time.monotonic() - 0.5
            after = bench.clock.stats
            buffer_ms = [call.leg.quality.buffer_ms for call in bench.calls]
            for _ in range(cuts):
                await bench.cut_off()
            code = await callers.wait()
        except BaseException:
            if callers.returncode is None:
                callers.terminate()
                await callers.wait()
            raise
    if code:
        return f"       the callers failed ({code})"
    heard = Heard(**pickle.loads(await asyncio.to_thread(file.read_bytes)))
    late = after.late_steps + after.skipped_steps - before.late_steps - before.skipped_steps
    return _row(bench, heard, calls, since, until, buffer_ms, f"{late}/{after.steps - before.steps}")


def _row(
    bench: Bench, heard: Heard, calls: int, since: float, until: float, buffer_ms: Sequence[float], late: str
) -> str:
    rate_hz = bench.transport.sample_rate
    listened = _all(decode(call.listened, rate_hz) for call in bench.calls)
    arrived = _all(decode(frames, rate_hz) for frames in bench.transport.arrived)
    taken = _between(_all(decode(call.taken, rate_hz) for call in bench.calls), since, until)
    sent = _between(heard.sent, since, until)
    inward, at_us = follow(sent, listened), follow(sent, arrived)
    outward = follow(taken, _all(heard.came))
    lost_in = sum(delay is None for delay in inward)
    by_us = sum(ours is None and socket is not None for ours, socket in zip(inward, at_us, strict=True))
    silent = _silences(bench.calls, heard)
    line = f"{bench.transport.kind:>12}{heard.up:>6}"
    for delays, first in ((inward, 8), (at_us, 10), (outward, 8)):
        line += _ms([delay * 1000 for delay in delays if delay is not None], first)
    line += (
        f"{lost_in:>8}{by_us if arrived else '-':>6}{sum(delay is None for delay in outward):>9}"
        f"{len(sent) + len(taken):>7}{quantile(list(buffer_ms), 0.5):>7.0f}"
        f"{_ms([value * 1000 for value in silent], 11)}{_ms(bench.flushed_ms, 12)}{late:>11}{heard.late_sends:>6}"
    )
    if heard.up != calls or heard.ended != heard.up or heard.lost:
        line += (
            f"\n       {heard.up} of {calls} calls came up, {heard.ended} BYEs confirmed, {heard.lost} packets lost"
        )
    return line


def _silences(calls: Iterable[_Leg], heard: Heard) -> list[float]:
    """For each cut how long its caller heard sound after it (s); 0: none."""
    found = []
    for call in calls:
        own = range(call.first, call.first + NUMBERS_EACH)
        loud = next(
            (loud for came, loud in zip(heard.came, heard.loud, strict=True) if came and came[-1][0] in own), []
        )
        for cut in call.cuts:
            after = [at - cut for at in loud if cut - 2 * FRAME_S < at < cut + SILENT_S - FRAME_S]
            if after:
                found.append(max(0.0, *after))
    return found


def _ms(values: list[float], first: int) -> str:
    if not values:
        return f"{'-':>{first}}{'-':>6}"
    return f"{quantile(values, 0.5):>{first}.1f}{quantile(values, 0.95):>6.1f}"


def _all(tracks: Iterable[list[Seen]]) -> list[Seen]:
    return [seen for track in tracks for seen in track]


def _between(seen: Sequence[Seen], since: float, until: float) -> list[Seen]:
    return [one for one in seen if since <= one[1] <= until]
