"""Calls that we make through a real Asterisk: each outcome, what is heard before the answer, caller ID, and that
nothing is left of them."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress

import pytest
from ari_proxy import AriProxy
from asterisk_line import WAIT_S, AsteriskLine, asterisk_line
from asterisk_shop import TONE_HZ, AsteriskShop
from contract import Listener, digits, say, tone

from bridge.events import Answered, AnsweredBy, Cause, LegEnded, MediaSetUp, Progress
from bridge.legs.asterisk.asked import asterisk_call
from bridge.legs.asterisk.outbound import CallLimitError
from bridge.legs.base import Capability, LegError, LegState, LegStateError, PeerDownError
from bridge.legs.sip import SipLeg

ABSENT = """
[absent](offhook-phone)
aors=absent
[absent]
type=aor
max_contacts=1
"""

DIALPLAN = """
[called]
exten => busytone,1,Busy()
exten => congested,1,Congestion()
exten => gone,1,Hangup(16)
exten => variables,1,Answer()
 same => n,Verbose(0,campaign is ${campaign} ${TOPIC} by ${CALLERID(num)} ${CALLERID(name)})
 same => n,Hangup(16)
[never-back]
exten => s,1,Wait(600)
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AsteriskShop]:
    started = AsteriskShop(tmp_path_factory.mktemp("shop"), pjsip=ABSENT, dialplan=DIALPLAN)
    yield started
    started.stop()


@asynccontextmanager
async def called(
    line: AsteriskLine, *, timeout_s: float = 30, **how: object
) -> AsyncIterator[tuple[Listener, SipLeg]]:
    """A call to a phone of ours: our side of it, and the phone, which has not rung yet."""
    host, port = line.sip.far.address
    to = f"PJSIP/carrier/sip:bob@{host}:{port}"
    leg = await line.endpoint.place(asterisk_call(line.settings, to, **how), timeout_s=timeout_s)  # type: ignore[arg-type] # as given
    yield Listener(leg), await asyncio.wait_for(line.sip.at_far.get(), WAIT_S)


async def placed(line: AsteriskLine, to: str, *, timeout_s: float = 30, **how: object) -> Listener:
    call = asterisk_call(line.settings, to, **how)  # type: ignore[arg-type] # as given
    return Listener(await line.endpoint.place(call, timeout_s=timeout_s))


async def ended(near: Listener) -> LegEnded:
    async with asyncio.timeout(WAIT_S):
        while near.leg.state is not LegState.ENDED:
            near.changed.clear()
            await near.changed.wait()
    assert near.leg.state is LegState.ENDED
    last = near.events[-1]
    assert isinstance(last, LegEnded)
    assert sum(isinstance(event, LegEnded) for event in near.events) == 1
    return last


def kinds(near: Listener) -> list[str]:
    return [type(event).__name__ for event in near.events]


async def test_a_call_rings_is_answered_and_heard_on_both_sides(shop: AsteriskShop) -> None:
    async with asterisk_line(shop) as line, called(line) as (near, far):
        assert near.leg.info.direction == "outbound"
        assert near.leg.state is LegState.OFFERED
        await far.ringing()
        assert await near.event(Progress) == Progress(180)
        with pytest.raises(LegStateError):
            await near.leg.answer()
        await far.answer()
        await near.event(Answered)
        assert near.leg.state is LegState.UP
        assert kinds(near) == ["MediaSetUp", "Progress", "Answered"]
        setup = await near.event(MediaSetUp)
        assert isinstance(setup, MediaSetUp)
        assert (setup.transport, setup.codec) == ("rtp", "ulaw")
        far_side = Listener(far)
        say(near.leg, tone(near.leg, 440, 5000))
        say(far, tone(far, 880, 5000))
        await far_side.hears_tone(440)
        await near.hears_tone(880)


async def test_what_comes_before_the_answer_is_heard_and_we_may_speak_at_once(shop: AsteriskShop) -> None:
    async with asterisk_line(shop) as line, called(line) as (near, far):
        say(near.leg, tone(near.leg, 440, 20_000))
        far_side = Listener(far)
        await far.early_media()
        assert await near.event(Progress) == Progress(183, early_media=True)
        say(far, tone(far, 880, 20_000))
        await near.hears_tone(880)
        await far_side.hears_tone(440)
        assert near.leg.state is LegState.OFFERED
        await far.answer()
        await near.event(Answered)
        await near.hears_tone(880)


