"""UPDATE (RFC 3311) both ways, before and after the answer; and glare of offers by whatever method."""

import pytest
from sip_network import ALICE, BOB, Network, RawPeer, answer_to, offer, request

from bridge.sip.agent import UserAgent
from bridge.sip.body import following
from bridge.sip.errors import CallStateError
from bridge.sip.events import (
    Answered,
    CallKey,
    Confirmed,
    InviteReceived,
    Lost,
    LostReason,
    ReofferAnswered,
    ReofferCancelled,
    ReofferConfirmed,
    Reoffered,
    ReofferRejected,
)
from bridge.sip.message import Request, Response
from bridge.sip.settings import UserAgentConfig

ANSWER = answer_to(offer())


def peer(**config: object) -> RawPeer:
    settings = {"supported": ("100rel",), "session_expires_s": 0} | config
    return RawPeer(UserAgent(UserAgentConfig(**settings)))  # type: ignore[arg-type]


def invited(
    alice: RawPeer, *, extra: str = "Supported: 100rel\nAllow: INVITE, UPDATE\n", late: bool = False
) -> CallKey:
    alice.send(request(body=b"" if late else offer(), extra=extra))
    (event,) = alice.agent.events()
    assert isinstance(event, InviteReceived)
    return event.key


def early(alice: RawPeer) -> CallKey:
    """A call whose offer was answered in a reliable response, acknowledged; it still rings."""
    key = invited(alice)
    alice.agent.ring(key, alice.now, status=183, sdp=ANSWER)
    (progress,) = alice.sent()
    rack = f"RAck: {progress.headers.get('RSeq')} 1 INVITE\n"
    (ok,) = alice.send(request("PRACK", cseq=2, branch="z9hG4bKprack", to_tag=key, extra=rack))
    assert statuses([ok]) == [200]
    return key


def established(alice: RawPeer, **how: bool) -> CallKey:
    key = invited(alice, **how)  # type: ignore[arg-type]
    alice.agent.answer(key, ANSWER, alice.now)
    alice.send(request("ACK", branch="z9hG4bKack", to_tag=key))
    assert alice.agent.events() == [Confirmed(key, None)]
    alice.sent()
    return key


def update(key: CallKey, *, cseq: int = 5, body: bytes = b"", **how: str) -> bytes:
    return request("UPDATE", cseq=cseq, branch=f"z9hG4bKu{cseq}", to_tag=key, body=body, **how)  # type: ignore[arg-type]


def statuses(messages: list[Request | Response]) -> list[int | str]:
    return [message.status if isinstance(message, Response) else message.method for message in messages]


def one(messages: list[Request | Response]) -> Request | Response:
    assert len(messages) == 1, messages
    return messages[0]


# -- the peer's -----------------------------------------------------------------------------------------------


def test_update_without_sdp_is_answered_at_once_and_moves_the_target() -> None:
    alice = peer()
    key = established(alice)
    ok = one(alice.send(update(key, contact="Contact: <sip:alice@192.0.2.77:5070>\n")))
    assert statuses([ok]) == [200]
    assert (ok.body, str(ok.contact.uri) if ok.contact else "") == (b"", "sip:192.0.2.2:5060")
    assert "UPDATE" in ok.headers.items_of("Allow")
    assert alice.agent.events() == []
    alice.agent.bye(key, alice.now)
    bye = one(alice.sent())
    assert isinstance(bye, Request)
    assert bye.uri == "sip:alice@192.0.2.77:5070"


@pytest.mark.parametrize("setup", [established, early])
def test_offer_in_an_update_is_told_and_answered_in_its_200(setup: object) -> None:
    alice = peer()
    key = setup(alice)  # type: ignore[operator]
    hold = offer().replace(b"sendrecv", b"sendonly")
    assert alice.send(update(key, body=hold)) == []
    assert alice.agent.events() == [Reoffered(key, hold)]
    alice.agent.answer_reinvite(key, answer_to(hold), alice.now)
    ok = one(alice.sent())
    assert (statuses([ok]), str(ok.cseq), ok.content_type) == ([200], "5 UPDATE", "application/sdp")
    assert b"recvonly" in ok.body
    assert alice.agent.events() == [ReofferConfirmed(key, None)]
    assert alice.send(update(key, body=hold)) == [ok]
    assert alice.pass_time(33)[1:] == []


def test_call_is_answered_after_an_update_in_the_early_dialog() -> None:
    alice = peer()
    key = early(alice)
    alice.send(update(key, body=offer(4500)))
    alice.agent.answer_reinvite(key, answer_to(offer(4500)), alice.now)
    alice.agent.answer(key, ANSWER, alice.now)
    ok = alice.sent()[-1]
    assert (statuses([ok]), str(ok.cseq), ok.body) == ([200], "1 INVITE", b"")


