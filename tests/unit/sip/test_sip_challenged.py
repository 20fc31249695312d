"""Requests of ours that are challenged, within calls and to make them (RFC 3261 22)."""

from collections.abc import Callable

import pytest
from sip_caller import FLOW, Caller
from sip_network import RawPeer, answer_to, offer
from sip_network import request as from_alice

from bridge.sip.agent import UserAgent
from bridge.sip.digest import Credentials, DigestServer, Secret
from bridge.sip.events import (
    Answered,
    ByeAnswered,
    ByeReceived,
    InfoAnswered,
    InviteReceived,
    Lost,
    ReferAccepted,
    ReferResult,
    Rejected,
    ReofferAnswered,
)
from bridge.sip.message import Request, make_response
from bridge.sip.settings import DEFAULT_ALLOW, UserAgentConfig

ACCOUNT = Credentials("alice", "secret")


class Guarded(Caller):
    """Our agent, calling a server that lets nobody in without a password."""

    def __init__(self, config: UserAgentConfig | None = None, password: str = "secret") -> None:
        super().__init__(config)
        self.server = DigestServer("example", lambda user: Secret(password) if user == "alice" else None)

    def challenge(self, request: Request, **how: object) -> Request:
        """Refuse a request for want of credentials; what is sent in its stead."""
        self.respond(request, 401, contact="", headers=self.server.challenge(self.now), **how)  # type: ignore[arg-type]
        return self.one()

    def verdict(self, request: Request) -> str:
        return self.server.check(request, self.now).username

    def connect_with(self, credentials: Credentials | None = ACCOUNT) -> Request:
        """Bring a call up; its INVITE."""
        invite = self.invite(credentials=credentials)
        if credentials is not None:
            invite = self.challenge(invite)
        self.respond(invite, 200, sdp=answer_to(offer()))
        assert [request.method for request in self.requests()] == ["ACK"]
        assert isinstance(self.agent.events()[-1], Answered)
        return invite


def test_challenged_invite_is_repeated_and_its_ack_bears_its_credentials() -> None:
    caller = Guarded()
    first = caller.invite(credentials=ACCOUNT)
    caller.respond(first, 100)
    second = caller.challenge(first)
    assert caller.verdict(second) == "alice"
    assert (second.cseq.number, second.call_id, second.from_) == (2, first.call_id, first.from_)
    assert (second.to.tag, second.body, second.uri) == (None, first.body, first.uri)
    assert second.via.branch != first.via.branch
    caller.respond(second, 200, sdp=answer_to(offer()))
    (ack,) = caller.requests()
    assert str(ack.cseq) == "2 ACK"
    assert ack.headers.get_all("Authorization") == second.headers.get_all("Authorization")
    assert [type(event) for event in caller.agent.events()] == [Answered]


def test_refusal_of_the_repeated_invite_is_acknowledged_with_its_credentials() -> None:
    caller = Guarded()
    second = caller.challenge(caller.invite(credentials=ACCOUNT))
    caller.respond(second, 486)
    (ack,) = caller.requests()
    assert ack.headers.get_all("Authorization") == second.headers.get_all("Authorization")
    (event,) = caller.agent.events()
    assert isinstance(event, Rejected)
    assert event.status == 486


@pytest.mark.parametrize("credentials", [None, Credentials("alice", "secret", realm="another")])
def test_challenge_that_is_not_for_us_is_a_refusal(credentials: Credentials | None) -> None:
    caller = Guarded()
    caller.respond(caller.invite(credentials=credentials), 407, headers=caller.server.challenge(0.0))
    assert [request.method for request in caller.requests()] == ["ACK"]
    (event,) = caller.agent.events()
    assert isinstance(event, Rejected)
    assert event.status == 407


def test_wrong_password_is_a_refusal_after_one_try() -> None:
    caller = Guarded(password="other")
    second = caller.challenge(caller.invite(credentials=ACCOUNT))
    caller.respond(second, 401, headers=caller.server.check(second, 0.0).headers)
    assert [request.method for request in caller.requests()] == ["ACK"]
    (event,) = caller.agent.events()
    assert isinstance(event, Rejected)
    assert (event.status, caller.agent.call_count) == (401, 0)


def test_requests_within_the_call_show_the_last_nonce_before_they_are_asked() -> None:
    caller = Guarded()
    caller.connect_with()
    caller.agent.info(caller.key, "application/dtmf", b"5", 0.0)
    info = caller.one()
    assert caller.verdict(info) == "alice"
    assert "nc=00000002" in (info.headers.get("Authorization") or "")
    caller.agent.bye(caller.key, 0.0)
    assert caller.verdict(caller.one()) == "alice"


VERBS: dict[str, Callable[[Guarded], None]] = {
    "INVITE": lambda caller: caller.agent.reinvite(caller.key, offer(5000), caller.now),
    "UPDATE": lambda caller: caller.agent.update(caller.key, offer(5000), caller.now),
    "INFO": lambda caller: caller.agent.info(caller.key, "application/dtmf", b"5", caller.now),
    "REFER": lambda caller: caller.agent.refer(caller.key, "sip:carol@192.0.2.3", caller.now),
    "BYE": lambda caller: caller.agent.bye(caller.key, caller.now),
}