@pytest.mark.parametrize(
    ("to", "cause", "status", "q850"),
    [
        ("PJSIP/busy@carrier", Cause.BUSY, 486, 17),
        ("PJSIP/nobody@carrier", Cause.REJECTED, 404, 1),
        ("PJSIP/refused@carrier", Cause.REJECTED, 403, 21),
        ("PJSIP/congestion@carrier", Cause.REJECTED, 503, 34),
        ("PJSIP/absent", Cause.NO_ANSWER, 480, 20),
        ("dialplan:busytone@called", Cause.BUSY, 486, 17),
        ("dialplan:congested@called", Cause.REJECTED, 503, 34),
        ("dialplan:gone@called", Cause.REJECTED, 480, 16),
        ("dialplan:none@called", Cause.REJECTED, 404, 1),
        ("1999", Cause.REJECTED, 404, 3),
    ],
)
async def test_a_call_that_nobody_takes_says_why(
    shop: AsteriskShop, to: str, cause: Cause, status: int, q850: int
) -> None:
    async with asterisk_line(shop) as line:
        last = await ended(await placed(line, to))
        assert (last.cause, last.status, last.q850) == (cause, status, q850), last.detail
        assert last.by in ("far", "network")


@pytest.mark.parametrize(
    ("to", "why"),
    [
        ("PJSIP/nix", "no endpoint PJSIP/nix"),
        ("PJSIP/1001@nix", "no endpoint PJSIP/nix"),
        ("Skinny/1001", "Skinny/1001"),
    ],
)
async def test_what_does_not_exist_is_refused_at_once(shop: AsteriskShop, to: str, why: str) -> None:
    async with asterisk_line(shop) as line:
        with pytest.raises(LegError, match=why):
            await placed(line, to)
        assert line.endpoint.legs == ()


async def test_nobody_answers_in_time(shop: AsteriskShop) -> None:
    async with asterisk_line(shop) as line, called(line, timeout_s=0.5) as (near, far):
        await far.ringing()
        far_side = Listener(far)
        last = await ended(near)
        assert (last.cause, last.by, last.q850) == (Cause.NO_ANSWER, "us", 19)
        cancelled = await far_side.event(LegEnded)
        assert isinstance(cancelled, LegEnded)
        assert (cancelled.cause, cancelled.q850) == (Cause.CANCELLED, 19)


async def test_we_give_up_while_it_rings(shop: AsteriskShop) -> None:
    async with asterisk_line(shop) as line, called(line) as (near, far):
        await far.ringing()
        await near.event(Progress)
        far_side = Listener(far)
        await near.leg.hangup(Cause.API_HUNG_UP, "enough")
        cancelled = await far_side.event(LegEnded)
        assert isinstance(cancelled, LegEnded)
        assert cancelled.cause is Cause.CANCELLED
        last = await ended(near)
        assert (last.cause, last.detail, last.by) == (Cause.API_HUNG_UP, "enough", "us")


@pytest.mark.parametrize("who", ["far", "us"])
async def test_somebody_hangs_up_after_the_answer(shop: AsteriskShop, who: str) -> None:
    async with asterisk_line(shop) as line, called(line) as (near, far):
        await far.answer()
        await near.event(Answered)
        far_side = Listener(far)
        await (far if who == "far" else near.leg).hangup(Cause.AGENT_HUNG_UP)
        await far_side.event(LegEnded)
        last = await ended(near)
        expected = Cause.CALLER_HUNG_UP if who == "far" else Cause.AGENT_HUNG_UP
        assert (last.cause, last.by, last.q850) == (expected, who, 16)
        frames = len(near.frames)
        late = Listener(near.leg)
        assert late.events == [last]
        assert len(near.frames) == frames


async def test_digits_and_hold_on_a_call_of_ours(shop: AsteriskShop) -> None:
    async with asterisk_line(shop) as line, called(line) as (near, far):
        with pytest.raises(LegStateError):
            near.leg.send_dtmf("1")
        await far.answer()
        await near.event(Answered)
        far_side = Listener(far)
        assert Capability.DTMF_SEND | Capability.HOLD in near.leg.capabilities
        near.leg.send_dtmf("15#", tone_ms=100, gap_ms=80)
        far.send_dtmf("29*", tone_ms=100, gap_ms=80)
        await far_side.until(lambda: digits(far_side) == "15#")
        await near.until(lambda: digits(near) == "29*")


