"""Calls of ours that go another way: to the next server, over TCP, or where a redirection points."""

import pytest
from sip_caller import FLOW, TARGET, Caller
from sip_network import ALICE, BOB, answer_to, offer

from bridge.sip.digest import Credentials, DigestServer, Secret
from bridge.sip.errors import CallStateError, SipSyntaxError
from bridge.sip.events import Answered, Lost, LostReason, Progress, Redirected, Rejected
from bridge.sip.flow import Flow
from bridge.sip.message import Request
from bridge.sip.settings import UserAgentConfig

SECOND = Flow("udp", ("192.0.2.3", 5060), ALICE)
THIRD = Flow("udp", ("192.0.2.4", 5060), ALICE)
STREAM = Flow("tcp", BOB, ALICE)


def sent_invite(caller: Caller) -> tuple[Request, Flow]:
    ((request, flow),) = [(request, flow) for request, flow in caller.requests_to() if request.method == "INVITE"]
    return request, flow


def assert_gone(caller: Caller) -> None:
    caller.pass_time(40)
    agent = caller.agent
    assert (agent.call_count, agent.transaction_count, agent.timer()) == (0, 0, None)


# -- the next server ----------------------------------------------------------------------------------------------


def test_call_goes_on_at_the_next_server_after_503() -> None:
    caller = Caller()
    first = caller.invite(alternatives=[SECOND, THIRD])
    caller.respond(first, 100)
    caller.respond(first, 503, headers=(("Retry-After", "30"),))
    second, flow = sent_invite(caller)
    assert (flow, second.call_id, second.cseq.number, second.uri) == (SECOND, first.call_id, 2, first.uri)
    assert second.via.branch != first.via.branch
    caller.respond(second, 503, flow=SECOND)
    third, flow = sent_invite(caller)
    assert flow == THIRD
    caller.respond(third, 200, sdp=answer_to(offer()), flow=THIRD)
    (event,) = caller.agent.events()
    assert isinstance(event, Answered)


def test_last_503_is_told_with_its_retry_after() -> None:
    caller = Caller()
    caller.respond(caller.invite(), 503, headers=(("Retry-After", "18 (back soon);duration=60"),))
    (event,) = caller.agent.events()
    assert isinstance(event, Rejected)
    assert event.response is not None
    assert event.response.retry_after_s == 18
    assert_gone(caller)


@pytest.mark.parametrize("status", [404, 486, 500, 603])
def test_other_refusals_are_final(status: int) -> None:
    caller = Caller()
    caller.respond(caller.invite(alternatives=[SECOND]), status)
    assert [request.method for request in caller.requests()] == ["ACK"]
    assert isinstance(caller.agent.events()[0], Rejected)


def test_silent_server_is_followed_by_the_next() -> None:
    caller = Caller()
    caller.invite(alternatives=[SECOND])
    caller.pass_time(31.9)
    assert {flow for _, flow in caller.wire} == {FLOW}
    caller.pass_time(0.2)
    last = caller.wire[-1]
    assert (last[1], str(last[0].cseq)) == (SECOND, "2 INVITE")
    caller.pass_time(33)
    (event,) = caller.agent.events()
    assert isinstance(event, Lost)
    assert event.reason is LostReason.TIMEOUT
    assert_gone(caller)


def test_transport_failure_is_followed_by_the_next_at_once_and_named_at_the_end() -> None:
    caller = Caller()
    caller.invite(alternatives=[SECOND])
    caller.agent.transport_failed(FLOW, 0.0, "port unreachable")
    assert sent_invite(caller)[1] == SECOND
    caller.agent.transport_failed(SECOND, 0.0, "connection refused")
    (event,) = caller.agent.events()
    assert event == Lost(caller.key, LostReason.TIMEOUT, "our INVITE was not delivered: connection refused")
    assert_gone(caller)


