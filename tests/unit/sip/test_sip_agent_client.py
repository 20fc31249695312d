"""The user agent as the caller, against a peer that answers exactly what a test wants."""

import pytest
from sip_caller import FLOW, TARGET, Caller
from sip_network import ALICE, BOB, answer_to, offer

from bridge.sip.errors import SipSyntaxError
from bridge.sip.events import (
    Answered,
    InfoAnswered,
    Lost,
    LostReason,
    Progress,
    ReferAccepted,
    ReferRejected,
    ReferResult,
    Rejected,
    ReofferAnswered,
    ReofferRejected,
)
from bridge.sip.flow import Address
from bridge.sip.message import Request, Response, make_response, parse_message
from bridge.sip.settings import UserAgentConfig


def test_invite_has_what_the_standard_wants() -> None:
    caller = Caller()
    invite = caller.invite(
        from_='"A \\"B\\"" <sip:alice@192.0.2.1>', headers=[("X-Test", "1")], route=["<sip:proxy.example.com;lr>"]
    )
    assert invite.uri == TARGET
    assert invite.via.branch.startswith("z9hG4bK")
    assert invite.via.param("rport") == ""
    assert (invite.via.host, invite.via.port) == ALICE
    assert invite.from_.display_name == 'A "B"'
    assert invite.from_.tag == caller.key
    assert invite.to.tag is None
    assert str(invite.cseq) == "1 INVITE"
    assert invite.headers.get("Max-Forwards") == "70"
    assert invite.headers.get("X-Test") == "1"
    assert invite.headers.items_of("Route") == ["<sip:proxy.example.com;lr>"]
    assert invite.body == offer()
    assert caller.agent.call_id(caller.key) == invite.call_id


@pytest.mark.parametrize("target", ["tel:+1555", "agent", "sip:a b@c"])
def test_target_that_is_no_sip_uri_is_refused_at_once(target: str) -> None:
    caller = Caller()
    with pytest.raises(SipSyntaxError):
        caller.agent.invite(target, FLOW, 0.0, from_="<sip:alice@192.0.2.1>")
    assert caller.agent.call_count == 0


def test_header_with_a_line_break_is_refused_and_leaves_no_call() -> None:
    caller = Caller()
    with pytest.raises(SipSyntaxError):
        caller.invite(headers=[("X-A", "b\r\nX-C: d")])
    assert (caller.agent.call_count, caller.agent.outgoing()) == (0, [])


def test_progress_then_answer_then_ack() -> None:
    caller = Caller()
    invite = caller.invite()
    caller.respond(invite, 100)
    caller.respond(invite, 180)
    caller.respond(invite, 183, sdp=b"early")
    caller.respond(invite, 200, sdp=answer_to(offer()))
    (ack,) = caller.requests()
    assert (ack.method, ack.uri, str(ack.cseq)) == ("ACK", "sip:bob@192.0.2.2:5060", "1 ACK")
    assert ack.via.branch != invite.via.branch
    ringing, early, answered = caller.agent.events()
    assert ringing == Progress(caller.key, 180, "Ringing", None)
    assert early == Progress(caller.key, 183, "Session Progress", b"early")
    assert isinstance(answered, Answered)
    assert (answered.sdp, answered.late_offer) == (answer_to(offer()), False)


def test_answer_without_sdp_falls_back_on_the_provisional_ones() -> None:
    caller = Caller()
    invite = caller.invite()
    caller.respond(invite, 183, sdp=b"v=0\r\n")
    caller.respond(invite, 200)
    answered = caller.agent.events()[-1]
    assert isinstance(answered, Answered)
    assert answered.sdp == b"v=0\r\n"


def test_repeated_200_gets_the_same_ack_even_after_the_call() -> None:
    caller = Caller()
    invite = caller.invite()
    caller.respond(invite, 200)
    (ack,) = caller.requests()
    caller.respond(invite, 200)
    assert caller.requests() == [ack]
    caller.agent.bye(caller.key, 0.0)
    (bye,) = caller.requests()
    caller.respond(bye, 200)
    assert caller.agent.call_count == 0
    caller.respond(invite, 200)
    assert caller.requests() == [ack]


def test_late_offer_is_answered_in_the_ack() -> None:
    caller = Caller()
    invite = caller.invite(sdp=None)
    caller.respond(invite, 200, sdp=offer())
    assert caller.requests() == []
    (answered,) = caller.agent.events()
    assert isinstance(answered, Answered)
    assert answered.late_offer
    caller.agent.acknowledge(caller.key, answer_to(offer()), 0.0)
    (ack,) = caller.requests()
    assert ack.body == answer_to(offer())
    caller.respond(invite, 200, sdp=offer())
    assert caller.requests() == [ack]


