"""Hundreds of connections that send nothing, half messages or garbage, while a call goes on."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from sip_certificates import Authority
from sip_phones import Phone, RawPeer, options, phone

from bridge.sip.events import Answered, ByeAnswered, ByeReceived, Confirmed, ReofferAnswered
from bridge.sip.flow import Transport
from bridge.sip.tcp import StreamLimits
from bridge.sip.tls import TlsSettings

SHORT = StreamLimits(first_message_s=0.5, message_s=0.5, max_per_address=50, max_connections=120, handshake_s=1)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


async def call_goes_on(alice: Phone, bob: Phone, transport: Transport, attack: Callable[[], object]) -> None:
    """A call that is up when `attack` comes can be changed and ended after it."""
    address = bob.transports.addresses(transport)[0]
    key = alice.call(alice.transports.flow_to(address, transport, "pbx.example" if transport == "tls" else ""))
    await alice.next(Answered)
    await bob.next(Confirmed)
    result = attack()
    if asyncio.iscoroutine(result):
        await result
    alice.act("reinvite", key, b"v=0\r\n")
    await alice.next(ReofferAnswered)
    alice.act("bye", key)
    assert await alice.next(ByeAnswered) == ByeAnswered(key, 200)
    await bob.next(ByeReceived)


@asynccontextmanager
async def crowd(bob: Phone, transport: Transport, data: list[bytes], source: str) -> AsyncIterator[list[RawPeer]]:
    address = bob.transports.addresses(transport)[0]
    peers = []
    for number in range(200):
        peer = await RawPeer.connect(address, source=source)
        peers.append(peer)
        try:
            await peer.send(data[number % len(data)])
        except ConnectionError:
            # It was turned away.
            continue
    try:
        yield peers
    finally:
        for peer in peers:
            await peer.close(reset=True)


async def turned_away(bob: Phone, source: str) -> bool:
    """Whether a new connection is ended before anything was sent."""
    try:
        peer = await RawPeer.connect(bob.transports.address, source=source)
    except ConnectionResetError:
        return True
    ended = await peer.ended()
    await peer.close(reset=True)
    return ended


ATTACKS = {
    "silence": [b""],
    "halves": [
        b"O",
        b"OPTIONS sip:x SIP/2.0\r\nVia:",
        options("TCP a")[:-2],
        b"INVITE sip:x SIP/2.0\r\nl: 9\r\n\r\nabc",
    ],
    "garbage": [
        b"\x16\x03\x01\x02\x00",
        b"GET / HTTP/1.1\r\n\r\n",
        os.urandom(3000),
        b"x" * 60_000,
        b"SIP/2.0 9\r\n\r\n",
    ],
    "pings": [b"\r\n\r\n" * 5000],
}


@pytest.mark.parametrize("kind", ATTACKS)
@pytest.mark.parametrize("transport", ["tcp", "tls"])
async def test_a_crowd_does_not_disturb_a_call(kind: str, transport: Transport, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    served = TlsSettings(own=authority.issue("pbx.example"))
    async with phone(limits=SHORT, tls=served, answers=True) as bob, phone(tls=TlsSettings(ca=authority.ca)) as alice:

        async def attack() -> None:
            async with crowd(bob, transport, ATTACKS[kind], "127.0.0.2"):
                # Those of one address never hold more than its share.
                assert bob.transports.connection_count <= 51
                # While they are there, another caller gets through, too.
                async with phone(answers=True) as carol:
                    carol.call(carol.transports.flow_to(bob.transports.address, "tcp"))
                    await carol.next(Answered)
                await until(lambda: bob.transports.connection_count <= 2)

        await call_goes_on(alice, bob, transport, attack)


async def test_a_crowd_from_many_addresses_makes_room_for_those_who_speak() -> None:
    patient = StreamLimits(max_per_address=50, max_connections=60)
    async with phone(limits=patient, answers=True) as bob, phone(answers=True) as alice:

        async def attack() -> None:
            peers = [
                await RawPeer.connect(bob.transports.address, source=f"127.0.0.{number % 100 + 2}")
                for number in range(200)
            ]
            await until(lambda: bob.agent.counters["connections taken"] >= 200)
            assert bob.transports.connection_count == 60
            async with phone(answers=True) as carol:
                carol.call(carol.transports.flow_to(bob.transports.address, "tcp"))
                await carol.next(Answered)
            for peer in peers:
                await peer.close(reset=True)

        await call_goes_on(alice, bob, "tcp", attack)


async def test_newcomers_push_out_newcomers_alone() -> None:
    async with phone(limits=StreamLimits(max_newcomers=10), answers=True) as bob, phone(answers=True) as alice:

        async def attack() -> None:
            peers = [
                await RawPeer.connect(bob.transports.address, source=f"127.0.0.{number + 2}") for number in range(40)
            ]
            await until(lambda: bob.agent.counters["connections taken"] == 41)
            assert bob.transports.connection_count == 11
            for peer in peers:
                await peer.close(reset=True)

        await call_goes_on(alice, bob, "tcp", attack)


async def test_connections_that_speak_are_not_pushed_out() -> None:
    async with phone(limits=StreamLimits(max_per_address=5)) as bob:
        peers = []
        for number in range(5):
            peer = await RawPeer.connect(bob.transports.address)
            await peer.send(options("TCP 127.0.0.1:5099", branch=f"z9hG4bK{number}"))
            await peer.message()
            peers.append(peer)
        assert await turned_away(bob, "127.0.0.1")
        assert bob.agent.counters["connections refused"] == 1
        await peers[0].send(options("TCP 127.0.0.1:5099", branch="z9hG4bKagain"))
        await peers[0].message()
        for peer in peers:
            await peer.close()


async def test_strangers_whose_messages_are_ignored_or_refused_hold_no_connection() -> None:
    stray = options("TCP 127.0.0.1:5099").replace(b"OPTIONS sip:x SIP/2.0", b"SIP/2.0 200 OK")
    refused = options("TCP 127.0.0.1:5099").replace(b"OPTIONS", b"REGISTER")
    async with phone(limits=StreamLimits(max_per_address=50, max_connections=20, first_message_s=2)) as bob:
        peers = [await RawPeer.connect(bob.transports.address, source=f"127.0.0.{n + 2}") for n in range(20)]
        for peer in peers[:10]:
            await peer.send(stray)
        for peer in peers[10:]:
            await peer.send(refused)
            assert (await peer.message()).startswith(b"SIP/2.0 405")
        await until(lambda: bob.agent.counters["dropped: stray response"] == 10)
        known = await RawPeer.connect(bob.transports.address)
        await known.send(options("TCP 127.0.0.1:5099"))
        assert (await known.message()).startswith(b"SIP/2.0 200")
        assert bob.agent.counters["connections refused"] == 0
        await until(lambda: bob.transports.connection_count == 1)
        await known.send(options("TCP 127.0.0.1:5099", branch="z9hG4bKagain"))
        await known.message()
        for peer in [*peers, known]:
            await peer.close(reset=True)


async def test_a_message_that_drips_in_is_cut_off() -> None:
    async with phone(limits=StreamLimits(message_s=0.3)) as bob:
        peer = await RawPeer.connect(bob.transports.address)
        await peer.send(options("TCP 127.0.0.1:5099"))
        await peer.message()

        async def drip() -> None:
            for byte in options("TCP 127.0.0.1:5099", branch="z9hG4bKslow"):
                await peer.send(bytes([byte]))
                await asyncio.sleep(0.02)

        dripping = asyncio.create_task(drip())
        assert await peer.ended()
        dripping.cancel()
        await asyncio.gather(dripping, return_exceptions=True)
        await peer.close()
        assert bob.agent.counters["received"] == 1


async def test_a_peer_that_does_not_read_is_cut_off() -> None:
    async with phone(limits=StreamLimits(write_buffer_bytes=20_000)) as bob:
        peer = await RawPeer.connect(bob.transports.address)
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined]  # an asyncio transport has it
        flood = b"".join(options("TCP 127.0.0.1:5099", branch=f"z9hG4bK{number}") for number in range(200))
        try:
            while bob.agent.counters["connections failed"] == 0:
                await asyncio.wait_for(peer.send(flood), 30)
        except ConnectionError:
            pass
        await until(lambda: bob.transports.connection_count == 0)
        await peer.close(reset=True)


async def test_many_messages_at_once_are_all_answered_in_turn() -> None:
    async with phone() as bob:
        loud, soft = [await RawPeer.connect(bob.transports.address) for _ in range(2)]
        await loud.send(b"".join(options("TCP 127.0.0.1:5099", branch=f"z9hG4bK{n}") for n in range(500)))
        await soft.send(options("TCP 127.0.0.1:5098", branch="z9hG4bKsoft"))
        await soft.message()
        # The one message of the other did not wait for all five hundred.
        assert bob.agent.counters["received"] < 400
        for number in range(500):
            assert f"branch=z9hG4bK{number}\r".encode() in await loud.message()
        for peer in (loud, soft):
            await peer.close()


async def test_idle_connections_end_and_busy_ones_stay() -> None:
    async with phone(limits=StreamLimits(idle_s=1.5)) as bob:
        idle, busy = [await RawPeer.connect(bob.transports.address) for _ in range(2)]
        for peer in (idle, busy):
            await peer.send(options("TCP 127.0.0.1:5099"))
            await peer.message()

        async def ping() -> None:
            while True:
                await busy.send(b"\r\n\r\n")
                await asyncio.sleep(0.1)

        pinging = asyncio.create_task(ping())
        assert await idle.ended()
        assert bob.transports.connection_count == 1
        pinging.cancel()
        await idle.close()
        await busy.close()


async def test_a_banned_address_is_cut_off_and_not_let_in_again() -> None:
    async with phone() as bob:
        banned, other = [await RawPeer.connect(bob.transports.address, source=f"127.0.0.{n}") for n in (7, 8)]
        for peer in (banned, other):
            await peer.send(options("TCP 127.0.0.1:5099", branch=f"z9hG4bK{peer.address[0][-1]}"))
            await peer.message()
        bob.transports.accepts = lambda address: address != "127.0.0.7"
        bob.transports.disconnect("127.0.0.7")
        assert await banned.ended()
        assert await turned_away(bob, "127.0.0.7")
        await other.send(options("TCP 127.0.0.1:5099", branch="z9hG4bKmore"))
        assert (await other.message()).startswith(b"SIP/2.0 200")
        for peer in (banned, other):
            await peer.close(reset=True)
