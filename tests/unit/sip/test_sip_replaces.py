"""Replaces (RFC 3891): calls that take the place of others, named and matched."""

import pytest
from sip_network import ALICE, BOB, Network, RawPeer, answer_to, offer, request

from bridge.sip.agent import UserAgent
from bridge.sip.errors import CallGoneError, CallStateError, SipSyntaxError
from bridge.sip.events import Answered, ByeReceived, CallKey, InviteReceived, Rejected
from bridge.sip.message import Request, Response
from bridge.sip.replaces import Replaces
from bridge.sip.settings import UserAgentConfig


def peer(**config: object) -> RawPeer:
    return RawPeer(UserAgent(UserAgentConfig(**({"session_expires_s": 0} | config))))  # type: ignore[arg-type]


def invited(alice: RawPeer) -> CallKey:
    alice.send(request(body=offer()))
    (event,) = alice.agent.events()
    assert isinstance(event, InviteReceived)
    return event.key


def established(alice: RawPeer) -> CallKey:
    key = invited(alice)
    alice.agent.answer(key, answer_to(offer()), alice.now)
    alice.send(request("ACK", branch="z9hG4bKack", to_tag=key))
    alice.agent.events()
    alice.sent()
    return key


def second(replaces: str, method: str = "INVITE", more: str = "") -> bytes:
    """Another call, in place of one."""
    return request(
        method,
        call_id="call-2",
        branch="z9hG4bKsecond",
        from_tag="c1",
        body=offer(4444) if method == "INVITE" else b"",
        extra=f"Replaces: {replaces}\n{more}",
    )


def refusal(messages: list[Request | Response]) -> int:
    (message,) = messages
    assert isinstance(message, Response)
    return message.status


def test_call_that_replaces_one_says_which() -> None:
    alice = peer()
    key = established(alice)
    alice.send(second(f"call-1;from-tag=a1;to-tag={key}", more="Require: replaces\n"))
    (event,) = alice.agent.events()
    assert isinstance(event, InviteReceived)
    assert event.replaces == key
    assert event.key != key
    alice.agent.answer(event.key, answer_to(offer(4444)), alice.now)
    alice.agent.bye(key, alice.now)
    assert [str(message.cseq) for message in alice.sent()] == ["1 INVITE", "1 BYE"]


def test_call_that_replaces_none_says_so() -> None:
    alice = peer()
    alice.send(request(body=offer()))
    (event,) = alice.agent.events()
    assert isinstance(event, InviteReceived)
    assert event.replaces is None


@pytest.mark.parametrize(
    ("replaces", "status"),
    [
        ("call-1;from-tag=a1;to-tag={};early-only", 486),
        ("call-1;from-tag=a2;to-tag={}", 481),
        ("call-1;from-tag=0;to-tag={}", 481),
        ("call-9;from-tag=a1;to-tag={}", 481),
        ("call-1;from-tag=a1;to-tag=nobody", 481),
        ("call-1;from-tag={};to-tag=a1", 481),
        ("call-1;from-tag=a1", 400),
        ("call-1", 400),
        (";from-tag=a1;to-tag={}", 400),
        ("call-1;from-tag=a1;to-tag={}\nReplaces: x;from-tag=1;to-tag=2", 400),
        ("call-1;from-tag=a1;to-tag={}\nJoin: x;from-tag=1;to-tag=2", 400),
    ],
)
def test_replaces_that_fits_no_call_is_refused(replaces: str, status: int) -> None:
    alice = peer()
    key = established(alice)
    assert refusal(alice.send(second(replaces.format(key)))) == status
    assert alice.agent.events() == []
    assert alice.agent.call_count == 1


def test_call_that_rings_here_cannot_be_taken_over() -> None:
    alice = peer()
    key = invited(alice)
    assert refusal(alice.send(second(f"call-1;from-tag=a1;to-tag={key}"))) == 481


def test_call_that_is_ending_gets_603() -> None:
    alice = peer()
    key = established(alice)
    alice.agent.bye(key, alice.now)
    alice.sent()
    assert refusal(alice.send(second(f"call-1;from-tag=a1;to-tag={key}"))) == 603


def test_replaces_outside_an_invite_gets_400() -> None:
    alice = peer()
    key = established(alice)
    assert refusal(alice.send(second(f"call-1;from-tag=a1;to-tag={key}", "OPTIONS"))) == 400


