"""REFER within a call, asking and being asked (RFC 3515, 3892, 4488): reports, their absence and their end."""

import pytest
from sip_network import ALICE, RawPeer, answer_to, offer, request

from bridge.sip.agent import UserAgent
from bridge.sip.errors import CallStateError
from bridge.sip.events import CallKey, InviteReceived, ReferAccepted, Referred, ReferRejected, ReferResult
from bridge.sip.message import Request, Response
from bridge.sip.settings import DEFAULT_ALLOW, UserAgentConfig

CAROL = "sip:carol@192.0.2.3"


def peer(**config: object) -> RawPeer:
    settings = {"allow": (*DEFAULT_ALLOW, "REFER"), "session_expires_s": 0} | config
    return RawPeer(UserAgent(UserAgentConfig(**settings)))  # type: ignore[arg-type]


def established(alice: RawPeer) -> CallKey:
    alice.send(request(body=offer()))
    (event,) = alice.agent.events()
    assert isinstance(event, InviteReceived)
    alice.agent.answer(event.key, answer_to(offer()), alice.now)
    alice.send(request("ACK", branch="z9hG4bKack", to_tag=event.key))
    alice.agent.events()
    alice.sent()
    return event.key


def in_dialog(method: str, key: CallKey, cseq: int = 2, **how: object) -> bytes:
    return request(method, cseq=cseq, branch=f"z9hG4bK{method}{cseq}", to_tag=key, **how)  # type: ignore[arg-type]


def notify(key: CallKey, cseq: int, status_line: str, state: str) -> bytes:
    return in_dialog(
        "NOTIFY",
        key,
        cseq,
        body=status_line.encode(),
        content_type="message/sipfrag",
        extra=f"Event: refer\nSubscription-State: {state}\n",
    )


def asked(alice: RawPeer, key: CallKey, **how: object) -> Request:
    """Our REFER."""
    alice.agent.refer(key, CAROL, alice.now, **how)  # type: ignore[arg-type]
    (refer,) = alice.sent()
    assert isinstance(refer, Request)
    return refer


def statuses(messages: list[Request | Response]) -> list[int | str]:
    return [message.status if isinstance(message, Response) else message.method for message in messages]


# -- asking ---------------------------------------------------------------------------------------------------


def test_refer_says_at_whose_wish() -> None:
    alice = peer()
    key = established(alice)
    refer = asked(alice, key)
    assert refer.headers.get("Refer-To") == f"<{CAROL}>"
    assert refer.headers.get("Referred-By") == "<sip:agent@192.0.2.2>"
    alice.respond(refer, 603)
    assert alice.agent.events() == [ReferRejected(key, 603, "Decline")]
    refer = asked(alice, key, headers=[("Referred-By", "<sip:desk@example.com>")])
    assert refer.headers.get_all("Referred-By") == ["<sip:desk@example.com>"]


def test_refer_to_a_call_that_is_to_be_replaced() -> None:
    alice = peer()
    key = established(alice)
    alice.agent.refer(key, f"{CAROL}?Replaces=a%3Bto-tag%3Db%3Bfrom-tag%3Dc", alice.now)
    (refer,) = alice.sent()
    assert refer.headers.get("Refer-To") == f"<{CAROL}?Replaces=a%3Bto-tag%3Db%3Bfrom-tag%3Dc>"


def test_progress_and_outcome_are_told() -> None:
    alice = peer()
    key = established(alice)
    alice.respond(asked(alice, key), 202)
    for cseq, line, state in ((2, "100 Trying", "active;expires=60"), (3, "180 Ringing", "active")):
        assert statuses(alice.send(notify(key, cseq, f"SIP/2.0 {line}", state))) == [200]
    assert statuses(alice.send(notify(key, 4, "SIP/2.0 486 Busy Here", "terminated;reason=noresource"))) == [200]
    assert alice.agent.events() == [
        ReferAccepted(key, 202),
        ReferResult(key, 100, "Trying", False),
        ReferResult(key, 180, "Ringing", False),
        ReferResult(key, 486, "Busy Here", True),
    ]
    assert statuses(alice.send(notify(key, 5, "SIP/2.0 200 OK", "terminated"))) == [481]
    assert alice.pass_time(1000) == []
    assert alice.agent.events() == []


