"""Hostile input: whatever comes, the agent neither raises nor grows."""

from hypothesis import given, settings
from hypothesis import strategies as st
from sip_network import RawPeer, answer_to, offer, request

from bridge.sip.agent import UserAgent
from bridge.sip.events import InviteReceived, Reoffered
from bridge.sip.settings import DEFAULT_ALLOW, UserAgentConfig

CONFIG = UserAgentConfig(allow=(*DEFAULT_ALLOW, "REFER"), max_calls=10, max_transactions=100)


def busy_agent() -> tuple[RawPeer, list[bytes]]:
    """An agent with an established call, a ringing one and an outbound one, and messages that touch them all."""
    peer = RawPeer(UserAgent(CONFIG))
    agent = peer.agent
    peer.send(request(body=offer()))
    (event,) = agent.events()
    assert isinstance(event, InviteReceived)
    agent.answer(event.key, answer_to(offer()), 0.0)
    peer.send(request("ACK", branch="z9hG4bKack", to_tag=event.key))
    peer.send(request(body=offer(), call_id="call-2", branch="z9hG4bKb"))
    agent.invite("sip:alice@192.0.2.1", peer.flow, 0.0, from_="<sip:agent@192.0.2.2>", sdp=offer())
    (invite,) = peer.sent()
    ours = invite.serialise().split(b"\r\n\r\n")[0].decode()
    lines = [line for line in ours.split("\r\n") if line.startswith(("Via", "From", "Call-ID", "CSeq"))]
    ok = "\r\n".join(["SIP/2.0 200 OK", *lines, "To: <sip:alice@192.0.2.1>;tag=x", "Contact: <sip:alice@192.0.2.1>"])
    seeds = [f"{ok}\r\n\r\n".encode(), f"{ok}\r\n\r\n".replace("200 OK", "180 R").encode()]
    seeds.append(request("CANCEL", call_id="call-2", branch="z9hG4bKb"))
    extra = "Refer-To: <sip:c@d>\nEvent: refer;id=1\nRecord-Route: <sip:p;lr>,<sip:q>\nSubscription-State: active\n"
    for cseq, method in enumerate(["INVITE", "INFO", "NOTIFY", "REFER", "OPTIONS", "BYE"], 2):
        how = {"cseq": cseq, "branch": f"z9hG4bK{method}", "extra": extra, "body": offer()}
        seeds.append(request(method, to_tag=event.key, **how))  # type: ignore[arg-type]
        seeds.append(request(method, call_id="new", **how))  # type: ignore[arg-type]
    return peer, seeds


_NASTY = [b"\r\n", b"\r\n\r\n", b"\n ", b'"', b"<", b">", b";", b",", b"\0", b"\xff", b"%", b"[", b"tag=", b"9" * 11]
_junk = st.binary(max_size=6) | st.sampled_from(_NASTY)
_cuts = st.lists(st.tuples(st.integers(0, 1200), st.integers(0, 12), _junk), max_size=4)
Cuts = list[tuple[int, int, bytes]]


@settings(deadline=None, max_examples=150)
@given(st.lists(st.tuples(st.integers(0, 30), _cuts), min_size=1, max_size=8), st.floats(0, 40))
def test_mutated_messages_never_raise(mutations: list[tuple[int, Cuts]], pause: float) -> None:
    peer, seeds = busy_agent()
    for which, cuts in mutations:
        data = seeds[which % len(seeds)]
        for at, length, junk in cuts:
            data = data[: at % len(data)] + junk + data[at % len(data) + length :] or b"x"
        peer.agent.receive(data, peer.flow, peer.now)
        for event in peer.agent.events():
            if isinstance(event, Reoffered):
                peer.agent.answer_reinvite(event.key, answer_to(offer()), peer.now)
        peer.agent.outgoing()
    end = peer.now + pause
    while (at_time := peer.agent.timer()) is not None and at_time <= end:
        peer.agent.handle_timer(at_time)
        peer.agent.outgoing()
    assert peer.agent.call_count <= CONFIG.max_calls


@given(st.lists(st.binary(max_size=400), max_size=5))
def test_random_datagrams_never_raise_and_leave_nothing(datagrams: list[bytes]) -> None:
    peer = RawPeer(UserAgent(CONFIG))
    for data in datagrams:
        peer.agent.receive(data, peer.flow, 0.0)
        peer.agent.receive(b"INVITE sip:a@b SIP/2.0\r\n" + data, peer.flow, 0.0)
    assert (peer.agent.call_count, peer.agent.transaction_count) == (0, 0)


def test_a_flood_of_calls_from_nowhere_stays_bounded() -> None:
    peer = RawPeer(UserAgent(CONFIG))
    for i in range(500):
        peer.agent.receive(request(body=offer(), call_id=f"c{i}", branch=f"z9hG4bK{i}"), peer.flow, 0.0)
    assert peer.agent.call_count == CONFIG.max_calls
    assert peer.agent.transaction_count == CONFIG.max_calls
    assert peer.agent.counters["refused: 503"] == 490
