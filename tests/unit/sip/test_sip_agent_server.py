"""The user agent against a peer that sends exactly what a test wants: what it takes, refuses and ignores."""

from dataclasses import replace

import pytest
from sip_network import ALICE, RawPeer, answer_to, offer, request

from bridge.sip.agent import UserAgent
from bridge.sip.errors import CallGoneError, CallStateError
from bridge.sip.events import (
    ByeAnswered,
    ByeReceived,
    CallKey,
    Cancelled,
    Confirmed,
    InfoReceived,
    InviteReceived,
    Lost,
    LostReason,
    Referred,
    ReofferCancelled,
    ReofferConfirmed,
    Reoffered,
)
from bridge.sip.flow import Flow
from bridge.sip.message import Request, Response
from bridge.sip.settings import DEFAULT_ALLOW, Refusal, UserAgentConfig, Verdict


def peer(config: UserAgentConfig | None = None) -> RawPeer:
    return RawPeer(UserAgent(config or UserAgentConfig()))


def statuses(messages: list[Request | Response]) -> list[int | str]:
    return [message.status if isinstance(message, Response) else message.method for message in messages]


def only(messages: list[Request | Response]) -> Response:
    assert len(messages) == 1, messages
    assert isinstance(messages[0], Response)
    return messages[0]


def ringing_call(alice: RawPeer, data: bytes = b"") -> CallKey:
    """An INVITE arrived; nothing is answered yet."""
    assert statuses(alice.send(data or request(body=offer()))) == [100]
    (event,) = alice.agent.events()
    assert isinstance(event, InviteReceived)
    return event.key


def established_call(alice: RawPeer, data: bytes = b"") -> CallKey:
    """A call from Alice that was answered and acknowledged."""
    key = ringing_call(alice, data)
    alice.agent.answer(key, answer_to(offer()), alice.now)
    assert statuses(alice.sent()) == [200]
    assert alice.send(request("ACK", branch="z9hG4bKack", to_tag=key)) == []
    assert alice.agent.events() == [Confirmed(key, None)]
    return key


def in_dialog(method: str, key: CallKey, cseq: int = 2, **how: object) -> bytes:
    return request(method, cseq=cseq, branch=f"z9hG4bK{method}{cseq}", to_tag=key, **how)  # type: ignore[arg-type]


# -- a call's set-up ------------------------------------------------------------------------------------------


def test_invite_is_told_with_its_offer_and_answered_with_what_a_dialog_needs() -> None:
    alice = peer()
    trying = only(alice.send(request(body=offer(), extra="Record-Route: <sip:p1;lr>, <sip:p2;lr>\n")))
    assert (trying.status, trying.to.tag) == (100, None)
    (event,) = alice.agent.events()
    assert isinstance(event, InviteReceived)
    assert event.sdp == offer()
    assert event.flow.remote == ALICE
    alice.agent.ring(event.key, 0.0)
    ringing = only(alice.sent())
    alice.agent.answer(event.key, b"v=0\r\n", 0.0)
    ok = only(alice.sent())
    for response in (ringing, ok):
        assert response.to.tag == event.key
        assert response.headers.items_of("Record-Route") == ["<sip:p1;lr>", "<sip:p2;lr>"]
        assert response.contact is not None
        assert str(response.contact.uri) == "sip:192.0.2.2:5060"
    assert (ok.body, ok.content_type) == (b"v=0\r\n", "application/sdp")
    assert ok.headers.items_of("Allow") == list(DEFAULT_ALLOW)


def test_early_media_goes_out_in_a_provisional_response() -> None:
    alice = peer()
    key = ringing_call(alice)
    alice.agent.ring(key, 0.0, status=183, sdp=b"v=0\r\n")
    progress = only(alice.sent())
    assert (progress.status, progress.body) == (183, b"v=0\r\n")