def test_ringing_call_survives_an_unreachable_port_but_not_the_end_of_its_connection() -> None:
    caller = Caller()
    caller.respond(caller.invite(alternatives=[SECOND]), 180)
    caller.agent.transport_failed(FLOW, 0.0, "port unreachable")
    assert (caller.requests(), caller.agent.call_count) == ([], 1)
    over_tcp = Caller()
    over_tcp.key = over_tcp.agent.invite(TARGET, STREAM, 0.0, from_="<sip:a@b>", sdp=offer(), alternatives=[SECOND])
    invite, _ = sent_invite(over_tcp)
    over_tcp.respond(invite, 180, flow=STREAM)
    over_tcp.agent.transport_failed(STREAM, 0.0, "reset")
    assert [type(event) for event in over_tcp.agent.events()] == [Progress, Lost]
    assert_gone(over_tcp)


def test_challenge_of_the_next_server_is_answered() -> None:
    caller = Caller()
    servers = [DigestServer(name, lambda user: Secret("secret")) for name in ("one", "two")]
    first = caller.invite(alternatives=[SECOND], credentials=Credentials("alice", "secret"))
    caller.respond(first, 401, headers=servers[0].challenge(0.0))
    second, _ = sent_invite(caller)
    caller.respond(second, 503)
    third, _ = sent_invite(caller)
    caller.respond(third, 401, headers=servers[1].challenge(0.0), flow=SECOND)
    fourth, flow = sent_invite(caller)
    assert servers[1].check(fourth, 0.0).username == "alice"
    assert (flow, fourth.cseq.number) == (SECOND, 4)


def test_early_dialogs_of_a_server_that_failed_are_forgotten() -> None:
    caller = Caller()
    first = caller.invite(alternatives=[SECOND])
    caller.respond(first, 180, tag="b1")
    caller.respond(first, 503, tag="b1")
    second, _ = sent_invite(caller)
    caller.respond(second, 200, tag="b2", sdp=answer_to(offer()), contact="<sip:bob@192.0.2.3>", flow=SECOND)
    (ack,) = caller.requests()
    assert (ack.to.tag, str(ack.cseq), ack.uri) == ("b2", "2 ACK", "sip:bob@192.0.2.3")


def test_cancel_before_the_next_server_is_tried_ends_it() -> None:
    caller = Caller()
    first = caller.invite(alternatives=[SECOND])
    caller.respond(first, 100)
    caller.agent.cancel(caller.key, 0.0)
    assert caller.one().method == "CANCEL"
    caller.respond(first, 503)
    assert [request.method for request in caller.requests()] == ["ACK"]
    assert isinstance(caller.agent.events()[-1], Rejected)
    assert_gone(caller)


def test_cancel_before_anybody_answers_tries_nobody_else() -> None:
    caller = Caller()
    caller.invite(alternatives=[SECOND])
    caller.agent.cancel(caller.key, 0.0)
    caller.pass_time(33)
    assert {flow for _, flow in caller.wire} == {FLOW}
    assert [type(event) for event in caller.agent.events()] == [Lost]
    assert_gone(caller)


def test_large_invite_goes_over_tcp_and_its_cancel_follows() -> None:
    caller = Caller(UserAgentConfig(stream_flow=lambda flow: STREAM))
    caller.key = caller.agent.invite(TARGET, FLOW, 0.0, from_="<sip:a@b>", sdp=offer() + b"a=x\r\n" * 200)
    invite, flow = sent_invite(caller)
    assert (flow, invite.via.transport) == (STREAM, "TCP")
    caller.respond(invite, 180, flow=STREAM)
    caller.agent.cancel(caller.key, 0.0)
    ((cancel, flow),) = caller.requests_to()
    assert (cancel.method, flow, cancel.via) == ("CANCEL", STREAM, invite.via)


@pytest.mark.parametrize(
    ("contact", "flow"), [("<sip:b@192.0.2.2>", FLOW), ("<sip:b@192.0.2.2;transport=tcp>", STREAM)]
)
def test_call_stays_on_tcp_only_where_the_peer_wants_that(contact: str, flow: Flow) -> None:
    caller = Caller(UserAgentConfig(stream_flow=lambda flow: STREAM))
    caller.key = caller.agent.invite(TARGET, FLOW, 0.0, from_="<sip:a@b>", sdp=offer() + b"a=x\r\n" * 200)
    invite, _ = sent_invite(caller)
    caller.respond(invite, 200, sdp=answer_to(offer()), contact=contact, flow=STREAM)
    ((ack, towards),) = caller.requests_to()
    assert (ack.method, towards) == ("ACK", flow)


