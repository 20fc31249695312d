"""Calls of ours that are challenged, redirected, sent to another server and given up, in any order, over a network
that loses messages: every one ends once, and nothing is left. And calls that go round in a circle."""

from contextlib import suppress
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sip_caller import FLOW, TARGET, Caller
from sip_network import ALICE, BOB, Network, Owner, answer_to, offer

from bridge.sip.agent import UserAgent
from bridge.sip.digest import Credentials, DigestServer, Secret
from bridge.sip.errors import SipError, SipSyntaxError
from bridge.sip.events import (
    Answered,
    ByeAnswered,
    ByeReceived,
    CallKey,
    Cancelled,
    Event,
    InviteReceived,
    Lost,
    Redirected,
    Rejected,
    RequestAnswered,
    RequestKey,
)
from bridge.sip.flow import Address, Flow
from bridge.sip.message import Request, make_response, parse_message
from bridge.sip.settings import Refusal, UserAgentConfig

CAROL: Address = ("192.0.2.3", 5060)
DAVE: Address = ("192.0.2.4", 5060)
"""Nobody is there."""

ACCOUNT = Credentials("alice", "secret")
TERMINAL = (Cancelled, Rejected, ByeReceived, ByeAnswered, Lost, RequestAnswered)


class Guard:
    """Lets in who knows the password; nonces last five seconds."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._server = DigestServer("example", lambda user: Secret("secret"), nonce_lifetime_s=5.0)

    def __call__(self, request: Request, flow: Flow) -> Refusal | None:
        if request.method in ("ACK", "CANCEL"):
            return None
        verdict = self._server.check(request, self._network.now)
        return None if verdict.username else Refusal(verdict.status, headers=verdict.headers)


@dataclass
class Callee(Owner):
    """Bob: early media, then an answer; sends every third caller on to Carol, and every fifth to nobody."""

    calls: int = 0
    waiting: list[tuple[CallKey, bytes]] = field(default_factory=list)

    def react(self, event: Event, now: float) -> None:
        if not isinstance(event, InviteReceived) or event.sdp is None:
            super().react(event, now)
            return
        self.calls += 1
        if self.calls % 3 == 0:
            contacts = "<sip:agent@192.0.2.4>;q=0.9, <sip:agent@192.0.2.3>;q=0.5"
            self.agent.reject(event.key, 302, now, headers=[("Contact", contacts)])
        else:
            answer = answer_to(event.sdp)
            self.agent.ring(event.key, now, status=183, sdp=answer)
            self.waiting.append((event.key, answer))

    def pick_up(self, now: float) -> None:
        for key, answer in self.waiting:
            try:
                self.agent.answer(key, answer, now)
            except SipError:
                continue
        self.waiting.clear()


@dataclass
class Following(Owner):
    """Alice: goes where she is sent."""

    def react(self, event: Event, now: float) -> None:
        if isinstance(event, Redirected):
            hosts = {"192.0.2.3": CAROL, "192.0.2.4": DAVE}
            host = next(host for host in hosts if host in event.targets[0])
            self.agent.retarget(event.key, event.targets[0], [Flow("udp", hosts[host], ALICE)], now)
        else:
            super().react(event, now)


def cast(network: Network) -> tuple[Following, Callee, Owner]:
    alice = Following(UserAgent(UserAgentConfig(max_ring_s=60)), ALICE, answers=True)
    bob = Callee(UserAgent(UserAgentConfig(admit=Guard(network))), BOB, answers=True)
    network.owners |= {ALICE: alice, BOB: bob}
    return alice, bob, network.add(CAROL, answers=True, rings=True)


def assert_over(*owners: Owner) -> None:
    for owner in owners:
        agent = owner.agent
        assert (agent.call_count, agent.transaction_count, agent.timer()) == (0, 0, None)
        ended: set[CallKey | RequestKey] = set()
        for event in owner.events:
            assert event.key not in ended, owner.events
            if isinstance(event, TERMINAL):
                ended.add(event.key)
        if owner.address == ALICE:
            # A called side that rejects is told no end.
            assert {event.key for event in owner.events} == ended


def call(network: Network, alice: Owner, first: Address = BOB) -> CallKey:
    flows = [Flow("udp", address, ALICE) for address in (first, BOB, CAROL)]
    return alice.agent.invite(
        TARGET,
        flows[0],
        network.now,
        from_="<sip:alice@192.0.2.1>",
        sdp=offer(),
        alternatives=flows[1:],
        credentials=ACCOUNT,
        max_redirects=3,
    )


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    loss=st.sampled_from([0.0, 0.0, 0.1, 0.4]),
    duplication=st.sampled_from([0.0, 0.3]),
    jitter_s=st.sampled_from([0.0, 0.4]),
    deeds=st.lists(
        st.tuples(
            st.sampled_from(
                [
                    "call",
                    "call nobody",
                    "pick up",
                    "cancel",
                    "hangup",
                    "reinvite",
                    "update",
                    "info",
                    "ask",
                    "unreachable",
                ]
            ),
            st.booleans(),
            st.floats(0, 4),
        ),
        max_size=12,
    ),
)
def test_every_call_ends_once_whatever_crosses(
    seed: int, loss: float, duplication: float, jitter_s: float, deeds: list[tuple[str, bool, float]]
) -> None:
    network = Network(seed=seed, loss=loss, duplication=duplication, jitter_s=jitter_s)
    alice, bob, carol = cast(network)
    call(network, alice)
    for deed, by_alice, pause in deeds:
        network.run(pause)
        act(network, alice if by_alice else bob, alice, bob, deed)
    network.run(130)
    for owner in (alice, bob, carol):
        act(network, owner, alice, bob, "hangup")
    network.run(450)
    assert_over(alice, bob, carol)


def act(network: Network, owner: Owner, alice: Owner, bob: Callee, deed: str) -> None:
    now, agent = network.now, owner.agent
    if deed.startswith("call"):
        call(network, alice, DAVE if deed == "call nobody" else BOB)
    elif deed == "pick up":
        bob.pick_up(now)
    elif deed == "ask":
        alice.agent.request("OPTIONS", TARGET, FLOW, now, from_="<sip:alice@192.0.2.1>", credentials=ACCOUNT)
    elif deed == "unreachable":
        for address in (BOB, DAVE):
            alice.agent.transport_failed(Flow("udp", address, ALICE), now, "port unreachable")
    else:
        for key in {event.key for event in owner.events if not isinstance(event, RequestAnswered)}:
            try:
                if deed == "cancel":
                    agent.cancel(key, now)
                elif deed == "hangup":
                    agent.hangup(key, now)
                elif deed == "reinvite":
                    agent.reinvite(key, offer(5004), now)
                elif deed == "update":
                    agent.update(key, offer(5006), now)
                else:
                    agent.info(key, "application/dtmf", b"1", now)
            except SipError:
                continue


def test_call_is_challenged_redirected_and_answered_where_it_was_sent() -> None:
    network = Network()
    alice, bob, carol = cast(network)
    bob.calls = 2
    key = call(network, alice)
    network.run(40)
    assert alice.one(Answered).key == key
    assert carol.seen(InviteReceived)
    alice.agent.bye(key, network.now)
    network.run(140)
    assert_over(alice, bob, carol)


def test_call_to_nobody_is_taken_by_the_third_server_with_a_password() -> None:
    network = Network()
    alice, bob, carol = cast(network)
    key = call(network, alice, DAVE)
    network.run(40)
    bob.pick_up(network.now)
    network.run(1)
    assert alice.one(Answered).key == key
    bob.agent.hangup(bob.one(InviteReceived).key, network.now)
    network.run(140)
    assert_over(alice, bob, carol)


@pytest.mark.parametrize("after", ["401 INVITE", "503 INVITE", "302 INVITE", "183 INVITE"])
def test_cancel_at_each_turn_of_a_call(after: str) -> None:
    for delay in (0.0, 0.005, 0.011, 0.015, 0.021, 0.5):
        network = Network()
        alice, bob, carol = cast(network)
        bob.calls = 2 if after == "302 INVITE" else 0
        if after == "503 INVITE":
            bob.agent.refuse_new("Busy", 10)
        key = call(network, alice)
        while network.now < 1 and not network.count(after):
            network.run(0.001)
        network.run(delay)
        alice.agent.hangup(key, network.now)
        network.run(500)
        assert_over(alice, bob, carol)


FIELDS = ("Contact", "RSeq", "Require", "WWW-Authenticate", "Record-Route", "Retry-After", "Session-Expires", "Allow")
SCRAPS = st.one_of(
    st.sampled_from(
        (
            "<sip:a@192.0.2.3>;q=0.5, <tel:1>, <sip:b@[::1]:99>;q=x,, sip:c",
            "<sip:a@b;lr?x=y&z>;expires=1",
            "*",
            "<urn:service:sos>, <sip:%zz@h;a=;b>",
            'Digest realm="x", nonce="y", qop="auth,auth-int", stale=TRUE, algorithm=SHA-256',
            'Digest realm="x", nonce="z", Basic realm=y, Digest nonce="q", realm="x"',
            "100rel",
            "1",
            "2",
            "90;refresher=uas",
        )
    ),
    st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=30),
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([100, 180, 183, 200, 202, 300, 302, 401, 407, 422, 486, 491, 503, 699]),
            st.sampled_from(["", "b1", "b2"]),
            st.lists(st.tuples(st.sampled_from(FIELDS), SCRAPS), max_size=4),
            st.booleans(),
        ),
        max_size=8,
    )
)
def test_no_response_whatever_does_harm(responses: list[tuple[int, str, list[tuple[str, str]], bool]]) -> None:
    caller = Caller()
    request = caller.invite(credentials=ACCOUNT, alternatives=[FLOW], max_redirects=2)
    for status, tag, fields, sdp in responses:
        response = make_response(request, status, to_tag=tag)
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields)
        data = response.serialise().replace(b"\r\nContent-Length", f"\r\n{lines}Content-Length".encode(), 1)
        if sdp:
            body = b"Content-Type: application/sdp\r\nContent-Length: 5\r\n\r\nv=0\r\n"
            data = data.replace(b"Content-Length: 0\r\n\r\n", body)
        caller.agent.receive(data, FLOW, caller.now)
        for event in caller.agent.events():
            if isinstance(event, Redirected):
                with suppress(SipSyntaxError):
                    caller.agent.retarget(event.key, event.targets[0], [FLOW], caller.now)
        sent = [sent for sent in caller.requests() if sent.method == "INVITE"]
        request = sent[-1] if sent else request
    caller.agent.hangup(caller.key, caller.now)
    caller.pass_time(400)
    assert (caller.agent.call_count, caller.agent.transaction_count, caller.agent.timer()) == (0, 0, None)


# -- circles ------------------------------------------------------------------------------------------------------


def test_invite_of_ours_that_comes_back_is_a_loop() -> None:
    caller = Caller()
    invite = caller.invite()
    proxied = invite.serialise().replace(b"Via: ", b"Via: SIP/2.0/UDP 192.0.2.2:5060;branch=z9hG4bKproxy\r\nVia: ", 1)
    caller.agent.receive(proxied.replace(b"Max-Forwards: 70", b"Max-Forwards: 69"), FLOW, 0.0)
    ((data, flow),) = caller.agent.outgoing()
    assert parse_message(data).headers.items_of("Via")[1:] == invite.headers.items_of("Via")
    assert data.startswith(b"SIP/2.0 482 Loop Detected\r\n")
    assert flow == FLOW
    assert (caller.agent.events(), caller.agent.call_count) == ([], 1)


def test_hops_left_are_passed_on() -> None:
    caller = Caller()
    assert caller.invite(max_forwards=12).headers.get("Max-Forwards") == "12"
    with pytest.raises(ValueError, match="483"):
        caller.invite(max_forwards=-1)
