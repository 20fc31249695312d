"""Early dialogs of calls that we make: forks, PRACK, UPDATE before the answer (RFC 3261 12, RFC 3262, RFC 3311)."""

import pytest
from sip_caller import FLOW, Caller
from sip_network import ALICE, BOB, Network, Owner, answer_to, offer

from bridge.sip.agent import UserAgent
from bridge.sip.digest import Credentials, DigestServer, Secret
from bridge.sip.errors import CallStateError
from bridge.sip.events import (
    Answered,
    CallKey,
    Confirmed,
    Event,
    InviteReceived,
    Lost,
    Progress,
    Rejected,
    ReofferAnswered,
    ReofferConfirmed,
    Reoffered,
)
from bridge.sip.message import Request, Response
from bridge.sip.settings import UserAgentConfig

ANSWER = answer_to(offer())


def reliably(
    caller: Caller, invite: Request, rseq: int, status: int = 183, *, tag: str = "b1", sdp: bytes = b""
) -> list[Request]:
    """Bob sends a reliable provisional response; what comes back."""
    contact = f"<sip:{tag}@192.0.2.2:5060>"
    caller.respond(
        invite, status, tag=tag, sdp=sdp, contact=contact, headers=(("Require", "100rel"), ("RSeq", str(rseq)))
    )
    return caller.requests()


def from_bob(
    caller: Caller, invite: Request, method: str, cseq: int = 1, *, tag: str = "b1", sdp: bytes = b""
) -> int:
    """Bob sends a request in an early dialog; the status that it gets, 0 for none."""
    head = (
        f"{method} sip:192.0.2.1:5060 SIP/2.0\nVia: SIP/2.0/UDP 192.0.2.2;branch=z9hG4bK{method}{cseq}{tag}\n"
        f"Max-Forwards: 70\nFrom: {invite.headers.get('To')};tag={tag}\nTo: {invite.headers.get('From')}\n"
        f"Call-ID: {invite.call_id}\nCSeq: {cseq} {method}\nContact: <sip:bob@192.0.2.2:5060>\n"
    )
    if sdp:
        head += "Content-Type: application/sdp\n"
    caller.agent.receive(
        f"{head}Content-Length: {len(sdp)}\n\n".replace("\n", "\r\n").encode() + sdp, FLOW, caller.now
    )
    caller.requests()
    responses = [message for message, _ in caller.wire if isinstance(message, Response)]
    return responses[-1].status if responses else 0


# -- forks --------------------------------------------------------------------------------------------------------


def test_dialog_is_there_from_the_first_response_with_a_tag() -> None:
    caller = Caller()
    invite = caller.invite()
    assert from_bob(caller, invite, "OPTIONS") == 500
    caller.respond(invite, 100, tag="")
    caller.respond(invite, 180)
    assert from_bob(caller, invite, "OPTIONS", 2) == 200
    assert caller.agent.call_id(caller.key) == invite.call_id


def test_early_media_of_each_fork_is_told_and_the_one_who_answers_wins() -> None:
    caller = Caller()
    invite = caller.invite()
    caller.respond(invite, 183, tag="b1", sdp=b"one")
    caller.respond(invite, 180, tag="b2")
    caller.respond(invite, 183, tag="b2", sdp=b"two")
    caller.respond(invite, 200, tag="b2", contact="<sip:b2@192.0.2.22>")
    (ack,) = caller.requests()
    assert (ack.to.tag, ack.uri) == ("b2", "sip:b2@192.0.2.22")
    one, ringing, two, answered = caller.agent.events()
    assert one == Progress(caller.key, 183, "Session Progress", b"one")
    assert ringing == Progress(caller.key, 180, "Ringing", None)
    assert two == Progress(caller.key, 183, "Session Progress", b"two")
    assert isinstance(answered, Answered)
    assert answered.sdp == b"two"