@pytest.mark.parametrize("method", VERBS)
def test_every_request_within_the_call_is_repeated_when_its_nonce_is_stale(method: str) -> None:
    caller = Guarded()
    invite = caller.connect_with()
    caller.now = 100.0
    VERBS[method](caller)
    first = caller.one()
    assert (first.method, caller.verdict(first)) == (method, "")
    caller.respond(first, 401, headers=caller.server.check(first, caller.now).headers)
    second = caller.one()
    assert caller.verdict(second) == "alice"
    assert (second.method, second.to.tag, second.body) == (method, "b1", first.body)
    assert second.cseq.number == first.cseq.number + 1 == invite.cseq.number + 2
    assert len(second.headers.get_all("Authorization")) == 1
    body = answer_to(offer()) if method in ("INVITE", "UPDATE") else b""
    caller.respond(second, 202 if method == "REFER" else 200, sdp=body)
    (event,) = caller.agent.events()
    assert isinstance(event, ReofferAnswered | InfoAnswered | ReferAccepted | ByeAnswered)
    if method == "INVITE":
        (ack,) = caller.requests()
        assert ack.cseq.number == second.cseq.number
        assert caller.verdict(second) == "alice"
    if method == "BYE":
        assert caller.agent.call_count == 0


def test_challenged_requests_do_not_disturb_each_other() -> None:
    caller = Guarded()
    caller.connect_with()
    caller.now = 100.0
    for digit in (b"1", b"2"):
        caller.agent.info(caller.key, "application/dtmf", digit, caller.now)
    one, two = caller.requests()
    challenges = caller.server.challenge(caller.now, stale=True)
    caller.respond(one, 401, headers=challenges)
    caller.respond(two, 401, headers=challenges)
    again = caller.requests()
    assert [(request.body, request.cseq.number, caller.verdict(request)) for request in again] == [
        (b"1", 5, "alice"),
        (b"2", 6, "alice"),
    ]


def test_reports_of_a_challenged_transfer_are_known_by_its_repetition() -> None:
    caller = Guarded()
    caller.connect()
    caller.agent.set_credentials(caller.key, ACCOUNT)
    caller.agent.refer(caller.key, "sip:carol@192.0.2.3", 0.0)
    refer = caller.challenge(caller.one())
    caller.respond(refer, 202)
    body = b"SIP/2.0 200 OK\r\n"
    notify = (
        f"NOTIFY sip:192.0.2.1:5060 SIP/2.0\nVia: SIP/2.0/UDP 192.0.2.2;branch=z9hG4bKn1\nMax-Forwards: 70\n"
        f"From: {refer.headers.get('To')}\nTo: {refer.headers.get('From')}\nCall-ID: {refer.call_id}\n"
        f"CSeq: 1 NOTIFY\nEvent: refer;id={refer.cseq.number}\nSubscription-State: terminated\n"
        f"Content-Type: message/sipfrag\nContent-Length: {len(body)}\n\n"
    )
    caller.agent.receive(notify.replace("\n", "\r\n").encode() + body, FLOW, 0.0)
    assert [type(event) for event in caller.agent.events()] == [ReferAccepted, ReferResult]


def test_our_report_on_a_transfer_is_repeated_when_challenged() -> None:
    caller = Guarded(UserAgentConfig(allow=(*DEFAULT_ALLOW, "REFER")))
    invite = caller.connect_with()
    caller.now = 100.0
    refer = (
        "REFER sip:192.0.2.1:5060 SIP/2.0\nVia: SIP/2.0/UDP 192.0.2.2;branch=z9hG4bKr1\nMax-Forwards: 70\n"
        f"From: {invite.headers.get('To')};tag=b1\nTo: {invite.headers.get('From')}\nCall-ID: {invite.call_id}\n"
        "CSeq: 1 REFER\nContact: <sip:bob@192.0.2.2:5060>\nRefer-To: <sip:carol@192.0.2.3>\nContent-Length: 0\n\n"
    )
    caller.agent.receive(refer.replace("\n", "\r\n").encode(), FLOW, caller.now)
    caller.agent.accept_refer(caller.key, caller.now)
    notify = caller.one()
    assert (notify.method, caller.verdict(notify)) == ("NOTIFY", "")
    again = caller.challenge(notify)
    assert (again.method, caller.verdict(again), again.body) == ("NOTIFY", "alice", notify.body)


