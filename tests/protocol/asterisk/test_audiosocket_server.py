"""The AudioSocket listener with real sockets: whom it takes, what it holds against peers that misbehave."""

import asyncio
import ipaddress
import random
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from uuid import UUID, uuid4

import numpy as np
import pytest
from free_ports import free_port

from bridge.asterisk.audiosocket import END
from bridge.asterisk.dialplan_calls import Announcement, DialplanCalls
from bridge.asterisk.settings import AudioSocketSettings
from bridge.asterisks import audiosocket_settings
from bridge.audio.clock import MediaClock
from bridge.config import Config
from bridge.events import Answered, Cause, DtmfReceived, LegEnded, LegEvent, TransferResult
from bridge.legs.audiosocket import AudioSocketEndpoint, AudioSocketLeg
from bridge.legs.audiosocket_server import AudioSocketConnection, AudioSocketServer, ServerLimits
from bridge.legs.base import (
    Capability,
    LegState,
    LegStateError,
    NotCapableError,
    TransferFailedError,
    TransferRefusedError,
)
from bridge.rtp.format import RtpLimits

WAIT_S = 30.0
FRAME = b"\x10\x01\x40" + bytes(320)
LIMITS = RtpLimits(first_media_s=WAIT_S, media_s=WAIT_S)


class Peer:
    """Asterisk's end of a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def say(self, data: bytes) -> None:
        self.writer.write(data)

    def hello(self, uuid: UUID) -> None:
        self.say(b"\x01\x00\x10" + uuid.bytes)

    async def message(self) -> bytes:
        """The next one that is whole."""
        async with asyncio.timeout(WAIT_S):
            header = await self.reader.readexactly(3)
            return header + await self.reader.readexactly(header[1] << 8 | header[2])

    async def closed(self) -> None:
        """It was closed properly: the end was told, and no error came."""
        async with asyncio.timeout(WAIT_S):
            rest = await self.reader.read()
        assert rest.endswith(END)

    async def dropped(self) -> bytes:
        """It was closed, in whatever way; what came before."""
        async with asyncio.timeout(WAIT_S):
            try:
                return await self.reader.read()
            except ConnectionError:
                return b""

    def reset(self) -> None:
        """As a process that is killed with audio unread."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


class Box:
    """A server, its clock, and the calls of dialplans that it has."""

    def __init__(self, limits: ServerLimits) -> None:
        self.clock = MediaClock()
        settings = AudioSocketSettings(listen="127.0.0.1", port=free_port())
        self.server = AudioSocketServer(settings, self.clock, limits)
        self.calls = DialplanCalls()
        self.legs: asyncio.Queue[AudioSocketLeg] = asyncio.Queue()
        self.peers: list[Peer] = []
        self.endpoint: AudioSocketEndpoint

    def take_dialplans(self) -> None:
        self.endpoint = AudioSocketEndpoint(self.server, "pbx", self.calls, self.legs.put_nowait, LIMITS)

    async def connect(self) -> Peer:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.server.port)
        self.peers.append(Peer(reader, writer))
        return self.peers[-1]

    async def leg(self, announcement: Announcement | None = None) -> tuple[AudioSocketLeg, Peer]:
        uuid = uuid4()
        if announcement is not None:
            self.calls.announce(uuid, announcement, self.clock.time())
        peer = await self.connect()
        peer.hello(uuid)
        return await asyncio.wait_for(self.legs.get(), WAIT_S), peer

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not condition():
                await asyncio.sleep(0.005)


@asynccontextmanager
async def running(limits: ServerLimits | None = None) -> AsyncIterator[Box]:
    """Leaving it checks that no connection, nothing on the clock and no task is left."""
    before = asyncio.all_tasks()
    box = Box(limits or ServerLimits())
    await box.server.start()
    box.clock.start()
    try:
        yield box
    finally:
        await box.server.aclose()
        for peer in box.peers:
            peer.writer.close()
        await box.until(lambda: not len(box.server))
        assert box.clock.stats.tickers == 0
        box.clock.stop()
        await box.until(lambda: asyncio.all_tasks() <= before)


def told(leg: AudioSocketLeg) -> list[LegEvent]:
    events: list[LegEvent] = []
    leg.subscribe(events.append)
    return events