def test_hanging_up_instead_of_answering_a_late_offer_still_acknowledges() -> None:
    caller = Caller()
    invite = caller.invite(sdp=None)
    caller.respond(invite, 200, sdp=offer())
    caller.agent.bye(caller.key, 0.0)
    assert [request.method for request in caller.requests()] == ["ACK", "BYE"]


def test_refusal_is_told_with_its_response() -> None:
    caller = Caller()
    caller.respond(caller.invite(), 302, contact="<sip:else@192.0.2.9>")
    (event,) = caller.agent.events()
    assert isinstance(event, Rejected)
    assert (event.status, event.reason) == (302, "Moved Temporarily")
    assert event.response is not None
    assert event.response.headers.get("Contact") == "<sip:else@192.0.2.9>"
    assert [request.method for request in caller.requests()] == ["ACK"]
    assert caller.agent.call_count == 0


def test_silence_is_told_as_lost() -> None:
    caller = Caller()
    caller.invite()
    caller.pass_time(40)
    (event,) = caller.agent.events()
    assert isinstance(event, Lost)
    assert event.reason is LostReason.TIMEOUT
    assert (caller.agent.call_count, caller.agent.transaction_count) == (0, 0)


def test_cancel_waits_for_the_first_provisional_response() -> None:
    caller = Caller()
    invite = caller.invite()
    caller.agent.cancel(caller.key, 0.0)
    assert caller.requests() == []
    caller.respond(invite, 100)
    (cancel,) = caller.requests()
    assert (cancel.method, cancel.uri, str(cancel.cseq)) == ("CANCEL", invite.uri, "1 CANCEL")
    assert cancel.headers.get("Via") == invite.headers.get("Via")
    assert cancel.headers.get("To") == invite.headers.get("To")
    caller.respond(cancel, 200)
    caller.respond(invite, 180)
    caller.respond(invite, 487)
    (event,) = caller.agent.events()
    assert isinstance(event, Rejected)
    assert event.status == 487


def test_answer_that_crosses_our_cancel_is_hung_up() -> None:
    caller = Caller()
    invite = caller.invite()
    caller.respond(invite, 180)
    caller.agent.events()
    caller.agent.cancel(caller.key, 0.0)
    caller.requests()
    caller.respond(invite, 200)
    assert [request.method for request in caller.requests()] == ["ACK", "BYE"]
    assert caller.agent.events() == [Rejected(caller.key, 487, "Request Terminated", None)]


def test_peer_that_ignores_a_cancel_is_given_up() -> None:
    caller = Caller()
    caller.respond(caller.invite(), 180)
    caller.agent.cancel(caller.key, 0.0)
    caller.pass_time(33)
    assert isinstance(caller.agent.events()[-1], Lost)
    assert caller.agent.call_count == 0


def test_endless_ringing_is_cancelled() -> None:
    caller = Caller(UserAgentConfig(max_ring_s=60))
    caller.respond(caller.invite(), 180)
    assert caller.pass_time(59) == []
    assert caller.pass_time(2)[0].method == "CANCEL"


def test_second_answer_of_a_forked_call_is_hung_up() -> None:
    caller = Caller()
    invite = caller.invite()
    caller.respond(invite, 200, tag="b1")
    caller.requests()
    caller.respond(invite, 200, tag="b2", contact="<sip:other@192.0.2.3>")
    ack, bye = caller.requests()
    assert (ack.method, ack.to.tag, ack.uri) == ("ACK", "b2", "sip:other@192.0.2.3")
    assert (bye.method, bye.to.tag) == ("BYE", "b2")
    assert len(caller.agent.events()) == 1
    assert caller.agent.call_count == 1


def test_answers_without_end_are_not_all_taken() -> None:
    caller = Caller()
    invite = caller.invite()
    for number in range(100):
        caller.respond(invite, 200, tag=f"b{number}", sdp=answer_to(offer()))
    methods = [request.method for request in caller.requests()]
    assert (methods.count("ACK"), methods.count("BYE")) == (16, 15)
    assert caller.agent.counters["dropped: too many answers"] == 84


# -- where requests within a call go ----------------------------------------------------------------------------


def bye_after(config: UserAgentConfig | None = None, **how: object) -> tuple[Request, Address]:
    caller = Caller(config)
    caller.respond(caller.invite(), 200, **how)  # type: ignore[arg-type]
    caller.agent.bye(caller.key, 0.0)
    caller.requests()
    message, flow = caller.wire[-1]
    assert isinstance(message, Request)
    return message, flow.remote


