"""Registrations: kept up before they run out, renewed after every kind of failure, taken back at the end."""

from collections.abc import Iterable

import pytest
from identity_bench import FIRST, SECOND, US, Answer, Bench, Registrar, grant, say, silence

from bridge.sip.digest import Credentials
from bridge.sip.flow import Flow
from bridge.sip.message import Request, Response
from bridge.sip.registration import Account, RegistrationStatus

ALICE = Account("sip:alice@carrier.example", "sip:carrier.example", "alice", Credentials("alice", "open sesame"))


def status(bench: Bench) -> RegistrationStatus:
    found = bench.registrations.status("a")
    assert found is not None
    return found


def started(bench: Bench, seconds: float = 1.0, account: Account = ALICE) -> Bench:
    bench.registrations.add("a", account, bench.now)
    bench.run(seconds)
    return bench


def in_turn(answers: Iterable[Answer]) -> Answer:
    left = iter(answers)

    def answer(request: Request) -> Response | None:
        chosen = next(left)
        return chosen(request)

    return answer


def times(bench: Bench) -> list[float]:
    return [round(at - 1000, 1) for at, _, _ in bench.asked]


def test_an_account_is_registered_and_refreshed_before_it_runs_out() -> None:
    bench = started(Bench())
    (request,) = bench.sent_to(FIRST)
    assert (request.method, request.uri) == ("REGISTER", "sip:carrier.example")
    assert request.headers.get("To") == "<sip:alice@carrier.example>"
    assert request.headers.get("Contact") == "<sip:alice@192.0.2.1:5060>"
    assert (status(bench).state, status(bench).until) == ("registered", pytest.approx(1600, abs=1))
    assert status(bench).round_trip_ms == pytest.approx(50)
    bench.run(3600)
    assert {s.state for s in bench.shown[3:]} == {"registered"}
    requests = bench.sent_to(FIRST)
    assert len(requests) == 13
    assert len({r.call_id for r in requests}) == 1
    assert [r.cseq.number for r in requests] == list(range(1, 14))


def test_a_long_registration_is_refreshed_a_margin_before_its_end() -> None:
    bench = Bench()
    bench.serve(FIRST, grant(3600))
    started(bench, 3700, Account("sip:a@x", "sip:x", "a", expires_s=3600))
    assert times(bench) == [0.0, 3000.0]


def test_the_password_is_asked_for_once_a_nonce() -> None:
    bench = Bench()
    bench.serve(FIRST, Registrar("open sesame", grant(60)))
    started(bench, 100)
    assert status(bench).state == "registered"
    with_answer = ["Authorization" in request.headers for request in bench.sent_to(FIRST)]
    # At 30 s the nonce is good still; at 60 and 90 s it is stale, and both sides know what to do.
    assert with_answer[:3] == [False, True, True]
    assert all(with_answer[1:])


@pytest.mark.parametrize("refusal", [Registrar("another", grant()), say(403), say(404)])
def test_a_refused_account_is_left_alone_for_long(refusal: object) -> None:
    bench = Bench()
    bench.serve(FIRST, refusal)
    started(bench, 600)
    assert status(bench).state == "refused"
    assert status(bench).error.startswith("40")
    assert len(bench.asked) <= 2
    bench.run(301)
    assert len(bench.asked) in (2, 4)


def test_too_brief_an_interval_is_made_longer_and_stays_so() -> None:
    bench = Bench()
    answers = [say(423, Min_Expires="1800"), grant(7200), grant(7200)]
    bench.serve(FIRST, in_turn(answers))
    started(bench, 1300)
    assert [request.headers.get("Expires") for request in bench.sent_to(FIRST)] == ["600", "1800", "1800"]
    assert status(bench).state == "registered"


def test_a_registrar_that_finds_everything_too_brief_is_not_asked_in_a_loop() -> None:
    bench = Bench()
    answers = range(1000, 9000, 10)
    bench.serve(FIRST, in_turn(say(423, Min_Expires=str(n)) for n in answers))
    started(bench, 3.0)
    assert len(bench.asked) == 2
    assert status(bench).state == "failed"


def test_failures_are_repeated_ever_more_seldom_and_after_retry_after() -> None:
    bench = Bench()
    bench.serve(FIRST, say(500))
    started(bench, 1000)
    assert [int(at) for at in times(bench)[:6]] == [0, 4, 12, 28, 60, 124]
    assert status(bench).state == "failed"
    assert status(bench).failures == len(bench.asked)
    bench.serve(FIRST, say(503, Retry_After="2000 (maintenance)"))
    bench.run(200)
    before = len(bench.asked)
    bench.run(1700)
    assert len(bench.asked) == before
    bench.serve(FIRST, grant())
    bench.run(400)
    assert (status(bench).state, status(bench).error, status(bench).failures) == ("registered", "", 0)