# -- who may connect ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("10.1.2.3", True),
        ("::ffff:10.1.2.3", True),
        ("2001:db8::5", True),
        ("10.2.0.1", False),
        ("192.168.1.1", False),
        ("::ffff:192.168.1.1", False),
        ("fe80::1%eth0", False),
        ("nonsense", False),
    ],
)
def test_loopback_and_the_configured_networks_may_connect(address: str, allowed: bool) -> None:
    settings = AudioSocketSettings(networks=("10.1.0.0/16", "2001:db8::/64"))
    assert AudioSocketServer(settings, MediaClock()).allows(address) is allowed


def test_who_may_connect_changes_with_the_configuration() -> None:
    config = Config.model_validate(
        {"asterisk": [{"name": "pbx", "url": "http://10.1.2.3:8088", "username": "u", "password_env": "P"}]}
    )
    server = AudioSocketServer(AudioSocketSettings(networks=("10.9.0.0/16",)), MediaClock())
    server.permit(audiosocket_settings(config).networks)
    assert (server.allows("10.1.2.3"), server.allows("10.9.0.1"), server.allows("127.0.0.1")) == (True, False, True)


class StrangersTransport(asyncio.Transport):
    """A connection from elsewhere, as tests on loopback have none."""

    def __init__(self) -> None:
        super().__init__({"peername": ("203.0.113.9", 4000), "socket": socket.socket()})
        self.aborted = False

    def abort(self) -> None:
        self.aborted = True
        self.get_extra_info("socket").close()


async def test_a_stranger_is_closed_at_once_and_named() -> None:
    server = AudioSocketServer(AudioSocketSettings(), MediaClock())
    connection = AudioSocketConnection(server)
    transport = StrangersTransport()
    connection.connection_made(transport)
    assert transport.aborted
    connection.data_received(b"\x01\x00\x10" + uuid4().bytes)
    connection.connection_lost(None)
    assert server.ends == {"stranger": 1}
    assert server.last_stranger == "203.0.113.9"
    assert len(server) == 0


async def test_who_never_says_which_call_it_is_for_is_closed() -> None:
    async with running(ServerLimits(hello_s=0.05)) as box:
        silent, slow = await box.connect(), await box.connect()
        slow.say(b"\x01\x00\x10" + bytes(15))
        assert await silent.dropped() == await slow.dropped() == b""
        assert box.server.ends == {"no-uuid-in-time": 2}


async def test_a_flood_of_connections_keeps_no_call_away() -> None:
    async with running(ServerLimits(waiting=8)) as box:
        box.take_dialplans()
        for _ in range(100):
            await box.connect()
        await box.until(lambda: box.server.ends.get("crowded", 0) >= 80)
        leg, peer = await box.leg()
        assert leg.state is LegState.OFFERED
        assert (await peer.message()) == FRAME
        assert len(box.server) < 20


async def test_there_are_no_more_connections_than_the_limit() -> None:
    async with running(ServerLimits(connections=3)) as box:
        box.take_dialplans()
        for _ in range(3):
            await box.leg()
        assert await (await box.connect()).dropped() == b""
        assert box.server.ends == {"full": 1}


async def test_garbage_closes_its_connection_and_no_other() -> None:
    random_bytes = random.Random(5)
    async with running() as box:
        box.take_dialplans()
        leg, peer = await box.leg()
        for _ in range(50):
            stranger = await box.connect()
            stranger.say(b"\x55" + random_bytes.randbytes(500))
            await stranger.dropped()
        assert box.server.ends == {"no-uuid-first": 50}
        assert leg.state is LegState.OFFERED
        assert (await peer.message()) == FRAME


# -- whose call it is ---------------------------------------------------------------------------------------


async def test_a_call_that_nobody_knows_is_ended_properly() -> None:
    async with running() as box:
        peer = await box.connect()
        peer.hello(uuid4())
        await peer.closed()
        assert box.server.ends == {"unknown-uuid": 1}


async def test_a_call_that_we_gave_up_is_no_dialplan_s() -> None:
    async with running() as box:
        box.take_dialplans()
        uuid = uuid4()
        with box.server.expecting(uuid, lambda connection: None):
            pass
        peer = await box.connect()
        peer.hello(uuid)
        await peer.closed()
        assert box.server.ends == {"too-late": 1}
        assert box.legs.empty()


