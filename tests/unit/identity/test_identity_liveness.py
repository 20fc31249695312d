"""Keep-alives by OPTIONS: round trip while a trunk is up, and its going down and coming back."""

import pytest
from identity_bench import FIRST, SECOND, US, Bench, Registrar, say, silence

from bridge.sip.digest import Credentials
from bridge.sip.flow import Flow
from bridge.trunks.liveness import Peer

CARRIER = Peer("sip:carrier.example", "<sip:offhook@carrier.example>", 30.0, Credentials("alice", "open sesame"))


def started(bench: Bench, seconds: float) -> Bench:
    bench.liveness.add("a", CARRIER, bench.now)
    bench.run(seconds)
    return bench


@pytest.mark.parametrize("status", [200, 404, 405, 486])
def test_any_answer_is_a_sign_of_life(status: int) -> None:
    bench = Bench()
    bench.serve(FIRST, say(status))
    started(bench, 95)
    assert [request.method for request in bench.sent_to(FIRST)] == ["OPTIONS"] * 4
    last = bench.lives[-1]
    assert (last.state, last.missed, last.error) == ("up", 0, "")
    assert last.round_trip_ms == pytest.approx(50)


def test_a_trunk_that_takes_no_calls_is_down_at_once() -> None:
    bench = Bench()
    bench.serve(FIRST, say(503))
    started(bench, 5)
    assert (bench.lives[-1].state, bench.lives[-1].error) == ("down", "503 Service Unavailable")
    bench.serve(FIRST, say(200))
    bench.run(31)
    assert bench.lives[-1].state == "up"


def test_silence_takes_it_down_at_the_second_miss_and_the_first_answer_up_again() -> None:
    bench = Bench()
    bench.serve(FIRST, say(200))
    started(bench, 10)
    bench.serve(FIRST, silence)
    bench.run(25)
    assert (bench.lives[-1].state, bench.lives[-1].missed) == ("up", 1)
    bench.run(30)
    assert bench.lives[-1].state == "down"
    bench.serve(FIRST, say(200))
    bench.run(61)
    assert (bench.lives[-1].state, bench.lives[-1].missed) == ("up", 0)


def test_a_challenge_is_answered_and_the_second_target_tried() -> None:
    bench = Bench()
    bench.flows = [Flow("udp", FIRST, US), Flow("udp", SECOND, US)]
    bench.serve(FIRST, say(503))
    bench.serve(SECOND, Registrar("open sesame", say(200)))
    started(bench, 5)
    assert bench.lives[-1].state == "up"


def test_a_name_that_is_not_found_counts_as_missed() -> None:
    bench = Bench()
    bench.unlocatable = "no such domain"
    started(bench, 40)
    assert (bench.lives[-1].state, bench.lives[-1].error) == ("down", "no such domain")


def test_a_removed_trunk_is_asked_no_more() -> None:
    bench = started(Bench(), 5)
    bench.liveness.stop()
    bench.run(100)
    assert len(bench.asked) == 1