def test_retransmitted_invite_gets_the_same_response_and_makes_no_second_call() -> None:
    alice = peer()
    data = request(body=offer())
    key = ringing_call(alice, data)
    first = alice.send(data)
    assert statuses(first) == [100]
    alice.agent.ring(key, 0.0)
    (ringing,) = alice.sent()
    assert alice.send(data) == [ringing]
    alice.agent.answer(key, answer_to(offer()), 0.0)
    (ok,) = alice.sent()
    assert alice.send(data) == [ok]
    alice.send(request("ACK", branch="z9hG4bKack", to_tag=key))
    assert alice.send(data) == []
    assert alice.agent.call_count == 1
    assert [type(event) for event in alice.agent.events()] == [Confirmed]


def test_answer_is_repeated_until_the_ack() -> None:
    alice = peer()
    key = ringing_call(alice)
    alice.agent.answer(key, answer_to(offer()), 0.0)
    first = alice.sent()
    assert alice.pass_time(3.0) == first * 2
    alice.send(request("ACK", branch="z9hG4bKack", to_tag=key))
    assert alice.pass_time(30.0) == []


def test_ack_that_bears_the_invites_branch_is_understood() -> None:
    alice = peer()
    key = ringing_call(alice)
    alice.agent.answer(key, answer_to(offer()), 0.0)
    alice.send(request("ACK", to_tag=key))
    assert alice.agent.events() == [Confirmed(key, None)]


def test_answer_without_ack_ends_with_bye_after_64_t1() -> None:
    alice = peer()
    key = ringing_call(alice)
    alice.agent.answer(key, answer_to(offer()), 0.0)
    sent = alice.pass_time(31.9)
    assert set(statuses(sent)) == {200}
    assert len(sent) == 11
    sent = alice.pass_time(0.2)
    assert statuses(sent) == ["BYE"]
    (lost,) = alice.agent.events()
    assert isinstance(lost, Lost)
    assert lost.reason is LostReason.NO_ACK
    alice.pass_time(100)
    assert alice.agent.events() == []
    assert (alice.agent.call_count, alice.agent.transaction_count, alice.agent.timer()) == (0, 0, None)


def test_late_offer_brings_the_answer_in_the_ack() -> None:
    alice = peer()
    assert statuses(alice.send(request())) == [100]
    (event,) = alice.agent.events()
    assert isinstance(event, InviteReceived)
    assert event.sdp is None
    alice.agent.answer(event.key, offer(), 0.0)
    assert only(alice.sent()).body == offer()
    alice.send(request("ACK", branch="z9hG4bKack", to_tag=event.key, body=answer_to(offer())))
    assert alice.agent.events() == [Confirmed(event.key, answer_to(offer()))]


def test_offer_inside_a_multipart_is_found() -> None:
    body = (
        b"--b1\r\nContent-Type: text/plain\r\n\r\nhello\r\n--b1\r\nContent-Disposition: session\r\n"
        b"Content-Type: application/sdp\r\n\r\n" + offer() + b"\r\n--b1--\r\n"
    )
    alice = peer()
    alice.send(request(body=body, content_type='multipart/mixed;boundary="b1"'))
    (event,) = alice.agent.events()
    assert isinstance(event, InviteReceived)
    assert event.sdp == offer()


def test_refusal_carries_reason_and_headers_and_is_repeated_until_its_ack() -> None:
    alice = peer()
    key = ringing_call(alice)
    alice.agent.reject(key, 486, 0.0, reason="Engaged", headers=[("Retry-After", "30")])
    refusal = only(alice.sent())
    assert (refusal.status, refusal.reason, refusal.headers.get("Retry-After")) == (486, "Engaged", "30")
    assert statuses(alice.pass_time(1.0)) == [486]
    alice.send(request("ACK", to_tag=key))
    assert alice.pass_time(40.0) == []
    assert (alice.agent.events(), alice.agent.call_count, alice.agent.transaction_count) == ([], 0, 0)


