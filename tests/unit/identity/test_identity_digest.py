"""Digest authentication: the vectors of its RFCs, and client and server against each other."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.sip.digest import (
    Credentials,
    DigestClient,
    DigestServer,
    DigestVerdict,
    Secret,
    digest_response,
    parse_challenges,
)
from bridge.sip.message import Headers, Request, Response, make_response

PASSWORD = "Circle of Life"


def make_request(method: str = "INVITE", uri: str = "sip:+15551234@bridge.example", cseq: int = 1) -> Request:
    return Request(
        method,
        uri,
        Headers(
            [
                ("Via", f"SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK-{cseq}"),
                ("From", "<sip:alice@example.com>;tag=1"),
                ("To", "<sip:bob@example.com>"),
                ("Call-ID", "call-1"),
                ("CSeq", f"{cseq} {method}"),
            ]
        ),
    )


def with_fields(request: Request, fields: list[tuple[str, str]]) -> Request:
    kept = [(n, v) for n, v in request.headers if n not in ("Authorization", "Proxy-Authorization")]
    return Request(request.method, request.uri, Headers([*kept, *fields]))


def refuse(request: Request, *challenges: str, status: int = 401) -> Response:
    response = make_response(request, status)
    name = "WWW-Authenticate" if status == 401 else "Proxy-Authenticate"
    response.headers.extend((name, challenge) for challenge in challenges)
    return response


def refusal(request: Request, verdict: DigestVerdict) -> Response:
    response = make_response(request, verdict.status)
    response.headers.extend(verdict.headers)
    return response


def a_server(**options: object) -> DigestServer:
    users = {"alice": Secret(PASSWORD)}
    return DigestServer("offhook", users.get, **options)  # type: ignore[arg-type]  # passed through


def challenged(server: DigestServer, client: DigestClient, request: Request, now: float) -> Request:
    """The request, answered after the server's challenge."""
    verdict = server.check(request, now)
    assert verdict.status == 401
    fields = client.answer(refusal(request, verdict), request)
    assert fields is not None
    return with_fields(request, fields)


# -- the RFCs' own numbers ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("algorithm", "expected"),
    [
        ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
        ("SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
    ],
)
def test_example_of_rfc_7616_section_3_9_1(algorithm: str, expected: str) -> None:
    assert expected == digest_response(
        algorithm,
        username="Mufasa",
        realm="http-auth@example.org",
        password="Circle of Life",
        method="GET",
        uri="/dir/index.html",
        nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v",
        qop="auth",
        nc="00000001",
        cnonce="f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ",
    )


def test_example_of_rfc_2617_section_3_5() -> None:
    client = DigestClient(Credentials("Mufasa", "Circle Of Life"), make_cnonce=lambda: "0a4f113b")
    request = make_request("GET", "/dir/index.html")
    fields = client.answer(
        refuse(
            request,
            'Digest realm="testrealm@host.com", qop="auth,auth-int", '
            'nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093", opaque="5ccc069c403ebaf9f0171e9517f40e41"',
        ),
        request,
    )
    assert fields is not None
    ((name, value),) = fields
    assert name == "Authorization"
    assert 'response="6629fae49393a05397450978507c4ef1"' in value
    assert 'opaque="5ccc069c403ebaf9f0171e9517f40e41"' in value
    assert "nc=00000001" in value
    assert "algorithm" not in value


def test_example_of_rfc_2069_without_qop() -> None:
    expected = digest_response(
        "",
        username="Mufasa",
        realm="testrealm@host.com",
        password="CircleOfLife",
        method="GET",
        uri="/dir/index.html",
        nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093",
    )
    assert expected == "1949323746fe6a43ef61f9606e7febea"


# -- client -------------------------------------------------------------------------------------------------


def test_strongest_algorithm_of_several_challenges_is_answered() -> None:
    request = make_request()
    one_field = 'Digest realm="r", nonce="a", qop="auth", Digest realm="r", nonce="b", algorithm=SHA-256'
    several = ('Digest realm="r", nonce="a"', 'Digest realm="r", nonce="b", algorithm="sha-256"', "Negotiate")
    for challenges in ((one_field,), several):
        fields = DigestClient(Credentials("u", "p")).answer(refuse(request, *challenges), request)
        assert fields is not None and len(fields) == 1
        assert 'nonce="b"' in fields[0][1]


@pytest.mark.parametrize(
    "challenge",
    [
        'Digest realm="r", nonce="n", qop="auth-int"',
        'Digest realm="r", nonce="n", algorithm=SHA-512-256',
        'Digest realm="elsewhere", nonce="n"',
        'Basic realm="r"',
        'Digest realm="r"',
        'Digest realm="r',
        "",
        'Digest realm="a\\\x00b", nonce="n"',
        'Digest realm="r", nonce="n\\\x00"',
        'Digest realm="r", nonce="n", opaque="\\\x07"',
    ],
)
def test_challenge_that_cant_be_met_is_given_up(challenge: str) -> None:
    request = make_request()
    assert DigestClient(Credentials("u", "p", "r")).answer(refuse(request, challenge), request) is None