def test_replaces_is_refused_or_passed_over_where_it_is_off() -> None:
    alice = peer(supported=())
    key = established(alice)
    replaces = f"call-1;from-tag=a1;to-tag={key}"
    assert refusal(alice.send(second(replaces, more="Require: replaces\n"))) == 420
    alice.send(second(replaces))
    (event,) = alice.agent.events()
    assert isinstance(event, InviteReceived)
    assert event.replaces is None


@pytest.mark.parametrize("early_only", ["", ";early-only"])
def test_call_of_ours_that_rings_elsewhere_may_be_picked_up(early_only: str) -> None:
    alice = peer()
    key = alice.agent.invite(
        f"sip:alice@{ALICE[0]}", alice.flow, 0.0, from_="<sip:agent@192.0.2.2>", sdp=offer(6000, BOB[0])
    )
    (invite,) = alice.sent()
    alice.respond(invite, 180, tag="ringing")
    alice.agent.events()
    alice.send(second(f"{invite.call_id};from-tag=ringing;to-tag={key}{early_only}"))
    (event,) = alice.agent.events()
    assert isinstance(event, InviteReceived)
    assert event.replaces == key
    alice.agent.answer(event.key, answer_to(offer(4444)), alice.now)
    alice.agent.cancel(key, alice.now, reason='SIP;cause=200;text="Call completed elsewhere"')
    _, cancel = alice.sent()
    assert isinstance(cancel, Request)
    assert (cancel.method, cancel.headers.get("Reason")) == (
        "CANCEL",
        'SIP;cause=200;text="Call completed elsewhere"',
    )


def test_header_names_the_call_as_its_peer_sees_it() -> None:
    alice = peer()
    key = established(alice)
    assert alice.agent.replaces_header(key) == f"call-1;to-tag=a1;from-tag={key}"
    assert alice.agent.replaces_header(key, early_only=True) == f"call-1;to-tag=a1;from-tag={key};early-only"
    with pytest.raises(CallGoneError):
        alice.agent.replaces_header(CallKey("nobody"))
    ours = alice.agent.invite(f"sip:alice@{ALICE[0]}", alice.flow, 0.0, from_="<sip:agent@192.0.2.2>", sdp=offer())
    with pytest.raises(CallStateError):
        alice.agent.replaces_header(ours)


def test_attended_transfer_joins_the_two_others() -> None:
    """Bob talks to Alice and to Carol, and tells Carol's peer (Alice) to call Carol in his place."""
    carol_at = ("192.0.2.3", 5060)
    net = Network()
    alice, bob = net.add(ALICE, answers=True), net.add(BOB, answers=True)
    carol = net.add(carol_at, answers=True)
    to_bob = net.call()
    net.run(1)
    to_carol = bob.agent.invite(
        f"sip:carol@{carol_at[0]}", net.flow(BOB, carol_at), net.now, from_="<sip:agent@192.0.2.2>", sdp=offer()
    )
    net.run(1)
    headers = [("Replaces", bob.agent.replaces_header(to_carol)), ("Require", "replaces")]
    new = alice.agent.invite(
        f"sip:carol@{carol_at[0]}",
        net.flow(ALICE, carol_at),
        net.now,
        from_="<sip:alice@192.0.2.1>",
        sdp=offer(),
        headers=headers,
    )
    net.run(1)
    first, replacing = carol.seen(InviteReceived)
    assert (first.replaces, replacing.replaces) == (None, first.key)
    assert [event.key for event in alice.seen(Answered)] == [to_bob, new]
    carol.agent.bye(first.key, net.now)
    net.run(1)
    assert [event.key for event in bob.seen(ByeReceived)] == [to_carol]
    assert bob.seen(Rejected) == []


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("a@b;to-tag=1;from-tag=2", Replaces("a@b", "1", "2")),
        (" a ; from-tag = 2 ;to-tag=1;early-only ", Replaces("a", "1", "2", early_only=True)),
        ("a;to-tag=1;from-tag=2;x=y", Replaces("a", "1", "2")),
    ],
)
def test_field_is_read(text: str, seen: Replaces) -> None:
    assert Replaces.parse(text) == seen
    assert Replaces.parse(str(seen)) == seen


@pytest.mark.parametrize(
    "text", ["", "a", "a;to-tag=1", "a;from-tag=1", "a;to-tag=;from-tag=2", ";to-tag=1;from-tag=2"]
)
def test_malformed_field_is_refused(text: str) -> None:
    with pytest.raises(SipSyntaxError):
        Replaces.parse(text)
