"""Requests of ours outside any call (OPTIONS, REGISTER, ...), and how any request finds another way to its peer."""

import pytest
from sip_caller import FLOW, TARGET, Caller
from sip_network import ALICE, BOB

from bridge.sip.digest import Credentials, DigestClient, DigestServer, Secret
from bridge.sip.errors import SipSyntaxError
from bridge.sip.events import RequestAnswered, RequestKey
from bridge.sip.flow import Flow
from bridge.sip.message import Request
from bridge.sip.settings import UserAgentConfig

FROM = "<sip:alice@192.0.2.1>"
SECOND = Flow("udp", ("192.0.2.3", 5060), ALICE)
STREAM = Flow("tcp", BOB, ALICE)
ACCOUNT = Credentials("alice", "secret")


def register(caller: Caller, **how: object) -> tuple[RequestKey, Request]:
    headers = (("Contact", f"{caller.agent.contact(FLOW)};expires=60"),)
    arguments: dict[str, object] = {"from_": FROM, "headers": headers} | how
    key = caller.agent.request("REGISTER", "sip:192.0.2.2", FLOW, caller.now, **arguments)  # type: ignore[arg-type]
    return key, caller.one()


def the_answer(caller: Caller) -> RequestAnswered:
    (event,) = caller.agent.events()
    assert isinstance(event, RequestAnswered)
    return event


def realm(password: str = "secret") -> DigestServer:
    return DigestServer("example", lambda user: Secret(password) if user == "alice" else None)


def test_options_has_what_the_standard_wants_and_is_answered_once() -> None:
    caller = Caller()
    key = caller.agent.request("OPTIONS", TARGET, FLOW, 0.0, from_=FROM, route=["<sip:proxy.example.com;lr>"])
    request = caller.one()
    assert (request.method, request.uri, str(request.cseq)) == ("OPTIONS", TARGET, "1 OPTIONS")
    assert request.headers.get("Max-Forwards") == "70"
    assert request.headers.get("Route") == "<sip:proxy.example.com;lr>"
    assert request.headers.get("Accept") == "application/sdp"
    assert request.from_.tag
    assert request.to.tag is None
    caller.respond(request, 100)
    caller.respond(request, 200)
    caller.respond(request, 200)
    event = the_answer(caller)
    assert (event.key, event.request, event.flow) == (key, request, FLOW)
    assert event.response is not None
    assert event.response.status == 200


def test_owner_chooses_call_id_cseq_and_body() -> None:
    caller = Caller()
    caller.agent.request(
        "MESSAGE", TARGET, FLOW, 0.0, from_=FROM, call_id="r1", cseq=7, body=b"hello", content_type="text/plain"
    )
    request = caller.one()
    assert (request.call_id, str(request.cseq), request.body) == ("r1", "7 MESSAGE", b"hello")
    assert request.content_type == "text/plain"


@pytest.mark.parametrize("method", ["INVITE", "ACK", "CANCEL", "BYE", "UPDATE", "PRACK"])
def test_methods_of_calls_are_refused(method: str) -> None:
    caller = Caller()
    with pytest.raises(ValueError, match="belongs to a call"):
        caller.agent.request(method, TARGET, FLOW, 0.0, from_=FROM)
    with pytest.raises(SipSyntaxError):
        caller.agent.request("OPTIONS", "tel:+1555", FLOW, 0.0, from_=FROM)
    assert (caller.agent.outgoing(), caller.agent.transaction_count) == ([], 0)


def test_silence_ends_in_no_response_and_leaves_nothing() -> None:
    caller = Caller()
    register(caller)
    assert len(caller.pass_time(40)) == 10
    assert the_answer(caller).response is None
    assert (caller.agent.transaction_count, caller.agent.timer()) == (0, None)


def test_challenge_is_answered_with_the_credentials() -> None:
    caller, server = Caller(), realm()
    _, first = register(caller, credentials=ACCOUNT)
    assert "Authorization" not in first.headers
    caller.respond(first, 401, headers=server.challenge(0.0))
    second = caller.one()
    assert server.check(second, 0.0).username == "alice"
    assert (second.call_id, second.headers.get("From")) == (first.call_id, first.headers.get("From"))
    assert (second.cseq.number, second.via.branch != first.via.branch) == (2, True)
    assert second.headers.get("Contact") == first.headers.get("Contact")
    caller.respond(second, 200)
    event = the_answer(caller)
    assert event.request == second


def test_wrong_password_is_tried_once() -> None:
    caller, server = Caller(), realm("other")
    _, first = register(caller, credentials=ACCOUNT)
    caller.respond(first, 401, headers=server.challenge(0.0))
    second = caller.one()
    verdict = server.check(second, 0.0)
    caller.respond(second, 401, headers=verdict.headers)
    assert caller.requests() == []
    event = the_answer(caller)
    assert event.response is not None
    assert event.response.status == 401


def test_stale_nonce_is_replaced() -> None:
    caller, server = Caller(), realm()
    _, first = register(caller, credentials=ACCOUNT)
    caller.respond(first, 401, headers=server.challenge(0.0))
    second = caller.one()
    caller.respond(second, 401, headers=server.check(second, 100.0).headers)
    third = caller.one()
    assert server.check(third, 100.0).username == "alice"
    assert third.cseq.number == 3
    assert len(third.headers.get_all("Authorization")) == 1


def test_proxy_and_registrar_each_get_their_answer() -> None:
    caller, server = Caller(), realm()
    proxy = DigestServer("proxy", lambda user: Secret("secret"))
    _, first = register(caller, credentials=ACCOUNT)
    asked = tuple(("Proxy-Authenticate", value) for _, value in proxy.challenge(0.0))
    caller.respond(first, 407, headers=asked)
    second = caller.one()
    caller.respond(second, 401, headers=server.challenge(0.0))
    third = caller.one()
    assert len(third.headers.get_all("Proxy-Authorization")) == 1
    assert server.check(third, 0.0).username == "alice"