@pytest.mark.parametrize(("state", "seconds"), [("active;expires=60", 65), ("active", 185), ("", 185)])
def test_reports_that_stop_end_with_the_last_that_was_heard(state: str, seconds: float) -> None:
    alice = peer()
    key = established(alice)
    alice.respond(asked(alice, key), 202)
    alice.send(notify(key, 2, "SIP/2.0 180 Ringing", state))
    alice.agent.events()
    alice.pass_time(seconds - 1)
    assert alice.agent.events() == []
    alice.pass_time(2)
    assert alice.agent.events() == [ReferResult(key, 180, "Ringing", True)]


def test_reports_that_never_come_end_too() -> None:
    alice = peer()
    key = established(alice)
    alice.respond(asked(alice, key), 202)
    alice.pass_time(181)
    assert alice.agent.events() == [ReferAccepted(key, 202), ReferResult(key, 100, "Trying", True)]
    assert alice.agent.timer() is None
    assert asked(alice, key).method == "REFER"


def test_peer_may_agree_to_send_no_reports() -> None:
    alice = peer()
    key = established(alice)
    refer = asked(alice, key, headers=[("Refer-Sub", "false"), ("Require", "norefersub")])
    alice.respond(refer, 202, extra={"Refer-Sub": "false"})
    assert alice.agent.events() == [ReferAccepted(key, 202, subscribed=False)]
    assert statuses(alice.send(notify(key, 2, "SIP/2.0 200 OK", "terminated"))) == [481]
    alice.pass_time(300)
    assert alice.agent.events() == []


# -- being asked ----------------------------------------------------------------------------------------------


def refer_of(alice: RawPeer, key: CallKey, extra: str = "", cseq: int = 2) -> Referred:
    assert alice.send(in_dialog("REFER", key, cseq, extra=f"Refer-To: <{CAROL}>\n{extra}")) == []
    (event,) = alice.agent.events()
    assert isinstance(event, Referred)
    return event


@pytest.mark.parametrize("name", ["Referred-By", "b"])
def test_who_asks_is_told(name: str) -> None:
    alice = peer()
    key = established(alice)
    assert (
        refer_of(alice, key, f"{name}: <sip:boss@example.com>;cid=x\n").referred_by == "<sip:boss@example.com>;cid=x"
    )


def test_refer_without_that_has_none() -> None:
    alice = peer()
    assert refer_of(alice, established(alice)).referred_by == ""


def test_reports_name_the_subscription_and_what_is_left_of_it() -> None:
    alice = peer()
    key = established(alice)
    refer_of(alice, key)
    alice.agent.accept_refer(key, alice.now)
    accepted, trying = alice.sent()
    assert statuses([accepted, trying]) == [202, "NOTIFY"]
    assert trying.headers.get("Subscription-State") == "active;expires=180"
    alice.respond(trying, 200)
    alice.pass_time(30)
    alice.agent.notify(key, 180, alice.now)
    (ringing,) = alice.sent()
    assert (ringing.headers.get("Subscription-State"), ringing.body) == (
        "active;expires=150",
        b"SIP/2.0 180 Ringing\r\n",
    )
    alice.agent.notify(key, 603, alice.now, reason="Nobody There")
    (final,) = alice.sent()
    assert final.headers.get("Event") == "refer;id=2"
    assert final.headers.get("Subscription-State") == "terminated;reason=noresource"
    assert final.body == b"SIP/2.0 603 Nobody There\r\n"
    with pytest.raises(CallStateError):
        alice.agent.notify(key, 200, alice.now)


