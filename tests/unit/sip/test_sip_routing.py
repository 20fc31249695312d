"""Where the called side's messages go: Via, Contact, Record-Route and NAT; and bodies of INFO."""

import pytest
from sip_caller import Caller
from sip_network import ALICE, BOB, RawPeer, answer_to, offer, request

from bridge.sip.agent import UserAgent
from bridge.sip.body import dtmf_of_info, parse_sipfrag
from bridge.sip.events import InviteReceived
from bridge.sip.flow import Address, Flow
from bridge.sip.message import Request, Response
from bridge.sip.settings import UserAgentConfig

NAT: Address = ("198.51.100.7", 40_000)
"""Where Alice's packets come from when she sits behind a NAT."""


def call(peer: RawPeer, invite: bytes) -> tuple[Address, tuple[Request | Response, Address]]:
    """Where the answer to `invite` goes, and then our BYE with where that goes."""
    peer.agent.receive(invite, peer.flow, 0.0)
    (event,) = peer.agent.events()
    assert isinstance(event, InviteReceived)
    peer.agent.answer(event.key, answer_to(offer()), 0.0)
    answer_goes_to = {address for _, address in peer.sent_to()}
    peer.agent.receive(request("ACK", branch="z9hG4bKack", to_tag=event.key), peer.flow, 0.0)
    peer.agent.bye(event.key, 0.0)
    (bye,) = peer.sent_to()
    assert len(answer_goes_to) == 1
    return answer_goes_to.pop(), bye


def test_peer_behind_nat_is_answered_and_called_at_its_source() -> None:
    peer = RawPeer(UserAgent(UserAgentConfig()), address=NAT)
    answer, (bye, address) = call(peer, request(body=offer(), via_extra=";rport"))
    assert isinstance(bye, Request)
    assert answer == NAT
    assert (bye.uri, address) == ("sip:alice@192.0.2.1:5060", NAT)


def test_peer_that_announces_another_address_on_purpose_is_called_there() -> None:
    peer = RawPeer(UserAgent(UserAgentConfig()))
    _, (_, address) = call(peer, request(body=offer(), contact="Contact: <sip:alice@192.0.2.44:5099>\n"))
    assert address == ("192.0.2.44", 5099)


@pytest.mark.parametrize(
    ("contact", "reached"), [("10.0.0.5", "8.8.4.4"), ("100.64.1.1", "8.8.4.4"), ("8.8.8.8", "8.8.8.8")]
)
def test_public_peer_that_names_a_private_address_is_called_at_its_source(contact: str, reached: str) -> None:
    peer = RawPeer(UserAgent(UserAgentConfig()), address=("8.8.4.4", 5060))
    _, (_, (address, _)) = call(peer, request(body=offer(), contact=f"Contact: <sip:alice@{contact}:5060>\n"))
    assert address == reached


def test_called_peer_that_names_a_private_address_is_acknowledged_at_its_own() -> None:
    caller = Caller()
    flow = Flow("udp", ("8.8.4.4", 5062), ALICE)
    key = caller.agent.invite("sip:bob@8.8.4.4:5062", flow, 0.0, from_="<sip:a@192.0.2.1>", sdp=offer())
    caller.key = key
    (invite,) = caller.requests()
    caller.respond(invite, 200, sdp=answer_to(offer()), contact="<sip:bob@192.168.1.9:5060>", flow=flow)
    assert [(r.method, to.remote) for r, to in caller.requests_to()] == [("ACK", ("8.8.4.4", 5062))]


def test_peer_that_names_an_address_of_the_other_family_is_called_at_its_source() -> None:
    peer = RawPeer(UserAgent(UserAgentConfig()))
    _, (bye, address) = call(peer, request(body=offer(), contact="Contact: <sip:alice@[2001:db8::1]:5060>\n"))
    assert isinstance(bye, Request)
    assert (bye.uri, address) == ("sip:alice@[2001:db8::1]:5060", peer.flow.remote)


def test_answer_goes_to_the_sent_by_port_when_rport_was_not_asked_for() -> None:
    peer = RawPeer(UserAgent(UserAgentConfig()), address=("192.0.2.1", 40_000))
    answer, _ = call(peer, request(body=offer()))
    assert answer == ("192.0.2.1", 5060)


def test_our_requests_go_through_the_recorded_routes_in_order() -> None:
    peer = RawPeer(UserAgent(UserAgentConfig()))
    routes = "Record-Route: <sip:192.0.2.60;lr>\nRecord-Route: <sip:192.0.2.61:5070;lr>\n"
    _, (bye, address) = call(peer, request(body=offer(), extra=routes))
    assert bye.headers.items_of("Route") == ["<sip:192.0.2.60;lr>", "<sip:192.0.2.61:5070;lr>"]
    assert address == ("192.0.2.60", 5060)


def test_contact_of_a_tcp_peer_stays_on_its_connection() -> None:
    peer = RawPeer(UserAgent(UserAgentConfig()))
    peer.flow = Flow("tcp", NAT, BOB)
    invite = request(body=offer()).replace(b"SIP/2.0/UDP", b"SIP/2.0/TCP")
    answer, (bye, address) = call(peer, invite)
    assert answer == address == NAT
    assert bye.via.transport == "TCP"


def test_every_hop_of_the_request_is_in_the_response() -> None:
    peer = RawPeer(UserAgent(UserAgentConfig()), address=NAT)
    two = request("OPTIONS", via_extra=";rport, SIP/2.0/UDP 10.0.0.9;branch=z9hG4bKfar")
    peer.agent.receive(two, peer.flow, 0.0)
    ((response, address),) = peer.sent_to()
    first, second = response.headers.items_of("Via")
    assert "received=198.51.100.7" in first
    assert "rport=40000" in first
    assert second == "SIP/2.0/UDP 10.0.0.9;branch=z9hG4bKfar"
    assert address == NAT


@pytest.mark.parametrize(
    ("content_type", "body", "digit"),
    [
        ("application/dtmf-relay", b"Signal=5\r\nDuration=160\r\n", ("5", 160)),
        ("application/dtmf-relay", b"signal = *\nduration = 250\n", ("*", 250)),
        ("application/dtmf-relay", b"Signal=11\r\n", ("#", 160)),
        ("application/dtmf", b"d", ("D", 160)),
        ("application/dtmf", b"12x", None),
        ("application/dtmf-relay", b"", None),
        ("application/dtmf-relay", b"\xff\xfe", None),
        ("text/plain", b"5", None),
    ],
)
def test_digit_in_an_info(content_type: str, body: bytes, digit: tuple[str, int] | None) -> None:
    assert dtmf_of_info(content_type, body) == digit


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"SIP/2.0 200 OK", (200, "OK")), (b"SIP/2.0 603 \r\nTo: x", (603, "")), (b"SIP/2.0 100", (100, "")),
     (b"SIP/2.0 999 x", None), (b"", None), (b"HTTP/1.1 200 OK", None)],
)  # fmt: skip
def test_status_in_a_sipfrag(body: bytes, status: tuple[int, str] | None) -> None:
    assert parse_sipfrag(body) == status
