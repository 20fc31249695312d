"""One call's audio by WebSocket against a stand-in of chan_websocket: cut off, full, stuck, strange, gone.

The stand-in is on the other end of a real socket; the clock's time is ours."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator

import numpy as np
import pytest
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from bridge.asterisk.media_dialect import MediaCommands
from bridge.asterisk.settings import StreamCodec
from bridge.audio.clock import MediaClock
from bridge.audio.frames import frame_bytes
from bridge.events import FarFlushed
from bridge.legs.asterisk.websocket_media import STUCK_S, WebsocketCounters, WebsocketMedia
from bridge.legs.media import MediaCrashed, MediaExpired, StreamEvent
from bridge.legs.media_socket import MediaSocket, MediaSocketError
from bridge.rtp.format import RtpLimits

RATE = 16000
FRAME = frame_bytes(RATE)
SILENCE = bytes(FRAME)
WAIT_S = 30.0
LIMITS = RtpLimits(first_media_s=60.0, media_s=60.0, notice_s=50.0)


class Asterisk:
    """The far end: it keeps what it is sent, and answers as it is told to."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.protocol = ServerProtocol(state=OPEN)
        self.protocol.parser = self.protocol.parse()
        next(self.protocol.parser)
        self.audio: list[bytes] = []
        self.commands: list[str] = []
        self.queued = 0
        """Frames that it says it has."""
        self.answers = True

    def read(self) -> None:
        try:
            self.protocol.receive_data(self.sock.recv(1_000_000))
        except BlockingIOError:
            return
        for event in self.protocol.events_received():
            assert isinstance(event, Frame)
            if event.opcode is Opcode.BINARY:
                self.audio.append(bytes(event.data))
            elif event.opcode is Opcode.TEXT:
                self._obey(json.loads(bytes(event.data)))

    def _obey(self, command: dict[str, str]) -> None:
        self.commands.append(command["command"])
        if not self.answers:
            return
        match command["command"]:
            case "GET_STATUS":
                self.tell(event="STATUS", queue_length=self.queued, xon_level=800, xoff_level=900)
            case "FLUSH_MEDIA":
                self.queued = 0
            case "MARK_MEDIA":
                self.tell(event="MEDIA_MARK_PROCESSED", correlation_id=command["correlation_id"])
            case _:
                pass

    def tell(self, **message: object) -> None:
        self.say(json.dumps(message).encode(), Opcode.TEXT)

    def say(self, data: bytes, opcode: Opcode = Opcode.BINARY) -> None:
        self.sock.sendall(Frame(opcode, data).serialize(mask=False))