@pytest.mark.parametrize("broken", [silence, say(503)])
def test_the_next_registrar_is_tried_and_kept_while_it_lasts(broken: object) -> None:
    bench = Bench()
    bench.flows = [Flow("udp", FIRST, US), Flow("udp", SECOND, US)]
    bench.serve(FIRST, broken)
    bench.serve(SECOND, grant())
    started(bench, 60)
    assert (status(bench).state, status(bench).registrar) == ("registered", "udp:198.51.100.20:5060")
    asked = len(bench.sent_to(FIRST))
    bench.serve(FIRST, grant())
    bench.run(1000)
    assert len(bench.sent_to(FIRST)) == asked
    bench.serve(SECOND, silence)
    bench.run(1000)
    assert (status(bench).state, status(bench).registrar) == ("registered", "udp:198.51.100.10:5060")


def test_a_registration_stays_while_its_refresh_fails_until_it_runs_out() -> None:
    bench = started(Bench())
    bench.serve(FIRST, say(500))
    bench.run(400)
    assert (status(bench).state, status(bench).error) == ("registered", "500 Server Internal Error")
    bench.run(250)
    assert (status(bench).state, status(bench).until) == ("failed", None)


def test_a_registrar_that_cant_be_found_is_looked_up_again() -> None:
    bench = Bench()
    bench.unlocatable = "no such domain"
    started(bench, 10)
    assert (status(bench).state, status(bench).error) == ("failed", "no such domain")
    bench.unlocatable = ""
    bench.run(20)
    assert status(bench).state == "registered"


def test_what_the_registrar_says_of_the_way_is_noted() -> None:
    bench = Bench()

    def answer(request: Request) -> object:
        response = grant(Service_Route="<sip:a;lr>, <sip:b;lr>", Path="<sip:edge;lr>")(request)
        assert response is not None
        response.headers.replace_first(
            "Via", f"{request.via};received=203.0.113.77;rport=40001".replace(";rport;", ";")
        )
        return response

    bench.serve(FIRST, answer)
    started(bench)
    assert status(bench).service_route == ("<sip:a;lr>", "<sip:b;lr>")
    assert status(bench).path == ("<sip:edge;lr>",)
    assert status(bench).seen_as == ("203.0.113.77", 40001)


def test_the_registrars_own_time_counts() -> None:
    for answer, expected in (
        (grant(120), 120),
        (say(200, Expires="90"), 90),
        (say(200), 600),
        (say(200, Contact="<sip:alice@192.0.2.1>;expires=77", Expires="90"), 77),
    ):
        bench = Bench()
        bench.serve(FIRST, answer)
        started(bench)
        assert status(bench).until == pytest.approx(1000 + expected, abs=1)


def test_all_is_taken_back_at_the_end() -> None:
    bench = started(Bench())
    bench.registrations.unregister_all(bench.now)
    assert not bench.registrations.idle
    bench.run(5)
    assert bench.registrations.idle
    assert bench.sent_to(FIRST)[-1].headers.get("Expires") == "0"
    assert (status(bench).state, status(bench).until) == ("unregistered", None)
    bench.run(4000)
    assert len(bench.asked) == 2


def test_what_is_granted_while_leaving_is_taken_back_too() -> None:
    bench = Bench(delay_s=1.0)
    started(bench, 0.5)
    bench.registrations.unregister_all(bench.now)
    bench.run(10)
    assert [request.headers.get("Expires") for request in bench.sent_to(FIRST)] == ["600", "0"]
    assert bench.registrations.idle


def test_a_registrar_that_is_silent_at_the_end_holds_nobody_up_for_ever() -> None:
    bench = started(Bench())
    bench.serve(FIRST, silence)
    bench.registrations.unregister_all(bench.now)
    bench.run(40)
    assert bench.registrations.idle
    assert status(bench).state == "unregistered"


def test_a_changed_account_is_registered_anew_the_same_one_is_left_alone() -> None:
    bench = started(Bench())
    bench.registrations.add("a", ALICE, bench.now)
    bench.run(1)
    assert len(bench.asked) == 1
    bench.registrations.add("a", Account("sip:bob@carrier.example", "sip:carrier.example", "bob"), bench.now)
    bench.run(1)
    said = [(request.to.uri.user, request.headers.get("Expires")) for request in bench.sent_to(FIRST)[1:]]
    assert sorted(said) == [("alice", "0"), ("bob", "600")]


def test_many_accounts_share_one_queue_and_start_one_after_the_other() -> None:
    bench = Bench()
    for n in range(500):
        account = Account(f"sip:u{n}@carrier.example", "sip:carrier.example", f"u{n}")
        bench.registrations.add(f"u{n}", account, bench.now)
    bench.run(1.0)
    assert 45 <= len(bench.asked) <= 52
    bench.run(15.0)
    assert len(bench.asked) == 500
    assert all(bench.registrations.status(f"u{n}").state == "registered" for n in range(500))