def test_request_goes_to_the_contact() -> None:
    bye, address = bye_after(contact="<sip:bob@192.0.2.50:5080;transport=udp?x=y>")
    assert (bye.uri, address) == ("sip:bob@192.0.2.50:5080;transport=udp", ("192.0.2.50", 5080))


def test_request_goes_through_loose_routers_last_first() -> None:
    routes = (("Record-Route", "<sip:192.0.2.60;lr>, <sip:192.0.2.61:5070;lr>"),)
    bye, address = bye_after(headers=routes)
    assert bye.uri == "sip:bob@192.0.2.2:5060"
    assert bye.headers.items_of("Route") == ["<sip:192.0.2.61:5070;lr>", "<sip:192.0.2.60;lr>"]
    assert address == ("192.0.2.61", 5070)


def test_strict_router_finds_itself_in_the_request_uri() -> None:
    routes = (("Record-Route", "<sip:192.0.2.60;lr>, <sip:192.0.2.61>"),)
    bye, address = bye_after(headers=routes)
    assert bye.uri == "sip:192.0.2.61"
    assert bye.headers.items_of("Route") == ["<sip:192.0.2.60;lr>", "<sip:bob@192.0.2.2:5060>"]
    assert address == ("192.0.2.61", 5060)


def test_name_in_the_contact_is_resolved_or_taken_for_the_source() -> None:
    contact = "<sip:bob@pbx.example.com:5099>"
    assert bye_after(contact=contact)[1] == BOB
    config = UserAgentConfig(resolve=lambda host, port: ("192.0.2.70", port or 5060))
    assert bye_after(config, contact=contact)[1] == ("192.0.2.70", 5099)


def test_answer_without_contact_is_forgiven() -> None:
    assert bye_after(contact="")[0].uri == TARGET


def test_answer_with_unusable_contact_is_lost() -> None:
    caller = Caller()
    caller.respond(caller.invite(), 200, contact="<sip:")
    (event,) = caller.agent.events()
    assert isinstance(event, Lost)
    assert event.reason is LostReason.UNUSABLE
    assert (caller.agent.call_count, caller.agent.transaction_count) == (0, 0)


# -- requests within a call ---------------------------------------------------------------------------------------


def test_reinvite_is_answered_and_acknowledged() -> None:
    caller = Caller()
    caller.connect()
    caller.agent.reinvite(caller.key, offer(5000), 0.0)
    (invite,) = caller.requests()
    assert (str(invite.cseq), invite.to.tag, invite.uri) == ("2 INVITE", "b1", "sip:bob@192.0.2.2:5060")
    caller.respond(invite, 200, sdp=b"v=0\r\n", contact="<sip:bob@192.0.2.99>")
    (ack,) = caller.requests()
    assert (ack.uri, str(ack.cseq)) == ("sip:bob@192.0.2.99", "2 ACK")
    assert caller.agent.events() == [ReofferAnswered(caller.key, b"v=0\r\n", False)]


def test_refused_reinvite_leaves_the_call() -> None:
    caller = Caller()
    caller.connect()
    caller.agent.reinvite(caller.key, offer(), 0.0)
    (invite,) = caller.requests()
    caller.respond(invite, 488)
    assert caller.agent.events() == [ReofferRejected(caller.key, 488, "Not Acceptable Here")]
    assert caller.agent.call_count == 1
    caller.agent.reinvite(caller.key, offer(), 0.0)


def test_glare_is_retried_after_the_callers_delay() -> None:
    caller = Caller()
    caller.connect()
    caller.agent.reinvite(caller.key, offer(5000), 0.0)
    (invite,) = caller.requests()
    caller.respond(invite, 491)
    assert [request.method for request in caller.requests()] == ["ACK"]
    assert caller.pass_time(2.0) == []
    again = caller.pass_time(2.1)
    assert again[0].method == "INVITE"
    assert again[0].body == invite.body
    assert again[0].cseq.number == 3
    caller.respond(again[0], 200)
    assert caller.agent.events() == [ReofferAnswered(caller.key, None, False)]


def test_glare_is_not_retried_for_ever() -> None:
    caller = Caller()
    caller.connect()
    caller.agent.reinvite(caller.key, offer(), 0.0)
    invites = caller.requests()
    for _ in range(5):
        caller.respond(invites[0], 491)
        invites = caller.pass_time(4.1)[1:]
    assert caller.agent.events() == [ReofferRejected(caller.key, 491, "Request Pending")]


def test_reinvite_answered_481_means_the_call_is_gone() -> None:
    caller = Caller()
    caller.connect()
    caller.agent.reinvite(caller.key, offer(), 0.0)
    caller.respond(caller.requests()[0], 481)
    (event,) = caller.agent.events()
    assert isinstance(event, Lost)
    assert event.reason is LostReason.GONE
    assert caller.agent.call_count == 0