def test_refused_answer_is_given_up_unless_the_nonce_was_stale() -> None:
    client, request = DigestClient(Credentials("u", "p")), make_request()
    fields = client.answer(refuse(request, 'Digest realm="r", nonce="1", qop="auth"'), request)
    assert fields is not None
    again = with_fields(request, fields)
    assert client.answer(refuse(again, 'Digest realm="r", nonce="1", qop="auth", stale=true'), again) is None
    assert client.answer(refuse(again, 'Digest realm="r", nonce="2", qop="auth"'), again) is None
    fields = client.answer(refuse(again, 'Digest realm="r", nonce="2", qop="auth", stale=TRUE'), again)
    assert fields is not None and 'nonce="2"' in fields[0][1]


def test_server_that_calls_every_nonce_stale_is_not_answered_for_ever() -> None:
    client, request = DigestClient(Credentials("u", "p")), make_request()
    for attempt in range(10):
        challenge = f'Digest realm="r", nonce="{attempt}", stale=true'
        fields = client.answer(refuse(request, challenge), request)
        if fields is None:
            break
        request = with_fields(request, fields)
    assert 1 < attempt < 6


def test_nonce_is_used_again_counted_up_and_renewed_when_it_ran_out_silently() -> None:
    client, request = DigestClient(Credentials("u", "p")), make_request()
    assert client.preempt(request) == []
    assert client.answer(refuse(request, 'Digest realm="r", nonce="1", qop="auth"'), request) is not None
    second = make_request("BYE", cseq=2)
    second = with_fields(second, client.preempt(second))
    assert "nc=00000002" in (second.headers.get("Authorization") or "")
    # No stale=true; but this nonce had been good before.
    fields = client.answer(refuse(second, 'Digest realm="r", nonce="2", qop="auth"'), second)
    assert fields is not None
    assert "nc=00000001" in fields[0][1]


def test_proxy_and_registrar_are_both_answered_in_one_request() -> None:
    client, request = DigestClient(Credentials("u", "p")), make_request()
    fields = client.answer(refuse(request, 'Digest realm="proxy", nonce="1"', status=407), request)
    assert fields is not None
    request = with_fields(request, fields)
    fields = client.answer(refuse(request, 'Digest realm="registrar", nonce="2"'), request)
    assert fields is not None
    assert [name for name, _ in fields] == ["Proxy-Authorization", "Authorization"]


def test_password_is_never_shown() -> None:
    assert "hunter2" not in repr(Credentials("u", "hunter2")) + repr(Secret("hunter2"))


# -- server -------------------------------------------------------------------------------------------------


def test_stranger_is_challenged_with_the_preferred_algorithm_first() -> None:
    verdict = a_server().check(make_request(), 0.0)
    assert (verdict.status, verdict.username, verdict.failed) == (401, "", False)
    challenges = parse_challenges([value for _, value in verdict.headers])
    assert [challenge.algorithm for challenge in challenges] == ["SHA-256", "MD5"]
    assert all(challenge.qop == ("auth",) for challenge in challenges)


@pytest.mark.parametrize(("username", "password"), [("alice", "wrong"), ("mallory", PASSWORD), ("mallory", "")])
def test_wrong_password_and_unknown_user_fail_alike(username: str, password: str) -> None:
    server = a_server()
    request = challenged(server, DigestClient(Credentials(username, password)), make_request(), 0.0)
    verdict = server.check(request, 1.0)
    assert (verdict.username, verdict.status, verdict.failed, verdict.claimed) == ("", 401, True, username)


def test_old_nonce_is_stale_and_no_failure() -> None:
    server, client = a_server(nonce_lifetime_s=60), DigestClient(Credentials("alice", PASSWORD))
    request = challenged(server, client, make_request(), 0.0)
    assert server.check(request, 59.0).username == "alice"
    verdict = server.check(make_aged(client), 61.0)
    assert (verdict.username, verdict.failed, verdict.why) == ("", False, "stale nonce")
    assert parse_challenges([verdict.headers[0][1]])[0].stale


def make_aged(client: DigestClient) -> Request:
    request = make_request(cseq=2)
    return with_fields(request, client.preempt(request))


def test_replayed_answer_is_refused_its_retransmission_is_not() -> None:
    server, client = a_server(), DigestClient(Credentials("alice", PASSWORD))
    request = challenged(server, client, make_request(), 0.0)
    assert server.check(request, 1.0).username == "alice"
    assert server.check(request, 5.0).username == "alice"
    assert server.check(request, 40.0).why == "replayed"
    stolen = make_request(cseq=7)
    stolen.headers.extend((n, v) for n, v in request.headers if n == "Authorization")
    verdict = server.check(stolen, 2.0)
    assert (verdict.username, verdict.status, verdict.why) == ("", 401, "replayed")