# -- redirections -------------------------------------------------------------------------------------------------


def redirected(caller: Caller) -> Redirected:
    event = caller.agent.events()[-1]
    assert isinstance(event, Redirected)
    return event


def test_redirection_is_told_and_followed_where_the_owner_says() -> None:
    caller = Caller()
    first = caller.invite(max_redirects=2)
    contacts = "<sip:low@192.0.2.9>;q=0.2, <sip:high@192.0.2.3?X-A=1>;q=0.9, <sip:most@192.0.2.8>"
    caller.respond(first, 302, contact=contacts)
    assert [request.method for request in caller.requests()] == ["ACK"]
    event = redirected(caller)
    assert event.targets == ("sip:most@192.0.2.8", "sip:high@192.0.2.3?X-A=1", "sip:low@192.0.2.9")
    assert event.response.status == 302
    caller.agent.retarget(caller.key, event.targets[1], [SECOND, THIRD], 0.0)
    second, flow = sent_invite(caller)
    assert (second.uri, flow) == ("sip:high@192.0.2.3", SECOND)
    assert (second.call_id, second.cseq.number, second.from_) == (first.call_id, 2, first.from_)
    assert (second.headers.get("To"), second.body) == (first.headers.get("To"), first.body)
    caller.respond(second, 503, flow=SECOND)
    third, flow = sent_invite(caller)
    assert (third.uri, flow) == ("sip:high@192.0.2.3", THIRD)
    caller.respond(third, 200, sdp=answer_to(offer()), flow=THIRD)
    assert isinstance(caller.agent.events()[-1], Answered)


def test_place_that_fails_leaves_the_others_that_were_named() -> None:
    caller = Caller()
    caller.respond(caller.invite(max_redirects=3), 300, contact="<sip:a@192.0.2.8>, <sip:b@192.0.2.9>")
    event = redirected(caller)
    caller.agent.retarget(caller.key, event.targets[0], [SECOND], 0.0)
    second, _ = sent_invite(caller)
    caller.respond(second, 486, flow=SECOND)
    again = redirected(caller)
    assert (again.targets, again.response) == (("sip:b@192.0.2.9",), event.response)
    caller.agent.retarget(caller.key, again.targets[0], [SECOND], 0.0)
    third, _ = sent_invite(caller)
    caller.respond(third, 404, flow=SECOND)
    last = caller.agent.events()[-1]
    assert isinstance(last, Rejected)
    assert last.status == 404
    assert_gone(caller)


def test_refusal_everywhere_leaves_nothing_to_try() -> None:
    caller = Caller()
    caller.respond(caller.invite(max_redirects=3), 300, contact="<sip:a@192.0.2.8>, <sip:b@192.0.2.9>")
    caller.agent.retarget(caller.key, redirected(caller).targets[0], [SECOND], 0.0)
    caller.respond(sent_invite(caller)[0], 603, flow=SECOND)
    assert isinstance(caller.agent.events()[-1], Rejected)


def test_silence_at_the_new_place_leaves_the_others() -> None:
    caller = Caller()
    caller.respond(caller.invite(max_redirects=3), 302, contact="<sip:a@192.0.2.8>, <sip:b@192.0.2.9>")
    caller.agent.retarget(caller.key, redirected(caller).targets[0], [SECOND], 0.0)
    caller.pass_time(33)
    assert redirected(caller).targets == ("sip:b@192.0.2.9",)