async def test_an_expected_call_is_for_who_expects_it_once() -> None:
    async with running() as box:
        box.take_dialplans()
        uuid, taken = uuid4(), list[AudioSocketConnection]()
        with box.server.expecting(uuid, taken.append):
            first, second = await box.connect(), await box.connect()
            first.hello(uuid)
            await box.until(lambda: bool(taken))
            stream = taken[0].open_media("slin16", 16000, LIMITS)
            stream.start()
            assert await first.message() == b"\x12\x02\x80" + bytes(640)
        second.hello(uuid)
        await second.closed()
        assert box.legs.empty()
        stream.close()
        await first.closed()


async def test_one_uuid_is_one_live_call() -> None:
    async with running() as box:
        box.take_dialplans()
        leg, _peer = await box.leg()
        again = await box.connect()
        again.hello(leg.uuid)
        await again.closed()
        assert box.server.ends == {"duplicate-uuid": 1}
        assert leg.state is LegState.OFFERED
        await leg.hangup(Cause.AGENT_HUNG_UP)
        later = await box.connect()
        later.hello(leg.uuid)
        assert (await asyncio.wait_for(box.legs.get(), WAIT_S)).uuid == leg.uuid


# -- audio --------------------------------------------------------------------------------------------------


async def test_silence_is_sent_from_the_first_moment_on() -> None:
    async with running() as box:
        box.take_dialplans()
        leg, peer = await box.leg()
        began = box.clock.time()
        for _ in range(10):
            assert await peer.message() == FRAME
        assert box.clock.time() - began > 0.1
        assert leg.state is LegState.OFFERED


async def test_audio_goes_both_ways() -> None:
    async with running() as box:
        box.take_dialplans()
        leg, peer = await box.leg()
        heard: list[bytes] = []
        leg.listen(lambda pcm, now: heard.append(pcm))
        await leg.answer()
        pcm = np.arange(160, dtype="<i2").tobytes()
        generation = leg.playout.begin()
        leg.playout.write(generation, pcm * 5)
        leg.playout.end(generation)
        for _ in range(10):
            peer.say(b"\x10\x01\x40" + pcm)
        await box.until(lambda: pcm in heard)
        while (message := await peer.message()) == FRAME:
            pass
        assert message == b"\x10\x01\x40" + pcm
        assert leg.quality.packets_received == 10


async def test_a_peer_that_does_not_read_costs_neither_memory_nor_time() -> None:
    async with running(ServerLimits(stalled_s=0.5)) as box:
        box.take_dialplans()
        leg, peer = await box.leg()
        other, well = await box.leg()
        peer.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        peer.reader._transport.pause_reading()  # type: ignore[attr-defined] # a reader that stalls
        events = told(leg)
        await leg.answer()
        await other.answer()
        (connection,) = (one for one in box.server._connections if one.peer == leg.info.peer)
        # As if hours passed: what fits into the kernel's buffers is sent, the rest is dropped.
        while not connection.dropped:
            connection.send(bytes(320))
        sent = connection.sent
        connection.send(bytes(320))
        assert connection.sent == sent < 20_000
        assert connection._transport.get_write_buffer_size() <= 323
        await box.until(lambda: leg.state is LegState.ENDED)
        assert events[-1] == LegEnded(Cause.SIGNALLING_LOST, "Asterisk took no audio for 0.5 s", "network")
        assert box.server.ends["stalled"] == 1
        assert box.server.frames_dropped >= 2
        assert other.state is LegState.UP
        assert await well.message() == FRAME
        peer.reader._transport.resume_reading()  # type: ignore[attr-defined]


async def test_audio_in_any_pieces_is_put_together() -> None:
    async with running() as box:
        box.take_dialplans()
        leg, peer = await box.leg()
        heard: list[bytes] = []
        leg.listen(lambda pcm, now: heard.append(pcm))
        await leg.answer()
        pcm = (b"\x11\x22" * 160) * 20
        data = b"".join(b"\x10\x01\x40" + pcm[at : at + 320] for at in range(0, len(pcm), 320))
        for at in range(0, len(data), 97):
            peer.say(data[at : at + 97])
            await peer.writer.drain()
        await box.until(lambda: b"\x11\x22" * 160 in heard)
        assert box.server.ends == {}


