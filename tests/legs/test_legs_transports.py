"""SIP legs over TCP and TLS, found by DNS, through proxies, redirected, and shown addresses behind a NAT."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "protocol" / "sip"))

from contract import Listener
from sip_certificates import Authority
from sip_dns_server import name_server
from sip_line import rtp_settings

from bridge.audio.clock import MediaClock
from bridge.events import Answered, Cause, LegEnded
from bridge.legs.base import LegError
from bridge.legs.media import MediaPlane
from bridge.legs.outbound import LegProfile, OutboundCall
from bridge.legs.sip import SipLeg
from bridge.legs.sip_endpoint import SipEndpoint, SipEndpointSettings
from bridge.sip.digest import Credentials
from bridge.sip.events import RequestAnswered
from bridge.sip.flow import Flow
from bridge.sip.message import Request, parse_message
from bridge.sip.offer_answer import L16_16K, PCMA, PCMU
from bridge.sip.resolver import ResolverSettings
from bridge.sip.settings import Refusal
from bridge.sip.tls import TlsSettings


class Desk:
    """Endpoints on one media plane; each keeps what it was sent."""

    def __init__(self) -> None:
        self.clock = MediaClock()
        self.media = MediaPlane(self.clock, rtp_settings(), host="127.0.0.1")
        self.endpoints: list[SipEndpoint] = []

    async def endpoint(self, settings: dict[str, Any] | None = None, **options: Any) -> "Seat":
        seat = Seat()
        chosen: dict[str, Any] = {"host": "127.0.0.1", "port": 0, "tls_port": 0, "t1_s": 0.1}
        seat.endpoint = SipEndpoint(
            SipEndpointSettings(**(chosen | (settings or {}))), self.media, seat.incoming.put_nowait, **options
        )
        await seat.endpoint.start()
        seat.endpoint.transports.tap = seat.note
        self.endpoints.append(seat.endpoint)
        return seat


class Seat:
    endpoint: SipEndpoint

    def __init__(self) -> None:
        self.incoming: asyncio.Queue[SipLeg] = asyncio.Queue()
        self.requests: list[tuple[Request, Flow]] = []

    def note(self, received: bool, data: bytes, flow: Flow, now: float) -> None:
        message = parse_message(data)
        if received and isinstance(message, Request):
            self.requests.append((message, flow))

    def uri(self, transport: str = "udp", user: str = "agent") -> str:
        host, port = self.endpoint.transports.addresses("tls" if transport == "tls" else "udp")[0]
        return f"sip:{user}@{host}:{port};transport={transport}"

    async def answers(self) -> SipLeg:
        leg = await asyncio.wait_for(self.incoming.get(), 30)
        await leg.answer()
        return leg


@asynccontextmanager
async def desk() -> AsyncIterator[Desk]:
    made = Desk()
    made.clock.start()
    try:
        yield made
    finally:
        for endpoint in made.endpoints:
            await endpoint.aclose()
        await made.clock.aclose()
        made.media.close()
        assert made.media.ports.in_use == 0


async def talk(caller: SipLeg, called: Seat) -> SipLeg:
    """The call is answered, and hung up by the called side."""
    heard = Listener(caller)
    leg = await called.answers()
    await heard.event(Answered)
    await leg.hangup(Cause.AGENT_HUNG_UP)
    ended = await heard.event(LegEnded)
    assert isinstance(ended, LegEnded)
    assert ended.cause is Cause.CALLER_HUNG_UP
    return leg


@pytest.mark.parametrize("transport", ["udp", "tcp", "tls"])
async def test_legs_are_called_over_each_transport(transport: str, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    tls = TlsSettings(own=authority.issue("127.0.0.1"), ca=authority.ca)
    async with desk() as made:
        alice, bob = await made.endpoint({"tls": tls}), await made.endpoint({"tls": tls})
        leg = await alice.endpoint.dial(bob.uri(transport), from_user="al ice", display_name="Alice")
        await talk(leg, bob)
        request, flow = bob.requests[0]
        assert flow.transport == transport
        assert (request.from_.uri.user, request.from_.display_name) == ("al%20ice", "Alice")


async def test_a_call_finds_its_way_by_dns_and_goes_round_a_dead_server() -> None:
    async with desk() as made:
        bob = await made.endpoint()
        port = bob.endpoint.address[1]
        dead = await made.endpoint()
        dead_port = dead.endpoint.address[1]
        await dead.endpoint.aclose()
        zone = {
            "_sip._tcp.carrier.example SRV": [
                f"1 1 {dead_port} a.carrier.example.",
                f"2 1 {port} b.carrier.example.",
            ],
            "a.carrier.example A": ["127.0.0.1"],
            "b.carrier.example A": ["127.0.0.1"],
        }
        async with name_server(zone) as dns:
            alice = await made.endpoint({"resolver": ResolverSettings(nameservers=(dns.address,))})
            leg = await alice.endpoint.dial("sip:agent@carrier.example", from_user="alice")
            await talk(leg, bob)
            request, flow = bob.requests[0]
            assert (request.uri, flow.transport) == ("sip:agent@carrier.example", "tcp")


@pytest.mark.parametrize("target", ["sip:agent@far.example", "tel:+4930123"])
async def test_an_outbound_proxy_is_the_first_hop_and_stands_in_route(target: str) -> None:
    async with desk() as made:
        bob = await made.endpoint()
        proxy = bob.uri("tcp", user="").replace("sip:@", "sip:")
        alice = await made.endpoint({"outbound_proxy": proxy})
        leg = await alice.endpoint.dial(target, from_user="alice")
        await talk(leg, bob)
        request, flow = bob.requests[0]
        assert flow.transport == "tcp"
        assert request.headers.get("Route") == f"<{proxy};lr>"
        host = proxy.removeprefix("sip:").partition(";")[0]
        assert request.uri == (target if target.startswith("sip:") else f"sip:+4930123@{host};user=phone")


async def test_a_number_without_a_proxy_is_no_target() -> None:
    async with desk() as made:
        alice = await made.endpoint()
        with pytest.raises(LegError, match="needs a trunk or an outbound proxy"):
            await alice.endpoint.dial("tel:+4930123", from_user="alice")


@pytest.mark.parametrize("follows", [True, False])
async def test_redirections_are_followed_as_far_as_they_may(follows: bool) -> None:
    async with desk() as made:
        bob = await made.endpoint()
        moved = Refusal(302, "", (("Contact", f"<tel:+1>;q=0.9, <{bob.uri('tcp')}>;q=0.5"),))
        carol = await made.endpoint(admit=lambda request, flow: moved if request.method == "INVITE" else None)
        alice = await made.endpoint()
        leg = await alice.endpoint.dial(carol.uri(), from_user="alice", max_redirects=int(follows))
        if follows:
            await talk(leg, bob)
            assert bob.requests[0][1].transport == "tcp"
        else:
            ended = await Listener(leg).event(LegEnded)
            assert isinstance(ended, LegEnded)
            assert ended.status == 302


async def test_a_redirection_that_leads_nowhere_ends_the_call_with_it() -> None:
    async with desk() as made:
        moved = Refusal(302, "", (("Contact", "<sip:x@nowhere.invalid;transport=sctp>"),))
        carol = await made.endpoint(admit=lambda request, flow: moved if request.method == "INVITE" else None)
        alice = await made.endpoint()
        leg = await alice.endpoint.dial(carol.uri(), from_user="alice", max_redirects=2)
        ended = await Listener(leg).event(LegEnded)
        assert isinstance(ended, LegEnded)
        assert ended.status == 302


async def test_what_is_particular_about_a_trunk_holds_for_its_calls_both_ways() -> None:
    profile = LegProfile(trunk="carrier", codecs=(L16_16K,), dtmf="info", transfer="bridge")
    async with desk() as made:
        bob = await made.endpoint({"codecs": (PCMU, L16_16K)}, profile_of=lambda request, flow: profile)
        alice = await made.endpoint({"codecs": (PCMA,)})
        call = OutboundCall(
            target=f"{bob.uri()}",
            from_='"Shop" <sip:+4930@shop.example>',
            headers=(("P-Asserted-Identity", "<sip:+4930@shop.example>"), ("X-Call", "7")),
            route=(f"<{bob.uri()};lr>",),
            profile=LegProfile(trunk="pbx", codecs=(L16_16K, PCMU), credentials=Credentials("shop", "secret")),
            shown_from="+4930",
            shown_to="agent desk",
        )
        leg = await alice.endpoint.place(call)
        assert (leg.info.trunk, leg.info.from_, leg.info.to) == ("pbx", "+4930", "agent desk")
        answered = await talk(leg, bob)
        assert (answered.info.trunk, answered.info.from_, answered.sample_rate) == ("carrier", "+4930", 16000)
        assert answered.info.headers["p-asserted-identity"] == "<sip:+4930@shop.example>"
        assert (answered.options.dtmf, answered.options.transfer) == ("info", "bridge")


async def test_peers_beyond_the_nat_are_shown_its_address_and_near_ones_ours() -> None:
    settings = {"advertised_address": "203.0.113.9", "advertised_port": 5099}
    async with desk() as made:
        bob = await made.endpoint()
        far = await made.endpoint(settings)
        leg = await far.endpoint.dial(bob.uri(), from_user="alice")
        incoming = await asyncio.wait_for(bob.incoming.get(), 30)
        request = bob.requests[-1][0]
        assert request.contact is not None
        assert (request.contact.uri.host, request.contact.uri.port) == ("203.0.113.9", 5099)
        assert (request.via.host, request.via.port) == ("203.0.113.9", 5099)
        assert b"c=IN IP4 203.0.113.9" in request.body
        await incoming.hangup(Cause.REFUSED_BUSY)
        await Listener(leg).event(LegEnded)

        near = await made.endpoint(settings | {"local_networks": ("127.0.0.0/8",)})
        leg = await near.endpoint.dial(bob.uri(), from_user="alice")
        incoming = await asyncio.wait_for(bob.incoming.get(), 30)
        request = bob.requests[-1][0]
        assert request.contact is not None
        assert (request.contact.uri.host, request.contact.uri.port) == near.endpoint.address
        assert b"c=IN IP4 127.0.0.1" in request.body
        await incoming.hangup(Cause.REFUSED_BUSY)
        await Listener(leg).event(LegEnded)


async def test_answers_to_requests_outside_calls_reach_who_made_them() -> None:
    answers: asyncio.Queue[RequestAnswered] = asyncio.Queue()
    async with desk() as made:
        bob = await made.endpoint()
        alice = await made.endpoint(on_answered=answers.put_nowait)
        transports = alice.endpoint.transports
        (flow,) = await transports.locate(bob.uri("tcp"))
        key = alice.endpoint.agent.request("OPTIONS", bob.uri("tcp"), flow, transports.now(), from_="<sip:a@b>")
        transports.flush()
        answered = await asyncio.wait_for(answers.get(), 30)
        assert answered.key == key
        assert answered.response is not None
        assert answered.response.status == 200