async def test_the_called_party_sees_who_calls(shop: AsteriskShop) -> None:
    who = {"caller": "+4930111", "caller_name": 'Zoë "Z"; & Co', "headers": [("X-Campaign", "spring")]}
    async with asterisk_line(shop) as line, called(line, **who) as (near, far):
        assert (far.info.from_, far.info.display_name) == ("+4930111", 'Zoë "Z"; & Co')
        assert far.info.headers["x-campaign"] == "spring"
        assert near.leg.info.from_ == "+4930111"
        await near.leg.hangup(Cause.API_HUNG_UP)


async def test_variables_reach_the_dialplan_that_is_called(shop: AsteriskShop) -> None:
    variables = {"campaign": "spring", "__TOPIC": "tables, for ${4}"}
    async with asterisk_line(shop) as line:
        near = await placed(line, "dialplan:variables@called", caller="4711", caller_name="Desk", variables=variables)
        assert (await ended(near)).cause is Cause.CALLER_HUNG_UP
        await asyncio.to_thread(shop.program.wait_for_line, "campaign is spring tables, for ${4} by 4711 Desk")


async def test_a_number_is_dialled_by_the_context_for_it(shop: AsteriskShop) -> None:
    async with asterisk_line(shop, outbound_context="world") as line:
        near = await placed(line, "2000")
        await near.event(Answered)
        await near.hears_tone(TONE_HZ - TONE_HZ % 5 + 5)
        await near.leg.hangup(Cause.AGENT_HUNG_UP)


async def test_whoever_takes_a_call_late_is_told_that_it_was_answered(shop: AsteriskShop) -> None:
    async with asterisk_line(shop, outbound_context="world") as line:
        leg = await line.endpoint.place(asterisk_call(line.settings, "2000"))
        async with asyncio.timeout(20):
            while leg.state is not LegState.UP:
                await asyncio.sleep(0.01)
        late = Listener(leg)
        assert {MediaSetUp, Answered} <= {type(event) for event in late.events}
        await leg.hangup(Cause.AGENT_HUNG_UP)
        assert [type(event) for event in late.events].count(LegEnded) == 1


async def test_limits_and_connections_are_seen_to_before_anything_is_dialled(shop: AsteriskShop) -> None:
    async with asterisk_line(shop, calls=1) as line, called(line) as (near, far):
        with pytest.raises(CallLimitError, match="1 calls"):
            await placed(line, "PJSIP/tone@carrier")
        await near.leg.hangup(Cause.API_HUNG_UP)
        line.endpoint.refuse_new("the bridge is draining")
        with pytest.raises(CallLimitError, match="draining"):
            await placed(line, "PJSIP/tone@carrier")
        other = line.new_endpoint()
        with pytest.raises(PeerDownError, match="no connection"):
            await other.place(asterisk_call(line.settings, "PJSIP/tone@carrier"))
        await other.aclose()
        assert far.info.direction == "inbound"


async def test_an_answer_that_came_while_the_event_socket_was_cut_is_found(shop: AsteriskShop) -> None:
    proxy = AriProxy(shop.http_port)
    try:
        url = f"http://127.0.0.1:{proxy.port}"
        async with asterisk_line(shop, url=url) as line, called(line) as (near, far):
            await far.ringing()
            await near.event(Progress)
            proxy.refuses = True
            await asyncio.to_thread(proxy.cut)
            await line.until(lambda: line.endpoint.ari.state == "down", "cut")
            await far.answer()
            proxy.refuses = False
            await line.up()
            await near.event(Answered)
            say(far, tone(far, 880, 5000))
            await near.hears_tone(880)
    finally:
        proxy.stop()


async def test_a_call_that_is_given_up_while_it_is_made_leaves_nothing(shop: AsteriskShop) -> None:
    async with asterisk_line(shop) as line:
        endpoint, call = line.endpoint, asterisk_call(line.settings, "PJSIP/ring@carrier")
        before = endpoint.ari.counters["requests"]
        await (await endpoint.place(call)).hangup(Cause.API_HUNG_UP)
        steps = endpoint.ari.counters["requests"] - before
        assert steps >= 6
        for step in range(steps):
            until = endpoint.ari.counters["requests"] + step
            making = asyncio.create_task(endpoint.place(call))
            while not making.done() and endpoint.ari.counters["requests"] < until:
                await asyncio.sleep(0)
            making.cancel()
            with suppress(asyncio.CancelledError):
                await (await making).hangup(Cause.API_HUNG_UP)