def test_cancel_ends_an_unanswered_call_with_487() -> None:
    alice = peer()
    key = ringing_call(alice)
    sent = alice.send(request("CANCEL", extra="Reason: SIP;cause=200\n"))
    assert statuses(sent) == [200, 487]
    assert {message.to.tag for message in sent} == {key}
    assert alice.agent.events() == [Cancelled(key, "cancel: SIP;cause=200")]
    alice.send(request("ACK", to_tag=key))
    assert statuses(alice.send(request("CANCEL"))) == [200]
    with pytest.raises(CallGoneError):
        alice.agent.answer(key, b"", 0.0)


def test_cancel_after_the_answer_changes_nothing() -> None:
    alice = peer()
    key = established_call(alice)
    assert statuses(alice.send(request("CANCEL"))) == [200]
    assert alice.agent.events() == []
    assert alice.agent.call_id(key) == "call-1"


def test_cancel_of_nothing_gets_481() -> None:
    assert only(peer().send(request("CANCEL"))).status == 481


def test_caller_may_hang_up_before_the_answer() -> None:
    alice = peer()
    key = ringing_call(alice)
    assert statuses(alice.send(in_dialog("BYE", key))) == [200, 487]
    assert alice.agent.events() == [Cancelled(key, "bye")]


@pytest.mark.parametrize(("extra", "seconds"), [("", 180.0), ("Expires: 20\n", 20.0)])
def test_unanswered_call_expires(extra: str, seconds: float) -> None:
    alice = peer()
    key = ringing_call(alice, request(body=offer(), extra=extra))
    alice.pass_time(seconds - 0.1)
    assert alice.agent.events() == []
    assert statuses(alice.pass_time(0.2)) == [480]
    assert alice.agent.events() == [Cancelled(key, "expired")]


def test_long_ringing_is_repeated_every_minute() -> None:
    alice = peer()
    key = ringing_call(alice)
    alice.agent.ring(key, 0.0)
    alice.sent()
    assert statuses(alice.pass_time(125.0)) == [180, 180]


def test_verbs_that_do_not_fit_the_state_are_refused() -> None:
    alice = peer()
    agent = alice.agent
    key = ringing_call(alice)
    for verb in (
        lambda: agent.bye(key, 0.0),
        lambda: agent.cancel(key, 0.0),
        lambda: agent.reinvite(key, offer(), 0.0),
        lambda: agent.answer_reinvite(key, offer(), 0.0),
        lambda: agent.acknowledge(key, offer(), 0.0),
        lambda: agent.refer(key, "sip:x@y", 0.0),
        lambda: agent.info(key, "application/dtmf", b"1", 0.0),
        lambda: agent.accept_refer(key, 0.0),
        lambda: agent.notify(key, 200, 0.0),
    ):
        with pytest.raises(CallStateError):
            verb()
    agent.answer(key, answer_to(offer()), 0.0)
    for verb in (
        lambda: agent.answer(key, offer(), 0.0),
        lambda: agent.ring(key, 0.0),
        lambda: agent.reject(key, 486, 0.0),
        lambda: agent.reinvite(key, offer(), 0.0),
    ):
        with pytest.raises(CallStateError):
            verb()
    nobody = CallKey("nobody")
    with pytest.raises(CallGoneError):
        agent.answer(nobody, b"", 0.0)
    agent.bye(nobody, 0.0)
    agent.cancel(nobody, 0.0)
    agent.hangup(nobody, 0.0)


# -- a call's end ---------------------------------------------------------------------------------------------


def test_bye_is_answered_told_once_and_answered_again() -> None:
    alice = peer()
    key = established_call(alice)
    bye = in_dialog("BYE", key, extra='Reason: Q.850;cause=16;text="Normal"\n')
    first = alice.send(bye)
    assert statuses(first) == [200]
    assert alice.send(bye) == first
    assert alice.agent.events() == [ByeReceived(key, 'Q.850;cause=16;text="Normal"')]


