"""Transactions and their timers, alone, under fake time."""

from collections.abc import Callable

import pytest
from sip_network import ALICE, BOB, kind, request

from bridge.sip.flow import Flow
from bridge.sip.message import Request, Response, make_response, parse_message
from bridge.sip.timers import TimerQueue, Timers, TimerValues
from bridge.sip.transaction import (
    InviteClient,
    InviteServer,
    NonInviteClient,
    NonInviteServer,
    State,
    server_key,
)

UDP = Flow("udp", ALICE, BOB)
TCP = Flow("tcp", ALICE, BOB)


class Bench:
    """A queue of timers, a wire that records, and a user that records."""

    def __init__(self) -> None:
        self.queue = TimerQueue()
        self.wire: list[tuple[float, str]] = []
        self.told: list[int | None] = []
        self.ended = 0
        self.now = 0.0

    def send(self, data: bytes, flow: Flow) -> None:
        self.wire.append((self.now, kind(data)))

    def user(self, response: Response | None, now: float) -> None:
        self.told.append(None if response is None else response.status)

    def end(self, transaction: object) -> None:
        self.ended += 1

    def run(self, until: float) -> None:
        while (at := self.queue.next()) is not None and at <= until:
            self.now = at
            self.queue.run(at)
        self.now = until

    def times(self, wanted: str) -> list[float]:
        return [at for at, what in self.wire if what == wanted]

    def client(self, method: str, flow: Flow = UDP) -> InviteClient | NonInviteClient:
        message = message_of(method)
        how = {"queue": self.queue, "send": self.send, "values": TimerValues(), "on_end": self.end, "now": self.now}
        make: Callable[..., InviteClient | NonInviteClient]
        make = InviteClient if method == "INVITE" else NonInviteClient
        return make(message, flow, self.user, **how)

    def server(self, method: str, flow: Flow = UDP) -> InviteServer | NonInviteServer:
        message = message_of(method)
        how = {"queue": self.queue, "send": self.send, "values": TimerValues(), "on_end": self.end}
        make: Callable[..., InviteServer | NonInviteServer]
        make = InviteServer if method == "INVITE" else NonInviteServer
        return make(message, flow, server_key(message), **how)


def message_of(method: str) -> Request:
    message = parse_message(request(method))
    assert isinstance(message, Request)
    return message


def response_to(method: str, status: int) -> Response:
    return make_response(message_of(method), status, to_tag="b1")


# -- INVITE client --------------------------------------------------------------------------------------------


def test_invite_is_repeated_with_doubling_intervals_until_timer_b() -> None:
    bench = Bench()
    transaction = bench.client("INVITE")
    assert transaction.timers.snapshot() == {"A": 0.5, "B": 32.0}
    bench.run(40)
    assert bench.times("INVITE") == [0.0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5]
    assert bench.told == [None]
    assert (transaction.state, bench.ended, bench.now) == (State.TERMINATED, 1, 40)


def test_provisional_response_stops_the_repetition_and_timer_b() -> None:
    bench = Bench()
    transaction = bench.client("INVITE")
    transaction.receive(response_to("INVITE", 100), 0.1)
    transaction.receive(response_to("INVITE", 180), 5.0)
    bench.run(200)
    assert bench.times("INVITE") == [0.0]
    assert bench.told == [100, 180]
    assert transaction.state is State.PROCEEDING


def test_refusal_is_acknowledged_each_time_it_comes_until_timer_d() -> None:
    bench = Bench()
    transaction = bench.client("INVITE")
    transaction.receive(response_to("INVITE", 486), 0.1)
    transaction.receive(response_to("INVITE", 486), 0.6)
    transaction.receive(response_to("INVITE", 180), 0.7)
    assert [what for _, what in bench.wire] == ["INVITE", "ACK", "ACK"]
    assert bench.told == [486]
    assert transaction.timers.snapshot() == {"D": 32.1}
    bench.run(33)
    assert bench.ended == 1