def test_circle_of_redirections_ends() -> None:
    caller = Caller()
    invite = caller.invite(max_redirects=20)
    caller.respond(invite, 302, contact="<sip:else@192.0.2.3>")
    caller.agent.retarget(caller.key, redirected(caller).targets[0], [SECOND], 0.0)
    second, _ = sent_invite(caller)
    caller.respond(second, 302, contact=f"<{TARGET}>, <sip:ELSE@192.0.2.9>, <sip:else@192.0.2.3;x=y>", flow=SECOND)
    event = redirected(caller)
    assert event.targets == ("sip:ELSE@192.0.2.9",)
    caller.agent.retarget(caller.key, event.targets[0], [SECOND], 0.0)
    third, _ = sent_invite(caller)
    caller.respond(third, 302, contact="<sip:else@192.0.2.3>", flow=SECOND)
    last = caller.agent.events()[-1]
    assert isinstance(last, Rejected)
    assert last.status == 302
    assert_gone(caller)


def test_endless_redirections_are_given_up() -> None:
    caller = Caller()
    invite = caller.invite(max_redirects=3)
    for hop in range(3):
        caller.respond(invite, 302, contact=f"<sip:hop{hop}@192.0.2.3>")
        caller.agent.retarget(caller.key, redirected(caller).targets[0], [FLOW], 0.0)
        invite, _ = sent_invite(caller)
    caller.respond(invite, 302, contact="<sip:hop4@192.0.2.3>")
    assert isinstance(caller.agent.events()[-1], Rejected)


@pytest.mark.parametrize(
    ("status", "contact"), [(302, "<sip:"), (302, ""), (305, "<sip:p@192.0.2.9>"), (380, "<sip:a@b>")]
)
def test_redirection_to_nowhere_is_a_refusal(status: int, contact: str) -> None:
    caller = Caller()
    caller.respond(caller.invite(max_redirects=3), status, contact=contact)
    (event,) = caller.agent.events()
    assert isinstance(event, Rejected)
    assert_gone(caller)


def test_owner_may_decline_a_redirection() -> None:
    caller = Caller()
    caller.respond(caller.invite(max_redirects=1), 301, contact="<sip:else@192.0.2.3>")
    redirected(caller)
    caller.agent.cancel(caller.key, 0.0)
    (event,) = caller.agent.events()
    assert isinstance(event, Rejected)
    assert event.status == 301
    assert_gone(caller)


def test_redirection_that_the_owner_forgets_ends_with_the_ring_limit() -> None:
    caller = Caller(UserAgentConfig(max_ring_s=60))
    caller.respond(caller.invite(max_redirects=1), 302, contact="<sip:else@192.0.2.3>")
    caller.pass_time(59)
    redirected(caller)
    caller.pass_time(2)
    assert [type(event) for event in caller.agent.events()] == [Rejected]
    assert_gone(caller)


def test_redirection_that_crosses_a_cancel_is_not_followed() -> None:
    caller = Caller()
    invite = caller.invite(max_redirects=1)
    caller.agent.cancel(caller.key, 0.0)
    caller.respond(invite, 302, contact="<sip:else@192.0.2.3>")
    (event,) = caller.agent.events()
    assert isinstance(event, Rejected)
    assert event.status == 302
    assert_gone(caller)


def test_retarget_is_only_for_redirected_calls_and_sip_uris() -> None:
    caller = Caller()
    invite = caller.invite(max_redirects=1)
    with pytest.raises(CallStateError):
        caller.agent.retarget(caller.key, TARGET, [FLOW], 0.0)
    caller.respond(invite, 302, contact="<tel:+1555>, <sip:else@192.0.2.3>")
    assert redirected(caller).targets == ("tel:+1555", "sip:else@192.0.2.3")
    with pytest.raises(SipSyntaxError):
        caller.agent.retarget(caller.key, "tel:+1555", [FLOW], 0.0)
    with pytest.raises(ValueError, match="no flow"):
        caller.agent.retarget(caller.key, "sip:else@192.0.2.3", [], 0.0)
    caller.agent.retarget(caller.key, "sip:+1555@192.0.2.2;user=phone;method=BYE", [FLOW], 0.0)
    assert sent_invite(caller)[0].uri == "sip:+1555@192.0.2.2;user=phone"
    with pytest.raises(CallStateError):
        caller.agent.retarget(caller.key, TARGET, [FLOW], 0.0)