def test_all_reasons_of_an_end_are_told() -> None:
    two = 'Reason: SIP;cause=486\nReason: Q.850;cause=17;text="Busy, sorry"\n'
    alice = peer()
    key = established_call(alice)
    alice.send(in_dialog("BYE", key, extra=two))
    assert alice.agent.events() == [ByeReceived(key, 'SIP;cause=486, Q.850;cause=17;text="Busy, sorry"')]
    alice = peer()
    key = ringing_call(alice)
    alice.send(request("CANCEL", extra=two))
    assert alice.agent.events() == [Cancelled(key, 'cancel: SIP;cause=486, Q.850;cause=17;text="Busy, sorry"')]


def test_our_bye_waits_for_the_ack() -> None:
    alice = peer()
    key = ringing_call(alice)
    alice.agent.answer(key, answer_to(offer()), 0.0)
    alice.sent()
    alice.agent.bye(key, 0.0, reason="Q.850;cause=16")
    assert alice.sent() == []
    (bye,) = alice.send(request("ACK", branch="z9hG4bKack", to_tag=key))
    assert isinstance(bye, Request)
    assert (bye.method, bye.headers.get("Reason")) == ("BYE", "Q.850;cause=16")
    assert alice.agent.events() == []


def test_our_bye_goes_out_without_ack_when_none_comes() -> None:
    alice = peer()
    key = ringing_call(alice)
    alice.agent.answer(key, answer_to(offer()), 0.0)
    alice.agent.bye(key, 0.0)
    sent = alice.pass_time(32.1)
    assert statuses(sent)[-1] == "BYE"
    alice.pass_time(64)
    assert alice.agent.events() == [ByeAnswered(key, 408)]


def test_byes_that_cross_are_both_answered() -> None:
    alice = peer()
    key = established_call(alice)
    alice.agent.bye(key, 0.0)
    (bye,) = alice.sent()
    assert statuses(alice.send(in_dialog("BYE", key))) == [200]
    assert alice.agent.events() == []
    assert isinstance(bye, Request)
    alice.send(f"SIP/2.0 200 OK\nVia: {bye.headers.get('Via')}\nFrom: {bye.headers.get('From')}\n"
               f"To: {bye.headers.get('To')}\nCall-ID: call-1\nCSeq: {bye.cseq}\n\n")  # fmt: skip
    assert alice.agent.events() == [ByeAnswered(key, 200)]
    assert alice.agent.call_count == 0


def test_requests_after_the_end_get_481() -> None:
    alice = peer()
    key = established_call(alice)
    alice.send(in_dialog("BYE", key))
    for method in ("INFO", "BYE", "INVITE"):
        assert only(alice.send(in_dialog(method, key, cseq=5))).status == 481


# -- requests within a call -----------------------------------------------------------------------------------


def test_reinvite_is_told_and_answered_and_confirmed() -> None:
    alice = peer()
    key = established_call(alice)
    hold = offer().replace(b"sendrecv", b"sendonly")
    data = in_dialog("INVITE", key, body=hold, contact="Contact: <sip:alice@192.0.2.77:5070>\n")
    assert statuses(alice.send(data)) == [100]
    assert alice.agent.events() == [Reoffered(key, hold)]
    alice.agent.answer_reinvite(key, answer_to(hold), 0.0)
    first = alice.sent()
    assert statuses(first) == [200]
    assert alice.pass_time(0.6) == first
    alice.send(request("ACK", cseq=2, branch="z9hG4bKack2", to_tag=key))
    assert alice.agent.events() == [ReofferConfirmed(key, None)]
    assert alice.pass_time(40) == []
    alice.agent.bye(key, alice.now)
    (bye,) = alice.sent()
    assert isinstance(bye, Request)
    assert bye.uri == "sip:alice@192.0.2.77:5070"


def test_reinvite_can_be_refused_and_the_call_goes_on() -> None:
    alice = peer()
    key = established_call(alice)
    alice.send(in_dialog("INVITE", key, body=offer()))
    alice.agent.events()
    alice.agent.reject_reinvite(key, 488, 0.0)
    assert only(alice.sent()).status == 488
    alice.send(request("ACK", cseq=2, branch="z9hG4bKINVITE2", to_tag=key))
    assert statuses(alice.send(in_dialog("OPTIONS", key, cseq=3))) == [200]
    assert alice.agent.call_count == 1