def test_reinvite_never_answered_ends_the_call_with_bye() -> None:
    caller = Caller()
    caller.connect()
    caller.agent.reinvite(caller.key, offer(), 0.0)
    assert caller.pass_time(33)[-1].method == "BYE"
    (event,) = caller.agent.events()
    assert isinstance(event, Lost)
    assert event.reason is LostReason.TIMEOUT


def test_info_is_answered_or_times_out() -> None:
    caller = Caller()
    caller.connect()
    caller.agent.info(caller.key, "application/dtmf", b"5", 0.0)
    (info,) = caller.requests()
    assert (info.content_type, info.body) == ("application/dtmf", b"5")
    caller.respond(info, 200)
    caller.agent.info(caller.key, "application/dtmf", b"6", 0.0)
    caller.pass_time(33)
    assert caller.agent.events() == [InfoAnswered(caller.key, 200), InfoAnswered(caller.key, 408)]
    assert caller.agent.call_count == 1


def notify(refer: Request, cseq: int, status: str, state: str, event: str = "") -> bytes:
    """Bob's NOTIFY on our REFER."""
    body = f"SIP/2.0 {status}\r\n".encode()
    head = (
        f"NOTIFY sip:192.0.2.1:5060 SIP/2.0\nVia: SIP/2.0/UDP 192.0.2.2;branch=z9hG4bKn{cseq}\nMax-Forwards: 70\n"
        f"From: {refer.headers.get('To')}\nTo: {refer.headers.get('From')}\nCall-ID: {refer.call_id}\n"
        f"CSeq: {cseq} NOTIFY\nEvent: {event or f'refer;id={refer.cseq.number}'}\nSubscription-State: {state}\n"
        f"Content-Type: message/sipfrag\nContent-Length: {len(body)}\n\n"
    )
    return head.replace("\n", "\r\n").encode() + body


def test_transfer_is_followed_to_its_end() -> None:
    caller = Caller()
    caller.connect()
    caller.agent.refer(caller.key, "sip:carol@192.0.2.3", 0.0, headers=[("Referred-By", "<sip:alice@192.0.2.1>")])
    (refer,) = caller.requests()
    assert refer.headers.get("Refer-To") == "<sip:carol@192.0.2.3>"
    caller.respond(refer, 202)
    caller.agent.receive(notify(refer, 1, "100 Trying", "active;expires=60"), FLOW, 0.0)
    caller.agent.receive(notify(refer, 2, "200 OK", "terminated;reason=noresource", "refer"), FLOW, 0.0)
    assert caller.agent.events() == [
        ReferAccepted(caller.key, 202),
        ReferResult(caller.key, 100, "Trying", False),
        ReferResult(caller.key, 200, "OK", True),
    ]
    caller.requests()
    caller.agent.receive(notify(refer, 3, "200 OK", "terminated"), FLOW, 0.0)
    caller.requests()
    refused = caller.wire[-1][0]
    assert isinstance(refused, Response)
    assert refused.status == 481


def test_notify_may_come_before_the_answer_to_refer() -> None:
    caller = Caller()
    caller.connect()
    caller.agent.refer(caller.key, "sip:carol@192.0.2.3", 0.0)
    (refer,) = caller.requests()
    caller.agent.receive(notify(refer, 1, "100 Trying", "active"), FLOW, 0.0)
    caller.respond(refer, 202)
    assert caller.agent.events() == [ReferResult(caller.key, 100, "Trying", False), ReferAccepted(caller.key, 202)]


def test_refused_transfer_leaves_the_call() -> None:
    caller = Caller()
    caller.connect()
    caller.agent.refer(caller.key, "sip:carol@192.0.2.3", 0.0)
    caller.respond(caller.requests()[0], 405)
    assert caller.agent.events() == [ReferRejected(caller.key, 405, "Method Not Allowed")]
    assert caller.agent.call_count == 1


def test_response_meant_for_somebody_else_is_dropped() -> None:
    caller = Caller()
    invite = caller.invite()
    twice = make_response(invite, 200, to_tag="b1")
    twice.headers.add("Via", "SIP/2.0/UDP 192.0.2.77;branch=z9hG4bKother")
    caller.agent.receive(twice.serialise(), FLOW, 0.0)
    stranger = invite.serialise().replace(invite.via.branch.encode(), b"z9hG4bKguess")
    response = make_response(parse_message(stranger), 200, to_tag="b1")  # type: ignore[arg-type]
    caller.agent.receive(response.serialise(), FLOW, 0.0)
    assert caller.agent.events() == []
    assert caller.agent.counters["dropped: stray response"] == 2
