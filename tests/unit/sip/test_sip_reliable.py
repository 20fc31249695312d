"""Reliable provisional responses (RFC 3262) of the called side: repetition, PRACK, and what waits for it."""

import pytest
from sip_network import BOB, RawPeer, answer_to, offer, request

from bridge.sip.agent import UserAgent
from bridge.sip.errors import CallStateError
from bridge.sip.events import (
    ByeAnswered,
    CallKey,
    Cancelled,
    Confirmed,
    EarlyAnswer,
    InviteReceived,
    ReofferConfirmed,
    Reoffered,
)
from bridge.sip.message import Request, Response
from bridge.sip.reliable import RAck
from bridge.sip.settings import UserAgentConfig

SUPPORTED = "Supported: 100rel\n"
REQUIRED = "Require: 100rel\n"
ANSWER = answer_to(offer())


def peer(**config: object) -> RawPeer:
    return RawPeer(UserAgent(UserAgentConfig(**({"supported": ("100rel",)} | config))))  # type: ignore[arg-type]


def invited(alice: RawPeer, extra: str, *, late: bool = False) -> CallKey:
    """An INVITE arrived; nothing is answered yet."""
    alice.send(request(body=b"" if late else offer(), extra=extra))
    (event,) = alice.agent.events()
    assert isinstance(event, InviteReceived)
    return event.key


def progress(alice: RawPeer, key: CallKey, *, sdp: bytes | None = ANSWER, status: int = 183) -> Response:
    """The agent's provisional response."""
    alice.agent.ring(key, alice.now, status=status, sdp=sdp)
    (response,) = alice.sent()
    assert isinstance(response, Response)
    return response


def rseq(response: Request | Response) -> int:
    return int(response.headers.get("RSeq") or "0")


def prack(key: CallKey, rack: int | str, *, cseq: int = 2, body: bytes = b"") -> bytes:
    rack = f"{rack} 1 INVITE" if isinstance(rack, int) else rack
    return request("PRACK", cseq=cseq, branch=f"z9hG4bKprack{cseq}", to_tag=key, extra=f"RAck: {rack}\n", body=body)


def statuses(messages: list[Request | Response]) -> list[int | str]:
    return [message.status if isinstance(message, Response) else message.method for message in messages]


# -- which are reliable ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("extra", "config", "ringing", "early_media"),
    [
        (REQUIRED, {}, True, True),
        (SUPPORTED, {}, False, True),
        ("", {}, False, False),
        (SUPPORTED, {"reliable": "required"}, True, True),
        (SUPPORTED, {"reliable": "off"}, False, False),
    ],
)
def test_reliable_are_those_that_the_caller_requires_or_that_carry_sdp(
    extra: str, config: dict[str, object], ringing: bool, early_media: bool
) -> None:
    for sdp, reliable in ((None, ringing), (ANSWER, early_media)):
        alice = peer(**config)
        response = progress(alice, invited(alice, extra), sdp=sdp)
        assert (rseq(response) > 0) is reliable
        assert ("100rel" in response.headers.tokens_of("Require")) is reliable


def test_require_of_a_caller_is_refused_where_it_is_off() -> None:
    (refusal,) = peer(reliable="off").send(request(body=offer(), extra=REQUIRED))
    assert isinstance(refusal, Response)
    assert (refusal.status, refusal.headers.get("Unsupported")) == (420, "100rel")


def test_caller_without_it_is_refused_where_we_require_it() -> None:
    (refusal,) = peer(reliable="required").send(request(body=offer()))
    assert isinstance(refusal, Response)
    assert (refusal.status, refusal.headers.get("Require")) == (421, "100rel")


# -- repetition and PRACK -------------------------------------------------------------------------------------


def test_reliable_response_is_repeated_at_doubling_intervals_until_its_prack() -> None:
    alice = peer()
    key = invited(alice, SUPPORTED)
    first = progress(alice, key)
    seen = []
    for _ in range(64):
        if sent := alice.pass_time(0.25):
            assert sent == [first]
            seen.append(alice.now)
    assert seen == [0.5, 1.5, 3.5, 7.5, 15.5]
    ok = alice.send(prack(key, rseq(first)))
    assert statuses(ok) == [200]
    assert ok[0].body == b""
    # A repeated PRACK is answered again, a further one is not known.
    assert alice.send(prack(key, rseq(first))) == ok
    assert statuses(alice.send(prack(key, rseq(first), cseq=3))) == [481]
    assert alice.pass_time(40) == []
    assert alice.agent.events() == []


def test_repeated_invite_gets_the_reliable_response_again() -> None:
    alice = peer()
    key = invited(alice, SUPPORTED)
    first = progress(alice, key)
    assert alice.send(request(body=offer(), extra=SUPPORTED)) == [first]