def test_ack_of_a_refusal_repeats_the_invites_hop_and_bears_the_answers_tag() -> None:
    sent: list[bytes] = []
    transaction = InviteClient(
        message_of("INVITE"), UDP, lambda response, now: None, queue=TimerQueue(),
        send=lambda data, flow: sent.append(data), values=TimerValues(), on_end=lambda transaction: None, now=0.0,
    )  # fmt: skip
    transaction.receive(response_to("INVITE", 404), 0.1)
    ack = parse_message(sent[-1])
    assert isinstance(ack, Request)
    assert ack.via.branch == message_of("INVITE").via.branch
    assert (ack.uri, str(ack.cseq), ack.to.tag) == ("sip:agent@192.0.2.2", "1 ACK", "b1")


def test_every_2xx_goes_to_the_user_until_timer_m() -> None:
    bench = Bench()
    transaction = bench.client("INVITE")
    for at in (0.1, 0.6, 1.6):
        transaction.receive(response_to("INVITE", 200), at)
    transaction.receive(response_to("INVITE", 486), 2.0)
    assert bench.told == [200, 200, 200]
    assert transaction.state is State.ACCEPTED
    assert bench.times("ACK") == []
    bench.run(32.2)
    assert transaction.state is State.TERMINATED


def test_nothing_is_sent_twice_over_a_reliable_transport() -> None:
    bench = Bench()
    invite = bench.client("INVITE", TCP)
    other = bench.client("OPTIONS", TCP)
    bench.run(31)
    assert [what for _, what in bench.wire] == ["INVITE", "OPTIONS"]
    invite.receive(response_to("INVITE", 486), 31)
    other.receive(response_to("OPTIONS", 200), 31)
    assert bench.ended == 2
    assert bench.queue.next() is None


# -- non-INVITE client ----------------------------------------------------------------------------------------


def test_request_is_repeated_up_to_t2_until_timer_f() -> None:
    bench = Bench()
    bench.client("OPTIONS")
    bench.run(40)
    assert bench.times("OPTIONS") == [0.0, 0.5, 1.5, 3.5, 7.5, 11.5, 15.5, 19.5, 23.5, 27.5, 31.5]
    assert bench.told == [None]
    assert bench.ended == 1


def test_after_a_provisional_response_it_is_repeated_every_t2() -> None:
    bench = Bench()
    transaction = bench.client("OPTIONS")
    transaction.receive(response_to("OPTIONS", 100), 0.1)
    bench.run(14)
    assert bench.times("OPTIONS") == [0.0, 0.5, 4.5, 8.5, 12.5]


def test_final_response_is_told_once_and_repetitions_are_absorbed_until_timer_k() -> None:
    bench = Bench()
    transaction = bench.client("OPTIONS")
    transaction.receive(response_to("OPTIONS", 200), 1.0)
    transaction.receive(response_to("OPTIONS", 200), 2.0)
    assert bench.told == [200]
    assert transaction.timers.snapshot() == {"K": 6.0}
    bench.run(6)
    assert bench.ended == 1


# -- INVITE server --------------------------------------------------------------------------------------------


def test_invite_is_answered_100_at_once_and_repetitions_get_the_last_response() -> None:
    bench = Bench()
    transaction = bench.server("INVITE")
    transaction.receive(message_of("INVITE"), 0.1)
    transaction.respond(response_to("INVITE", 180), 0.2)
    transaction.receive(message_of("INVITE"), 0.3)
    assert [what for _, what in bench.wire] == ["100 INVITE", "100 INVITE", "180 INVITE", "180 INVITE"]
    assert bench.queue.next() is None


def test_refusal_is_repeated_by_timer_g_until_the_ack_and_forgotten_by_timer_i() -> None:
    bench = Bench()
    transaction = bench.server("INVITE")
    transaction.respond(response_to("INVITE", 486), 0.0)
    assert transaction.timers.snapshot() == {"G": 0.5, "H": 32.0}
    bench.run(12)
    assert bench.times("486 INVITE") == [0.0, 0.5, 1.5, 3.5, 7.5, 11.5]
    transaction.receive(message_of("ACK"), 12.0)
    transaction.receive(message_of("INVITE"), 12.1)
    assert transaction.timers.snapshot() == {"I": 17.0}
    bench.run(40)
    assert len(bench.times("486 INVITE")) == 6
    assert bench.ended == 1