def test_second_invite_before_the_first_is_answered_gets_500_with_retry_after() -> None:
    alice = peer()
    key = ringing_call(alice)
    refusal = alice.send(in_dialog("INVITE", key, body=offer()))[-1]
    assert isinstance(refusal, Response)
    assert refusal.status == 500
    assert 0 <= int(refusal.headers.get("Retry-After") or "-1") <= 10


def test_reinvite_while_ours_is_under_way_gets_491() -> None:
    alice = peer()
    key = established_call(alice)
    alice.agent.reinvite(key, offer(), 0.0)
    assert statuses(alice.sent()) == ["INVITE"]
    assert statuses(alice.send(in_dialog("INVITE", key, body=offer()))) == [100, 491]
    assert alice.agent.events() == []


def test_reinvite_during_our_unanswered_offer_gets_491() -> None:
    alice = peer()
    key = ringing_call(alice, request())
    alice.agent.answer(key, offer(), 0.0)
    alice.sent()
    assert statuses(alice.send(in_dialog("INVITE", key, body=offer()))) == [100, 491]


def test_reinvite_can_be_cancelled() -> None:
    alice = peer()
    key = established_call(alice)
    alice.send(in_dialog("INVITE", key, body=offer()))
    cancel = request("CANCEL", cseq=2, branch="z9hG4bKINVITE2", to_tag=key)
    assert statuses(alice.send(cancel)) == [200, 487]
    assert alice.agent.events() == [Reoffered(key, offer()), ReofferCancelled(key)]
    with pytest.raises(CallStateError):
        alice.agent.answer_reinvite(key, answer_to(offer()), 0.0)
    assert alice.agent.call_count == 1


def test_reinvite_that_the_owner_forgets_is_refused_in_time() -> None:
    alice = peer()
    key = established_call(alice)
    alice.send(in_dialog("INVITE", key, body=offer()))
    assert 500 in statuses(alice.pass_time(31))
    assert alice.agent.events() == [Reoffered(key, offer()), ReofferCancelled(key)]


@pytest.mark.parametrize("cseq", [1, 0])
def test_request_out_of_order_gets_500(cseq: int) -> None:
    alice = peer()
    key = established_call(alice)
    assert only(alice.send(in_dialog("OPTIONS", key, cseq=cseq))).status == 500
    assert alice.agent.counters["refused: out of order"] == 1


def test_unknown_dialog_gets_481() -> None:
    alice = peer()
    key = established_call(alice)
    assert only(alice.send(in_dialog("BYE", CallKey("other")))).status == 481
    assert only(alice.send(in_dialog("BYE", key, call_id="other"))).status == 481
    assert only(alice.send(in_dialog("BYE", key, from_tag="other", cseq=9))).status == 481
    assert alice.agent.call_count == 1


@pytest.mark.parametrize("method", ["PUBLISH", "REFER"])
def test_method_we_do_not_take_gets_405_with_allow(method: str) -> None:
    alice = peer()
    key = established_call(alice)
    for data in (in_dialog(method, key), request(method, branch="z9hG4bK9")):
        refusal = only(alice.send(data))
        assert (refusal.status, refusal.headers.items_of("Allow")) == (405, list(DEFAULT_ALLOW))


def test_info_is_told() -> None:
    alice = peer()
    key = established_call(alice)
    body = b"Signal=5\r\nDuration=160\r\n"
    assert only(alice.send(in_dialog("INFO", key, body=body, content_type="application/dtmf-relay"))).status == 200
    assert alice.agent.events() == [InfoReceived(key, "application/dtmf-relay", body)]
    assert only(alice.send(in_dialog("INFO", key, cseq=3, body=b"x", content_type="text/plain"))).status == 415