def test_second_fork_that_answers_is_hung_up_in_its_own_dialog() -> None:
    caller = Caller()
    invite = caller.invite()
    assert [request.cseq.number for request in reliably(caller, invite, 7, tag="b1", sdp=ANSWER)] == [2]
    assert [request.cseq.number for request in reliably(caller, invite, 8, tag="b1")] == [3]
    assert [request.cseq.number for request in reliably(caller, invite, 1, tag="b2", sdp=ANSWER)] == [2]
    caller.respond(invite, 200, tag="b2", sdp=ANSWER)
    assert [str(request.cseq) for request in caller.requests()] == ["1 ACK"]
    caller.respond(invite, 200, tag="b1", sdp=ANSWER)
    ack, bye = caller.requests()
    assert (str(ack.cseq), ack.to.tag, str(bye.cseq), bye.to.tag) == ("1 ACK", "b1", "4 BYE", "b1")
    caller.agent.bye(caller.key, 0.0)
    assert str(caller.one().cseq) == "3 BYE"


def test_late_provisional_response_changes_nothing() -> None:
    caller = Caller()
    invite = caller.invite()
    caller.respond(invite, 200, sdp=ANSWER)
    caller.requests()
    caller.agent.events()
    assert reliably(caller, invite, 1, sdp=b"late") == []
    caller.respond(invite, 183, tag="b2", sdp=b"late")
    assert (caller.requests(), caller.agent.events()) == ([], [])


def test_request_of_a_fork_that_never_rang_is_refused() -> None:
    caller = Caller()
    invite = caller.invite()
    caller.respond(invite, 180, tag="b1")
    assert from_bob(caller, invite, "OPTIONS", tag="b9") == 481
    assert from_bob(caller, invite, "OPTIONS", tag="b1") == 200


def test_callee_cannot_hang_up_what_it_has_not_answered() -> None:
    caller = Caller()
    invite = caller.invite()
    caller.respond(invite, 180)
    assert from_bob(caller, invite, "BYE") == 481
    caller.respond(invite, 200, sdp=ANSWER)
    assert isinstance(caller.agent.events()[-1], Answered)


def test_thousand_forks_ring_and_the_last_one_answers() -> None:
    caller = Caller()
    invite = caller.invite()
    for number in range(1000):
        caller.respond(invite, 183, tag=f"b{number}", sdp=b"early")
    caller.respond(invite, 200, tag="b999", sdp=ANSWER)
    (ack,) = caller.requests()
    assert ack.to.tag == "b999"


def test_provisional_response_with_an_unusable_contact_makes_no_dialog() -> None:
    caller = Caller()
    invite = caller.invite()
    caller.respond(invite, 180, contact="<sip:")
    caller.respond(invite, 183, headers=(("Record-Route", "<tel:1>"),))
    assert from_bob(caller, invite, "OPTIONS") == 500
    caller.respond(invite, 200, sdp=ANSWER)
    assert isinstance(caller.agent.events()[-1], Answered)


# -- PRACK --------------------------------------------------------------------------------------------------------


def test_reliable_response_is_acknowledged_once() -> None:
    caller = Caller()
    invite = caller.invite()
    assert "100rel" in invite.headers.tokens_of("Supported")
    (prack,) = reliably(caller, invite, 5, 183, sdp=ANSWER)
    assert (prack.method, prack.uri, str(prack.cseq)) == ("PRACK", "sip:b1@192.0.2.2:5060", "2 PRACK")
    assert (prack.headers.get("RAck"), prack.to.tag) == ("5 1 INVITE", "b1")
    assert reliably(caller, invite, 5, 183, sdp=ANSWER) == []
    caller.respond(prack, 200)
    assert reliably(caller, invite, 5, 183, sdp=ANSWER) == []
    assert [type(event) for event in caller.agent.events()] == [Progress]


def test_reliable_response_before_its_turn_waits_for_the_one_before() -> None:
    caller = Caller()
    invite = caller.invite()
    reliably(caller, invite, 5)
    assert reliably(caller, invite, 7, sdp=b"third") == []
    assert [p.headers.get("RAck") for p in reliably(caller, invite, 6, sdp=b"second")] == ["6 1 INVITE"]
    assert [p.headers.get("RAck") for p in reliably(caller, invite, 7, sdp=b"third")] == ["7 1 INVITE"]
    assert reliably(caller, invite, 6, sdp=b"second") == []
    told = [event.sdp for event in caller.agent.events() if isinstance(event, Progress)]
    assert told == [None, b"second", b"third"]