def test_refusal_without_ack_is_given_up_by_timer_h() -> None:
    bench = Bench()
    transaction = bench.server("INVITE")
    transaction.respond(response_to("INVITE", 486), 0.0)
    bench.run(32)
    assert (transaction.state, bench.ended) == (State.TERMINATED, 1)


def test_2xx_is_repeated_for_each_invite_until_settled_and_forgotten_by_timer_l() -> None:
    bench = Bench()
    transaction = bench.server("INVITE")
    assert isinstance(transaction, InviteServer)
    transaction.respond(response_to("INVITE", 200), 0.0)
    transaction.receive(message_of("INVITE"), 0.5)
    transaction.settle()
    transaction.receive(message_of("INVITE"), 0.6)
    assert len(bench.times("200 INVITE")) == 2
    assert transaction.timers.snapshot() == {"L": 32.0}
    transaction.respond(response_to("INVITE", 486), 1.0)
    assert bench.times("486 INVITE") == []
    bench.run(32)
    assert bench.ended == 1


# -- non-INVITE server ----------------------------------------------------------------------------------------


def test_repeated_request_is_absorbed_then_answered_alike_until_timer_j() -> None:
    bench = Bench()
    transaction = bench.server("INFO")
    transaction.receive(message_of("INFO"), 0.5)
    assert bench.wire == []
    transaction.respond(response_to("INFO", 200), 1.0)
    transaction.respond(response_to("INFO", 500), 1.0)
    transaction.receive(message_of("INFO"), 1.5)
    assert [what for _, what in bench.wire] == ["200 INFO", "200 INFO"]
    assert transaction.timers.snapshot() == {"J": 33.0}
    bench.run(33)
    assert bench.ended == 1


# -- names ----------------------------------------------------------------------------------------------------


def key_of(data: bytes) -> tuple[str, ...]:
    message = parse_message(data)
    assert isinstance(message, Request)
    return server_key(message)


def test_transaction_is_named_by_branch_sender_and_method() -> None:
    invite = key_of(request("INVITE"))
    assert key_of(request("INVITE", body=b"x")) == invite
    assert key_of(request("ACK", to_tag="b1")) == invite
    assert key_of(request("CANCEL")) != invite
    assert key_of(request("INVITE", branch="z9hG4bK2")) != invite
    assert key_of(request("INVITE").replace(b"UDP 192.0.2.1:5060", b"UDP 192.0.2.1:5061")) != invite


def test_calls_of_a_phone_that_always_writes_the_same_branch_are_told_apart() -> None:
    invite = key_of(request("INVITE"))
    assert key_of(request("INVITE", call_id="another call")) != invite
    assert key_of(request("INVITE", cseq=2)) != invite


def test_old_elements_without_unique_branch_are_told_apart_by_the_whole_request() -> None:
    invite = key_of(request("INVITE", branch="1"))
    assert key_of(request("ACK", branch="1", to_tag="b1")) == invite
    assert key_of(request("INVITE", branch="1", cseq=2)) != invite
    assert key_of(request("INVITE", branch="1", call_id="other")) != invite
    assert key_of(request("INVITE", branch="1", uri="sip:x@192.0.2.2")) != invite


# -- the queue ------------------------------------------------------------------------------------------------


def test_timers_fire_in_order_once_and_not_when_stopped_or_moved() -> None:
    fired: list[tuple[str, float]] = []
    queue = TimerQueue()
    timers = Timers(queue, lambda name, now: fired.append((name, now)))
    timers.set("late", 3.0)
    timers.set("early", 1.0)
    timers.set("moved", 1.5)
    timers.set("moved", 2.0)
    timers.set("stopped", 0.5)
    timers.stop("stopped", "never set")
    assert queue.next() == 1.0
    queue.run(0.9)
    assert fired == []
    queue.run(5.0)
    assert fired == [("early", 5.0), ("moved", 5.0), ("late", 5.0)]
    assert (queue.next(), queue.running) == (None, 0)


@pytest.mark.parametrize("moves", [10_000])
def test_timers_that_are_moved_for_ever_leave_nothing_behind(moves: int) -> None:
    queue = TimerQueue()
    timers = Timers(queue, lambda name, now: None)
    for at in range(moves):
        timers.set("x", float(at))
    assert len(queue._heap) < 100
    assert queue.running == 1