def test_refer_is_told_to_an_owner_who_takes_it() -> None:
    alice = peer(UserAgentConfig(allow=(*DEFAULT_ALLOW, "REFER")))
    key = established_call(alice)
    refer = in_dialog("REFER", key, extra="Refer-To: <sip:carol@192.0.2.3?Replaces=a%3Bb>\n")
    assert alice.send(refer) == []
    (event,) = alice.agent.events()
    assert isinstance(event, Referred)
    assert event.target == "sip:carol@192.0.2.3?Replaces=a%3Bb"
    alice.agent.accept_refer(key, 0.0)
    accepted, notify = alice.sent()
    assert isinstance(accepted, Response)
    assert isinstance(notify, Request)
    assert accepted.status == 202
    assert (notify.headers.get("Event"), notify.body) == ("refer;id=2", b"SIP/2.0 100 Trying\r\n")
    alice.agent.notify(key, 200, 0.0)
    (notify,) = alice.sent()
    assert notify.headers.get("Subscription-State") == "terminated;reason=noresource"


@pytest.mark.parametrize("extra", ["", "Refer-To: <sip:a@b>, <sip:c@d>\n", "Refer-To: <\n"])
def test_refer_to_nowhere_gets_400(extra: str) -> None:
    alice = peer(UserAgentConfig(allow=(*DEFAULT_ALLOW, "REFER")))
    key = established_call(alice)
    assert only(alice.send(in_dialog("REFER", key, extra=extra))).status == 400


def test_notify_that_nobody_asked_for_is_refused() -> None:
    alice = peer()
    key = established_call(alice)
    assert only(alice.send(in_dialog("NOTIFY", key, extra="Event: refer\n"))).status == 481
    assert only(alice.send(in_dialog("NOTIFY", key, cseq=3, extra="Event: presence\n"))).status == 489


# -- requests outside calls -----------------------------------------------------------------------------------


def test_options_tells_what_we_can() -> None:
    ok = only(peer(UserAgentConfig(supported=("timer",))).send(request("OPTIONS")))
    assert ok.status == 200
    assert ok.headers.items_of("Allow") == list(DEFAULT_ALLOW)
    assert ok.headers.get("Accept") == "application/sdp"
    assert ok.headers.get("Supported") == "timer"
    assert ok.to.tag


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (request("OPTIONS").replace(b"Max-Forwards: 70", b"Max-Forwards: 0"), 483),
        (request(uri="tel:+15551234"), 416),
        (request(uri="nobodyKnowsThisScheme:totallyopaquecontent"), 416),
        (request(uri="nonsense"), 400),
        (request(extra="Require: telepathy\n"), 420),
        (request(body=b"x", content_type="text/plain"), 415),
        (request(body=offer(), extra="Content-Encoding: gzip\n"), 415),
        (request(contact=""), 400),
        (request(contact="Contact: <mailto:a@b>\n"), 400),
        (request(contact="Contact: *\n"), 400),
        (request(extra="Record-Route: <sip:x\n"), 400),
        (request("BYE"), 481),
        (request("INFO"), 481),
        (request("BYE", to_tag="gone"), 481),
        (request().replace(b"CSeq: 1 INVITE", b"CSeq: 1 BYE"), 400),
        (request().replace(b"SIP/2.0\r\nVia", b"SIP/7.0\r\nVia"), 505),
        (request(extra="Broken header\n"), 400),
    ],
)
def test_bad_request_gets_the_status_that_says_so_and_makes_no_call(data: bytes, status: int) -> None:
    alice = peer()
    refusal = only(alice.send(data))
    assert refusal.status == status
    assert refusal.to.tag
    assert alice.agent.events() == []
    assert (alice.agent.call_count, alice.agent.transaction_count) == (0, 0)
    # The same again gets the same, from no memory at all; its ACK is recognised.
    assert alice.send(data) == [refusal]
    if data.startswith(b"INVITE"):
        ack = request("ACK", to_tag=refusal.to.tag)
        assert alice.send(ack) == []
        assert alice.agent.counters["acknowledged refusals"] == 1


def test_refusals_name_what_was_wrong() -> None:
    alice = peer()
    assert only(alice.send(request(extra="Require: timer, a, b\n"))).headers.get("Unsupported") == "a, b"
    assert only(alice.send(request(body=b"x", content_type="text/plain"))).headers.get("Accept") == "application/sdp"


