"""Whose a request is: by network, host, certificate or digest; and how strangers are answered."""

from typing import Any

import pytest

from bridge.sip.digest import Credentials, DigestClient
from bridge.sip.flow import Flow, Transport
from bridge.sip.message import Headers, Request, make_response
from bridge.sip.settings import Refusal, Verdict
from bridge.trunks.guard import Guard
from bridge.trunks.settings import GuardSettings, TrunkSettings
from bridge.trunks.trunks import TokenBucket, TrunkError, TrunkMatch, Trunks, prepare

ENVIRON = {"SECRET": "open sesame", "OTHER": "hunter2"}
US = ("198.51.100.1", 5060)


def trunk(name: str, **settings: Any) -> TrunkSettings:
    return TrunkSettings(name=name, **settings)


def trunks(*settings: TrunkSettings, guard: GuardSettings | None = None, **options: Any) -> Trunks:
    return Trunks(prepare(settings, ENVIRON), guard=Guard(guard or GuardSettings()), **options)


def flow(address: str, transport: Transport = "udp") -> Flow:
    return Flow(transport, (address, 5060), US)


def invite(user: str = "100", from_: str = "alice", cseq: int = 1, method: str = "INVITE") -> Request:
    return Request(
        method,
        f"sip:{user}@198.51.100.1",
        Headers(
            [
                ("Via", f"SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK{cseq}"),
                ("From", f"<sip:{from_}@example.com>;tag=1"),
                ("To", f"<sip:{user}@198.51.100.1>"),
                ("Call-ID", "id"),
                ("CSeq", f"{cseq} {method}"),
            ]
        ),
    )


def name_of(match: object) -> str:
    assert isinstance(match, TrunkMatch), match
    return match.name


PBX = trunk("pbx", users=({"username": "alice", "password_env": "SECRET"},))


def answered(known: Trunks, password: str, now: float = 0.0, username: str = "alice") -> Request:
    """An INVITE with an answer to the challenge."""
    request = invite()
    refusal = known.identify(request, flow("203.0.113.5"), now)
    assert isinstance(refusal, Refusal) and refusal.status == 401
    response = make_response(request, 401)
    response.headers.extend(refusal.headers)
    fields = DigestClient(Credentials(username, password)).answer(response, request)
    assert fields is not None
    again = invite(cseq=2)
    again.headers.extend(fields)
    return again


def test_the_narrowest_network_tells_the_trunk() -> None:
    known = trunks(
        trunk("wide", networks=("192.0.2.0/24", "2001:db8::/32")), trunk("narrow", networks=("192.0.2.7/32",))
    )
    assert name_of(known.identify(invite(), flow("192.0.2.7"), 0.0)) == "narrow"
    assert name_of(known.identify(invite(), flow("192.0.2.8"), 0.0)) == "wide"
    assert name_of(known.identify(invite(), flow("::ffff:192.0.2.8"), 0.0)) == "wide"
    assert name_of(known.identify(invite(), flow("2001:db8::9", "tcp"), 0.0)) == "wide"
    assert known.identify(invite(), flow("203.0.113.5"), 0.0) == Refusal(403)


def test_calls_from_where_the_host_is_are_the_trunks_unless_that_is_off() -> None:
    known = trunks(trunk("a", host="sip.example.com"), trunk("b", host="sip.example.net", trust_host=False))
    for name in ("a", "b"):
        known.learn(name, ["192.0.2.7" if name == "a" else "192.0.2.8"])
    assert name_of(known.identify(invite(), flow("192.0.2.7"), 0.0)) == "a"
    assert known.identify(invite(), flow("192.0.2.8"), 0.0) == Refusal(403)
    known.learn("a", ["192.0.2.9"])
    assert known.identify(invite(), flow("192.0.2.7"), 0.0) == Refusal(403)


def test_two_accounts_at_one_carrier_are_told_by_the_registered_user() -> None:
    secret = {"password_env": "SECRET", "networks": ("192.0.2.0/24",)}
    known = trunks(trunk("first", username="4930100", **secret), trunk("second", username="4930200", **secret))
    assert name_of(known.identify(invite("4930200"), flow("192.0.2.1"), 0.0)) == "second"
    assert name_of(known.identify(invite("unknown"), flow("192.0.2.1"), 0.0)) == "first"


def test_a_certificates_name_tells_the_trunk_on_tls_alone() -> None:
    names = {"192.0.2.7": frozenset({"SBC.example.com"}), "192.0.2.8": frozenset({"x.y.carrier.net"})}
    known = trunks(
        trunk("sbc", certificate_names=("sbc.example.com", "*.carrier.net")),
        peer_names=lambda f: names.get(f.remote[0], frozenset()),
    )
    assert name_of(known.identify(invite(), flow("192.0.2.7", "tls"), 0.0)) == "sbc"
    assert known.identify(invite(), flow("192.0.2.7", "tcp"), 0.0) == Refusal(403)
    assert known.identify(invite(), flow("192.0.2.8", "tls"), 0.0) == Refusal(403)
    names["192.0.2.8"] = frozenset({"x.carrier.net"})
    assert name_of(known.identify(invite(), flow("192.0.2.8", "tls"), 0.0)) == "sbc"