def test_request_replayed_from_another_address_is_refused() -> None:
    server, client = a_server(), DigestClient(Credentials("alice", PASSWORD))
    request = challenged(server, client, make_request(), 0.0)
    assert server.check(request, 1.0).username == "alice"
    branch = request.via.branch
    for via in (
        f"SIP/2.0/UDP 203.0.113.66:5060;branch={branch}",
        f"SIP/2.0/UDP {request.via.sent_by};branch={branch};received=203.0.113.66",
    ):
        stolen = Request(request.method, request.uri, Headers(request.headers))
        stolen.headers.replace_first("Via", via)
        assert server.check(stolen, 2.0).why == "replayed"


def test_requests_that_overtook_each_other_pass() -> None:
    server, client = a_server(), DigestClient(Credentials("alice", PASSWORD))
    first = challenged(server, client, make_request(), 0.0)
    later = [with_fields(r, client.preempt(r)) for r in (make_request(cseq=n) for n in range(2, 6))]
    for request in (*reversed(later), first):
        assert server.check(request, 1.0).username == "alice"


def test_peer_without_qop_gets_each_nonce_once() -> None:
    server = a_server(algorithms=("MD5",))
    request = make_request()
    nonce = parse_challenges([server.check(request, 0.0).headers[0][1]])[0].nonce

    def answered(request: Request) -> Request:
        response = digest_response(
            "",
            username="alice",
            realm="offhook",
            password=PASSWORD,
            method=request.method,
            uri=request.uri,
            nonce=nonce,
        )
        value = f'Digest username="alice",realm="offhook",nonce="{nonce}",uri="{request.uri}",response="{response}"'
        return with_fields(request, [("Authorization", value)])

    assert server.check(answered(request), 0.1).username == "alice"
    assert server.check(answered(make_request(cseq=2)), 0.2).why == "replayed"


def test_auth_int_is_refused_clearly() -> None:
    server, client = a_server(), DigestClient(Credentials("alice", PASSWORD))
    request = challenged(server, client, make_request(), 0.0)
    value = (request.headers.get("Authorization") or "").replace("qop=auth", "qop=auth-int")
    verdict = server.check(with_fields(request, [("Authorization", value)]), 0.0)
    assert (verdict.username, verdict.status) == ("", 400)
    assert "auth-int" in verdict.reason


def test_answer_for_another_number_is_refused() -> None:
    server, client = a_server(), DigestClient(Credentials("alice", PASSWORD))
    request = challenged(server, client, make_request(), 0.0)
    diverted = Request("INVITE", "sip:+900premium@bridge.example", request.headers)
    assert server.check(diverted, 0.0).username == ""
    # Some peers name the domain alone.
    client = DigestClient(Credentials("alice", PASSWORD))
    domain = challenged(server, client, make_request(uri="sip:bridge.example"), 0.0)
    assert server.check(Request("INVITE", "sip:+15551234@bridge.example", domain.headers), 0.0).username == "alice"
    # A proxy that puts the next hop's address for the host does no harm.
    relayed = Request("INVITE", "sip:+15551234@10.0.0.5:5080", request.headers)
    assert server.check(relayed, 0.0).username == "alice"


def test_nonce_of_another_run_is_called_stale_to_who_knows_the_password() -> None:
    client = DigestClient(Credentials("alice", PASSWORD))
    request = challenged(a_server(), client, make_request(), 0.0)
    verdict = a_server().check(request, 0.0)
    assert (verdict.username, verdict.failed) == ("", False)
    assert client.answer(refusal(request, verdict), request) is not None


def test_memory_of_nonces_is_bounded_and_forgotten_ones_cant_be_replayed() -> None:
    server = a_server(max_nonces=4)
    used = []
    for n in range(20):
        client = DigestClient(Credentials("alice", PASSWORD))
        request = challenged(server, client, make_request(cseq=n + 1), now=n / 10)
        assert server.check(request, n / 10).username == "alice"
        used.append(request)
    assert len(server._uses) <= 4
    for request in used[:10]:
        stolen = Request(request.method, request.uri, Headers(request.headers))
        stolen.headers.replace_first("Call-ID", "another")
        assert server.check(stolen, 2.0).username == ""


USERS = st.text(st.characters(min_codepoint=32, exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)


@given(
    username=USERS,
    password=USERS,
    realm=USERS,
    algorithm=st.sampled_from(["MD5", "SHA-256", "MD5-sess", "SHA-256-sess"]),
    requests=st.integers(1, 5),
)
def test_client_and_server_understand_each_other(
    username: str, password: str, realm: str, algorithm: str, requests: int
) -> None:
    users = {username: Secret(password)}
    server = DigestServer(realm, users.get, algorithms=(algorithm,))
    client = DigestClient(Credentials(username, password))
    request = challenged(server, client, make_request("REGISTER", "sip:registrar.example"), 100.0)
    assert server.check(request, 100.5).username == username
    for n in range(requests):
        following = make_request("REGISTER", "sip:registrar.example", cseq=n + 2)
        assert server.check(with_fields(following, client.preempt(following)), 101.0).username == username


@given(st.text(max_size=80))
def test_no_authorization_raises_or_lets_in(text: str) -> None:
    request = make_request()
    value = text.replace("\r", "").replace("\n", "").replace("\0", "")
    request.headers.add("Authorization", "Digest " + value)
    assert a_server().check(request, 0.0).username == ""