def test_each_fork_counts_for_itself() -> None:
    caller = Caller()
    invite = caller.invite()
    assert len(reliably(caller, invite, 100, tag="b1")) == 1
    assert len(reliably(caller, invite, 7, tag="b2")) == 1
    assert len(reliably(caller, invite, 101, tag="b1")) == 1
    assert len(reliably(caller, invite, 9, tag="b2")) == 0
    assert len(reliably(caller, invite, 8, tag="b2")) == 1


def test_prack_is_repeated_until_it_is_answered_and_lost_ones_do_no_harm() -> None:
    caller = Caller()
    invite = caller.invite()
    reliably(caller, invite, 5)
    assert {request.method for request in caller.pass_time(33)} == {"PRACK"}
    caller.respond(invite, 200, sdp=ANSWER)
    assert isinstance(caller.agent.events()[-1], Answered)


def test_challenged_prack_is_repeated_with_credentials() -> None:
    caller = Caller()
    server = DigestServer("example", lambda user: Secret("secret"))
    invite = caller.invite(credentials=Credentials("alice", "secret"))
    (prack,) = reliably(caller, invite, 5)
    caller.respond(prack, 407, headers=tuple(("Proxy-Authenticate", value) for _, value in server.challenge(0.0)))
    again = caller.one()
    assert (again.method, str(again.cseq), again.headers.get("RAck")) == ("PRACK", "3 PRACK", "5 1 INVITE")
    assert "Proxy-Authorization" in again.headers
    (second,) = reliably(caller, invite, 6)
    assert (str(second.cseq), "Proxy-Authorization" in second.headers) == ("4 PRACK", True)


def test_prack_names_the_invite_that_was_repeated() -> None:
    caller = Caller()
    server = DigestServer("example", lambda user: Secret("secret"))
    first = caller.invite(credentials=Credentials("alice", "secret"))
    caller.respond(first, 401, headers=server.challenge(0.0))
    second = caller.one()
    (prack,) = reliably(caller, second, 5)
    assert (prack.headers.get("RAck"), str(prack.cseq)) == ("5 2 INVITE", "3 PRACK")


@pytest.mark.parametrize("rseq", ["", "0", "x", "4294967296", "99999999999", "-1"])
def test_unreadable_rseq_is_taken_for_an_unreliable_response(rseq: str) -> None:
    caller = Caller()
    caller.respond(caller.invite(), 183, headers=(("Require", "100rel"), ("RSeq", rseq)), sdp=b"early")
    assert caller.requests() == []
    assert [type(event) for event in caller.agent.events()] == [Progress]


def test_reliable_responses_can_be_turned_off_and_demanded() -> None:
    caller = Caller(UserAgentConfig(reliable="off"))
    invite = caller.invite()
    assert "100rel" not in invite.headers.tokens_of("Supported")
    assert reliably(caller, invite, 5) == []
    assert "100rel" in Caller(UserAgentConfig(reliable="required")).invite().headers.tokens_of("Require")


@pytest.mark.parametrize("reliable", ["supported", "required"])
def test_call_without_an_offer_wants_no_reliable_responses(reliable: str) -> None:
    caller = Caller(UserAgentConfig(reliable=reliable))  # type: ignore[arg-type]  # one of the literals
    invite = caller.invite(sdp=None)
    assert "100rel" not in invite.headers.tokens_of("Supported") | invite.headers.tokens_of("Require")
    assert "replaces" in invite.headers.tokens_of("Supported")
    assert reliably(caller, invite, 5, sdp=offer()) == []


def test_reliable_response_after_our_cancel_is_acknowledged_but_not_told() -> None:
    caller = Caller()
    invite = caller.invite()
    caller.agent.cancel(caller.key, 0.0)
    assert [request.method for request in reliably(caller, invite, 1)] == ["CANCEL", "PRACK"]
    caller.respond(invite, 487)
    assert [type(event) for event in caller.agent.events()] == [Rejected]