def test_body_that_we_may_ignore_is_ignored() -> None:
    alice = peer()
    optional = "Content-Disposition: render;handling=optional\n"
    assert statuses(alice.send(request(body=b"x", content_type="text/plain", extra=optional))) == [100]


def test_copy_of_a_request_that_came_another_way_gets_482() -> None:
    alice = peer()
    ringing_call(alice)
    assert only(alice.send(request(body=offer(), branch="z9hG4bKother"))).status == 482
    assert alice.agent.call_count == 1


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\r\n\r\n",
        b"\0",
        b"hello",
        request("ACK"),
        request("ACK", to_tag="x"),
        request("ACK", extra="Broken header\n"),
        request().replace(b"Via: ", b"X-Via: "),
        request().replace(b"SIP/2.0/UDP", b"nonsense"),
        request().replace(b"Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK1", b"Via: ,"),
        request().replace(b"CSeq: ", b"X-CSeq: "),
        b"SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 192.0.2.2;branch=z9hG4bKx\r\nFrom: <sip:a@b>;tag=1\r\n"
        b"To: <sip:a@b>;tag=2\r\nCall-ID: 1\r\nCSeq: 1 INVITE\r\n\r\n",
        b"SIP/2.0 200 OK\r\n\r\n",
        b"x" * 20_000,
    ],
)
def test_what_cannot_be_answered_is_dropped_without_a_trace(data: bytes) -> None:
    alice = peer()
    assert alice.send(data) == []
    assert alice.agent.events() == []
    assert (alice.agent.call_count, alice.agent.transaction_count, alice.agent.timer()) == (0, 0, None)


def test_every_drop_is_counted_under_its_reason() -> None:
    alice = peer()
    alice.send(b"x" * 20_000)
    alice.send(b"hello")
    alice.send(b"\r\n\r\n")
    alice.send(request("ACK", to_tag="x"))
    counters = alice.agent.counters
    assert counters["received"] == 4
    assert counters["dropped: too large"] == 1
    assert counters["dropped: malformed"] == 1
    assert counters["keep-alives"] == 1
    assert counters["dropped: stray ACK"] == 1


# -- the owner's say ------------------------------------------------------------------------------------------


def test_while_refusing_new_calls_and_options_get_503_and_calls_go_on() -> None:
    alice = peer()
    key = established_call(alice)
    alice.agent.refuse_new("Draining", 20)
    assert not alice.agent.accepting
    for method in ("INVITE", "OPTIONS"):
        refusal = only(alice.send(request(method, call_id="new", branch="z9hG4bKn")))
        assert (refusal.status, refusal.reason, refusal.headers.get("Retry-After")) == (503, "Draining", "20")
    assert only(alice.send(in_dialog("OPTIONS", key))).status == 200
    alice.agent.accept_new()
    assert only(alice.send(request("OPTIONS", call_id="new2", branch="z9hG4bKo"))).status == 200


def test_admission_is_asked_before_anything_is_answered() -> None:
    asked: list[str] = []

    def admit(message: Request, flow: Flow) -> int | Refusal | Verdict | None:
        asked.append(message.method)
        return {"INVITE": 403, "OPTIONS": Verdict.SILENT, "BYE": Refusal(404, "Nobody Here", (("X-A", "b"),))}.get(
            message.method
        )

    alice = peer(UserAgentConfig(admit=admit))
    assert only(alice.send(request())).status == 403
    assert alice.send(request("OPTIONS")) == []
    assert alice.send(request("OPTIONS", extra="Broken header\n")) == []
    refusal = only(alice.send(request("BYE", to_tag="x")))
    assert (refusal.status, refusal.reason, refusal.headers.get("X-A")) == (404, "Nobody Here", "b")
    assert only(alice.send(request("PUBLISH"))).status == 405
    assert asked == ["INVITE", "OPTIONS", "OPTIONS", "BYE", "PUBLISH"]
    assert alice.agent.counters["dropped: not admitted"] == 2
    assert alice.agent.events() == []