def test_answer_waits_for_the_answer_of_an_early_update() -> None:
    alice = peer()
    key = early(alice)
    alice.send(update(key, body=offer(4500)))
    alice.agent.answer(key, ANSWER, alice.now)
    assert alice.sent() == []
    alice.agent.answer_reinvite(key, answer_to(offer(4500)), alice.now)
    assert [str(message.cseq) for message in alice.sent()] == ["5 UPDATE", "1 INVITE"]


def test_refused_update_leaves_the_call_as_it_was() -> None:
    alice = peer()
    key = established(alice)
    alice.send(update(key, body=offer(4500), contact="Contact: <sip:elsewhere@192.0.2.99>\n"))
    alice.agent.reject_reinvite(key, 488, alice.now)
    assert statuses(alice.sent()) == [488]
    assert alice.agent.events() == [Reoffered(key, offer(4500))]
    alice.agent.bye(key, alice.now)
    bye = one(alice.sent())
    assert isinstance(bye, Request)
    assert bye.uri == "sip:alice@192.0.2.1:5060"


def test_update_that_the_owner_forgets_gets_504_in_time() -> None:
    alice = peer()
    key = established(alice)
    alice.send(update(key, body=offer(4500)))
    assert statuses(alice.pass_time(25.1)) == [504]
    assert alice.agent.events() == [Reoffered(key, offer(4500)), ReofferCancelled(key)]
    with pytest.raises(CallStateError):
        alice.agent.answer_reinvite(key, ANSWER, alice.now)


def test_offer_before_the_first_is_answered_gets_500_with_retry_after() -> None:
    alice = peer()
    key = invited(alice)
    refusal = one(alice.send(update(key, body=offer(4500))))
    assert statuses([refusal]) == [500]
    assert 0 <= int(refusal.headers.get("Retry-After") or "-1") <= 10
    assert statuses(alice.send(update(key, cseq=6))) == [200]


def test_second_update_before_the_first_is_answered_gets_500_with_retry_after() -> None:
    alice = peer()
    key = established(alice)
    alice.send(update(key, body=offer(4500)))
    for cseq, body in ((6, b""), (7, offer(4600))):
        refusal = one(alice.send(update(key, cseq=cseq, body=body)))
        assert statuses([refusal]) == [500]
        assert 0 <= int(refusal.headers.get("Retry-After") or "-1") <= 10
    assert alice.agent.events() == [Reoffered(key, offer(4500))]


def test_offers_while_the_peers_update_is_open_are_refused() -> None:
    alice = peer()
    key = established(alice)
    alice.send(update(key, body=offer(4500)))
    assert statuses(alice.send(request(cseq=6, branch="z9hG4bKr", to_tag=key, body=offer(4600)))) == [100, 500]
    for verb in (alice.agent.update, alice.agent.reinvite):
        with pytest.raises(CallStateError):
            verb(key, offer(6500, BOB[0]), alice.now)


@pytest.mark.parametrize("ours", ["reinvite", "update"])
def test_offer_that_meets_ours_gets_491(ours: str) -> None:
    alice = peer()
    key = established(alice)
    getattr(alice.agent, ours)(key, offer(6500, BOB[0]), alice.now)
    alice.sent()
    assert statuses(alice.send(update(key, body=offer(4500)))) == [491]
    assert statuses(alice.send(request(cseq=6, branch="z9hG4bKr", to_tag=key, body=offer(4500)))) == [100, 491]
    # One without an offer is no glare.
    assert statuses(alice.send(update(key, cseq=7))) == [200]
    assert alice.agent.events() == []


def test_offer_that_meets_our_late_offer_gets_491() -> None:
    alice = peer()
    key = invited(alice, late=True)
    alice.agent.answer(key, offer(6000, BOB[0]), alice.now)
    alice.sent()
    assert statuses(alice.send(update(key, body=offer(4500)))) == [491]


def test_body_that_is_no_sdp_gets_415() -> None:
    alice = peer()
    key = established(alice)
    refusal = one(alice.send(request("UPDATE", cseq=5, to_tag=key, body=b"x", content_type="text/plain")))
    assert (statuses([refusal]), refusal.headers.get("Accept")) == ([415], "application/sdp")


def test_open_update_is_answered_when_the_call_ends() -> None:
    alice = peer()
    key = established(alice)
    alice.send(update(key, body=offer(4500)))
    assert statuses(alice.send(request("BYE", cseq=6, branch="z9hG4bKb", to_tag=key))) == [200, 487]
    alice.pass_time(33)
    assert (alice.agent.call_count, alice.agent.transaction_count, alice.agent.timer()) == (0, 0, None)