def test_reliable_response_to_a_reinvite_is_acknowledged() -> None:
    caller = Caller()
    caller.connect()
    caller.agent.reinvite(caller.key, offer(5000), 0.0)
    reinvite = caller.one()
    (prack,) = reliably(caller, reinvite, 40)
    assert (prack.headers.get("RAck"), str(prack.cseq)) == ("40 2 INVITE", "3 PRACK")
    assert reliably(caller, reinvite, 40) == []
    caller.respond(reinvite, 200, sdp=ANSWER)
    assert caller.agent.events() == [ReofferAnswered(caller.key, ANSWER, False)]


# -- UPDATE before the answer -------------------------------------------------------------------------------------


def test_update_waits_for_a_reliable_answer() -> None:
    caller = Caller()
    invite = caller.invite()
    caller.respond(invite, 183, sdp=ANSWER)
    with pytest.raises(CallStateError):
        caller.agent.update(caller.key, offer(5000), 0.0)
    assert from_bob(caller, invite, "UPDATE", sdp=offer(7000)) == 491
    reliably(caller, invite, 1, sdp=ANSWER)
    caller.agent.update(caller.key, offer(5000), 0.0)
    update = caller.one()
    assert (update.to.tag, str(update.cseq), update.uri) == ("b1", "3 UPDATE", "sip:bob@192.0.2.2:5060")
    caller.respond(update, 200, sdp=b"v=0\r\n")
    assert caller.agent.events()[-1] == ReofferAnswered(caller.key, b"v=0\r\n", False)
    caller.respond(invite, 200)
    answered = caller.agent.events()[-1]
    assert isinstance(answered, Answered)
    assert answered.sdp == b"v=0\r\n"


def test_peer_changes_the_session_before_it_answers() -> None:
    caller = Caller()
    invite = caller.invite()
    reliably(caller, invite, 1, sdp=ANSWER)
    assert from_bob(caller, invite, "UPDATE", sdp=offer(7000)) == 0
    assert caller.agent.events()[-1] == Reoffered(caller.key, offer(7000))
    caller.agent.answer_reinvite(caller.key, ANSWER, 0.0)
    assert isinstance(caller.agent.events()[-1], ReofferConfirmed)
    caller.respond(invite, 200)
    answered = caller.agent.events()[-1]
    assert isinstance(answered, Answered)
    assert answered.sdp == offer(7000)


def test_update_of_a_fork_that_lost_does_not_end_the_call() -> None:
    caller = Caller()
    invite = caller.invite()
    reliably(caller, invite, 1, tag="b1", sdp=ANSWER)
    caller.agent.update(caller.key, offer(5000), 0.0)
    update = caller.one()
    caller.respond(invite, 200, tag="b2", sdp=ANSWER)
    caller.respond(update, 481)
    assert not [event for event in caller.agent.events() if isinstance(event, Lost)]
    assert caller.agent.call_count == 1


# -- both ends ours -------------------------------------------------------------------------------------------------


class Early(Owner):
    """Bob gives early media before he answers."""

    def react(self, event: Event, now: float) -> None:
        if isinstance(event, InviteReceived) and event.sdp is not None:
            self.agent.ring(event.key, now, status=183, sdp=answer_to(event.sdp))
        else:
            super().react(event, now)


@pytest.mark.parametrize("fault", ["nothing", "drop", "duplicate"])
@pytest.mark.parametrize("lost", ["183 INVITE", "PRACK", "200 PRACK", "200 INVITE"])
def test_early_media_is_acknowledged_between_two_of_us(lost: str, fault: str) -> None:
    network = Network()
    alice = network.add(ALICE)
    bob = network.owners[BOB] = Early(UserAgent(UserAgentConfig()), BOB)
    network.fault = lambda kind, copy: fault if kind == lost and copy == 0 and fault != "nothing" else None
    key: CallKey = network.call()
    network.run(5)
    assert [event.status for event in alice.seen(Progress)] == [183]
    bob_key = bob.one(InviteReceived).key
    bob.agent.answer(bob_key, answer_to(offer()), network.now)
    network.run(5)
    assert isinstance(bob.one(Confirmed), Confirmed)
    assert alice.one(Answered).sdp == answer_to(offer())
    alice.agent.bye(key, network.now)
    network.run(140)
    for owner in (alice, bob):
        assert (owner.agent.call_count, owner.agent.transaction_count, owner.agent.timer()) == (0, 0, None)
