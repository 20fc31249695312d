"""Session timers (RFC 4028): both roles, both refreshers, and peers without them."""

import pytest
from sip_network import ALICE, BOB, Network, RawPeer, answer_to, offer, request

from bridge.sip.agent import UserAgent
from bridge.sip.events import (
    Answered,
    ByeAnswered,
    ByeReceived,
    CallKey,
    Event,
    InviteReceived,
    Lost,
    LostReason,
    Refreshed,
    Rejected,
    Reoffered,
    ReofferRejected,
)
from bridge.sip.message import Request, Response
from bridge.sip.session_timer import SessionExpires, min_se_of
from bridge.sip.settings import UserAgentConfig

UPDATE_TOO = "Allow: INVITE, ACK, BYE, CANCEL, UPDATE\n"
NO_UPDATE = "Allow: INVITE, ACK, BYE, CANCEL\n"


def peer(**config: object) -> RawPeer:
    return RawPeer(UserAgent(UserAgentConfig(**config)))  # type: ignore[arg-type]


def answered(alice: RawPeer, extra: str, *, answer: bytes | None = None) -> tuple[CallKey, Response]:
    """A call from Alice that was answered and acknowledged, and the 200."""
    alice.send(request(body=offer(), extra=extra))
    (event,) = alice.agent.events()
    assert isinstance(event, InviteReceived)
    alice.agent.answer(event.key, answer or answer_to(offer()), alice.now)
    (ok,) = alice.sent()
    assert isinstance(ok, Response)
    alice.send(request("ACK", branch="z9hG4bKack", to_tag=event.key))
    alice.agent.events()
    return event.key, ok


def calling(alice: RawPeer) -> tuple[CallKey, Request]:
    """Our INVITE to Alice, unanswered."""
    key = alice.agent.invite(
        f"sip:alice@{ALICE[0]}", alice.flow, alice.now, from_="<sip:agent@192.0.2.2>", sdp=offer(host=BOB[0])
    )
    (invite,) = alice.sent()
    assert isinstance(invite, Request)
    return key, invite


def called(alice: RawPeer, extra: dict[str, str]) -> CallKey:
    """A call of ours that Alice answered with these headers."""
    key, invite = calling(alice)
    (ack,) = alice.respond(invite, 200, sdp=answer_to(invite.body, host=ALICE[0]), extra=extra)
    assert isinstance(ack, Request)
    assert ack.method == "ACK"
    assert isinstance(alice.agent.events()[-1], Answered)
    return key


def methods(messages: list[Request | Response]) -> list[str | int]:
    return [message.method if isinstance(message, Request) else message.status for message in messages]


def expires_of(message: Request | Response) -> str | None:
    return message.headers.get("Session-Expires")


# -- what is agreed on ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("extra", "agreed", "require"),
    [
        ("Supported: timer\nSession-Expires: 600\n", "600;refresher=uac", "timer"),
        ("Supported: timer\nSession-Expires: 600;refresher=uas\n", "600;refresher=uas", "timer"),
        ("Supported: timer\nSession-Expires: 600;refresher=uac\n", "600;refresher=uac", "timer"),
        ("k: timer\nx: 600;REFRESHER=UAS;p=q\n", "600;refresher=uas", "timer"),
        # Ours is shorter, and no shorter than what the caller or a proxy can take.
        ("Supported: timer\nSession-Expires: 7200\n", "1800;refresher=uac", "timer"),
        ("Supported: timer\nSession-Expires: 7200\nMin-SE: 3600\n", "3600;refresher=uac", "timer"),
        # A caller that knows timers and asked for none, one that knows none, and one whose proxy asked.
        ("Supported: timer\n", "1800;refresher=uas", "timer"),
        ("", "1800;refresher=uas", None),
        ("Session-Expires: 600\n", "600;refresher=uas", None),
        ("Supported: timer\nMin-SE: 2000\n", "2000;refresher=uas", "timer"),
        ("Supported: timer\nSession-Expires: soon\n", "1800;refresher=uas", "timer"),
    ],
)
def test_called_side_agrees_on_interval_and_refresher(extra: str, agreed: str, require: str | None) -> None:
    _, ok = answered(peer(), extra)
    assert expires_of(ok) == agreed
    assert ok.headers.get("Require") == require


