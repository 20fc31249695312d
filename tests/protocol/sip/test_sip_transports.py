"""One user agent over UDP and TCP, IPv4 and IPv6, on real sockets."""

import asyncio
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from free_ports import free_port

sys.path.insert(0, str(Path(__file__).parent))

from sip_dns_server import name_server
from sip_phones import RawPeer, bracketed, options, phone

from bridge.sip.errors import LocateError
from bridge.sip.events import (
    Answered,
    ByeAnswered,
    ByeReceived,
    Confirmed,
    InviteReceived,
    Lost,
    LostReason,
    ReofferAnswered,
    Reoffered,
    RequestAnswered,
)
from bridge.sip.flow import Flow
from bridge.sip.message import parse_message
from bridge.sip.resolver import ResolverSettings
from bridge.sip.stream import PING
from bridge.sip.tcp import StreamLimits
from bridge.sip.timers import TimerValues


def addressless() -> int:
    """A port that nobody listens on."""
    return free_port()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_calls_are_made_and_hung_up_over_each_transport(transport: str, host: str) -> None:
    async with phone(hosts=(host,)) as alice, phone(hosts=(host,), answers=True) as bob:
        alice.call(alice.transports.flow_to(bob.transports.address, transport))
        answered = await alice.next(Answered)
        confirmed = await bob.next(Confirmed)
        contact = answered.response.contact
        assert contact is not None
        assert (contact.uri.host_address, contact.uri.port) == bob.transports.address
        assert contact.uri.param("transport") == (None if transport == "udp" else "tcp")
        via = parse_message(bob.messages[0][1]).via
        assert (via.transport, via.host.strip("[]"), via.port) == (transport.upper(), *alice.transports.address)
        bob.act("bye", confirmed.key)
        await alice.next(ByeReceived)
        assert await bob.next(ByeAnswered) == ByeAnswered(confirmed.key, 200)
        assert not alice.carried("tcp" if transport == "udp" else "udp")
        assert bob.transports.connection_count == (transport == "tcp")


async def test_one_agent_listens_on_both_families_at_one_port() -> None:
    async with phone(hosts=("0.0.0.0", "::"), answers=True) as bob, phone(hosts=("127.0.0.1", "::1")) as alice:
        ports = {address[1] for kind in ("udp", "tcp") for address in bob.transports.addresses(kind)}
        assert len(ports) == 1
        port = ports.pop()
        for host in ("127.0.0.1", "::1"):
            for transport in ("udp", "tcp"):
                alice.call(alice.transports.flow_to((host, port), transport))
                answered = await alice.next(Answered)
                assert answered.response.contact is not None
                assert answered.response.contact.uri.host_address == host


async def test_a_family_that_is_not_listened_on_leads_nowhere() -> None:
    async with phone() as alice:
        with pytest.raises(OSError, match="no udp socket"):
            alice.transports.flow_to(("::1", 5060))
        with pytest.raises(LocateError, match="no way to ::1"):
            await alice.transports.locate("sip:[::1]")


async def test_requests_to_one_peer_share_a_connection() -> None:
    async with phone() as alice, phone(answers=True) as bob:
        for _ in range(3):
            alice.call(alice.transports.flow_to(bob.transports.address, "tcp"))
            await alice.next(Answered)
        assert alice.transports.connection_count == 1
        assert bob.agent.counters["connections taken"] == 1


async def test_a_connection_that_came_in_serves_requests_to_its_alias() -> None:
    async with phone() as bob:
        peer = await RawPeer.connect(bob.transports.address)
        await peer.send(options("TCP 127.0.0.1:5099", extra=";alias"))
        assert (await peer.message()).startswith(b"SIP/2.0 200")
        bob.call(bob.transports.flow_to(("127.0.0.1", 5099), "tcp"))
        assert (await peer.message()).startswith(b"INVITE")
        await peer.close()


async def test_large_requests_to_a_located_peer_go_over_tcp() -> None:
    big = (("X-Big", "x" * 1300),)
    async with phone() as alice, phone(answers=True) as bob:
        uri = f"sip:agent@{bracketed(bob.transports.address)}"
        (flow,) = await alice.transports.locate(uri)
        assert flow.transport == "udp"
        alice.call(flow, uri, headers=big)
        await alice.next(Answered)
        assert not bob.carried("udp")
        alice.call(flow, uri)
        await alice.next(Answered)
        assert bob.carried("udp")


async def test_a_peer_without_tcp_gets_large_requests_over_udp() -> None:
    async with phone() as alice, phone(answers=True, tcp=False) as bob:
        uri = f"sip:agent@{bracketed(bob.transports.address)}"
        (flow,) = await alice.transports.locate(uri)
        for _ in range(2):
            alice.call(flow, uri, headers=(("X-Big", "x" * 1300),))
            await alice.next(Answered)
        # The second one does not try again.
        assert alice.agent.counters["connections failed"] == 1


