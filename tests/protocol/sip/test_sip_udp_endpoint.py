"""The UDP adapter on real sockets of this machine."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from bridge.sip.agent import UserAgent
from bridge.sip.events import (
    Answered,
    ByeAnswered,
    ByeReceived,
    Confirmed,
    Event,
    InviteReceived,
    Lost,
    LostReason,
)
from bridge.sip.settings import UserAgentConfig
from bridge.sip.timers import TimerValues
from bridge.sip.udp import UdpEndpoint, local_address_towards, open_udp

SDP = b"v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n"


class Phone:
    """A user agent on its own socket, with its events in a queue."""

    def __init__(self, *, answers: bool = False) -> None:
        self.agent = UserAgent(UserAgentConfig(timers=TimerValues(t1=0.02, t2=0.08, t4=0.1)))
        self.events: asyncio.Queue[Event] = asyncio.Queue()
        self._answers = answers
        self.endpoint: UdpEndpoint

    def handle(self, event: Event) -> None:
        self.events.put_nowait(event)
        if isinstance(event, InviteReceived) and self._answers:
            # From within the handler: what this sends needs no flush of its own.
            self.agent.ring(event.key, self.endpoint.now())
            self.agent.answer(event.key, SDP, self.endpoint.now())

    async def next(self, wanted: type[Event]) -> Event:
        while True:
            event = await asyncio.wait_for(self.events.get(), 10)
            if isinstance(event, wanted):
                return event


@asynccontextmanager
async def phone(host: str = "127.0.0.1", *, answers: bool = False) -> AsyncIterator[Phone]:
    made = Phone(answers=answers)
    made.endpoint = await open_udp(made.agent, made.handle, host=host, port=0)
    yield made
    made.endpoint.close()
    await made.endpoint.closed


def dial(alice: Phone, port: int) -> str:
    flow = alice.endpoint.flow_to(("127.0.0.1", port))
    key = alice.agent.invite(
        f"sip:agent@127.0.0.1:{port}", flow, alice.endpoint.now(), from_="<sip:alice@127.0.0.1>", sdp=SDP
    )
    alice.endpoint.flush()
    return key


async def test_call_is_set_up_and_hung_up_over_real_sockets() -> None:
    async with phone() as alice, phone(answers=True) as bob:
        key = dial(alice, bob.endpoint.address[1])
        answered = await alice.next(Answered)
        await bob.next(Confirmed)
        alice.agent.bye(answered.key, alice.endpoint.now())
        alice.endpoint.flush()
        assert await alice.next(ByeAnswered) == ByeAnswered(answered.key, 200)
        await bob.next(ByeReceived)
        assert key == answered.key


async def test_socket_on_all_interfaces_names_the_address_that_the_peer_can_reach() -> None:
    async with phone() as alice, phone("0.0.0.0", answers=True) as bob:
        dial(alice, bob.endpoint.address[1])
        answered = await alice.next(Answered)
        assert isinstance(answered, Answered)
        assert answered.response.contact is not None
        assert answered.response.contact.uri.host == "127.0.0.1"
        assert answered.response.contact.uri.port == bob.endpoint.address[1]


async def test_timer_repeats_and_gives_up_by_itself() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.setblocking(False)
        async with phone() as alice:
            dial(alice, deaf.getsockname()[1])
            lost = await alice.next(Lost)
            assert isinstance(lost, Lost)
            assert lost.reason is LostReason.TIMEOUT
        copies = []
        while True:
            try:
                copies.append(deaf.recv(4096))
            except BlockingIOError:
                break
        assert len(copies) == 7
        assert len(set(copies)) == 1


async def test_garbage_is_dropped_and_the_socket_lives_on() -> None:
    async with phone() as alice, phone(answers=True) as bob:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            for junk in (b"\x80garbage", b"", b"INVITE sip:x SIP/2.0\r\n\r\n", b"\r\n\r\n", b"x" * 60_000):
                stranger.sendto(junk, bob.endpoint.address)
        dial(alice, bob.endpoint.address[1])
        await alice.next(Answered)
        assert bob.agent.counters["dropped: malformed"] == 2


async def test_handler_that_fails_on_one_call_does_not_harm_the_next() -> None:
    class Clumsy(Phone):
        def handle(self, event: Event) -> None:
            super().handle(event)
            if self.agent.counters["received"] == 1:
                raise RuntimeError("clumsy")

    failures: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: failures.append(context))
    bob = Clumsy(answers=True)
    bob.endpoint = await open_udp(bob.agent, bob.handle, host="127.0.0.1", port=0)
    async with phone() as alice:
        dial(alice, bob.endpoint.address[1])
        await alice.next(Answered)
        dial(alice, bob.endpoint.address[1])
        await alice.next(Answered)
    bob.endpoint.close()
    await bob.endpoint.closed
    assert len(failures) == 1
    assert "InviteReceived" in str(failures[0]["message"])


async def test_port_that_is_taken_is_an_oserror() -> None:
    async with phone() as alice:
        with pytest.raises(OSError, match="in use"):
            await open_udp(
                UserAgent(UserAgentConfig()), lambda event: None, host="127.0.0.1", port=alice.endpoint.address[1]
            )


async def test_closed_endpoint_sends_nothing_and_arms_nothing() -> None:
    async with phone() as alice:
        dial(alice, 9)
        assert alice.endpoint._timer is not None
    assert alice.endpoint._timer is None
    alice.endpoint.flush()
    assert alice.endpoint._timer is None


def test_local_address_is_that_of_the_route() -> None:
    assert local_address_towards("127.0.0.1") == "127.0.0.1"
