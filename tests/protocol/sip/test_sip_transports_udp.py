"""How a user agent is driven: timers, events, failures; and its UDP sockets."""

import asyncio
import socket
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from sip_phones import SDP, Phone, phone

from bridge.sip.events import Answered, Event, InviteReceived, Lost, LostReason
from bridge.sip.timers import TimerValues
from bridge.sip.transport_settings import TransportSettings
from bridge.sip.transports import open_transports
from bridge.sip.udp import local_address_towards


async def test_socket_on_all_interfaces_names_the_address_that_the_peer_can_reach() -> None:
    async with phone() as alice, phone(hosts=("0.0.0.0",), answers=True) as bob:
        port = bob.transports.address[1]
        alice.call(alice.transports.flow_to(("127.0.0.1", port)))
        answered = await alice.next(Answered)
        assert answered.response.contact is not None
        assert (answered.response.contact.uri.host, answered.response.contact.uri.port) == ("127.0.0.1", port)


async def test_timer_repeats_and_gives_up_by_itself() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.setblocking(False)
        async with phone() as alice:
            alice.call(alice.transports.flow_to(deaf.getsockname()))
            lost = await alice.next(Lost)
            assert lost.reason is LostReason.TIMEOUT
        copies = []
        while True:
            try:
                copies.append(deaf.recv(4096))
            except BlockingIOError:
                break
        # A loop that is held up over one of them goes on with the next.
        assert 5 <= len(copies) <= 7
        assert len(set(copies)) == 1


async def test_garbage_is_dropped_and_the_socket_lives_on() -> None:
    async with phone() as alice, phone(answers=True) as bob:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            for junk in (b"\x80garbage", b"", b"INVITE sip:x SIP/2.0\r\n\r\n", b"\r\n\r\n", b"x" * 60_000):
                stranger.sendto(junk, bob.transports.address)
        alice.call(alice.transports.flow_to(bob.transports.address))
        await alice.next(Answered)
        assert bob.agent.counters["dropped: malformed"] == 2


async def test_errors_of_many_dead_peers_keep_no_message_back() -> None:
    """An ICMP error comes out at the next send: that one must go out all the same."""
    async with phone(config={"timers": TimerValues()}) as alice, phone(answers=True) as bob:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as closed:
            closed.bind(("127.0.0.1", 0))
            dead = closed.getsockname()
        for _ in range(20):
            alice.call(alice.transports.flow_to(dead))
            alice.call(alice.transports.flow_to(bob.transports.address))
        # Each is sent once: none needed to be repeated.
        for _ in range(20):
            await alice.next(Answered)
        invites = [data for received, data, _ in bob.messages if received and data.startswith(b"INVITE")]
        assert len(invites) == 20


async def test_handler_that_fails_on_one_call_does_not_harm_the_next() -> None:
    class Clumsy(Phone):
        def handle(self, event: Event) -> None:
            if isinstance(event, InviteReceived) and self.agent.counters["received"] == 1:
                self.agent.answer(event.key, SDP, self.transports.now())
                raise RuntimeError("clumsy")
            super().handle(event)

    failures: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: failures.append(context))
    bob = Clumsy(answers=True)
    bob.transports = await open_transports(
        bob.agent, bob.handle, TransportSettings(hosts=("127.0.0.1",), port=0, tcp=False)
    )
    async with phone() as alice:
        for _ in range(2):
            alice.call(alice.transports.flow_to(bob.transports.address))
            await alice.next(Answered)
    bob.transports.close()
    await bob.transports.closed
    assert len(failures) == 1
    assert "InviteReceived" in str(failures[0]["message"])


async def test_closed_transports_send_nothing_and_arm_nothing() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.setblocking(False)
        async with phone() as alice:
            alice.call(alice.transports.flow_to(deaf.getsockname()))
            assert alice.transports._timer is not None
        assert alice.transports._timer is None
        deaf.recv(4096)
        alice.call(alice.transports.flow_to(deaf.getsockname()))
        assert alice.transports._timer is None
        with pytest.raises(BlockingIOError):
            deaf.recv(4096)


def test_local_address_is_that_of_the_route() -> None:
    assert local_address_towards("127.0.0.1") == "127.0.0.1"