async def test_large_requests_stay_on_udp_where_it_was_asked_for() -> None:
    async with phone() as alice, phone(answers=True) as bob:
        uri = f"sip:agent@{bracketed(bob.transports.address)};transport=udp"
        (flow,) = await alice.transports.locate(uri)
        alice.call(flow, uri, headers=(("X-Big", "x" * 1300),))
        await alice.next(Answered)
        assert not bob.carried("tcp")


async def test_peers_that_are_not_there_are_passed_over() -> None:
    async with phone() as alice, phone(answers=True) as bob:
        dead = [alice.transports.flow_to(("127.0.0.1", addressless()), kind) for kind in ("tcp", "udp")]
        alice.call(dead[0], alternatives=[dead[1], alice.transports.flow_to(bob.transports.address, "tcp")])
        await alice.next(Answered)
        assert alice.agent.counters["failed over"] == 2


async def test_an_icmp_error_ends_the_wait_of_that_peer_alone() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as deaf:
        deaf.bind(("127.0.0.1", 0))
        async with phone() as alice:
            dead = alice.call(alice.transports.flow_to(("127.0.0.1", addressless())))
            waiting = alice.call(alice.transports.flow_to(deaf.getsockname()))
            lost = await alice.next(Lost)
            assert lost.key == dead
            assert "ECONNREFUSED" in lost.detail
            assert alice.agent.call_count == 1
            assert (await alice.next(Lost)).key == waiting


async def test_a_peer_that_is_just_starting_gets_its_call() -> None:
    port = addressless()
    async with phone() as alice:
        alice.call(alice.transports.flow_to(("127.0.0.1", port)))
        await until(lambda: bool(alice.transports._unreachable))
        async with phone(port=port, answers=True):
            await alice.next(Answered)


async def test_a_peer_that_does_not_let_us_connect_is_given_up_in_time() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        with socket.socket() as first, socket.socket() as second:
            for filler in (first, second):
                filler.setblocking(False)
                filler.connect_ex(full.getsockname())
            async with phone(limits=StreamLimits(connect_s=0.2)) as alice:
                alice.call(alice.transports.flow_to(full.getsockname(), "tcp"))
                assert "no connection within 0.2 s" in (await alice.next(Lost)).detail


async def test_a_response_goes_to_the_via_when_its_connection_is_gone() -> None:
    async with phone() as bob, phone() as carol:
        peer = await RawPeer.connect(bob.transports.address)
        port = carol.transports.address[1]
        invite = options(f"TCP 127.0.0.1:{port}", extra=";rport").replace(b"OPTIONS", b"INVITE")
        await peer.send(invite.replace(b"Max-Forwards", b"Contact: <sip:c@127.0.0.1>\r\nMax-Forwards"))
        received = await bob.next(InviteReceived)
        await peer.close()
        await until(lambda: bob.transports.connection_count == 0)
        bob.act("reject", received.key, 486)
        await until(lambda: any("486" in line for line in carol.carried("tcp")))


@pytest.mark.parametrize("reset", [False, True])
async def test_a_call_outlives_the_connection_that_its_caller_closed(reset: bool) -> None:
    async with phone(close_grace_s=0.05) as bob, phone(close_grace_s=0.05) as alice:
        alice.call(alice.transports.flow_to(bob.transports.address, "tcp"))
        received = await bob.next(InviteReceived)
        bob.act("answer", received.key, b"v=0\r\n")
        answered = await alice.next(Answered)
        await bob.next(Confirmed)
        for connection in alice.transports._connections:
            if reset:
                connection.fail("cut")
            else:
                connection.close()
        await until(lambda: bob.transports.connection_count == 0)
        # The caller's connection is gone: the called side goes to the caller's Contact.
        bob.act("reinvite", received.key, b"v=0\r\n")
        await until(lambda: bob.transports.connection_count == 1)
        await alice.next(Reoffered)
        alice.act("answer_reinvite", answered.key, b"v=0\r\n")
        await bob.next(ReofferAnswered)
        assert {len(side.transports._connections) for side in (alice, bob)} == {1}
        alice.act("bye", answered.key)
        await alice.next(ByeAnswered)
        assert await bob.next(ByeReceived) == ByeReceived(received.key, "")


