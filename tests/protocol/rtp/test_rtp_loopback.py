"""RTP over real sockets: two parties on one mux, straight and through a network that misbehaves."""

import asyncio
import itertools
import socket
import time

import pytest
from rtp_parties import HOST, BadNetwork, Party, exchange

from bridge.audio.clock import MediaClock
from bridge.audio.tones import tone, tone_level
from bridge.rtp.endpoint import MAX_ERRORS
from bridge.rtp.mux import ROUNDS, RtpMux
from bridge.rtp.packet import RtpPacket
from bridge.rtp.session import DigitReceived


def connect(first: Party, second: Party) -> None:
    first.session.update(0.0, remote=second.address)
    second.session.update(0.0, remote=first.address)


def broken(error: Exception) -> None:
    raise AssertionError("the network crashed") from error


async def talk(mux: RtpMux, parties: list[Party], seconds: float, network: BadNetwork | None = None) -> None:
    clock = MediaClock()
    clock.before_tick(mux.poll)
    clock.start()
    for party in parties:
        clock.add(party.endpoint, party.crashes.append)
    if network:
        clock.add(network, broken)
    await asyncio.sleep(seconds)
    await clock.aclose()
    assert clock.stats.crashes == 0


async def test_two_parties_hear_each_other_and_each_others_keys() -> None:
    with exchange() as (mux, join):
        first, second = join(), join()
        connect(first, second)
        first.say(tone((440.0,), 1000, 8000))
        second.say(tone((1000.0,), 1000, 8000))
        first.session.send_dtmf("7#", tone_ms=60, gap_ms=60)
        await talk(mux, [first, second], 2.0)
    assert [event for event in second.events if isinstance(event, DigitReceived)] == [
        DigitReceived("7", 60),
        DigitReceived("#", 60),
    ]
    for party, hz in ((second, 440.0), (first, 1000.0)):
        assert 49 <= sum(frame != bytes(320) for frame in party.frames) <= 54
        middle = party.heard.astype("<i2").tobytes()
        loudest = max(tone_level(middle[at : at + 1600], hz, 8000) for at in range(0, len(middle), 1600))
        assert loudest == pytest.approx(8000, rel=0.05)
        assert party.session.quality.packets_lost == 0
        assert 0 < party.session.quality.jitter_ms < 100


async def test_call_over_a_bad_network_stays_a_call() -> None:
    """5 % of the packets lost, each 0 to 60 ms late and so reordered, a tenth doubled."""
    with exchange() as (mux, join):
        first, second = join(), join()
        network = BadNetwork(3, loss=0.05, delay_ticks=3, doubled=0.1)
        network.join(first, second)
        try:
            for party in (first, second):
                party.say(tone((440.0,), 30_000, 8000))
            await talk(mux, [first, second], 6.0, network)
        finally:
            network.close()
        for party in (first, second):
            quality = party.session.quality
            assert quality.packets_lost > 3
            assert quality.packets_late < 20
            assert 20 <= quality.buffer_ms <= 140
            sound = party.heard[80 * 160 :].astype("<i2").tobytes()
            levels = [tone_level(sound[at : at + 3200], 440.0, 8000) for at in range(0, len(sound) - 3200, 3200)]
            assert sum(levels) / len(levels) > 5000
            assert len(party.frames) == pytest.approx(network.ticks, abs=2)
        assert network.lost > 10


def send_from(sock: socket.socket, party: Party, sequence: int) -> None:
    sock.sendto(RtpPacket(0, sequence & 0xFFFF, sequence * 160, 5, b"\x20" * 160).serialize(), party.address)


def test_flood_on_one_port_does_not_keep_others_waiting() -> None:
    with exchange() as (mux, join), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        flooded, other = join(), join()
        for n in range(60):
            send_from(sock, flooded, n)
        send_from(sock, other, 1)
        mux.poll(time.monotonic())
        assert sum(flooded.session.quality.rejected.values()) + flooded.session.quality.packets_received == ROUNDS
        assert sum(other.session.quality.rejected.values()) == 1