async def test_audio_of_another_rate_ends_the_call() -> None:
    async with running() as box:
        box.take_dialplans()
        leg, peer = await box.leg()
        events = told(leg)
        await leg.answer()
        peer.say(b"\x12\x02\x80" + bytes(640))
        await peer.dropped()
        end = events[-1]
        assert isinstance(end, LegEnded)
        assert (end.cause, end.by) == (Cause.SIGNALLING_LOST, "network")
        assert box.server.ends == {"wrong-rate": 1}


# -- the leg ------------------------------------------------------------------------------------------------


async def test_digits_arrive_and_are_a_capability_from_then_on() -> None:
    async with running() as box:
        box.take_dialplans()
        leg, peer = await box.leg()
        events = told(leg)
        await leg.answer()
        assert Capability.DTMF_RECEIVE not in leg.capabilities
        peer.say(b"\x03\x00\x017\x03\x00\x01#")
        await box.until(lambda: events[-1] == DtmfReceived("#", 100))
        assert DtmfReceived("7", 100) in events
        assert Capability.DTMF_RECEIVE in leg.capabilities


@pytest.mark.parametrize(
    ("announcement", "can"),
    [
        (None, Capability.NONE),
        (Announcement(), Capability.TRANSFER | Capability.VARIABLES),
        (Announcement(version="18.10.0"), Capability.TRANSFER | Capability.VARIABLES),
        (
            Announcement(version="22.10.1"),
            Capability.TRANSFER | Capability.VARIABLES | Capability.DTMF_RECEIVE,
        ),
        (Announcement(version="22.10.1", follows=False), Capability.DTMF_RECEIVE),
    ],
)
async def test_what_a_call_can_do_is_known_by_what_the_dialplan_said(
    announcement: Announcement | None, can: Capability
) -> None:
    async with running() as box:
        box.take_dialplans()
        leg, _peer = await box.leg(announcement)
        assert leg.capabilities == can


async def test_what_the_dialplan_said_is_what_is_known_of_the_call() -> None:
    async with running() as box:
        box.take_dialplans()
        leg, peer = await box.leg(
            Announcement(from_="100", to="700", display_name="Ada", agent="sales", variables={"campaign": "x"})
        )
        info = leg.info
        assert (info.from_, info.to, info.display_name, info.agent) == ("100", "700", "Ada", "sales")
        assert (info.kind, info.direction, info.trunk, info.id) == ("audiosocket", "inbound", "pbx", str(leg.uuid))
        assert info.headers == {"campaign": "x"}
        assert ipaddress.ip_address(info.peer.rpartition(":")[0]).is_loopback
        assert peer.writer.get_extra_info("sockname")[1] == int(info.peer.rpartition(":")[2])


async def test_a_transfer_is_a_wish_that_the_dialplan_finds_when_the_connection_is_closed() -> None:
    async with running() as box:
        box.take_dialplans()
        leg, peer = await box.leg(Announcement())
        events = told(leg)
        await leg.answer()
        await leg.set_variables({"OFFHOOK_SUMMARY": "Ten bicycles."})
        await leg.transfer("queue:support")
        await peer.closed()
        assert events[1:] == [
            Answered(),
            TransferResult(200, "the dialplan goes on with the caller"),
            LegEnded(Cause.TRANSFERRED, "queue:support", "us"),
        ]
        found = box.calls.find(leg.uuid, box.clock.time())
        assert found is not None
        assert (found.status, found.target, dict(found.variables)) == (
            "TRANSFER",
            "queue:support",
            {"OFFHOOK_SUMMARY": "Ten bicycles."},
        )


async def test_transfers_that_come_to_nothing_leave_the_caller_with_us() -> None:
    async with running() as box:
        box.take_dialplans()
        (leg, _), (other, _), (bare, _) = await box.leg(Announcement()), await box.leg(), await box.leg()
        with pytest.raises(LegStateError):
            await leg.transfer("200")
        for one in (leg, other, bare):
            await one.answer()
        with pytest.raises(TransferRefusedError):
            await leg.transfer("200", replacing=other)
        with pytest.raises(TransferRefusedError):
            await leg.transfer("sip:200@pbx.example.com")
        with pytest.raises(TransferFailedError, match="no target"):
            await leg.transfer("somewhere")
        with pytest.raises(NotCapableError):
            await bare.transfer("200")
        with pytest.raises(NotCapableError):
            await bare.set_variables({"A": "b"})
        assert leg.state is bare.state is LegState.UP