def test_server_that_challenges_for_ever_is_given_up() -> None:
    caller = Caller()
    _, request = register(caller, credentials=ACCOUNT)
    sent = 1
    for number in range(20):
        challenge = f'Digest realm="realm {number}", nonce="{number}", qop="auth"'
        caller.respond(request, 401, headers=(("WWW-Authenticate", challenge),))
        again = caller.requests()
        if not again:
            break
        (request,) = again
        sent += 1
    assert sent == 7
    assert the_answer(caller).response is not None


def test_digest_client_keeps_its_nonce_for_the_next_request() -> None:
    caller, server, client = Caller(), realm(), DigestClient(ACCOUNT)
    _, first = register(caller, credentials=client)
    caller.respond(first, 401, headers=server.challenge(0.0))
    caller.respond(caller.one(), 200)
    _, refresh = register(caller, credentials=client)
    assert server.check(refresh, 0.0).username == "alice"


# -- other ways to the peer ---------------------------------------------------------------------------------------


def test_busy_server_is_followed_by_the_next() -> None:
    caller = Caller()
    register(caller, alternatives=[SECOND])
    first = caller.wire[0][0]
    assert isinstance(first, Request)
    caller.respond(first, 503)
    ((second, flow),) = caller.requests_to()
    assert (flow, second.cseq.number, second.call_id) == (SECOND, 2, first.call_id)
    caller.respond(second, 503, flow=SECOND)
    event = the_answer(caller)
    assert event.response is not None
    assert (event.response.status, event.flow) == (503, SECOND)


def test_silent_server_is_followed_by_the_next_unless_it_had_spoken() -> None:
    caller = Caller()
    register(caller, alternatives=[SECOND])
    caller.pass_time(33)
    requests = [(message, flow) for message, flow in caller.wire if flow == SECOND]
    second = requests[0][0]
    assert isinstance(second, Request)
    caller.respond(second, 200, flow=SECOND)
    assert the_answer(caller).flow == SECOND
    _, request = register(caller, alternatives=[SECOND])
    caller.respond(request, 100)
    caller.pass_time(33)
    event = the_answer(caller)
    assert (event.response, event.flow) == (None, FLOW)


def test_transport_failure_moves_on_at_once() -> None:
    caller = Caller()
    register(caller, alternatives=[SECOND])
    caller.agent.transport_failed(FLOW, 0.0, "connection refused")
    assert [flow for _, flow in caller.requests_to()] == [SECOND]
    caller.agent.transport_failed(FLOW, 0.0)
    assert caller.requests() == []
    caller.agent.transport_failed(SECOND, 0.0, "connection refused")
    assert the_answer(caller).response is None
    assert (caller.agent.transaction_count, caller.agent.timer()) == (0, None)


def test_contact_follows_the_transport() -> None:
    caller = Caller()
    _, first = register(caller, alternatives=[STREAM])
    caller.agent.transport_failed(FLOW, 0.0)
    second = caller.one()
    assert first.headers.get("Contact") == "<sip:192.0.2.1:5060>;expires=60"
    assert second.headers.get("Contact") == "<sip:192.0.2.1:5060;transport=tcp>;expires=60"
    assert second.via.transport == "TCP"


def large(caller: Caller) -> list[tuple[Request, Flow]]:
    caller.agent.request("MESSAGE", TARGET, FLOW, 0.0, from_=FROM, body=b"x" * 1300)
    return caller.requests_to()


def test_large_request_goes_over_tcp() -> None:
    caller = Caller(UserAgentConfig(stream_flow=lambda flow: STREAM))
    ((request, flow),) = large(caller)
    assert (flow, request.via.transport) == (STREAM, "TCP")
    caller.respond(request, 200, flow=STREAM)
    assert the_answer(caller).flow == STREAM
    caller.agent.request("MESSAGE", TARGET, FLOW, 0.0, from_=FROM, body=b"x" * 500)
    assert [flow for _, flow in caller.requests_to()] == [FLOW]


def test_large_request_falls_back_to_udp_where_tcp_is_refused() -> None:
    caller = Caller(UserAgentConfig(stream_flow=lambda flow: STREAM))
    large(caller)
    caller.agent.transport_failed(STREAM, 0.0, "connection refused")
    ((request, flow),) = caller.requests_to()
    assert (flow, request.via.transport) == (FLOW, "UDP")
    caller.respond(request, 200)
    assert the_answer(caller).flow == FLOW


def test_large_request_stays_on_udp_where_there_is_no_stream() -> None:
    for config in (UserAgentConfig(stream_flow=lambda flow: None), UserAgentConfig()):
        assert [flow for _, flow in large(Caller(config))] == [FLOW]


def test_failover_of_a_large_request_tries_tcp_anew() -> None:
    caller = Caller(UserAgentConfig(stream_flow=lambda flow: Flow("tcp", flow.remote, flow.local)))
    caller.agent.request("MESSAGE", TARGET, FLOW, 0.0, from_=FROM, body=b"x" * 1300, alternatives=[SECOND])
    tried = []
    while requests := caller.requests_to():
        ((_, flow),) = requests
        tried.append((flow.transport, flow.remote))
        caller.agent.transport_failed(flow, 0.0)
    assert tried == [("tcp", BOB), ("udp", BOB), ("tcp", SECOND.remote), ("udp", SECOND.remote)]
    assert the_answer(caller).response is None
