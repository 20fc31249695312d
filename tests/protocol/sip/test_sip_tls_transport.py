"""Calls over TLS, and whom we let be whom."""

import asyncio
import ssl
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from sip_certificates import Authority
from sip_dns_server import name_server
from sip_phones import Phone, RawPeer, options, phone

from bridge.sip.errors import TlsError
from bridge.sip.events import Answered, ByeAnswered, ByeReceived, Confirmed, Lost
from bridge.sip.message import parse_message
from bridge.sip.resolver import ResolverSettings
from bridge.sip.tls import TlsSettings


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


def tls_address(bob: Phone) -> tuple[str, int]:
    return bob.transports.addresses("tls")[0]


async def outcome(alice: Phone, bob: Phone, name: str) -> str:
    """What becomes of a call to bob under a name."""
    alice.call(alice.transports.flow_to(tls_address(bob), "tls", name))
    while True:
        event = await asyncio.wait_for(alice.events.get(), 30)
        if isinstance(event, Answered):
            return "answered"
        if isinstance(event, Lost):
            return event.detail


async def test_calls_are_made_and_hung_up_over_tls(authority: Authority) -> None:
    tls = TlsSettings(own=authority.issue("pbx.example", "127.0.0.1"), ca=authority.ca)
    async with phone(tls=tls) as alice, phone(tls=tls, answers=True) as bob:
        alice.call(alice.transports.flow_to(tls_address(bob), "tls", "pbx.example"))
        answered = await alice.next(Answered)
        confirmed = await bob.next(Confirmed)
        contact = answered.response.contact
        assert contact is not None
        assert (contact.uri.port, contact.uri.param("transport")) == (tls_address(bob)[1], "tls")
        via = parse_message(bob.messages[0][1]).via
        assert (via.transport, via.port) == ("TLS", tls_address(alice)[1])
        bob.act("bye", confirmed.key)
        await alice.next(ByeReceived)
        assert (await bob.next(ByeAnswered)).status == 200
        assert alice.transports.peer_names(alice.messages[0][2]) == {"pbx.example", "127.0.0.1"}
        # No certificate was asked for, so nobody is known by one.
        assert bob.transports.peer_names(bob.messages[0][2]) == frozenset()


async def test_calls_to_sips_uris_are_secure_in_all_they_name(authority: Authority) -> None:
    tls = TlsSettings(own=authority.issue("pbx.example", "127.0.0.1"), ca=authority.ca)
    async with phone(tls=tls) as alice, phone(tls=tls, answers=True) as bob:
        alice.call(alice.transports.flow_to(tls_address(bob), "tls", "pbx.example"), "sips:agent@pbx.example")
        answered = await alice.next(Answered)
        asked = parse_message(bob.messages[0][1])
        for side, contact in ((alice, asked.contact), (bob, answered.response.contact)):
            assert contact is not None
            assert str(contact.uri) == f"sips:127.0.0.1:{tls_address(side)[1]}"


@pytest.mark.parametrize(
    ("names", "wanted", "expected"),
    [
        (("pbx.example",), "pbx.example", "answered"),
        (("*.example.org",), "pbx.example.org", "answered"),
        (("sip:pbx.example", "host.example"), "pbx.example", "answered"),
        (("sip:pbx.example", "host.example"), "host.example", "is not that of host.example but of pbx.example"),
        (("other.example",), "pbx.example", "is not that of pbx.example but of other.example"),
        (("127.0.0.1",), "", "answered"),
        (("pbx.example",), "", "is not that of 127.0.0.1"),
    ],
)
async def test_the_certificate_must_be_that_of_the_domain(
    authority: Authority, names: tuple[str, ...], wanted: str, expected: str
) -> None:
    own = TlsSettings(own=authority.issue(*names))
    async with phone(tls=TlsSettings(ca=authority.ca)) as alice, phone(tls=own, answers=True) as bob:
        assert expected in await outcome(alice, bob, wanted)


async def test_certificates_of_strangers_and_of_yesterday_are_refused(authority: Authority, tmp_path: Path) -> None:
    stranger = Authority(tmp_path, "Stranger").issue("pbx.example")
    old = authority.issue("pbx.example", days=-1)
    for own in (stranger, old):
        async with phone(tls=TlsSettings(ca=authority.ca)) as alice, phone(tls=TlsSettings(own=own)) as bob:
            assert "certificate verify failed" in await outcome(alice, bob, "pbx.example")
    unchecked = TlsSettings(verify=False)
    async with phone(tls=unchecked) as alice, phone(tls=TlsSettings(own=stranger), answers=True) as bob:
        assert await outcome(alice, bob, "pbx.example") == "answered"