@pytest.mark.parametrize("rack", ["", "x", "1 1", "1 1 INVITE", "{} 2 INVITE", "{} 1 UPDATE", "{} -1 INVITE"])
def test_prack_that_matches_nothing_gets_481_and_stops_nothing(rack: str) -> None:
    alice = peer()
    key = invited(alice, SUPPORTED)
    first = progress(alice, key)
    assert statuses(alice.send(prack(key, rack.format(rseq(first))))) == [481]
    assert alice.pass_time(0.6) == [first]


def test_prack_outside_any_call_gets_481() -> None:
    alice = peer()
    assert statuses(alice.send(prack(CallKey("nobody"), 1))) == [481]
    assert statuses(alice.send(request("PRACK", extra="RAck: 1 1 INVITE\n"))) == [481]


def test_response_without_prack_ends_the_call_with_504_after_64_t1() -> None:
    alice = peer()
    key = invited(alice, SUPPORTED)
    progress(alice, key)
    sent = alice.pass_time(31.9)
    assert set(statuses(sent)) == {183}
    assert statuses(alice.pass_time(0.2)) == [504]
    assert alice.agent.events() == [Cancelled(key, "no-prack")]
    alice.send(request("ACK", to_tag=key))
    alice.pass_time(40)
    assert (alice.agent.call_count, alice.agent.transaction_count, alice.agent.timer()) == (0, 0, None)


def test_next_response_waits_for_the_prack_of_the_one_before() -> None:
    alice = peer()
    key = invited(alice, REQUIRED)
    ringing = progress(alice, key, sdp=None, status=180)
    alice.agent.ring(key, alice.now, status=183, sdp=ANSWER)
    alice.agent.ring(key, alice.now, status=182)
    assert alice.sent() == []
    ok, second = alice.send(prack(key, rseq(ringing)))
    assert statuses([ok, second]) == [200, 183]
    assert rseq(second) == rseq(ringing) + 1
    assert second.body == ANSWER
    _, third = alice.send(prack(key, rseq(second), cseq=3))
    assert statuses([third]) == [182]
    assert (rseq(third), third.body) == (rseq(ringing) + 2, b"")


def test_unreliable_ringing_does_not_displace_the_reliable_response() -> None:
    alice = peer()
    key = invited(alice, SUPPORTED)
    first = progress(alice, key)
    assert rseq(progress(alice, key, sdp=None, status=180)) == 0
    assert alice.pass_time(0.6) == [first]


def test_long_reliable_ringing_is_told_again_every_minute_under_a_new_number() -> None:
    alice = peer()
    key = invited(alice, REQUIRED)
    first = progress(alice, key)
    alice.send(prack(key, rseq(first)))
    (again,) = alice.pass_time(60.1)
    assert (statuses([again]), rseq(again), again.body) == ([183], rseq(first) + 1, b"")


# -- the final response ---------------------------------------------------------------------------------------


def test_answer_waits_for_the_prack_of_a_response_with_sdp_and_repeats_no_sdp() -> None:
    alice = peer()
    key = invited(alice, SUPPORTED)
    first = progress(alice, key)
    alice.agent.answer(key, ANSWER, alice.now, headers=[("X-Kept", "1")])
    assert alice.sent() == []
    for verb in (
        lambda: alice.agent.answer(key, ANSWER, 0.0),
        lambda: alice.agent.ring(key, 0.0),
        lambda: alice.agent.reinvite(key, offer(), 0.0),
    ):
        with pytest.raises(CallStateError):
            verb()
    ok, final = alice.send(prack(key, rseq(first)))
    assert statuses([ok, final]) == [200, 200]
    assert str(final.cseq) == "1 INVITE"
    assert (final.body, final.headers.get("X-Kept"), final.headers.get("RSeq")) == (b"", "1", None)
    alice.send(request("ACK", branch="z9hG4bKack", to_tag=key))
    assert alice.agent.events() == [Confirmed(key, None)]
    assert alice.pass_time(40) == []


def test_answer_does_not_wait_for_the_prack_of_a_response_without_sdp() -> None:
    alice = peer()
    key = invited(alice, REQUIRED)
    ringing = progress(alice, key, sdp=None, status=180)
    alice.agent.answer(key, ANSWER, alice.now)
    (final,) = alice.sent()
    assert (statuses([final]), final.body) == ([200], ANSWER)
    assert statuses(alice.send(prack(key, rseq(ringing)))) == [200]
    alice.send(request("ACK", branch="z9hG4bKack", to_tag=key))
    assert statuses(alice.send(prack(key, rseq(ringing), cseq=3))) == [481]
    assert alice.pass_time(40) == []


def test_late_prack_after_the_ack_is_still_answered() -> None:
    alice = peer()
    key = invited(alice, REQUIRED)
    ringing = progress(alice, key, sdp=None, status=180)
    alice.agent.answer(key, ANSWER, alice.now)
    alice.send(request("ACK", branch="z9hG4bKack", to_tag=key))
    alice.sent()
    assert statuses(alice.send(prack(key, rseq(ringing)))) == [200]