# -- ours -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("setup", [established, early])
def test_our_update_is_answered(setup: object) -> None:
    alice = peer()
    key = setup(alice)  # type: ignore[operator]
    assert alice.agent.can_update(key)
    ours = offer(6500, BOB[0])
    alice.agent.update(key, ours, alice.now)
    sent = one(alice.sent())
    assert isinstance(sent, Request)
    assert (sent.method, sent.content_type, sent.body) == ("UPDATE", "application/sdp", following(ANSWER, ours))
    assert sent.contact is not None
    assert alice.respond(sent, 200, sdp=answer_to(ours)) == []
    assert alice.agent.events() == [ReofferAnswered(key, answer_to(ours), False)]


def test_our_update_waits_for_the_first_answer_and_its_prack() -> None:
    alice = peer()
    key = invited(alice)
    with pytest.raises(CallStateError):
        alice.agent.update(key, offer(6500, BOB[0]), alice.now)
    alice.agent.ring(key, alice.now, status=183, sdp=ANSWER)
    with pytest.raises(CallStateError):
        alice.agent.update(key, offer(6500, BOB[0]), alice.now)


def test_peer_that_does_not_name_update_does_not_take_it() -> None:
    alice = peer()
    assert not alice.agent.can_update(invited(alice, extra="Allow: INVITE, ACK\n"))


@pytest.mark.parametrize(
    ("status", "lost"), [(488, None), (405, None), (481, LostReason.GONE), (408, LostReason.TIMEOUT)]
)
def test_refused_update_of_ours(status: int, lost: LostReason | None) -> None:
    alice = peer()
    key = established(alice)
    alice.agent.update(key, offer(6500, BOB[0]), alice.now)
    alice.respond(one(alice.sent()), status)
    event = one(alice.agent.events())  # type: ignore[arg-type]
    if lost is None:
        assert isinstance(event, ReofferRejected)
        assert event.status == status
        alice.agent.reinvite(key, offer(6500, BOB[0]), alice.now)
    else:
        assert isinstance(event, Lost)
        assert event.reason is lost


def test_update_without_an_answer_ends_the_call() -> None:
    alice = peer()
    key = established(alice)
    alice.agent.update(key, offer(6500, BOB[0]), alice.now)
    assert statuses(alice.pass_time(32.1))[-1] == "BYE"
    (event,) = alice.agent.events()
    assert isinstance(event, Lost)
    alice.pass_time(40)
    assert (alice.agent.call_count, alice.agent.transaction_count, alice.agent.timer()) == (0, 0, None)


def test_early_update_without_an_answer_leaves_the_call_ringing() -> None:
    alice = peer()
    key = early(alice)
    alice.agent.update(key, offer(6500, BOB[0]), alice.now)
    alice.pass_time(32.1)
    assert alice.agent.events() == [ReofferRejected(key, 408, "Request Timeout")]
    alice.agent.answer(key, ANSWER, alice.now)
    assert statuses(alice.sent()) == [200]


@pytest.mark.parametrize("verb", ["update", "reinvite"])
def test_called_side_tries_again_within_two_seconds_after_491(verb: str) -> None:
    for _ in range(10):
        alice = peer()
        key = established(alice)
        ours = offer(6500, BOB[0])
        getattr(alice.agent, verb)(key, ours, alice.now)
        (first,) = alice.sent()
        alice.respond(first, 491)
        with pytest.raises(CallStateError):
            alice.agent.update(key, ours, alice.now)
        (again,) = alice.pass_time(2.0)[:1]
        assert isinstance(again, Request)
        assert (again.method, again.body, again.cseq.number) == (statuses([first])[0], first.body, 2)


@pytest.mark.parametrize("verb", ["update", "reinvite"])
def test_calling_side_tries_again_between_2_1_and_4_seconds_after_491(verb: str) -> None:
    for _ in range(10):
        alice = peer()
        key = alice.agent.invite(
            f"sip:alice@{ALICE[0]}", alice.flow, 0.0, from_="<sip:agent@192.0.2.2>", sdp=offer(6000, BOB[0])
        )
        alice.respond(one(alice.sent()), 200, sdp=answer_to(offer()))
        alice.agent.events()
        getattr(alice.agent, verb)(key, offer(6500, BOB[0]), alice.now)
        (first,) = alice.sent()
        alice.respond(first, 491)
        assert alice.pass_time(2.09) == []
        assert statuses(alice.pass_time(1.92))[:1] == statuses([first])


def test_our_offer_waits_until_the_peers_is_answered_and_then_follows_it() -> None:
    alice = peer()
    key = established(alice)
    ours, theirs = offer(6500, BOB[0]), offer(4500)
    alice.agent.update(key, ours, alice.now)
    (first,) = alice.sent()
    alice.respond(first, 491)
    alice.send(update(key, body=theirs))
    alice.pass_time(3)
    assert alice.agent.events() == [Reoffered(key, theirs)]
    answer = following(first.body, answer_to(theirs, 6400))
    alice.agent.answer_reinvite(key, answer, alice.now)
    alice.sent()
    again = one(alice.pass_time(1.1)[:1])
    assert b"m=audio 6500" in again.body
    # What the peer saw last was our answer: the offer has to come after it.
    assert version_of(again.body) > version_of(answer)