def test_arrival_is_when_the_kernel_got_the_packet_not_when_it_was_read() -> None:
    with exchange() as (mux, join), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        party = join()
        sock.bind((HOST, 0))
        party.session.update(0.0, remote=sock.getsockname())
        arrivals: list[float] = []
        receive = party.session.receive

        def witness(data: bytes, address: tuple[str, int], arrival: float) -> None:
            arrivals.append(arrival)
            receive(data, address, arrival)

        party.endpoint.receive = witness
        sent = []
        for n in range(4):
            due = time.monotonic() + 0.02
            while time.monotonic() < due:
                pass
            before = time.monotonic()
            send_from(sock, party, n)
            sent.append((before, time.monotonic()))
        mux.poll(0.0)
        # The kernel's time is another clock's, whose distance to ours is measured now and then.
        for (before, after), arrival in zip(sent, arrivals, strict=True):
            assert before - 0.005 <= arrival <= after + 0.005
        assert all(after > before for before, after in itertools.pairwise(arrivals))


def test_listener_that_raises_ends_its_own_call_only() -> None:
    with exchange() as (mux, join), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        broken, other = join(), join()
        sock.bind((HOST, 0))

        def fail(event: object) -> None:
            raise RuntimeError("broken handler")

        broken.session._on_event = fail
        for party in (broken, other):
            party.session.update(0.0, remote=sock.getsockname())
            send_from(sock, party, 1)
        mux.poll(time.monotonic())
        assert [str(error) for error in broken.crashes] == ["broken handler"]
        assert other.session.quality.packets_received == 1
        assert mux.crashes == 1 and len(mux) == 1
        broken.endpoint.tick(0.0)
        assert broken.frames == []


def test_port_unreachable_is_counted_and_not_raised() -> None:
    with exchange() as (mux, join):
        party = join()
        party.session.update(0.0, remote=("255.255.255.255", 9))
        party.endpoint.tick(0.02)
        assert (party.endpoint.send_errors, party.endpoint.unreachable) == (1, 0)
        party.session.update(0.0, remote=(HOST, 9))
        for n in range(20):
            party.endpoint.tick(0.04 + n * 0.02)
            mux.poll(0.04 + n * 0.02)
        assert party.session.quality.packets_sent == 21
        assert party.endpoint.send_errors == 1
        # Those at its first look, and those until the next one.
        assert MAX_ERRORS <= party.endpoint.unreachable <= 2 * MAX_ERRORS
        before = party.endpoint.unreachable
        assert time.monotonic() - party.endpoint.unreachable_at < 5
        mux.poll(1.0)
        for n in range(20):
            party.endpoint.tick(1.02 + n * 0.02)
            mux.poll(1.02 + n * 0.02)
        assert party.endpoint.unreachable == before + MAX_ERRORS


def test_packet_whose_sending_told_of_an_earlier_one_is_sent_all_the_same() -> None:
    with exchange() as (_, join), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        party = join()
        sock.bind((HOST, 0))
        address = sock.getsockname()
        party.session.update(0.0, remote=(HOST, 9))
        party.endpoint.tick(0.02)
        party.session.update(0.0, remote=address)
        party.endpoint.tick(0.04)
        assert RtpPacket.parse(sock.recv(500)).payload
        assert party.endpoint.send_errors == 0


def test_closed_endpoint_reads_and_sends_no_more() -> None:
    with exchange() as (mux, join), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        party = join()
        sock.bind((HOST, 0))
        sock.setblocking(False)
        party.session.update(0.0, remote=sock.getsockname())
        party.endpoint.close()
        party.endpoint.close()
        send_from(sock, party, 1)
        mux.poll(0.0)
        party.endpoint.tick(0.02)
        assert party.session.quality.packets_received == party.session.quality.packets_sent == 0
        with pytest.raises(BlockingIOError):
            sock.recv(100)