class Call:
    def __init__(self, codec: StreamCodec = "slin16") -> None:
        self.now = 100.003
        self.clock = MediaClock(phases=1, time_now=lambda: self.now)
        self.counters = WebsocketCounters()
        self.media = WebsocketMedia(self.clock, codec, LIMITS, MediaCommands("json"), self.counters)
        self.stream = self.media.stream
        self.playout = self.stream.playout
        self.events: list[StreamEvent] = []
        self.heard: list[bytes] = []
        self.stream.on_event = self.events.append
        self.stream.listen(lambda pcm, now: self.heard.append(pcm))
        near, far = socket.socketpair()
        near.setblocking(False)
        protocol = ClientProtocol(parse_uri("ws://127.0.0.1/"), state=OPEN)
        protocol.parser = protocol.parse()
        next(protocol.parser)
        self.socket = MediaSocket(near, protocol)
        self.asterisk = Asterisk(far)
        self.media.attach(self.socket)

    async def begin(self, format: str = "slin16") -> None:
        self.media.on_text(json.dumps({"event": "MEDIA_START", "format": format}), self.now)
        await self.media.run(WAIT_S)
        self.ticks(5)

    def ticks(self, count: int, pcm: bytes = b"") -> None:
        for _ in range(count):
            if pcm:
                self.asterisk.say(pcm)
            self.now += 0.02
            self.clock.run(self.now)
            self.asterisk.read()

    def talk(self, frames: int) -> bytes:
        """Begin to say something that lasts so long."""
        pcm = np.arange(1, 1 + frames * FRAME // 2).astype("<i2").tobytes()
        generation = self.playout.begin()
        self.playout.write(generation, pcm)
        self.playout.end(generation)
        return pcm


@pytest.fixture
async def call() -> AsyncIterator[Call]:
    made = Call()
    await made.begin()
    yield made
    made.stream.close()
    made.asterisk.sock.close()
    assert made.socket.closed
    assert made.clock.stats.tickers == 0


async def test_audio_goes_both_ways_on_the_clock(call: Call) -> None:
    call.asterisk.audio.clear()
    said = call.talk(10)
    loud = b"\x00\x10" * (FRAME // 2)
    call.ticks(12, loud)
    assert b"".join(call.asterisk.audio)[: 10 * FRAME] == said
    assert call.asterisk.audio[10:] == [SILENCE] * 2
    assert call.heard[-1] == loud
    assert call.stream.quality.packets_received == 12


@pytest.mark.parametrize(("codec", "size"), [("ulaw", 160), ("alaw", 160), ("slin", 320)])
async def test_audio_is_in_the_codec(codec: StreamCodec, size: int) -> None:
    call = Call(codec)
    await call.begin(codec)
    assert call.stream.sample_rate == 8000
    call.ticks(5, b"\x55" * size)
    assert {len(payload) for payload in call.asterisk.audio} == {size}
    assert len(call.heard[-1]) == 320
    assert any(call.heard[-1])
    call.stream.close()
    call.asterisk.sock.close()


async def test_a_cut_flushes_at_once_and_tells_what_was_dropped(call: Call) -> None:
    said = call.talk(50)
    call.ticks(20)
    call.asterisk.audio.clear()
    call.asterisk.commands.clear()
    call.asterisk.queued = 3
    call.playout.pause()
    call.asterisk.read()
    assert call.asterisk.commands == ["GET_STATUS", "FLUSH_MEDIA", "GET_STATUS"]
    call.ticks(1)
    assert [type(event) for event in call.events] == [FarFlushed]
    assert call.events == [FarFlushed(pytest.approx(20, abs=1), 60)]
    assert call.playout.heard_ms == call.playout.sent_ms == 17 * 20
    assert (call.counters.flushes, call.counters.flushed_ms) == (1, 60)
    call.playout.resume()
    call.asterisk.audio.clear()
    call.ticks(40)
    went_on = b"".join(call.asterisk.audio)
    # Faded in over the first 5 ms.
    assert went_on[RATE // 100 : 33 * FRAME] == said[17 * FRAME + RATE // 100 :]


async def test_the_answer_to_a_flush_is_read_at_once_not_with_the_next_tick(call: Call) -> None:
    call.talk(50)
    call.ticks(20)
    call.playout.drop()
    call.asterisk.read()
    async with asyncio.timeout(WAIT_S):
        while not call.events:
            await asyncio.sleep(0)
    assert call.events == [FarFlushed(0.0, 0.0)]


async def test_one_cut_is_one_flush_and_none_without_speech(call: Call) -> None:
    call.asterisk.commands.clear()
    call.playout.pause()
    call.playout.drop()
    call.talk(50)
    call.playout.pause()
    call.ticks(5)
    assert "FLUSH_MEDIA" not in call.asterisk.commands
    call.playout.resume()
    call.ticks(5)
    call.playout.pause()
    call.playout.drop()
    call.ticks(1)
    assert call.asterisk.commands.count("FLUSH_MEDIA") == 1


async def test_full_is_obeyed_and_counted(call: Call) -> None:
    call.talk(100)
    call.ticks(10)
    call.asterisk.tell(event="MEDIA_XOFF")
    call.ticks(1)
    call.asterisk.audio.clear()
    sent_ms = call.playout.sent_ms
    call.ticks(50)
    assert call.asterisk.audio == []
    assert call.playout.sent_ms == sent_ms
    call.asterisk.tell(event="MEDIA_XON")
    call.ticks(10)
    assert len(call.asterisk.audio) == 10
    assert call.counters.full == 1


async def test_an_asterisk_that_plays_nothing_is_waited_for_and_then_given_up(call: Call) -> None:
    call.talk(1000)
    call.asterisk.answers = False
    call.ticks(200)
    call.asterisk.audio.clear()
    sent_ms = call.playout.sent_ms
    assert sent_ms < 2500
    call.ticks(100)
    assert call.asterisk.audio == []
    assert call.playout.sent_ms == sent_ms
    assert call.counters.stalls == 1
    assert call.events == []
    call.ticks(round(STUCK_S / 0.02))
    assert call.events == [MediaExpired(f"Asterisk's media WebSocket: it took no audio for {STUCK_S:.0f} s")]
    assert call.socket.closed
    # On the clock until its leg ends it.
    call.ticks(10)
    assert len(call.events) == 1


async def test_a_socket_without_room_stops_the_playout_and_takes_no_memory() -> None:
    call = Call()
    call.asterisk.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    await call.begin()
    call.media.on_text(json.dumps({"event": "ERROR", "error_text": "MARK_MEDIA not supported"}), call.now)
    call.talk(10_000)
    ticks = 0
    while not call.stream.stalled:
        call.now += 0.02
        call.clock.run(call.now)
        ticks += 1
        assert ticks < 5000
    assert len(call.socket.unsent) <= FRAME + 8
    before = call.playout.sent_ms
    for _ in range(50):
        call.now += 0.02
        call.clock.run(call.now)
    assert call.playout.sent_ms == before
    assert call.clock.stats.skipped_steps == 0
    call.ticks(1)
    call.ticks(10)
    assert call.playout.sent_ms > before
    call.stream.close()
    call.asterisk.sock.close()


async def test_a_lost_socket_is_told_to_the_leg(call: Call) -> None:
    call.asterisk.sock.close()
    call.now += 0.02
    call.clock.run(call.now)
    assert len(call.events) == 1
    (event,) = call.events
    assert isinstance(event, MediaExpired) and event.detail.startswith("Asterisk's media WebSocket: ")
    assert call.counters.lost == 1
    call.playout.pause()
    call.now += 0.02
    call.clock.run(call.now)
    assert len(call.events) == 1


async def test_digits_in_band_are_left_to_ari(call: Call) -> None:
    call.asterisk.tell(event="DTMF_END", digit="5")
    call.ticks(2)
    assert call.events == []


async def test_commands_that_are_not_taken_are_counted_and_marks_given_up(call: Call) -> None:
    call.asterisk.tell(event="ERROR", error_text="MARK_MEDIA not supported in passthrough mode")
    call.ticks(1)
    call.asterisk.commands.clear()
    call.ticks(100)
    assert call.asterisk.commands == []
    assert call.counters.faults == 1
    assert not call.stream.stalled


async def test_a_failing_listener_ends_its_own_call_alone(call: Call) -> None:
    other = Call()
    await other.begin()

    def fail(pcm: bytes, now: float) -> None:
        raise RuntimeError("boom")

    call.stream.listen(fail)
    call.ticks(2)
    other.ticks(2)
    assert call.events == [MediaCrashed("RuntimeError: boom")]
    assert other.events == []
    other.stream.close()
    other.asterisk.sock.close()


async def test_an_asterisk_that_has_another_format_is_refused() -> None:
    call = Call()
    with pytest.raises(MediaSocketError, match="ulaw in place of slin16"):
        await call.begin("ulaw")
    call.stream.close()
    assert call.socket.closed
    call.asterisk.sock.close()


async def test_an_asterisk_that_does_not_begin_is_given_up() -> None:
    call = Call()
    with pytest.raises(MediaSocketError, match="did not begin"):
        await call.media.run(0.01)
    call.stream.close()
    assert call.socket.closed
    call.asterisk.sock.close()


async def test_an_asterisk_that_is_gone_before_it_began_is_told_so() -> None:
    call = Call()
    call.asterisk.sock.close()
    call.socket.read(call.now)
    with pytest.raises(MediaSocketError, match=r"end of stream|broke"):
        await call.media.run(WAIT_S)
    call.stream.close()


async def test_a_connection_that_comes_after_the_end_is_closed() -> None:
    call = Call()
    call.stream.close()
    near, far = socket.socketpair()
    late = MediaSocket(near, ClientProtocol(parse_uri("ws://127.0.0.1/"), state=OPEN))
    call.media.attach(late)
    assert late.closed
    far.close()
    call.asterisk.sock.close()