@pytest.mark.parametrize("client", ["request", "require"])
async def test_peers_are_known_by_their_certificates(authority: Authority, client: Any) -> None:
    served = TlsSettings(own=authority.issue("pbx.example"), ca=authority.ca, client=client)
    trunk = TlsSettings(own=authority.issue("carrier.example"), ca=authority.ca)
    async with phone(tls=served, answers=True) as bob:
        async with phone(tls=trunk) as alice:
            assert await outcome(alice, bob, "pbx.example") == "answered"
            assert bob.transports.peer_names(bob.messages[0][2]) == {"carrier.example"}
        async with phone(tls=TlsSettings(ca=authority.ca)) as nobody:
            result = await outcome(nobody, bob, "pbx.example")
            assert (result == "answered") is (client == "request")


async def test_a_false_certificate_is_refused_even_where_none_is_required(
    authority: Authority, tmp_path: Path
) -> None:
    served = TlsSettings(own=authority.issue("pbx.example"), ca=authority.ca, client="request")
    stranger = TlsSettings(own=Authority(tmp_path, "Stranger").issue("carrier.example"), ca=authority.ca)
    async with phone(tls=served, answers=True) as bob, phone(tls=stranger) as alice:
        assert await outcome(alice, bob, "pbx.example") != "answered"
        assert bob.agent.counters["received"] == 0


async def test_clients_that_name_a_host_are_shown_its_certificate(authority: Authority) -> None:
    served = TlsSettings(
        own=authority.issue("pbx.example"), by_name={"Other.example": authority.issue("other.example")}
    )
    async with phone(tls=TlsSettings(ca=authority.ca)) as alice, phone(tls=served, answers=True) as bob:
        assert await outcome(alice, bob, "other.example") == "answered"
        assert await outcome(alice, bob, "pbx.example") == "answered"
        # One address, two domains: two connections, for each has shown one certificate.
        assert alice.transports.connection_count == 2


async def test_reloaded_certificates_are_for_new_connections_alone(authority: Authority) -> None:
    own = authority.issue("pbx.example")
    assert own.key is not None
    async with phone(tls=TlsSettings(ca=authority.ca)) as alice, phone(tls=TlsSettings(own=own), answers=True) as bob:
        key = alice.call(alice.transports.flow_to(tls_address(bob), "tls", "pbx.example"))
        await alice.next(Answered)
        renewed = authority.issue("new.example")
        assert renewed.key is not None
        own.certificate.write_bytes(renewed.certificate.read_bytes())
        with pytest.raises(TlsError, match="mismatch"):
            bob.transports.reload_certificates()
        async with phone(tls=TlsSettings(ca=authority.ca)) as other:
            assert await outcome(other, bob, "pbx.example") == "answered"
        own.key.write_bytes(renewed.key.read_bytes())
        bob.transports.reload_certificates()
        async with phone(tls=TlsSettings(ca=authority.ca)) as other:
            assert await outcome(other, bob, "new.example") == "answered"
        alice.act("bye", key)
        assert await alice.next(ByeAnswered) == ByeAnswered(key, 200)
        assert alice.transports.connection_count == 1


async def test_a_domain_is_found_and_its_certificate_checked(authority: Authority) -> None:
    """From a URI to a call: NAPTR, SRV, address, and a certificate of the domain, not of the server."""
    served = TlsSettings(own=authority.issue("carrier.example"))
    async with phone(tls=served, answers=True) as bob:
        zone = {
            "carrier.example NAPTR": ['1 1 "s" "SIPS+D2T" "" _sips._tcp.carrier.example.'],
            "_sips._tcp.carrier.example SRV": [f"1 1 {tls_address(bob)[1]} one.servers.example."],
            "one.servers.example A": ["127.0.0.1"],
        }
        async with name_server(zone) as dns:
            resolver = ResolverSettings(nameservers=(dns.address,))
            async with phone(tls=TlsSettings(ca=authority.ca), resolver=resolver) as alice:
                flows = await alice.transports.locate("sip:agent@carrier.example")
                assert [(flow.transport, flow.name) for flow in flows] == [("tls", "carrier.example")]
                alice.call(flows[0], "sip:agent@carrier.example")
                await alice.next(Answered)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
async def test_old_versions_of_tls_are_refused(authority: Authority) -> None:
    async with phone(tls=TlsSettings(own=authority.issue("pbx.example"))) as bob:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = ssl.TLSVersion.TLSv1_1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await RawPeer.connect(tls_address(bob), tls=context, name="pbx.example")
        await until(lambda: bob.agent.counters["TLS handshakes failed"] == 1)


async def test_sip_without_tls_on_the_port_of_tls_gets_nowhere(authority: Authority) -> None:
    async with phone(tls=TlsSettings(own=authority.issue("pbx.example"))) as bob:
        peer = await RawPeer.connect(tls_address(bob))
        await peer.send(options("TLS 127.0.0.1"))
        assert await peer.ended()
        await peer.close()
        assert bob.agent.counters["received"] == 0
