"""The life of an Asterisk call: what it brings, its audio, its keys and its music, and how each side ends it."""

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parents[1] / "e2e"))

from asterisk_caller import Caller
from asterisk_line import WAIT_S, asterisk_line, up
from asterisk_shop import MUSIC_HZ, TONE_HZ, AsteriskShop
from contract import Listener, digits, say, tone

from bridge.events import Answered, Cause, Held, LegEnded, MediaSetUp, Resumed
from bridge.legs.base import LegError, LegState, LegStateError
from bridge.legs.media import MediaUnavailableError
from bridge.legs.sip import SipLeg

DIALPLAN = """
[from-carrier]
exten => 803,1,Set(TIMEOUT(absolute)=1)
 same => n,Stasis(offhook)
 same => n,Hangup()
exten => 801,1,Set(CUSTOMER=4711 Ltd)
 same => n,Set(EMPTY=)
 same => n,Stasis(offhook,agent=sales,Campaign=spring sale,vip)
 same => n,Verbose(0,after ${OFFHOOK_STATUS} ${OFFHOOK_CAUSE} detail=${OFFHOOK_DETAIL} note=${NOTE})
 same => n,Answer()
 same => n,Playtones(523)
 same => n,Wait(60)
exten => 802,1,Answer()
 same => n,Stasis(offhook)
 same => n,Hangup()
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AsteriskShop]:
    started = AsteriskShop(tmp_path_factory.mktemp("shop"), dialplan=DIALPLAN)
    yield started
    started.stop()


def heard(hz: float) -> float:
    """As `hears_tone` measures it."""
    return round(hz / 5) * 5.0


# -- what comes along -----------------------------------------------------------------------------------------


async def test_arguments_and_variables_come_along(shop: AsteriskShop) -> None:
    async with asterisk_line(shop, variables=("CUSTOMER", "EMPTY", "NONE")) as line:
        near, _far = await line.call("801")
        info = near.info
        assert (info.kind, info.direction, info.trunk) == ("asterisk", "inbound", "pbx")
        assert (info.from_, info.to, info.agent) == ("+4930111", "801", "sales")
        headers = dict(info.headers)
        assert headers.pop("asterisk-channel").startswith("PJSIP/caller-")
        assert headers.pop("call-id")
        assert headers == {
            "agent": "sales",
            "campaign": "spring sale",
            "arg3": "vip",
            "customer": "4711 Ltd",
            "empty": "",
            "asterisk-context": "from-carrier",
        }
        assert near.state is LegState.OFFERED


async def test_the_number_that_was_called_is_told_by_the_shipped_dialplan(shop: AsteriskShop) -> None:
    async with asterisk_line(shop) as line:
        near, _far = await line.call("+49301234")
        assert near.info.to == "+49301234"


# -- set-up ---------------------------------------------------------------------------------------------------


async def test_the_answer_waits_for_nothing_that_ringing_could_do(shop: AsteriskShop) -> None:
    async with asterisk_line(shop) as line:
        near, far = await line.call("801")
        near_side = Listener(near)
        await near.ringing()
        await line.until(lambda: near.line.media is not None, "media")
        assert near_side.events == []
        await near.answer()
        await up(near, far)
        assert [type(event) for event in near_side.events] == [MediaSetUp, Answered]
        set_up = near_side.events[0]
        assert isinstance(set_up, MediaSetUp)
        assert (set_up.transport, set_up.codec) == ("rtp", "ulaw")
        assert set_up.took_ms > 0


@pytest.mark.parametrize("codec", ["alaw", "slin", "g722"])
async def test_audio_goes_both_ways_by_each_codec(shop: AsteriskShop, codec: str) -> None:
    async with asterisk_line(shop, rtp={"codec": codec}) as line:
        near, far = await line.call("801")
        near_side, far_side = Listener(near), Listener(far)
        await near.answer()
        await up(near, far)
        assert near.sample_rate == (16000 if codec == "g722" else 8000)
        say(near, tone(near, 440, 3000))
        say(far, tone(far, 880, 3000))
        await far_side.hears_tone(440)
        await near_side.hears_tone(880)
        assert near.quality.packets_rejected == 0


async def test_a_caller_whom_the_dialplan_answered_is_taken_as_he_is(shop: AsteriskShop) -> None:
    async with asterisk_line(shop) as line:
        near, far = await line.call("802")
        near_side = Listener(near)
        await near.ringing()
        await near.answer()
        await up(near, far)
        say(far, tone(far, 880, 3000))
        await near_side.hears_tone(880)


async def test_without_a_free_port_the_caller_goes_on_in_the_dialplan(shop: AsteriskShop) -> None:
    async with asterisk_line(shop) as line:
        taken = []
        near, far = await line.call("801")
        far_side = Listener(far)
        with pytest.raises(MediaUnavailableError):
            while True:
                taken.append(line.sip.media.open())
        with pytest.raises(MediaUnavailableError):
            await near.answer()
        await near.hangup(Cause.REFUSED_MEDIA, "no port")
        await far_side.hears_tone(heard(TONE_HZ))
        for stream in taken:
            stream.close()


# -- the caller's line ----------------------------------------------------------------------------------------


async def test_what_a_caller_loses_on_the_way_to_asterisk_is_known_when_he_hangs_up(shop: AsteriskShop) -> None:
    async with asterisk_line(shop) as line:
        phone = Caller(loses_each=10)
        await phone.open()
        try:
            phone.begin("700", shop.sip_port)
            near = await line.taken()
            await near.answer()
            # Asterisk counts what is lost when it sends its first report, after 5 s.
            await phone.packets_come(280)
            phone.give_up()
            assert await near.ended_within(WAIT_S)
        finally:
            await phone.close()
        quality = near.quality.caller_line
        assert quality is not None
        # The first counts as no loss, and what came after the report is not in it.
        assert 15 <= (quality.packets_lost or 0) <= 40
        assert quality.packets_received > 200 and quality.packets_sent > 200
        assert quality.mos is not None and quality.mos < 4
        # Its phone sends no reports.
        assert quality.mos_remote is None and quality.round_trip_ms is None


async def test_the_callers_line_is_known_of_a_call_that_we_end(shop: AsteriskShop) -> None:
    async with asterisk_line(shop) as line:
        near, far = await line.call("700")
        await near.answer()
        await up(near, far)

        def reported() -> bool:
            near.caller_line.look()
            quality = near.quality.caller_line
            return quality is not None and quality.mos_remote is not None

        await line.until(reported, "report of the caller's phone")
        before = near.quality.caller_line
        await near.hangup(Cause.AGENT_HUNG_UP)
        quality = near.quality.caller_line
        assert before is not None and quality is not None
        # It was asked at the end, when the channel was not yet given back.
        assert quality.packets_received >= before.packets_received >= 200
        assert quality.packets_lost == 0 and quality.remote_loss_percent == 0
        assert quality.mos is not None and quality.mos > 4.3
        assert quality.mos_remote is not None and quality.mos_remote > 4.3
        assert quality.jitter_ms is not None


# -- in the call ----------------------------------------------------------------------------------------------


async def test_music_takes_our_place_and_we_hear_the_caller_alone(shop: AsteriskShop) -> None:
    async with asterisk_line(shop) as line:
        near, far = await line.call("801")
        near_side, far_side = Listener(near), Listener(far)
        await near.answer()
        await up(near, far)
        await near.music(True)
        await near.music(True)
        say(near, tone(near, 440, 2000))
        await far_side.hears_tone(heard(MUSIC_HZ))
        say(far, tone(far, 880, 3000))
        await near_side.hears_tone(880)
        await near.music(False)
        say(near, tone(near, 440, 3000))
        await far_side.hears_tone(440)


@pytest.mark.parametrize("kind", ["music", "hold"])
async def test_music_does_not_outlast_the_call(shop: AsteriskShop, kind: str) -> None:
    async with asterisk_line(shop) as line:
        near, far = await line.call("801")
        far_side = Listener(far)
        await near.answer()
        await up(near, far)
        await (near.music(True) if kind == "music" else near.hold(True))
        await far_side.hears_tone(heard(MUSIC_HZ))
        await near.hangup(Cause.AGENT_HUNG_UP)
        await far_side.hears_tone(heard(TONE_HZ))


async def test_packets_are_shown_as_they_come_and_go(shop: AsteriskShop) -> None:
    async with asterisk_line(shop) as line:
        near, far = await line.call("801")
        seen: list[tuple[bool, tuple[str, int], tuple[str, int], int]] = []
        untap = near.tap_packets(
            lambda received, own, other, packet: seen.append((received, own, other, len(packet)))
        )
        await near.answer()
        await up(near, far)
        await line.until(lambda: {received for received, *_ in seen} == {True, False}, "packets both ways")
        assert {own[0] for _, own, _, _ in seen} == {"127.0.0.1"}
        assert {other[1] in shop.rtp_range for _, _, other, _ in seen} == {True}
        assert {size for *_, size in seen} == {172}
        untap()


async def test_a_caller_on_hold_hears_asterisks_music_and_is_not_heard(shop: AsteriskShop) -> None:
    async with asterisk_line(shop, rtp_settings={"media_timeout_s": 1.0}) as line:
        near, far = await line.call("801")
        near_side, far_side = Listener(near), Listener(far)
        await near.answer()
        await up(near, far)
        await near.hold(True)
        await far_side.hears_tone(heard(MUSIC_HZ))
        await near.hold(False)
        say(near, tone(near, 440, 3000))
        say(far, tone(far, 880, 3000))
        await far_side.hears_tone(440)
        await near_side.hears_tone(880)


async def test_a_caller_who_holds_us_is_no_lost_media(shop: AsteriskShop) -> None:
    async with asterisk_line(shop) as line:
        near, far = await line.call("801")
        near_side, far_side = Listener(near), Listener(far)
        await near.answer()
        await up(near, far)
        await far.hold(True)
        assert await near_side.event(Held) == Held(music=True)
        await far.hold(False)
        await near_side.event(Resumed)
        say(near, tone(near, 440, 3000))
        await far_side.hears_tone(440)


async def test_digits_are_sent_in_their_order(shop: AsteriskShop) -> None:
    async with asterisk_line(shop) as line:
        near, far = await line.call("801")
        far_side = Listener(far)
        await near.answer()
        await up(near, far)
        for digit in "1590#":
            near.send_dtmf(digit, tone_ms=80, gap_ms=60)
        await far_side.until(lambda: len(digits(far_side)) >= 5)
        assert digits(far_side) == "1590#"


async def test_variables_are_there_when_the_dialplan_goes_on(shop: AsteriskShop) -> None:
    async with asterisk_line(shop) as line:
        near, _far = await line.call("801")
        with pytest.raises(LegError, match="not a name"):
            await near.set_variables({"not a name": "1"})
        await near.set_variables({"NOTE": "wants a\r\ncall back"})
        await near.answer()
        await near.hangup(Cause.AGENT_HUNG_UP, "said goodbye")
        shop.program.wait_for_line("after ANSWERED agent-hung-up detail=said goodbye note=wants a call back")
        with pytest.raises(LegStateError):
            await near.set_variables({"NOTE": "late"})


# -- how it ends ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cause", "up_before", "status"),
    [
        (Cause.AGENT_HUNG_UP, True, "ANSWERED"),
        (Cause.SILENCE, True, "ANSWERED"),
        (Cause.ENGINE_FAILED, True, "FAILED"),
        (Cause.DRAINED, True, "FAILED"),
        (Cause.REFUSED_BUSY, False, "REFUSED"),
        (Cause.REFUSED_NO_ROUTE, False, "REFUSED"),
        (Cause.ENGINE_FAILED, False, "FAILED"),
    ],
)
async def test_the_caller_goes_on_in_the_dialplan(
    shop: AsteriskShop, cause: Cause, up_before: bool, status: str
) -> None:
    async with asterisk_line(shop) as line:
        near, far = await line.call("801")
        far_side = Listener(far)
        if up_before:
            await near.answer()
        note = f"{cause.value}-{up_before}"
        await near.set_variables({"NOTE": note})
        await near.hangup(cause)
        shop.program.wait_for_line(f"after {status} {cause.value} detail= note={note}")
        await far_side.hears_tone(heard(TONE_HZ))


@pytest.mark.parametrize(
    ("cause", "status"),
    [(Cause.REFUSED_BUSY, 503), (Cause.REFUSED_NO_ROUTE, 404), (Cause.REFUSED_FORBIDDEN, 403), (Cause.BUSY, 486)],
)
async def test_or_is_refused_where_the_settings_say_so(shop: AsteriskShop, cause: Cause, status: int) -> None:
    async with asterisk_line(shop, after="hangup") as line:
        near, far = await line.call("801")
        far_side = Listener(far)
        await near.hangup(cause)
        ended = await far_side.event(LegEnded)
        assert isinstance(ended, LegEnded) and ended.status == status


async def test_or_is_hung_up_after_the_call(shop: AsteriskShop) -> None:
    async with asterisk_line(shop, after="hangup") as line:
        near, far = await line.call("801")
        near_side, far_side = Listener(near), Listener(far)
        await near.answer()
        await near.hangup(Cause.AGENT_HUNG_UP)
        ended = await far_side.event(LegEnded)
        assert isinstance(ended, LegEnded) and ended.q850 == 16
        assert near_side.events[-1] == LegEnded(Cause.AGENT_HUNG_UP, "", "us", None, 16)


async def test_a_caller_who_gives_up_before_the_answer_cancels(shop: AsteriskShop) -> None:
    async with asterisk_line(shop) as line:
        near, far = await line.call("801")
        near_side = Listener(near)
        await near.ringing()
        await far.hangup(Cause.CANCELLED)
        ended = await near_side.event(LegEnded)
        assert isinstance(ended, LegEnded)
        assert (ended.cause, ended.by, ended.status) == (Cause.CANCELLED, "far", 487)


async def test_the_cause_of_a_bye_is_told(shop: AsteriskShop) -> None:
    async with asterisk_line(shop) as line:
        for cause, told, q850 in (
            (Cause.AGENT_HUNG_UP, Cause.CALLER_HUNG_UP, 16),
            (Cause.MEDIA_TIMEOUT, Cause.SIGNALLING_LOST, 41),
        ):
            near, far = await line.call("801")
            near_side = Listener(near)
            await near.answer()
            await up(near, far)
            await far.hangup(cause)
            ended = await near_side.event(LegEnded)
            assert isinstance(ended, LegEnded) and (ended.cause, ended.q850) == (told, q850)


async def test_an_operator_hangs_the_channel_up(shop: AsteriskShop) -> None:
    async with asterisk_line(shop) as line:
        near, _far = await line.call("801")
        near_side = Listener(near)
        await near.answer()
        await asyncio.to_thread(shop.cli, f"channel request hangup {near.info.headers['asterisk-channel']}")
        ended = await near_side.event(LegEnded)
        assert isinstance(ended, LegEnded)
        assert (ended.cause, ended.by, ended.q850) == (Cause.CALLER_HUNG_UP, "far", None)
        assert "Asterisk ended the channel" in ended.detail


async def test_an_operator_takes_the_channel_elsewhere(shop: AsteriskShop) -> None:
    async with asterisk_line(shop) as line:
        near, far = await line.call("801")
        near_side, far_side = Listener(near), Listener(far)
        await near.answer()
        await up(near, far)
        channel = near.info.headers["asterisk-channel"]
        await asyncio.to_thread(shop.cli, f"channel redirect {channel} from-carrier,801,4")
        ended = await near_side.event(LegEnded)
        assert isinstance(ended, LegEnded) and (ended.cause, ended.by) == (Cause.TRANSFERRED, "far")
        await far_side.hears_tone(heard(TONE_HZ))


async def test_a_limit_of_the_dialplan_ends_the_call(shop: AsteriskShop) -> None:
    async with asterisk_line(shop) as line:
        near, _far = await line.call("803")
        near_side = Listener(near)
        await near.answer()
        ended = await near_side.event(LegEnded)
        assert isinstance(ended, LegEnded) and (ended.cause, ended.by) == (Cause.MAX_LENGTH, "far")


async def test_silence_of_the_caller_ends_the_call(shop: AsteriskShop) -> None:
    async with asterisk_line(shop, rtp_settings={"media_timeout_s": 0.5}) as line:
        near, far = await line.call("801")
        near_side = Listener(near)
        await near.answer()
        await up(near, far)
        await near_side.until(lambda: near.quality.packets_received > 5)
        line.sip.clock.remove(far._media.stream._endpoint)
        ended = await near_side.event(LegEnded)
        assert isinstance(ended, LegEnded) and ended.cause is Cause.MEDIA_TIMEOUT


async def test_a_media_channel_that_asterisk_ends_is_the_end_of_the_call(shop: AsteriskShop) -> None:
    async with asterisk_line(shop) as line:
        near, far = await line.call("801")
        near_side, far_side = Listener(near), Listener(far)
        await near.answer()
        await up(near, far)
        await line.endpoint.ari.hangup(near.line.media_id)
        ended = await near_side.event(LegEnded)
        assert isinstance(ended, LegEnded) and ended.cause is Cause.MEDIA_TIMEOUT
        await far_side.hears_tone(heard(TONE_HZ))


# -- more than one --------------------------------------------------------------------------------------------


async def test_the_limit_of_calls_sends_the_next_one_on(shop: AsteriskShop) -> None:
    async with asterisk_line(shop, calls=1) as line:
        near, far = await line.call("801")
        await near.answer()
        await up(near, far)
        second = await line.dial("801", line.sip.third)
        second_side = Listener(second)
        await second_side.hears_tone(heard(TONE_HZ))
        shop.program.wait_for_line("after REFUSED refused-busy detail=1 calls are live on pbx (calls)")
        assert line.incoming.empty() and near.state is LegState.UP


async def test_calls_that_come_while_we_stop_go_on_at_once(shop: AsteriskShop) -> None:
    async with asterisk_line(shop) as line:
        line.endpoint.refuse_new("we stop")
        far = await line.dial("801")
        await Listener(far).hears_tone(heard(TONE_HZ))
        shop.program.wait_for_line("after REFUSED refused-draining detail=we stop")
        await far.hangup(Cause.AGENT_HUNG_UP)
        line.endpoint.accept_new()
        near, _far = await line.call("801")
        assert near.state is LegState.OFFERED


async def test_closing_gives_every_caller_back(shop: AsteriskShop) -> None:
    async with asterisk_line(shop) as line:
        calls = [await line.call("801") for _ in range(3)]
        await calls[0][0].answer()
        await line.endpoint.aclose()
        for near, far in calls:
            assert near.state is LegState.ENDED
            await Listener(far).hears_tone(heard(TONE_HZ))


async def test_many_calls_at_once_are_each_set_up(shop: AsteriskShop) -> None:
    async with asterisk_line(shop) as line:

        async def one(caller: Any) -> tuple[Any, SipLeg]:
            return await line.call("801", caller)

        calls = await asyncio.gather(*(one(line.sip.third) for _ in range(10)))
        nears = [near for near, _far in calls]
        await asyncio.gather(*(near.ringing() for near in nears))
        await asyncio.gather(*(near.answer() for near in nears))
        assert all(near.state is LegState.UP for near in nears)
        readings = line.endpoint.readings()
        assert readings['asterisk_calls{asterisk="pbx"}'] == 10
        assert line.endpoint.status().calls == 10
        await asyncio.gather(*(near.hangup(Cause.AGENT_HUNG_UP) for near in nears))