# -- answering machines ---------------------------------------------------------------------------------------------


async def test_a_person_is_told_from_a_machine_before_the_call_counts_as_answered(shop: AsteriskShop) -> None:
    async with asterisk_line(shop) as line:
        near = await placed(line, "PJSIP/human@carrier", amd=True)
        await near.event(Answered)
        assert kinds(near) == ["MediaSetUp", "AnsweredBy", "Answered"]
        who = await near.event(AnsweredBy)
        assert isinstance(who, AnsweredBy)
        assert who.who == "human", who.detail
        say(near.leg, tone(near.leg, 440, 20_000))
        await near.until(lambda: near.leg.quality.packets_received > 0)
        await near.leg.hangup(Cause.AGENT_HUNG_UP)


async def test_a_machine_is_hung_up_on_or_talked_to(shop: AsteriskShop) -> None:
    async with asterisk_line(shop) as line:
        to = "PJSIP/machine@carrier"
        hung_up, talked = await asyncio.gather(
            placed(line, to, amd=True, on_machine="hangup"), placed(line, to, amd=True, on_machine="talk")
        )
        last = await ended(hung_up)
        assert (last.cause, last.by) == (Cause.AGENT_HUNG_UP, "us")
        assert "answering machine" in last.detail
        assert kinds(hung_up) == ["MediaSetUp", "AnsweredBy", "LegEnded"]
        who = await hung_up.event(AnsweredBy)
        assert isinstance(who, AnsweredBy)
        assert who.who == "machine"
        await talked.event(Answered)
        assert kinds(talked) == ["MediaSetUp", "AnsweredBy", "Answered"]
        # Its audio is ours again.
        await talked.until(lambda: any(any(frame) for frame in talked.frames[-50:]))
        await talked.leg.hangup(Cause.AGENT_HUNG_UP)


async def test_the_called_party_hangs_up_while_it_is_analysed(shop: AsteriskShop) -> None:
    async with asterisk_line(shop) as line, called(line, amd=True) as (near, far):
        await far.answer()
        await line.until(lambda: shop.calls_in("offhook-amd"), "analysis")
        await far.hangup(Cause.AGENT_HUNG_UP)
        last = await ended(near)
        assert (last.cause, last.by) == (Cause.CALLER_HUNG_UP, "far")
        who = await near.event(AnsweredBy)
        assert isinstance(who, AnsweredBy)
        assert who.who == "hung-up"


async def test_we_hang_up_while_it_is_analysed(shop: AsteriskShop) -> None:
    async with asterisk_line(shop) as line, called(line, amd=True) as (near, far):
        await far.answer()
        await line.until(lambda: shop.calls_in("offhook-amd"), "analysis")
        far_side = Listener(far)
        await near.leg.hangup(Cause.API_HUNG_UP)
        await far_side.event(LegEnded)
        assert kinds(near) == ["MediaSetUp", "LegEnded"]


async def test_without_the_context_the_call_is_taken_as_it_is(shop: AsteriskShop) -> None:
    async with asterisk_line(shop, amd_context="missing") as line, called(line, amd=True) as (near, far):
        await far.answer()
        await near.event(Answered)
        who = await near.event(AnsweredBy)
        assert isinstance(who, AnsweredBy)
        assert who.who == "unsure"
        assert "'missing'" in who.detail
        say(far, tone(far, 880, 5000))
        await near.hears_tone(880)


async def test_a_context_that_never_gives_the_call_back_ends_it(
    shop: AsteriskShop,
) -> None:
    async with (
        asterisk_line(shop, amd_context="never-back", amd_s=0.5) as line,
        called(line, amd=True) as (near, far),
    ):
        far_side = Listener(far)
        await far.answer()
        last = await ended(near)
        assert (last.cause, last.by) == (Cause.SIGNALLING_LOST, "us")
        assert "answering machine detection" in last.detail
        await far_side.event(LegEnded)