def test_caller_who_wants_no_timer_gets_none_where_we_want_none_either() -> None:
    alice = peer(session_expires_s=0)
    _, ok = answered(alice, "Supported: timer\n")
    assert expires_of(ok) is None
    assert alice.agent.timer() is not None  # of the INVITE's transaction
    alice.pass_time(40)
    assert alice.agent.timer() is None


def test_timer_of_the_peer_is_kept_where_we_want_none() -> None:
    _, ok = answered(peer(session_expires_s=0), "Supported: timer\nSession-Expires: 120;refresher=uas\n")
    assert expires_of(ok) == "120;refresher=uas"


def test_without_the_option_nothing_of_it_is_said_or_done() -> None:
    alice = peer(supported=())
    _, ok = answered(alice, "Supported: timer\nSession-Expires: 30\n")
    assert expires_of(ok) is None
    _, invite = calling(alice)
    assert expires_of(invite) is None


def test_interval_that_is_too_small_gets_422_with_ours() -> None:
    alice = peer(min_se_s=120)
    (refusal,) = alice.send(request(body=offer(), extra="Supported: timer\nSession-Expires: 100\n"))
    assert isinstance(refusal, Response)
    assert (refusal.status, refusal.headers.get("Min-SE")) == (422, "120")
    assert alice.agent.events() == []
    assert alice.agent.call_count == 0


def test_interval_that_is_too_small_is_taken_from_a_caller_who_cannot_know_422() -> None:
    _, ok = answered(peer(min_se_s=120), "Session-Expires: 100\n")
    assert expires_of(ok) == "100;refresher=uas"


def test_small_interval_in_a_reinvite_or_update_gets_422_and_the_call_goes_on() -> None:
    alice = peer()
    key, _ = answered(alice, "Supported: timer\nSession-Expires: 600;refresher=uac\n")
    for cseq, method in ((2, "INVITE"), (3, "UPDATE")):
        data = request(
            method, cseq=cseq, branch=f"z9hG4bK{cseq}", to_tag=key, extra="Supported: timer\nSession-Expires: 60\n"
        )
        refusal = alice.send(data)[-1]
        assert isinstance(refusal, Response)
        assert (refusal.status, refusal.headers.get("Min-SE")) == (422, "90")
    assert alice.agent.events() == []


def test_our_invite_asks_for_an_interval_and_leaves_the_refresher_open() -> None:
    _, invite = calling(peer(session_expires_s=900))
    assert expires_of(invite) == "900"
    assert invite.headers.get("Min-SE") is None
    assert "timer" in invite.headers.tokens_of("Supported")
    _, invite = calling(peer(session_expires_s=60, min_se_s=120))
    assert (expires_of(invite), invite.headers.get("Min-SE")) == ("120", "120")
    _, invite = calling(peer(session_expires_s=0))
    assert expires_of(invite) is None
    assert "timer" in invite.headers.tokens_of("Supported")


def test_422_makes_us_call_again_with_the_bigger_interval() -> None:
    alice = peer(session_expires_s=90)
    key, invite = calling(alice)
    ack, again = alice.respond(invite, 422, extra={"Min-SE": "300"})
    assert isinstance(again, Request)
    assert methods([ack, again]) == ["ACK", "INVITE"]
    assert (expires_of(again), again.headers.get("Min-SE")) == ("300", "300")
    assert (again.cseq.number, again.call_id, again.from_.tag) == (2, invite.call_id, invite.from_.tag)
    assert again.to.tag is None
    assert (again.uri, again.body) == (invite.uri, invite.body)
    assert again.via.branch != invite.via.branch
    assert alice.agent.events() == []
    alice.respond(again, 200, sdp=answer_to(offer()), extra={"Session-Expires": "300;refresher=uac"})
    assert isinstance(alice.agent.events()[0], Answered)
    (refresh,) = alice.pass_time(151)[:1]
    assert (expires_of(refresh), refresh.headers.get("Min-SE")) == ("300;refresher=uac", "300")
    assert alice.agent.call_id(key) == invite.call_id