async def test_requests_to_a_named_contact_find_it_when_the_connection_is_gone() -> None:
    async with name_server({"pbx.example A": ["127.0.0.1"]}) as dns:
        config = {"advertised": lambda flow: ("pbx.example", flow.local[1])}
        resolver = ResolverSettings(nameservers=(dns.address,))
        async with phone(resolver=resolver, answers=True) as bob, phone(config=config) as alice:
            alice.call(alice.transports.flow_to(bob.transports.address, "tcp"))
            confirmed = await bob.next(Confirmed)
            for connection in alice.transports._connections:
                connection.close()
            await until(lambda: bob.transports.connection_count == 0)
            bob.act("bye", confirmed.key)
            await alice.next(ByeReceived)
            assert await bob.next(ByeAnswered) == ByeAnswered(confirmed.key, 200)


async def test_names_in_contacts_are_known_by_the_time_they_are_needed() -> None:
    async with name_server({"pbx.example A": ["127.0.0.1"]}) as dns:
        resolver = ResolverSettings(nameservers=(dns.address,))
        async with phone(resolver=resolver, answers=True) as bob:
            config = {"advertised": lambda flow: ("pbx.example", flow.local[1])}
            async with phone(config=config) as alice:
                alice.call(alice.transports.flow_to(bob.transports.address))
                await bob.next(Confirmed)
                port = alice.transports.address[1]
                await until(lambda: bob.transports.resolver.find("pbx.example", port) == ("127.0.0.1", port))


async def test_a_closed_connection_fails_what_waits_for_it_after_a_grace() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    async with server, phone(close_grace_s=0.05, config={"timers": TimerValues()}) as alice:
        alice.call(alice.transports.flow_to(server.sockets[0].getsockname(), "tcp"))
        lost = await alice.next(Lost)
        assert lost.reason is not LostReason.GONE
        assert "closed the connection" in lost.detail


async def test_keep_alives_are_answered_and_sent() -> None:
    async with phone() as bob, phone() as alice:
        peer = await RawPeer.connect(bob.transports.address)
        await peer.send(b"\r\n\r\n")
        assert await asyncio.wait_for(peer.reader.readexactly(2), 30) == b"\r\n"
        await peer.close()
        flow = alice.transports.flow_to(bob.transports.address, "tcp")
        assert not alice.transports.send_keepalive(flow)
        alice.agent.request("OPTIONS", "sip:x", flow, alice.transports.now(), from_="<sip:a@b>")
        alice.transports.flush()
        await alice.next(RequestAnswered)
        assert alice.transports.send_keepalive(flow)
        (connection,) = alice.transports._connections
        await until(lambda: not connection._stream._awaits_pong)
        assert alice.transports.send_keepalive(alice.transports.flow_to(bob.transports.address))
        await until(lambda: bob.agent.counters["keep-alives"] == 1)


async def test_connections_that_we_opened_are_kept_open_by_themselves() -> None:
    async with phone(limits=StreamLimits(ping_s=0.5)) as alice, phone(answers=True) as bob:
        alice.call(alice.transports.flow_to(bob.transports.address, "tcp"))
        await bob.next(Confirmed)
        (connection,) = bob.transports._connections
        await until(lambda: connection._pings > 0)


async def test_the_tap_sees_every_message_and_no_keep_alive() -> None:
    async with phone() as alice, phone(answers=True) as bob:
        flow = alice.transports.flow_to(bob.transports.address, "tcp")
        key = alice.call(flow)
        await bob.next(Confirmed)
        alice.transports.send_keepalive(flow)
        alice.act("bye", key)
        await alice.next(ByeAnswered)
        sent = [data for received, data, _ in alice.messages if not received]
        taken = [data for received, data, _ in bob.messages if received]
        assert [data.split()[0] for data in sent] == [b"INVITE", b"ACK", b"BYE"]
        assert sent == taken
        assert all(isinstance(seen, Flow) for _, _, seen in alice.messages)
        assert PING not in taken


async def test_the_end_of_a_connection_is_told() -> None:
    ended: list[tuple[Flow, str]] = []
    async with phone() as alice, phone() as bob:
        alice.transports.on_connection_lost = lambda flow, why: ended.append((flow, why))
        flow = alice.transports.flow_to(bob.transports.address, "tcp")
        alice.agent.request("OPTIONS", "sip:x", flow, alice.transports.now(), from_="<sip:a@b>")
        alice.transports.flush()
        await alice.next(RequestAnswered)
        bob.transports.disconnect("127.0.0.1")
        await until(lambda: bool(ended))
        assert ended[0][0] == flow
        assert not alice.transports.send_keepalive(flow)


async def test_ports_that_are_taken_are_an_oserror() -> None:
    async with phone() as alice:
        for settings in ({"udp": False}, {"tcp": False}, {}):
            with pytest.raises(OSError, match="in use"):
                async with phone(port=alice.transports.address[1], **settings):
                    pass