def test_the_right_password_tells_the_trunk_the_wrong_one_gets_403() -> None:
    known = trunks(PBX)
    right = answered(known, "open sesame")
    match = known.identify(right, flow("203.0.113.5"), 0.1)
    assert isinstance(match, TrunkMatch)
    assert (match.name, match.how, match.username) == ("pbx", "digest", "alice")
    again = known.recognise(right, flow("203.0.113.5"), 0.1)
    assert again is not None and again.name == "pbx"
    wrong = answered(known, "open barley")
    assert known.identify(wrong, flow("203.0.113.5"), 0.1) == Refusal(403)
    assert known.recognise(wrong, flow("203.0.113.5"), 0.1) is None
    assert known.identify(answered(known, "open sesame", username="bob"), flow("203.0.113.5"), 0.1) == Refusal(403)


def test_an_old_answer_is_asked_for_again() -> None:
    known = trunks(PBX)
    refusal = known.identify(answered(known, "open sesame"), flow("203.0.113.5"), 61.0)
    assert isinstance(refusal, Refusal) and refusal.status == 401
    assert all("stale=true" in value for _, value in refusal.headers)


@pytest.mark.parametrize(
    ("strangers", "users", "stranger", "alice"),
    [
        ("refuse", False, 403, 403),
        ("refuse", True, 401, 401),
        ("challenge", False, 401, 401),
        ("silent", False, None, None),
        ("silent", True, None, 401),
    ],
)
def test_strangers_are_answered_as_configured(
    strangers: str, users: bool, stranger: int | None, alice: int | None
) -> None:
    known = trunks(PBX if users else trunk("x", networks=("10.0.0.0/8",)), strangers=strangers)
    for caller, expected in (("mallory", stranger), ("alice", alice)):
        said = known.identify(invite(from_=caller), flow("203.0.113.5"), 0.0)
        assert (said.status if isinstance(said, Refusal) else None) == expected
        assert isinstance(said, Refusal) or said is Verdict.SILENT


def test_wrong_passwords_bring_a_ban_for_that_address_alone() -> None:
    known = trunks(PBX, guard=GuardSettings(failures=3))
    while not known.guard.bans(0.0):
        assert known.identify(answered(known, "guess"), flow("203.0.113.5"), 0.0) == Refusal(403)
    assert known.identify(invite(), flow("203.0.113.5"), 1.0) is Verdict.SILENT
    assert isinstance(known.identify(invite(), flow("203.0.113.6"), 1.0), Refusal)
    (ban,) = known.guard.bans(1.0)
    assert "wrong password" in ban.why and "alice" in ban.why


def test_a_trunk_is_never_slowed_down_or_banned() -> None:
    known = trunks(trunk("x", networks=("10.0.0.0/8",)), guard=GuardSettings(burst=1, requests_per_s=1, failures=1))
    assert all(name_of(known.identify(invite(), flow("10.1.1.1"), 0.0)) == "x" for _ in range(100))


def test_an_allowed_network_is_let_in_without_a_trunk() -> None:
    known = trunks(PBX, allow_from=("203.0.113.0/24",))
    match = known.identify(invite(), flow("203.0.113.5"), 0.0)
    assert isinstance(match, TrunkMatch)
    assert (match.trunk, match.how) == (None, "allowed")


def test_a_reload_keeps_the_state_of_trunks_that_stay() -> None:
    known = trunks(trunk("a", networks=("10.0.0.0/8",)), trunk("b", networks=("192.0.2.0/24",)))
    known.get("a").calls = 3  # type: ignore[union-attr]  # it is there
    settings = (trunk("a", networks=("172.16.0.0/12",)), PBX)
    known.apply(prepare(settings, ENVIRON), allow_from=(), strangers="refuse")
    assert [(t.name, t.calls) for t in known] == [("a", 3), ("pbx", 0)]
    assert name_of(known.identify(invite(), flow("172.16.0.1"), 0.0)) == "a"
    assert isinstance(known.identify(invite(), flow("10.0.0.1"), 0.0), Refusal)
    assert isinstance(known.identify(invite(), flow("192.0.2.1"), 0.0), Refusal)


def test_missing_passwords_are_all_named() -> None:
    with pytest.raises(TrunkError) as caught:
        prepare(
            [
                trunk("a", host="a.example", username="u", password_env="NOWHERE"),
                trunk("b", users=({"username": "bob", "password_file": "/nowhere"},)),
            ],
            ENVIRON,
        )
    assert str(caught.value).count("\n") == 1
    assert "trunk 'a': the environment variable NOWHERE is not set" in str(caught.value)
    assert "trunk 'b', user 'bob': password_file /nowhere can't be read" in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "it needs host"),
        ({"host": "a.example", "username": "u"}, "password_env or password_file"),
        ({"host": "a.example", "register": True}, "register needs username"),
        ({"host": "a.example", "srtp": "required", "transport": "udp"}, "use transport: tls"),
        ({"host": "a.example", "headers": {"Via": "x"}}, "Via is written by the bridge itself"),
        ({"host": "a.example", "headers": {"X-A": "a\r\nVia: x"}}, "control character"),
        ({"host": "a.example", "password_env": "hunter2!"}, "no name of a variable"),
        ({"host": "a.example:5070"}, "the port is a setting of its own"),
        ({"host": "a.example", "outbound_proxy": "sip:a b"}, "malformed"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        trunk("t", **settings)


def test_a_bucket_gives_so_many_a_second_and_no_more() -> None:
    bucket = TokenBucket(5)
    assert sum(bucket.take(10.0) for _ in range(20)) == 5
    assert sum(bucket.take(10.0 + n / 100) for n in range(1, 101)) == 5
    assert all(TokenBucket(None).take(0.0) for _ in range(100))