def test_subscription_whose_time_is_up_ends_and_the_owner_may_go_on_and_another_refer_may_come() -> None:
    alice = peer()
    key = established(alice)
    refer_of(alice, key)
    alice.agent.accept_refer(key, alice.now)
    _, trying = alice.sent()
    alice.respond(trying, 200)
    alice.agent.notify(key, 180, alice.now)
    (ringing,) = alice.sent()
    alice.respond(ringing, 200)
    assert alice.pass_time(179) == []
    (last,) = alice.pass_time(1.1)
    alice.respond(last, 200)
    assert last.headers.get("Subscription-State") == "terminated;reason=timeout"
    assert last.body == b"SIP/2.0 180 Ringing\r\n"
    alice.agent.notify(key, 183, alice.now)
    assert alice.sent() == []
    refer_of(alice, key, cseq=3)
    alice.agent.accept_refer(key, alice.now)
    accepted, trying = alice.sent()
    assert (statuses([accepted]), trying.headers.get("Event")) == ([202], "refer;id=3")
    alice.agent.notify(key, 200, alice.now)
    assert statuses(alice.sent()) == ["NOTIFY"]


def test_second_refer_while_we_report_on_the_first_gets_491() -> None:
    alice = peer()
    key = established(alice)
    refer_of(alice, key)
    assert statuses(alice.send(in_dialog("REFER", key, 3, extra=f"Refer-To: <{CAROL}>\n"))) == [491]
    alice.agent.accept_refer(key, alice.now)
    alice.sent()
    assert statuses(alice.send(in_dialog("REFER", key, 4, extra=f"Refer-To: <{CAROL}>\n"))) == [491]


def test_peer_that_wants_no_reports_gets_none() -> None:
    alice = peer()
    key = established(alice)
    refer_of(alice, key, "Refer-Sub: false\nRequire: norefersub\n")
    alice.agent.accept_refer(key, alice.now)
    (accepted,) = alice.sent()
    assert (statuses([accepted]), accepted.headers.get("Refer-Sub")) == ([202], "false")
    alice.agent.notify(key, 180, alice.now)
    alice.agent.notify(key, 200, alice.now)
    assert alice.sent() == []
    with pytest.raises(CallStateError):
        alice.agent.notify(key, 200, alice.now)
    assert alice.pass_time(200) == []


def test_wish_for_no_reports_is_passed_over_where_the_extension_is_off() -> None:
    alice = peer(supported=())
    key = established(alice)
    refer_of(alice, key, "Refer-Sub: false\n")
    alice.agent.accept_refer(key, alice.now)
    assert statuses(alice.sent()) == [202, "NOTIFY"]


@pytest.mark.parametrize("status", [481, None])
def test_peer_that_wants_to_hear_no_more_is_told_no_more(status: int | None) -> None:
    alice = peer()
    key = established(alice)
    refer_of(alice, key)
    alice.agent.accept_refer(key, alice.now)
    _, trying = alice.sent()
    if status is None:
        alice.pass_time(33)
    else:
        alice.respond(trying, status)
    alice.agent.notify(key, 200, alice.now)
    assert alice.sent() == []
    alice.pass_time(300)
    assert alice.agent.timer() is None


def test_nothing_is_left_when_the_call_ends_in_a_transfer() -> None:
    alice = peer()
    key = established(alice)
    alice.respond(asked(alice, key), 202)
    refer_of_theirs = in_dialog("REFER", key, 2, extra=f"Refer-To: <{CAROL}>\n")
    alice.send(refer_of_theirs)
    alice.agent.accept_refer(key, alice.now)
    alice.send(in_dialog("BYE", key, 3))
    alice.pass_time(40)
    assert (alice.agent.call_count, alice.agent.transaction_count, alice.agent.timer()) == (0, 0, None)
    assert alice.flow.remote == ALICE