def test_refusal_waits_for_nothing() -> None:
    alice = peer()
    key = invited(alice, SUPPORTED)
    progress(alice, key)
    alice.agent.reject(key, 486, alice.now)
    assert statuses(alice.sent()) == [486]
    assert 183 not in statuses(alice.pass_time(40))
    assert alice.agent.timer() is None


@pytest.mark.parametrize("how", ["cancel", "bye", "no prack", "hang up"])
def test_call_may_end_while_the_answer_waits(how: str) -> None:
    alice = peer()
    key = invited(alice, SUPPORTED)
    progress(alice, key)
    alice.agent.answer(key, ANSWER, alice.now)
    if how == "cancel":
        assert statuses(alice.send(request("CANCEL"))) == [200, 487]
        assert alice.agent.events() == [Cancelled(key, "cancel")]
    elif how == "bye":
        assert statuses(alice.send(request("BYE", cseq=2, branch="z9hG4bKbye", to_tag=key))) == [200, 487]
        assert alice.agent.events() == [Cancelled(key, "bye")]
    elif how == "no prack":
        assert statuses(alice.pass_time(32.1))[-1] == 504
        assert alice.agent.events() == [Cancelled(key, "no-prack")]
    else:
        alice.agent.bye(key, alice.now, reason="Q.850;cause=16")
        (refusal,) = alice.sent()
        assert (statuses([refusal]), refusal.headers.get("Reason")) == ([480], "Q.850;cause=16")
        assert alice.agent.events() == [ByeAnswered(key, 480)]
    alice.send(request("ACK", to_tag=key))
    alice.pass_time(40)
    assert (alice.agent.call_count, alice.agent.transaction_count, alice.agent.timer()) == (0, 0, None)


# -- offers and answers in PRACK ------------------------------------------------------------------------------


def test_late_offer_goes_out_reliably_and_its_answer_comes_in_the_prack() -> None:
    alice = peer()
    key = invited(alice, SUPPORTED, late=True)
    ours = offer(6000, BOB[0])
    first = progress(alice, key, sdp=ours)
    assert (first.body, rseq(first) > 0) == (ours, True)
    theirs = answer_to(ours)
    assert statuses(alice.send(prack(key, rseq(first), body=theirs))) == [200]
    assert alice.agent.events() == [EarlyAnswer(key, theirs)]
    alice.agent.answer(key, ours, alice.now)
    (final,) = alice.sent()
    assert (statuses([final]), final.body) == ([200], b"")
    alice.send(request("ACK", branch="z9hG4bKack", to_tag=key))
    assert alice.agent.events() == [Confirmed(key, None)]


def test_late_offer_whose_prack_has_no_answer_is_made_again_in_the_200() -> None:
    alice = peer()
    key = invited(alice, SUPPORTED, late=True)
    ours = offer(6000, BOB[0])
    alice.send(prack(key, rseq(progress(alice, key, sdp=ours))))
    alice.agent.answer(key, ours, alice.now)
    (final,) = alice.sent()
    assert final.body == ours
    alice.send(request("ACK", branch="z9hG4bKack", to_tag=key, body=answer_to(ours)))
    assert alice.agent.events() == [Confirmed(key, answer_to(ours))]


def test_offer_in_a_prack_is_answered_in_its_200_and_the_call_follows() -> None:
    alice = peer()
    key = invited(alice, SUPPORTED)
    first = progress(alice, key)
    alice.agent.answer(key, ANSWER, alice.now)
    better = offer(4800)
    assert alice.send(prack(key, rseq(first), body=better)) == []
    assert alice.agent.events() == [Reoffered(key, better)]
    alice.agent.answer_reinvite(key, answer_to(better, 6100), alice.now)
    ok, final = alice.sent()
    assert statuses([ok, final]) == [200, 200]
    assert str(ok.cseq) == "2 PRACK"
    assert b"m=audio 6100" in ok.body
    assert (str(final.cseq), final.body) == ("1 INVITE", b"")
    assert alice.agent.events() == [ReofferConfirmed(key, None)]


def test_offer_in_a_prack_can_be_refused_and_counts_as_acknowledged() -> None:
    alice = peer()
    key = invited(alice, SUPPORTED)
    first = progress(alice, key)
    alice.send(prack(key, rseq(first), body=offer(4800)))
    alice.agent.reject_reinvite(key, 488, alice.now)
    assert statuses(alice.sent()) == [488]
    assert alice.pass_time(10) == []
    alice.agent.answer(key, ANSWER, alice.now)
    assert statuses(alice.sent()) == [200]


# -- the field ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("776656 1 INVITE", RAck(776656, 1, "INVITE")),
        ("  1\t2   INVITE ", RAck(1, 2, "INVITE")),
        ("", None),
        ("1 2", None),
        ("1 2 INVITE x", None),
        ("-1 2 INVITE", None),
        ("99999999999 2 INVITE", None),
    ],
)
def test_rack_is_read(text: str, seen: RAck | None) -> None:
    assert RAck.parse(text) == seen