@pytest.mark.parametrize("least", ["90", "", "nonsense", "1800"])
def test_422_that_asks_for_no_bigger_interval_is_a_refusal(least: str) -> None:
    alice = peer(session_expires_s=1800)
    key, invite = calling(alice)
    alice.respond(invite, 422, extra={"Min-SE": least} if least else {})
    (event,) = alice.agent.events()
    assert isinstance(event, Rejected)
    assert (event.key, event.status) == (key, 422)


def test_peer_that_wants_ever_bigger_intervals_is_not_asked_for_ever() -> None:
    alice = peer()
    _, invite = calling(alice)
    for least in range(2000, 2005):
        _, again = alice.respond(invite, 422, extra={"Min-SE": str(least)})
        assert isinstance(again, Request)
        invite = again
    assert methods(alice.respond(invite, 422, extra={"Min-SE": "2005"})) == ["ACK"]
    (event,) = alice.agent.events()
    assert isinstance(event, Rejected)
    assert event.status == 422


def test_cancelled_call_is_not_sent_again_on_422() -> None:
    alice = peer()
    key, invite = calling(alice)
    alice.agent.cancel(key, 0.0)
    assert methods(alice.respond(invite, 422, extra={"Min-SE": "3000"})) == ["ACK"]
    assert isinstance(alice.agent.events()[0], Rejected)


# -- refreshing -----------------------------------------------------------------------------------------------


def test_we_refresh_at_half_the_interval_by_update_without_a_body() -> None:
    alice = peer()
    answered(alice, f"Supported: timer\nSession-Expires: 600;refresher=uas\n{UPDATE_TOO}")
    assert alice.pass_time(299.9) == []
    (update,) = alice.pass_time(0.2)
    assert isinstance(update, Request)
    assert (update.method, update.body, expires_of(update)) == ("UPDATE", b"", "600;refresher=uac")
    assert update.contact is not None
    assert alice.respond(update, 200, extra={"Session-Expires": "600;refresher=uac"}) == []
    assert alice.pass_time(299.8) == []
    assert methods(alice.pass_time(0.3)) == ["UPDATE"]
    assert alice.agent.events() == []


def test_we_refresh_by_reinvite_with_the_last_description_where_the_peer_takes_no_update() -> None:
    alice = peer()
    mine = answer_to(offer())
    answered(alice, f"Supported: timer\nSession-Expires: 600;refresher=uas\n{NO_UPDATE}", answer=mine)
    (invite,) = alice.pass_time(300.1)
    assert isinstance(invite, Request)
    assert (invite.method, invite.body, expires_of(invite)) == ("INVITE", mine, "600;refresher=uac")
    (ack,) = alice.respond(invite, 200, sdp=offer(), extra={"Session-Expires": "600;refresher=uac"})
    assert methods([ack]) == ["ACK"]
    assert alice.agent.events() == []
    (invite,) = alice.pass_time(300.1)
    alice.respond(invite, 200, sdp=offer(5000), extra={"Session-Expires": "600;refresher=uac"})
    (event,) = alice.agent.events()
    assert isinstance(event, Refreshed)
    assert event.sdp == offer(5000)


def test_owners_reinvite_refreshes_too() -> None:
    alice = peer()
    key, _ = answered(alice, f"Supported: timer\nSession-Expires: 600;refresher=uas\n{UPDATE_TOO}")
    alice.pass_time(200)
    alice.agent.reinvite(key, offer(7000, BOB[0]), alice.now)
    (invite,) = alice.sent()
    assert expires_of(invite) == "600;refresher=uac"
    alice.respond(invite, 200, sdp=offer(), extra={"Session-Expires": "600;refresher=uac"})
    assert alice.pass_time(299) == []
    assert methods(alice.pass_time(1.1)) == ["UPDATE"]


