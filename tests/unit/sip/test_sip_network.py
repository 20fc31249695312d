"""Two user agents over a network that loses, doubles, delays and reorders: calls come up, end, and leave nothing."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sip_network import ALICE, BOB, Network, Owner, answer_to, offer

from bridge.sip.errors import SipError
from bridge.sip.events import (
    Answered,
    ByeAnswered,
    ByeReceived,
    CallKey,
    Cancelled,
    Confirmed,
    InviteReceived,
    Lost,
    LostReason,
    Referred,
    ReferResult,
    Rejected,
    ReofferAnswered,
    ReofferConfirmed,
    Reoffered,
    ReofferRejected,
)
from bridge.sip.settings import DEFAULT_ALLOW, UserAgentConfig

TERMINAL = (Cancelled, Rejected, ByeReceived, ByeAnswered, Lost)

AFTERMATH_S = 140.0
"""Longer than any timers that may follow each other at the end of a call: 64*T1 for an ACK, again for a BYE, and
again for the memory of that."""


def pair(**how: object) -> tuple[Network, Owner, Owner]:
    network = Network(**how)  # type: ignore[arg-type]
    config = UserAgentConfig(allow=(*DEFAULT_ALLOW, "REFER"))
    return network, network.add(ALICE, config, answers=True), network.add(BOB, config, answers=True, rings=True)


def assert_nothing_left(*owners: Owner) -> None:
    for owner in owners:
        agent = owner.agent
        assert (agent.call_count, agent.transaction_count, agent.timer()) == (0, 0, None)


def assert_ended_once(owner: Owner) -> None:
    """Each call was told its end exactly once, and nothing after it."""
    over: set[CallKey] = set()
    for event in owner.events:
        assert event.key not in over, owner.events
        if isinstance(event, TERMINAL):
            over.add(event.key)


def talk(network: Network, alice: Owner, bob: Owner) -> CallKey:
    """A whole call: set up, a re-INVITE each way, hung up by Alice."""
    key = network.call()
    network.run(40)
    bob_key = bob.one(InviteReceived).key
    alice.agent.reinvite(key, offer(5000), network.now)
    network.run(40)
    bob.agent.reinvite(bob_key, offer(5002), network.now)
    network.run(40)
    alice.agent.bye(key, network.now)
    network.run(AFTERMATH_S)
    return key


KINDS = ["INVITE", "100 INVITE", "180 INVITE", "200 INVITE", "ACK", "BYE", "200 BYE"]


@pytest.mark.parametrize("copies", [1, 3])
@pytest.mark.parametrize("lost", KINDS)
def test_call_survives_the_loss_of_any_message(lost: str, copies: int) -> None:
    network, alice, bob = pair()
    network.fault = lambda kind, copy: "drop" if kind == lost and copy < copies else None
    key = talk(network, alice, bob)
    assert len(alice.seen(ReofferAnswered)) == 1
    assert len(bob.seen(ReofferConfirmed)) == 1
    assert alice.one(Answered).key == key
    assert bob.one(Confirmed).sdp is None
    assert alice.one(ByeAnswered).status == 200
    assert bob.one(ByeReceived)
    assert_nothing_left(alice, bob)


@pytest.mark.parametrize("doubled", KINDS)
def test_doubled_messages_change_nothing(doubled: str) -> None:
    network, alice, bob = pair()
    network.fault = lambda kind, copy: "duplicate" if kind == doubled else None
    talk(network, alice, bob)
    assert len(bob.seen(InviteReceived)) == 1
    assert len(bob.seen(Reoffered)) == len(alice.seen(Reoffered)) == 1
    assert len(bob.seen(Confirmed)) == 1
    assert len(bob.seen(ByeReceived)) == len(alice.seen(ByeAnswered)) == 1
    assert_nothing_left(alice, bob)


@pytest.mark.parametrize("late", KINDS)
def test_late_messages_change_nothing(late: str) -> None:
    network, alice, bob = pair()
    network.fault = lambda kind, copy: 1.2 if kind == late and copy == 0 else None
    talk(network, alice, bob)
    assert len(bob.seen(InviteReceived)) == 1
    assert alice.one(ByeAnswered).status == 200
    assert_nothing_left(alice, bob)


def test_a_clean_network_carries_no_message_twice() -> None:
    network, alice, bob = pair()
    talk(network, alice, bob)
    carried = [kind for _, kind in network.carried]
    assert carried == [
        "INVITE", "100 INVITE", "180 INVITE", "200 INVITE", "ACK",
        "INVITE", "100 INVITE", "200 INVITE", "ACK",
        "INVITE", "100 INVITE", "200 INVITE", "ACK",
        "BYE", "200 BYE",
    ]  # fmt: skip


def test_caller_who_never_gets_the_answer_and_callee_who_never_gets_the_ack_both_give_up() -> None:
    network, alice, bob = pair()
    network.fault = lambda kind, copy: "drop" if kind == "ACK" else None
    network.call()
    network.run(AFTERMATH_S)
    assert bob.one(Lost).reason is LostReason.NO_ACK
    assert alice.one(ByeReceived)
    assert network.count("200 INVITE") == 11
    assert_nothing_left(alice, bob)


def test_peer_that_vanishes_is_noticed_by_bye() -> None:
    network, alice, bob = pair()
    key = network.call()
    network.run(1)
    del network.owners[BOB]
    alice.agent.bye(key, network.now)
    network.run(AFTERMATH_S)
    assert alice.one(ByeAnswered).status == 408
    assert_nothing_left(alice)
    assert bob.agent.call_count == 1


@pytest.mark.parametrize("lost", ["INVITE", "100 INVITE", "180 INVITE", "CANCEL", "200 CANCEL", "487 INVITE", "ACK"])
def test_cancel_survives_the_loss_of_any_message(lost: str) -> None:
    network, alice, bob = pair()
    bob.answers = False
    network.fault = lambda kind, copy: "drop" if kind == lost and copy < 2 else None
    key = network.call()
    network.run(5)
    alice.agent.cancel(key, network.now)
    network.run(AFTERMATH_S)
    assert alice.one(Rejected).status == 487
    assert bob.one(Cancelled).reason == "cancel"
    assert_nothing_left(alice, bob)


@pytest.mark.parametrize("lost", ["486 INVITE", "ACK"])
def test_refusal_survives_the_loss_of_any_message(lost: str) -> None:
    network, alice, bob = pair()
    bob.answers = False
    network.fault = lambda kind, copy: "drop" if kind == lost and copy < 2 else None
    network.call()
    network.run(1)
    bob.agent.reject(bob.one(InviteReceived).key, 486, network.now)
    network.run(AFTERMATH_S)
    assert alice.one(Rejected).status == 486
    assert_nothing_left(alice, bob)


def test_refusal_while_draining_survives_loss_without_memory() -> None:
    network, alice, bob = pair()
    bob.agent.refuse_new("Draining", 10)
    network.fault = lambda kind, copy: "drop" if kind in ("503 INVITE", "ACK") and copy < 2 else None
    network.call()
    network.run(1)
    assert bob.agent.transaction_count == 0
    network.run(AFTERMATH_S)
    rejected = alice.one(Rejected)
    assert rejected.status == 503
    assert rejected.response is not None
    assert rejected.response.headers.get("Retry-After") == "10"
    assert bob.events == []


@pytest.mark.parametrize("lost", ["INVITE", "200 INVITE", "ACK"])
def test_late_offer_survives_the_loss_of_any_message(lost: str) -> None:
    network, alice, bob = pair()
    network.fault = lambda kind, copy: "drop" if kind == lost and copy == 0 else None
    key = network.call(late=True)
    network.run(0.6)
    network.run(1.4)
    answered = alice.one(Answered)
    assert answered.late_offer
    assert answered.sdp is not None
    alice.agent.acknowledge(key, answer_to(answered.sdp), network.now)
    network.run(40)
    assert bob.one(Confirmed).sdp == answer_to(answered.sdp)


def test_glare_is_settled() -> None:
    network, alice, bob = pair()
    key = network.call()
    network.run(1)
    bob_key = bob.one(InviteReceived).key
    alice.agent.reinvite(key, offer(5000), network.now)
    bob.agent.reinvite(bob_key, offer(5002), network.now)
    network.run(20)
    assert network.count("491 INVITE") == 2
    assert alice.one(ReofferAnswered)
    assert bob.one(ReofferAnswered)
    assert not alice.seen(ReofferRejected)


def test_transfer_between_two_of_us() -> None:
    network, alice, bob = pair()
    key = network.call()
    network.run(1)
    bob_key = bob.one(InviteReceived).key
    alice.agent.refer(key, "sip:carol@192.0.2.3", network.now)
    network.run(1)
    assert bob.one(Referred).target == "sip:carol@192.0.2.3"
    bob.agent.accept_refer(bob_key, network.now)
    network.run(1)
    bob.agent.notify(bob_key, 486, network.now)
    network.run(1)
    assert [(event.status, event.final) for event in alice.seen(ReferResult)] == [(100, False), (486, True)]


def test_referral_that_the_owner_forgets_is_refused() -> None:
    network, alice, bob = pair()
    key = network.call()
    network.run(1)
    alice.agent.refer(key, "sip:carol@192.0.2.3", network.now)
    network.run(40)
    assert network.count("480 REFER") >= 1
    alice.agent.bye(key, network.now)
    network.run(AFTERMATH_S)
    assert_nothing_left(alice, bob)


DEEDS = (
    "call", "late", "bye", "cancel", "hangup", "reinvite", "refer", "info", "update", "ring", "answer", "reject",
    "accept refer", "notify",
)  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    loss=st.sampled_from([0.0, 0.1, 0.3, 0.5]),
    duplication=st.sampled_from([0.0, 0.3]),
    jitter_s=st.sampled_from([0.0, 0.3, 2.0]),
    deeds=st.lists(
        st.tuples(
            st.sampled_from(DEEDS),
            st.booleans(),
            st.floats(0, 4),
        ),
        max_size=12,
    ),
    interval_s=st.sampled_from([0, 90]),
    slow=st.booleans(),
)
def test_whatever_happens_every_call_ends_once_and_nothing_is_left(
    seed: int,
    loss: float,
    duplication: float,
    jitter_s: float,
    deeds: list[tuple[str, bool, float]],
    interval_s: int,
    slow: bool,
) -> None:
    network = Network(seed=seed, loss=loss, duplication=duplication, jitter_s=jitter_s)
    config = UserAgentConfig(allow=(*DEFAULT_ALLOW, "REFER"), session_expires_s=interval_s)
    alice = network.add(ALICE, config, answers=True)
    bob = network.add(BOB, config, answers=not slow, rings=not slow)
    network.call()
    for deed, by_alice, pause in deeds:
        network.run(pause)
        owner = alice if by_alice else bob
        act(network, owner, deed)
    network.run(70)
    for owner in (alice, bob):
        act(network, owner, "hangup")
    network.run(3 * AFTERMATH_S)
    assert_ended_once(alice)
    assert_ended_once(bob)
    assert_nothing_left(alice, bob)


def act(network: Network, owner: Owner, deed: str) -> None:
    """Do a thing to each of an owner's calls, whether it fits or not."""
    agent, now = owner.agent, network.now
    if deed in ("call", "late"):
        network.call(late=deed == "late")
        return
    for key in {event.key for event in owner.events}:
        try:
            if deed == "bye":
                agent.bye(key, now, reason="Q.850;cause=16")
            elif deed == "cancel":
                agent.cancel(key, now)
            elif deed == "hangup":
                agent.hangup(key, now)
            elif deed == "reinvite":
                agent.reinvite(key, offer(5004), now)
            elif deed == "update":
                agent.update(key, offer(5006), now)
            elif deed == "ring":
                agent.ring(key, now, status=183, sdp=answer_to(offer()))
            elif deed == "answer":
                agent.answer(key, answer_to(offer()), now)
            elif deed == "reject":
                agent.reject(key, 486, now)
            elif deed == "accept refer":
                agent.accept_refer(key, now)
            elif deed == "notify":
                agent.notify(key, 200, now)
            elif deed == "refer":
                agent.refer(key, "sip:carol@192.0.2.3", now)
            else:
                agent.info(key, "application/dtmf", b"1", now)
        except SipError:
            continue


def test_two_hundred_calls_leave_nothing_behind() -> None:
    network, alice, bob = pair(seed=7, loss=0.05, jitter_s=0.05)
    for _ in range(200):
        key = network.call()
        network.run(0.5)
        alice.agent.hangup(key, network.now)
        network.run(0.1)
    assert bob.agent.transaction_count < 3 * 200
    network.run(AFTERMATH_S)
    assert_nothing_left(alice, bob)
    assert_ended_once(alice)
    assert len(bob.agent._layer.queue._heap) < 100