def test_requests_within_calls_and_repetitions_need_no_admission() -> None:
    asked: list[str] = []

    def admit(message: Request, flow: Flow) -> None:
        asked.append(message.method)

    alice = peer(UserAgentConfig(admit=admit))
    data = request(body=offer())
    key = established_call(alice, data)
    alice.send(data)
    alice.send(in_dialog("BYE", key))
    assert asked == ["INVITE"]


def test_calls_beyond_the_limit_get_503() -> None:
    alice = peer(UserAgentConfig(max_calls=2))
    for i in range(2):
        assert statuses(alice.send(request(call_id=f"c{i}", branch=f"z9hG4bKc{i}"))) == [100]
    refusal = only(alice.send(request(call_id="c9", branch="z9hG4bKc9")))
    assert (refusal.status, refusal.headers.get("Retry-After")) == (503, "5")
    assert only(alice.send(request("OPTIONS", call_id="o"))).status == 200


def test_repetition_of_a_call_there_was_no_room_for_is_refused_again_though_there_is_room_now() -> None:
    verdicts: list[Refusal | None] = [Refusal(503, "Too Many Calls"), None, None]
    alice = peer(UserAgentConfig(admit=lambda message, flow: verdicts.pop(0)))
    data = request(body=offer())
    assert only(alice.send(data)).status == 503
    # The caller has been told, and is gone: a call would be answered for nobody.
    assert only(alice.send(data)).status == 503
    assert alice.agent.events() == []
    assert statuses(alice.send(request(cseq=2, branch="z9hG4bK2", body=offer()))) == [100]
    alice.now += 33
    assert statuses(alice.send(request(call_id="another", body=offer()))) == [100]


def test_refusals_that_are_remembered_stay_bounded() -> None:
    alice = peer(UserAgentConfig(max_calls=0))
    for i in range(5000):
        assert only(alice.send(request(call_id=f"c{i}"))).status == 503
    assert len(alice.agent._incoming._refused) == 4096


def test_answers_that_wait_for_their_ack_stay_bounded() -> None:
    alice = peer()
    key = established_call(alice)
    refused = 0
    for i in range(20):
        sent = alice.send(in_dialog("INVITE", key, cseq=2 + i, body=offer()))
        if alice.agent.events():
            alice.agent.answer_reinvite(key, answer_to(offer()), alice.now)
            assert statuses(alice.sent()) == [200]
        else:
            assert statuses(sent) == [100, 500]
            refused += 1
    assert refused == 16
    alice.send(in_dialog("ACK", key, cseq=5))
    assert statuses(alice.send(in_dialog("INVITE", key, cseq=30, body=offer()))) == [100]


def test_transactions_stay_bounded_under_a_flood_within_a_call() -> None:
    alice = peer(UserAgentConfig(max_transactions=20))
    key = established_call(alice)
    for i in range(100):
        alice.send(in_dialog("OPTIONS", key, cseq=2 + i))
    assert alice.agent.transaction_count == 40
    assert alice.agent.counters["dropped: too many transactions"] == 61
    alice.pass_time(33)
    assert alice.agent.transaction_count == 0


def test_advertised_address_is_in_contact_and_via() -> None:
    alice = peer(UserAgentConfig(advertised=lambda flow: ("203.0.113.5", 5090), contact_user="offhook"))
    key = established_call(alice)
    alice.agent.bye(key, 0.0)
    (bye,) = alice.sent()
    assert (bye.via.host, bye.via.port) == ("203.0.113.5", 5090)
    ok = only(alice.send(request("OPTIONS", call_id="o", branch="z9hG4bKo")))
    assert ok.headers.get("Contact") == "<sip:offhook@203.0.113.5:5090>"


def test_the_configuration_is_not_shared_between_agents() -> None:
    config = UserAgentConfig()
    assert replace(config, max_calls=1).max_calls == 1
    one, two = UserAgent(config), UserAgent(config)
    one.refuse_new("x", 1)
    assert two.accepting