def test_refresh_waits_while_the_session_is_being_changed() -> None:
    alice = peer()
    key, _ = answered(alice, f"Supported: timer\nSession-Expires: 600;refresher=uas\n{UPDATE_TOO}")
    alice.pass_time(299)
    alice.send(request(cseq=2, branch="z9hG4bKre", to_tag=key, body=offer(5000)))
    assert isinstance(alice.agent.events()[0], Reoffered)
    assert alice.pass_time(2) == []
    alice.agent.reject_reinvite(key, 488, alice.now)
    alice.sent()
    alice.send(request("ACK", cseq=2, branch="z9hG4bKre", to_tag=key))
    assert methods(alice.pass_time(2.1))[:1] == ["UPDATE"]


def test_peer_that_refuses_update_is_refreshed_by_reinvite_from_then_on() -> None:
    alice = peer()
    answered(alice, f"Supported: timer\nSession-Expires: 600;refresher=uas\n{UPDATE_TOO}")
    (update,) = alice.pass_time(300.1)
    (invite,) = alice.respond(update, 405)
    assert methods([invite]) == ["INVITE"]
    alice.respond(invite, 200, sdp=offer(), extra={"Session-Expires": "600;refresher=uac"})
    assert methods(alice.pass_time(300.1)) == ["INVITE"]
    assert alice.agent.events() == []


def test_refresh_that_gets_422_is_sent_again_with_the_bigger_interval() -> None:
    alice = peer()
    answered(alice, f"Supported: timer\nSession-Expires: 600;refresher=uas\n{UPDATE_TOO}")
    (update,) = alice.pass_time(300.1)
    (again,) = alice.respond(update, 422, extra={"Min-SE": "900"})
    assert (expires_of(again), again.headers.get("Min-SE")) == ("900;refresher=uac", "900")
    alice.respond(again, 200, extra={"Session-Expires": "900;refresher=uac"})
    assert alice.pass_time(449) == []
    assert methods(alice.pass_time(1.2)) == ["UPDATE"]


@pytest.mark.parametrize("by", [UPDATE_TOO, NO_UPDATE])
def test_refresh_that_is_refused_is_tried_again_until_the_session_ends(by: str) -> None:
    alice = peer()
    key, _ = answered(alice, f"Supported: timer\nSession-Expires: 300;refresher=uas\n{by}")
    tries = 0
    alice.pass_time(149.9)
    sent = alice.pass_time(0.2)
    while methods(sent)[-1:] != ["BYE"]:
        if sent:
            tries += 1
            alice.respond(sent[-1], 500)
        sent = alice.pass_time(0.45)
    assert tries >= 4
    assert 268 <= alice.now < 269
    assert "Session Expired" in (sent[-1].headers.get("Reason") or "")
    (event,) = alice.agent.events()
    assert isinstance(event, Lost)
    assert (event.key, event.reason) == (key, LostReason.SESSION_EXPIRED)


@pytest.mark.parametrize("status", [408, 481])
@pytest.mark.parametrize("by", [UPDATE_TOO, NO_UPDATE])
def test_refresh_to_a_peer_that_knows_the_call_no_more_ends_it(status: int, by: str) -> None:
    alice = peer()
    answered(alice, f"Supported: timer\nSession-Expires: 300;refresher=uas\n{by}")
    (refresh,) = alice.pass_time(150.1)
    sent = methods(alice.respond(refresh, status))
    assert ("BYE" in sent) == (status == 408)
    (event,) = alice.agent.events()
    assert isinstance(event, Lost)
    assert event.reason is (LostReason.TIMEOUT if status == 408 else LostReason.GONE)


@pytest.mark.parametrize("by", [UPDATE_TOO, NO_UPDATE])
def test_refresh_without_any_answer_ends_the_call(by: str) -> None:
    alice = peer()
    answered(alice, f"Supported: timer\nSession-Expires: 1800;refresher=uas\n{by}")
    sent = methods(alice.pass_time(900 + 33))
    assert sent[-1] == "BYE"
    (event,) = alice.agent.events()
    assert isinstance(event, Lost)
    assert event.reason is LostReason.TIMEOUT
    alice.pass_time(100)
    assert (alice.agent.call_count, alice.agent.transaction_count, alice.agent.timer()) == (0, 0, None)


