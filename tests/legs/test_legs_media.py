"""What SIP legs do with their media on real sockets: encryption, reports, and the one-way call that is named."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from contract import Listener, say, tone
from sip_line import Line, line, rtp_settings, taken, uri

from bridge.events import Answered, Cause, LegEnded, OneWay, OneWayAudio
from bridge.legs.outbound import LegProfile, OutboundCall
from bridge.legs.sip import SipLeg
from bridge.rtp.packet import RtpPacket
from bridge.sip.sdes import new_keys
from bridge.sip.secure_media import SrtpPolicy


async def placed(made: Line, srtp: SrtpPolicy) -> tuple[SipLeg, SipLeg]:
    """A call that rings at `near`."""
    call = OutboundCall(target=uri(made.near, "agent"), from_="caller", profile=LegProfile(srtp=srtp))
    far = await made.far.place(call)
    return await taken(made.incoming), far


async def talk(near: SipLeg, far: SipLeg) -> tuple[Listener, Listener]:
    near_side, far_side = Listener(near), Listener(far)
    await near.answer()
    await far_side.event(Answered)
    say(near, tone(near, 440, 60_000))
    say(far, tone(far, 880, 60_000))
    await far_side.hears_tone(440)
    await near_side.hears_tone(880)
    return near_side, far_side


@pytest.mark.parametrize("mux", [False, True], ids=["two ports", "one port"])
@pytest.mark.parametrize("srtp", ["offered", "required"])
async def test_encrypted_call_is_heard_both_ways_and_held_and_resumed(srtp: SrtpPolicy, mux: bool) -> None:
    async with line(rtp=rtp_settings(rtcp_mux=mux)) as made:
        near, far = await placed(made, srtp)
        near_side, far_side = await talk(near, far)
        for leg in (near, far):
            agreed = leg._media.agreed
            assert agreed is not None and agreed.srtp is not None and agreed.rtcp_mux is mux
            assert agreed.local.media[0].protocol == ("RTP/SAVP" if srtp == "required" else "RTP/AVP")
            assert leg.quality.srtp == "AES_CM_128_HMAC_SHA1_80"
        await near.hold(True)
        await near.hold(False)
        await far_side.hears_tone(440)
        await near_side.hears_tone(880)
        assert near.quality.packets_rejected == far.quality.packets_rejected == 0


async def test_call_goes_on_under_new_keys() -> None:
    async with line() as made:
        near, far = await placed(made, "required")
        near_side, far_side = await talk(near, far)
        near._media.local = replace(near._media.local, keys=new_keys())
        before = far._media.agreed
        await near.hold(True)
        await near.hold(False)
        await far_side.hears_tone(440)
        await near_side.hears_tone(880)
        after = far._media.agreed
        assert before is not None and before.srtp is not None and after is not None and after.srtp is not None
        assert before.srtp.receive != after.srtp.receive and before.srtp.send == after.srtp.send
        assert near.quality.packets_rejected == far.quality.packets_rejected == 0


async def test_call_in_clear_stays_so_where_encryption_was_not_asked_for() -> None:
    async with line() as made:
        near, far = await placed(made, "off")
        await talk(near, far)
        assert near.quality.srtp == far.quality.srtp == ""
        await near.hold(True)
        assert near._media.agreed is not None and near._media.agreed.local.media[0].attribute("crypto") is None


async def test_encrypted_offer_is_refused_where_srtp_is_off() -> None:
    async with line() as made:
        made.near._profile_of = lambda request, flow: LegProfile("trunk", srtp="off")
        near, far = await placed(made, "required")
        assert near.refusal is not None and "SRTP is off" in near.refusal[1]
        far_side = Listener(far)
        await near.hangup(Cause.REFUSED_MEDIA)
        ended = await far_side.event(LegEnded)
        assert isinstance(ended, LegEnded) and ended.status == 488


async def test_offer_in_clear_is_refused_where_srtp_is_required() -> None:
    async with line() as made:
        made.near._profile_of = lambda request, flow: LegProfile("trunk", srtp="required")
        near, _far = await placed(made, "off")
        assert near.refusal is not None and "SRTP is required" in near.refusal[1]


async def test_reports_tell_round_trip_and_score_at_the_end_of_the_call() -> None:
    async with line() as made:
        near, far = await placed(made, "off")
        await talk(near, far)
        for leg in (near, far, near):
            endpoint = leg._media.stream._endpoint
            assert endpoint is not None and endpoint.rtcp is not None
            heard = leg.quality.packets_received
            endpoint.rtcp.due = 0.0
            await Listener(leg).until(lambda leg=leg, heard=heard: leg.quality.packets_received > heard + 60)
        await near.hangup(Cause.AGENT_HUNG_UP)
        quality = near.quality
        assert quality.round_trip_ms is not None and 0 <= quality.round_trip_ms < 1000
        # A busy machine may lose a moment of so short a call.
        assert quality.mos is not None and quality.mos > 2.5
        assert quality.mos_remote is not None and quality.remote_loss_percent == 0
        assert (quality.codec, quality.one_way) == ("PCMU", "")


async def test_calls_without_reports_have_a_score_of_what_we_hear() -> None:
    async with line(rtp=rtp_settings(rtcp=False)) as made:
        near, far = await placed(made, "off")
        await talk(near, far)
        await near.hangup(Cause.AGENT_HUNG_UP)
        assert near.quality.mos is not None and near.quality.mos_remote is None and near.quality.round_trip_ms is None


async def test_one_way_audio_is_an_event_of_the_leg() -> None:
    async with line() as made:
        made.media.limits = replace(made.media.limits, notice_s=0.5)
        near, far = await placed(made, "off")
        near_side, _ = await talk(near, far)
        far._media.stream.close()
        event = await near_side.event(OneWayAudio)
        assert isinstance(event, OneWayAudio) and event.reason is OneWay.NOT_HEARD
        assert near.quality.one_way == OneWay.NOT_HEARD


async def test_packets_can_be_seen_in_clear() -> None:
    async with line() as made:
        near, far = await placed(made, "required")
        seen: list[tuple[bool, bytes]] = []
        near._media.stream.tap(lambda received, data, address, now: seen.append((received, data)))
        await talk(near, far)
        near._media.stream.tap(None)
        kinds = {(received, RtpPacket.parse(data).payload_type) for received, data in seen}
        assert {(True, 0), (False, 0)} <= kinds


@pytest.mark.parametrize("host", ["reports.example.invalid", "0.0.0.0"])
async def test_reports_go_beside_the_media_where_their_address_is_none(host: str) -> None:
    async with line() as made:
        near, far = await placed(made, "off")
        await talk(near, far)
        agreed = near._media.agreed
        assert agreed is not None
        near._media.stream.update(replace(agreed, remote_rtcp=(host, 4)))
        endpoint, theirs = near._media.stream._endpoint, far._media.stream._endpoint
        assert endpoint is not None and endpoint.rtcp is not None and theirs is not None and theirs.rtcp is not None
        endpoint.rtcp.due = 0.0
        heard, seen = far.quality.packets_received, theirs.rtcp.received
        await Listener(far).until(lambda: far.quality.packets_received > heard + 60)
        assert theirs.rtcp.received > seen