async def test_what_the_protocol_can_not_do_is_refused() -> None:
    async with running() as box:
        box.take_dialplans()
        leg, _peer = await box.leg(Announcement())
        with pytest.raises(NotCapableError):
            await leg.early_media()
        await leg.answer()
        for action in (leg.hold(True), leg.music(True)):
            with pytest.raises(NotCapableError):
                await action
        with pytest.raises(NotCapableError):
            leg.send_dtmf("1")
        with pytest.raises(NotCapableError):
            leg.follow_transfer(leg)


@pytest.mark.parametrize("answered", [False, True])
@pytest.mark.parametrize("how", ["end", "eof", "error", "reset"])
async def test_the_far_side_ends_the_call(how: str, answered: bool) -> None:
    async with running() as box:
        box.take_dialplans()
        leg, peer = await box.leg()
        events = told(leg)
        if answered:
            await leg.answer()
        match how:
            case "end":
                peer.say(END)
            case "eof":
                peer.writer.close()
            case "error":
                peer.say(b"\xff\x00\x01\x01")
            case "reset":
                peer.reset()
        await box.until(lambda: leg.state is LegState.ENDED)
        end = events[-1]
        assert isinstance(end, LegEnded)
        if how == "reset":
            assert (end.cause, end.by) == (Cause.SIGNALLING_LOST, "network")
        else:
            assert (end.cause, end.by) == (Cause.CALLER_HUNG_UP if answered else Cause.CANCELLED, "far")
        await box.until(lambda: not len(box.server))
        assert not box.endpoint.legs


async def test_a_peer_that_never_closes_is_left_after_a_while() -> None:
    async with running(ServerLimits(closing_s=0.05)) as box:
        box.take_dialplans()
        leg, peer = await box.leg()
        await leg.answer()
        await leg.hangup(Cause.AGENT_HUNG_UP)
        while (message := await peer.message()) != END:
            assert message == FRAME
        # It talks on: that is no error, and nobody hears it.
        peer.say(FRAME * 10)
        await box.until(lambda: not len(box.server))


async def test_a_hung_up_call_is_known_as_ended_before_its_connection_is_closed() -> None:
    async with running() as box:
        box.take_dialplans()
        leg, peer = await box.leg(Announcement())
        await leg.answer()
        await leg.hangup(Cause.AGENT_HUNG_UP, "bye")
        found = box.calls.find(leg.uuid, box.clock.time())
        assert found is not None and (found.status, found.detail) == ("ANSWERED", "bye")
        await leg.hangup(Cause.INTERNAL_ERROR, "again")
        found = box.calls.find(leg.uuid, box.clock.time())
        assert found is not None and found.cause is Cause.AGENT_HUNG_UP
        await peer.closed()


async def test_a_call_whose_caller_is_never_heard_ends() -> None:
    async with running() as box:
        limits = RtpLimits(first_media_s=0.1, media_s=0.1, notice_s=0.05)
        box.endpoint = AudioSocketEndpoint(box.server, "pbx", box.calls, box.legs.put_nowait, limits)
        leg, peer = await box.leg(Announcement())
        events = told(leg)
        await leg.answer()
        await peer.closed()
        end = events[-1]
        assert isinstance(end, LegEnded) and end.cause is Cause.MEDIA_TIMEOUT
        found = box.calls.find(leg.uuid, box.clock.time())
        assert found is not None and found.status == "FAILED"


async def test_a_server_that_stops_ends_its_connections_properly() -> None:
    async with running() as box:
        box.take_dialplans()
        _leg, peer = await box.leg()
        closing = asyncio.create_task(box.server.aclose())
        await peer.closed()
        peer.writer.close()
        await closing
        with pytest.raises(ConnectionRefusedError):
            await box.connect()


async def test_readings_count_what_happened() -> None:
    async with running() as box:
        box.take_dialplans()
        _leg, _peer = await box.leg(Announcement())
        broken = await box.connect()
        broken.say(b"GET / HTTP/1.1\r\n\r\n")
        await broken.dropped()
        readings = {**box.server.readings(), **box.endpoint.readings()}
        assert readings["audiosocket_connections"] == 1
        assert readings["audiosocket_connections_total"] == 2
        assert readings['audiosocket_ends_total{reason="no-uuid-first"}'] == 1
        assert readings["audiosocket_calls"] == readings["audiosocket_calls_total"] == 1
        assert readings["audiosocket_announced_total"] == 1