@pytest.mark.parametrize("by", [UPDATE_TOO, NO_UPDATE])
def test_refresh_that_meets_the_peers_is_sent_again_soon(by: str) -> None:
    alice = peer()
    answered(alice, f"Supported: timer\nSession-Expires: 600;refresher=uas\n{by}")
    (refresh,) = alice.pass_time(300.1)
    alice.respond(refresh, 491)
    again = alice.pass_time(2.1)
    assert methods(again)[-1] in ("UPDATE", "INVITE")
    assert alice.agent.events() == []


# -- the end --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("interval", "bye_at"), [(90, 60.0), (1800, 1768.0)])
def test_session_that_the_peer_does_not_refresh_ends_with_bye_a_little_early(interval: int, bye_at: float) -> None:
    alice = peer()
    key, _ = answered(alice, f"Supported: timer\nSession-Expires: {interval};refresher=uac\n")
    assert alice.pass_time(bye_at - 0.1) == []
    (bye,) = alice.pass_time(0.2)
    assert methods([bye]) == ["BYE"]
    (event,) = alice.agent.events()
    assert isinstance(event, Lost)
    assert event == Lost(key, LostReason.SESSION_EXPIRED, f"nobody refreshed the session of {interval} s")
    alice.respond(bye, 200)
    alice.pass_time(40)
    assert (alice.agent.call_count, alice.agent.transaction_count, alice.agent.timer()) == (0, 0, None)


def test_each_refresh_of_the_peer_gives_another_interval_and_may_change_roles() -> None:
    alice = peer()
    key, _ = answered(alice, f"Supported: timer\nSession-Expires: 90;refresher=uac\n{UPDATE_TOO}")
    for cseq in range(2, 12):
        alice.pass_time(50)
        said = "Supported: timer\nSession-Expires: 90;refresher=uac\n"
        (ok,) = alice.send(request("UPDATE", cseq=cseq, branch=f"z9hG4bK{cseq}", to_tag=key, extra=said))
        assert (expires_of(ok), ok.headers.get("Require")) == ("90;refresher=uac", "timer")
    said = "Supported: timer\nSession-Expires: 90;refresher=uas\n"
    (ok,) = alice.send(request("UPDATE", cseq=20, branch="z9hG4bK20", to_tag=key, extra=said))
    assert expires_of(ok) == "90;refresher=uas"
    assert methods(alice.pass_time(45.1)) == ["UPDATE"]
    assert alice.agent.events() == []


def test_refresh_without_an_interval_ends_the_timer_where_we_want_none() -> None:
    alice = peer(session_expires_s=0)
    key, _ = answered(alice, "Supported: timer\nSession-Expires: 90;refresher=uac\n")
    (ok,) = alice.send(request("UPDATE", cseq=2, branch="z9hG4bK2", to_tag=key))
    assert expires_of(ok) is None
    assert alice.pass_time(1000) == []
    assert alice.agent.timer() is None


def test_peer_that_agrees_on_no_timer_is_left_in_peace() -> None:
    alice = peer()
    key = called(alice, {})
    assert alice.pass_time(10_000) == []
    assert alice.agent.timer() is None
    alice.agent.reinvite(key, offer(7000, BOB[0]), alice.now)
    (invite,) = alice.sent()
    assert expires_of(invite) is None


@pytest.mark.parametrize("refresher", ["uac", "uas"])
def test_interval_of_the_answer_counts_and_so_does_its_refresher(refresher: str) -> None:
    alice = peer()
    called(alice, {"Session-Expires": f"120;refresher={refresher}", "Allow": "UPDATE", "Require": "timer"})
    alice.agent.events()
    sent = methods(alice.pass_time(88.1))
    assert sent[0] == ("UPDATE" if refresher == "uac" else "BYE")


def test_no_timer_is_left_after_a_call() -> None:
    for ours in (True, False):
        alice = peer()
        key, _ = answered(alice, f"Supported: timer\nSession-Expires: 600;refresher=uas\n{UPDATE_TOO}")
        if ours:
            alice.agent.bye(key, alice.now)
            (bye,) = alice.sent()
            alice.respond(bye, 200)
        else:
            alice.send(request("BYE", cseq=2, branch="z9hG4bKbye", to_tag=key))
        alice.pass_time(40)
        assert (alice.agent.call_count, alice.agent.transaction_count, alice.agent.timer()) == (0, 0, None)