def test_caller_that_challenges_our_requests_is_answered_with_the_calls_credentials() -> None:
    alice = RawPeer(UserAgent(UserAgentConfig()))
    server = DigestServer("example", lambda user: Secret("secret"))
    alice.send(from_alice(body=offer()))
    event = alice.agent.events()[0]
    assert isinstance(event, InviteReceived)
    alice.agent.set_credentials(event.key, ACCOUNT)
    alice.agent.answer(event.key, answer_to(offer()), 0.0)
    alice.sent()
    alice.send(from_alice("ACK", branch="z9hG4bK2", to_tag=event.key))
    alice.agent.bye(event.key, 0.0)
    (bye,) = alice.sent()
    assert isinstance(bye, Request)
    refusal = make_response(bye, 401)
    refusal.headers.extend(server.challenge(0.0))
    (again,) = alice.send(refusal.serialise())
    assert isinstance(again, Request)
    assert server.check(again, 0.0).username == "alice"
    assert again.cseq.number == bye.cseq.number + 1
    alice.send(make_response(again, 200).serialise())
    assert alice.agent.call_count == 0


def test_bye_that_is_refused_for_good_ends_the_call_all_the_same() -> None:
    caller = Guarded()
    caller.connect()
    caller.agent.bye(caller.key, 0.0)
    caller.respond(caller.one(), 401, headers=caller.server.challenge(0.0))
    assert caller.agent.events() == [ByeAnswered(caller.key, 401)]
    assert caller.agent.call_count == 0


def test_second_answer_of_a_forked_call_is_hung_up_with_credentials() -> None:
    caller = Guarded()
    invite = caller.connect_with()
    caller.now = 100.0
    caller.respond(invite, 200, tag="b2")
    ack, bye = caller.requests()
    assert (ack.method, bye.method, bye.to.tag) == ("ACK", "BYE", "b2")
    again = caller.challenge(bye, tag="b2")
    assert (caller.verdict(again), again.method, again.to.tag) == ("alice", "BYE", "b2")


# -- giving up in the middle ----------------------------------------------------------------------------------------


def test_challenge_that_crosses_a_cancel_is_not_answered() -> None:
    caller = Guarded()
    invite = caller.invite(credentials=ACCOUNT)
    caller.agent.cancel(caller.key, 0.0)
    caller.respond(invite, 401, headers=caller.server.challenge(0.0))
    assert [request.method for request in caller.requests()] == ["ACK"]
    (event,) = caller.agent.events()
    assert isinstance(event, Rejected)
    assert (event.status, caller.agent.call_count) == (487, 0)


def test_cancel_after_a_challenge_is_of_the_repeated_invite() -> None:
    caller = Guarded()
    first = caller.invite(credentials=ACCOUNT)
    caller.respond(first, 100)
    second = caller.challenge(first)
    caller.agent.cancel(caller.key, 0.0)
    assert caller.requests() == []
    caller.respond(second, 180)
    cancel = caller.one()
    assert (cancel.method, str(cancel.cseq), cancel.via.branch) == ("CANCEL", "2 CANCEL", second.via.branch)
    assert "Authorization" not in cancel.headers
    caller.respond(cancel, 200)
    caller.respond(second, 487)
    assert isinstance(caller.agent.events()[-1], Rejected)
    assert caller.agent.call_count == 0


def test_reinvite_that_is_challenged_after_the_peer_hung_up_is_not_repeated() -> None:
    caller = Guarded()
    invite = caller.connect_with()
    caller.now = 100.0
    caller.agent.reinvite(caller.key, offer(5000), caller.now)
    reinvite = caller.one()
    bye = (
        f"BYE sip:192.0.2.1:5060 SIP/2.0\nVia: SIP/2.0/UDP 192.0.2.2;branch=z9hG4bKb1\nMax-Forwards: 70\n"
        f"From: {reinvite.headers.get('To')}\nTo: {invite.headers.get('From')}\nCall-ID: {invite.call_id}\n"
        "CSeq: 1 BYE\nContent-Length: 0\n\n"
    )
    caller.agent.receive(bye.replace("\n", "\r\n").encode(), FLOW, caller.now)
    caller.respond(reinvite, 401, headers=caller.server.challenge(caller.now, stale=True))
    assert [request.method for request in caller.requests()] == ["ACK"]
    assert [type(event) for event in caller.agent.events()] == [ByeReceived]
    caller.pass_time(40)
    assert (caller.agent.call_count, caller.agent.transaction_count) == (0, 0)


def test_reinvite_that_is_challenged_after_we_hung_up_is_not_repeated() -> None:
    caller = Guarded()
    caller.connect_with()
    caller.now = 100.0
    caller.agent.reinvite(caller.key, offer(5000), caller.now)
    reinvite = caller.one()
    caller.agent.bye(caller.key, caller.now)
    assert caller.one().method == "BYE"
    caller.respond(reinvite, 401, headers=caller.server.challenge(caller.now, stale=True))
    assert [request.method for request in caller.requests()] == ["ACK"]


def test_repeated_reinvite_without_an_answer_ends_the_call() -> None:
    caller = Guarded()
    caller.connect_with()
    caller.now = 100.0
    caller.agent.reinvite(caller.key, offer(5000), caller.now)
    caller.challenge(caller.one())
    assert caller.pass_time(33)[-1].method == "BYE"
    assert isinstance(caller.agent.events()[-1], Lost)