@pytest.mark.parametrize("verbs", [("update", "update"), ("reinvite", "reinvite"), ("update", "reinvite")])
@pytest.mark.parametrize("seed", range(5))
def test_offers_that_cross_are_both_settled(verbs: tuple[str, str], seed: int) -> None:
    net = Network(seed=seed, jitter_s=0.02)
    alice, bob = net.add(ALICE, answers=True), net.add(BOB, answers=True)
    key = net.call()
    net.run(5)
    for owner, verb, port in ((alice, verbs[0], 4900), (bob, verbs[1], 6900)):
        at = key if owner is alice else bob.one(InviteReceived).key
        getattr(owner.agent, verb)(at, offer(port, owner.address[0]), net.now)
    net.run(15)
    for owner in (alice, bob):
        assert isinstance(owner.one(ReofferAnswered), ReofferAnswered)
        assert owner.seen(ReofferRejected) == []
    alice.agent.bye(key, net.now)
    net.run(40)
    for owner in (alice, bob):
        assert (owner.agent.call_count, owner.agent.transaction_count, owner.agent.timer()) == (0, 0, None)


# -- before the answer, between two of us ---------------------------------------------------------------------


@pytest.mark.parametrize("first", ["caller", "callee"])
@pytest.mark.parametrize("loss", [0.0, 0.15])
def test_session_changes_both_ways_while_it_rings(first: str, loss: float) -> None:
    for seed in range(5 if loss else 1):
        net = Network(seed=seed, loss=loss, jitter_s=0.02)
        alice, bob = net.add(ALICE), net.add(BOB)
        at_alice = net.call()
        net.run(8)
        at_bob = bob.one(InviteReceived).key
        bob.agent.ring(at_bob, net.now, status=183, sdp=answer_to(offer()))
        net.run(20)
        assert net.count("PRACK") >= 1
        sides = [(alice, at_alice, bob, at_bob), (bob, at_bob, alice, at_alice)]
        for n, (mine, my_key, other, other_key) in enumerate(sides if first == "caller" else sides[::-1]):
            mine.agent.update(my_key, offer(5000 + 2 * n, mine.address[0]), net.now)
            net.run(8)
            change = other.one(Reoffered)
            assert change.sdp is not None
            other.agent.answer_reinvite(other_key, answer_to(change.sdp, 7000 + 2 * n), net.now)
            net.run(8)
            assert mine.one(ReofferAnswered).key == my_key
            assert other.one(ReofferConfirmed).key == other_key
        bob.agent.answer(at_bob, answer_to(offer()), net.now)
        net.run(10)
        answered = alice.one(Answered)
        # The 200 has no description: what counts is what was agreed on last.
        assert answered.sdp is not None
        assert (b"m=audio 5002" if first == "caller" else b"m=audio 7002") in answered.sdp
        bob.one(Confirmed)
        alice.agent.bye(at_alice, net.now)
        net.run(70)
        for owner in (alice, bob):
            assert (owner.agent.call_count, owner.agent.transaction_count, owner.agent.timer()) == (0, 0, None)


# -- versions -------------------------------------------------------------------------------------------------


def version_of(sdp: bytes) -> int:
    (line,) = (line for line in sdp.splitlines() if line.startswith(b"o="))
    return int(line.split()[2])


def sdp(version: int, port: int, session: int = 1) -> bytes:
    return f"v=0\r\no=- {session} {version} IN IP4 192.0.2.2\r\ns=-\r\nm=audio {port} RTP/AVP 0\r\n".encode()


@pytest.mark.parametrize(
    ("previous", "new", "sent"),
    [
        (sdp(5, 1), sdp(5, 2), sdp(6, 2)),
        (sdp(5, 1), sdp(3, 2), sdp(6, 2)),
        (sdp(5, 1), sdp(3, 1), sdp(5, 1)),
        (sdp(5, 1), sdp(5, 1), sdp(5, 1)),
        (sdp(5, 1), sdp(6, 2), sdp(6, 2)),
        (sdp(5, 1), sdp(9, 1), sdp(9, 1)),
        (sdp(5, 1), sdp(1, 2, session=2), sdp(1, 2, session=2)),
        (b"nonsense", sdp(1, 2), sdp(1, 2)),
        (sdp(1, 2), b"nonsense", b"nonsense"),
    ],
)
def test_changed_description_never_has_an_old_version(previous: bytes, new: bytes, sent: bytes) -> None:
    assert following(previous, new) == sent