# -- twenty minutes -------------------------------------------------------------------------------------------


class Twenty:
    """Alice calls Bob; both are our agents, and talk for twenty minutes."""

    def __init__(self, alice: UserAgentConfig, bob: UserAgentConfig, *, loss: float = 0.0) -> None:
        self.net = Network(loss=loss, seed=7)
        self.alice = self.net.add(ALICE, alice, answers=True)
        self.bob = self.net.add(BOB, bob, answers=True)
        self.key = self.net.call()
        self.net.run(1200)

    def ended(self) -> list[Event]:
        bad = (Lost, ByeReceived, ByeAnswered, ReofferRejected)
        return [event for event in self.alice.events + self.bob.events if isinstance(event, bad)]


def config(**how: object) -> UserAgentConfig:
    return UserAgentConfig(**how)  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["UPDATE", "INVITE"])
@pytest.mark.parametrize("refresher", ["caller", "callee"])
@pytest.mark.parametrize("loss", [0.0, 0.1])
def test_twenty_minutes_are_kept_up_by_either_side(method: str, refresher: str, loss: float) -> None:
    allow = UserAgentConfig().allow if method == "UPDATE" else ("INVITE", "ACK", "CANCEL", "BYE", "OPTIONS")
    # Who does not ask leaves it to the other.
    interval = {"caller": (120, 0), "callee": (0, 120)}[refresher]
    alice, bob = (config(allow=allow, session_expires_s=seconds) for seconds in interval)
    talk = Twenty(alice, bob, loss=loss)
    assert talk.ended() == []
    assert (talk.alice.agent.call_count, talk.bob.agent.call_count) == (1, 1)
    if not loss:
        # One a minute, and the call's own INVITE.
        assert talk.net.count(method) == (19 if method == "UPDATE" else 20)
        assert talk.net.count("BYE") == 0
    talk.alice.agent.bye(talk.key, talk.net.now)
    talk.net.run(100)
    for owner in (talk.alice, talk.bob):
        assert (owner.agent.call_count, owner.agent.transaction_count, owner.agent.timer()) == (0, 0, None)


def test_side_that_vanishes_is_found_out_by_the_other() -> None:
    for interval in ((120, 0), (0, 120)):
        net = Network()
        net.add(ALICE, config(session_expires_s=interval[0]), answers=True)
        bob = net.add(BOB, config(session_expires_s=interval[1]), answers=True)
        net.call()
        net.run(300)
        del net.owners[ALICE]
        net.run(200)
        assert bob.one(Lost).reason is LostReason.SESSION_EXPIRED
        assert (bob.agent.call_count, bob.agent.transaction_count, bob.agent.timer()) == (0, 0, None)


def test_422_between_two_agents_is_settled_in_one_round() -> None:
    talk = Twenty(config(session_expires_s=90), config(session_expires_s=1800, min_se_s=240))
    assert talk.net.count("422 INVITE") == 1
    assert talk.net.count("UPDATE") == 9
    assert talk.ended() == []


# -- fields ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("90", SessionExpires(90)),
        (" 1800 ; refresher = uac ", SessionExpires(1800, "uac")),
        ("1800;a=b;refresher=UAS", SessionExpires(1800, "uas")),
        ("1800;refresher=both", SessionExpires(1800)),
    ],
)
def test_session_expires_is_read(text: str, seen: SessionExpires) -> None:
    assert SessionExpires.parse(text) == seen


def test_min_se_is_never_below_ninety() -> None:
    for text, seconds in (("120", 120), ("10", 90), ("x", 90), ("300;p=q", 300)):
        message = Request("INVITE", "sip:a@b")
        message.headers.add("Min-SE", text)
        assert min_se_of(message) == seconds
    assert min_se_of(Request("INVITE", "sip:a@b")) == 90
