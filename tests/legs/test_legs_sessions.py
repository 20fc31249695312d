"""Sessions of SIP legs before and after the answer: early media, hold of all kinds, codecs, glare, digits."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from contract import Listener, digits, say, tone
from sip_line import Line, line, rtp_settings, uri

from bridge.events import Answered, Cause, Held, LegEnded, MediaLost, Progress, Resumed
from bridge.legs.base import Capability, LegError, LegState, NotCapableError
from bridge.legs.media import MediaStream
from bridge.legs.sip import SipLeg, SipLegOptions
from bridge.sip import events as sip
from bridge.sip.agent import UserAgent
from bridge.sip.offer_answer import L16_16K, PCMA, PCMU, Codec, LocalMedia, negotiate_answer
from bridge.sip.sdp import parse_sdp
from bridge.sip.settings import UserAgentConfig
from bridge.sip.transports import Transports, TransportSettings, open_transports


class Gateway:
    """A phone exchange as carriers have them: announcements come from one place, the called party from another."""

    def __init__(self, made: Line) -> None:
        self._line = made
        # Without 100rel each provisional response may bring another description.
        self.agent = UserAgent(UserAgentConfig(reliable="off"))
        self.invited: asyncio.Queue[sip.InviteReceived] = asyncio.Queue()
        self.streams: list[MediaStream] = []
        self.transports: Transports

    def on_event(self, event: sip.Event) -> None:
        if isinstance(event, sip.InviteReceived):
            self.invited.put_nowait(event)

    def place(self, offer: bytes, hz: float | None) -> bytes:
        """A new place of media; its description. Without a tone nothing is sent from it."""
        stream = self._line.media.open()
        self.streams.append(stream)
        agreed = negotiate_answer(parse_sdp(offer), LocalMedia("127.0.0.1", stream.port, codecs=(PCMU,)))
        if hz is not None:
            stream.start(agreed)
            generation = stream.playout.begin()
            stream.playout.write(generation, tone(stream, hz, 60_000))
        return agreed.local.serialise()

    @property
    def uri(self) -> str:
        host, port = self.transports.address
        return f"sip:gateway@{host}:{port}"


@asynccontextmanager
async def gateway(made: Line) -> AsyncIterator[Gateway]:
    gate = Gateway(made)
    settings = TransportSettings(hosts=("127.0.0.1",), port=0, tcp=False)
    gate.transports = await open_transports(gate.agent, gate.on_event, settings)
    try:
        yield gate
    finally:
        for stream in gate.streams:
            stream.close()
        async with asyncio.timeout(30):
            while gate.agent.call_count:
                await asyncio.sleep(0.02)
        gate.transports.close()
        await gate.transports.closed


async def up(made: Line) -> tuple[SipLeg, SipLeg, Listener, Listener]:
    """A call that is answered and confirmed, audio both ways."""
    near, far = await made.call()
    near_side, far_side = Listener(near), Listener(far)
    await near.answer()
    await far_side.event(Answered)
    say(near, tone(near, 440, 60_000))
    say(far, tone(far, 880, 60_000))
    await far_side.hears_tone(440)
    await near_side.hears_tone(880)
    return near, far, near_side, far_side


def reoffer(leg: SipLeg, sdp: bytes | None) -> None:
    leg.agent.reinvite(leg.key, sdp, leg.now())
    leg.flush()


# -- before the answer --------------------------------------------------------------------------------------


async def test_ringback_of_the_network_is_heard_and_gives_way_to_who_answers() -> None:
    async with line() as made, gateway(made) as gate:
        leg = await made.near.dial(gate.uri, from_user="offhook")
        heard = Listener(leg)
        invited = await asyncio.wait_for(gate.invited.get(), 30)
        assert invited.sdp is not None
        gate.agent.ring(invited.key, gate.transports.now())
        gate.agent.ring(invited.key, gate.transports.now(), status=183, sdp=gate.place(invited.sdp, 440))
        gate.transports.flush()
        await heard.hears_tone(440)
        assert leg.state is LegState.OFFERED
        assert Progress(183, early_media=True) in heard.events
        # Another phone of those that ring has an announcement of its own.
        gate.streams[0].close()
        gate.agent.ring(invited.key, gate.transports.now(), status=183, sdp=gate.place(invited.sdp, 660))
        gate.transports.flush()
        await heard.hears_tone(660)
        gate.agent.answer(invited.key, gate.place(invited.sdp, 880), gate.transports.now())
        gate.transports.flush()
        await heard.event(Answered)
        await heard.hears_tone(880)
        assert [type(event) for event in heard.events if not isinstance(event, Progress)] == [Answered]
        await leg.hangup(Cause.AGENT_HUNG_UP)


async def test_early_media_that_never_comes_ends_no_call_but_none_after_the_answer_does() -> None:
    rtp = rtp_settings(first_media_timeout_s=0.3, media_timeout_s=0.3)
    async with line(rtp=rtp) as made, gateway(made) as gate:
        leg = await made.near.dial(gate.uri, from_user="offhook")
        heard = Listener(leg)
        invited = await asyncio.wait_for(gate.invited.get(), 30)
        assert invited.sdp is not None
        silent = gate.place(invited.sdp, None)
        gate.agent.ring(invited.key, gate.transports.now(), status=183, sdp=silent)
        gate.transports.flush()
        await heard.event(MediaLost)
        # Twice the limit.
        await heard.until(lambda: len(heard.frames) > 30)
        assert leg.state is LegState.OFFERED
        gate.agent.answer(invited.key, silent, gate.transports.now())
        gate.transports.flush()
        await heard.event(Answered)
        ended = await heard.event(LegEnded)
        assert isinstance(ended, LegEnded) and ended.cause is Cause.MEDIA_TIMEOUT


async def test_a_session_may_change_before_the_answer() -> None:
    """UPDATE in the early dialog, once the 183 was acknowledged."""
    async with line() as made:
        near, far = await made.call()
        near_side, far_side = Listener(near), Listener(far)
        await near.early_media()
        say(near, tone(near, 440, 60_000))
        say(far, tone(far, 880, 60_000))
        await far_side.hears_tone(440)
        await near_side.hears_tone(880)
        far.agent.update(far.key, far._media.offer("inactive"), far.now())
        far.flush()
        await near_side.until(lambda: near._media.agreed.direction == "inactive")
        await near.answer()
        await near_side.event(Held)
        assert near_side.events == [Answered(), Held(music=False)]
        await far_side.event(Answered)


async def test_without_an_offer_there_is_no_early_media_but_a_call() -> None:
    async with line() as made:
        key = made.far.agent.invite(
            uri(made.near, "agent"),
            made.far.transports.flow_to(made.near.address),
            made.far.transports.now(),
            from_="sip:caller@127.0.0.1",
        )
        made.far.transports.flush()
        near = await asyncio.wait_for(made.incoming.get(), 30)
        assert Capability.EARLY_MEDIA not in near.capabilities
        with pytest.raises(NotCapableError):
            await near.early_media()
        await near.hangup(Cause.REFUSED_BUSY)
        made.far.agent.cancel(key, made.far.transports.now())


# -- hold ---------------------------------------------------------------------------------------------------


async def test_who_is_held_hears_the_music_and_is_not_heard() -> None:
    async with line() as made:
        near, far, near_side, far_side = await up(made)
        await far.hold(True)
        assert await near_side.event(Held) == Held(music=True)
        await near_side.hears_tone(880)
        sent = near.quality.packets_sent
        await near_side.until(lambda: len(near_side.frames) > 200)
        assert near.quality.packets_sent == sent
        await far.hold(False)
        await near_side.event(Resumed)
        say(near, tone(near, 660, 60_000))
        await far_side.hears_tone(660)


@pytest.mark.parametrize("address", ["0.0.0.0", None], ids=["null-address", "inactive"])
async def test_holds_without_music_are_told_from_those_with(address: str | None) -> None:
    async with line() as made:
        _near, far, near_side, far_side = await up(made)
        if address is None:
            held = far._media.offer("inactive")
        else:
            local = far._media.local
            far._media.local = replace(local, address=address)
            held = far._media.offer("sendrecv")
            far._media.local = local
        reoffer(far, held)
        assert await near_side.event(Held) == Held(music=False)
        await far_side.until(lambda: far._media.offered is None)
        reoffer(far, far._media.offer("sendrecv"))
        await near_side.event(Resumed)
        await near_side.hears_tone(880)


async def test_both_sides_hold_and_resume() -> None:
    async with line() as made:
        near, far, near_side, far_side = await up(made)
        await far.hold(True)
        await near.hold(True)
        assert near._media.agreed.direction == far._media.agreed.direction == "inactive"
        await far.hold(False)
        await near.hold(False)
        await near_side.hears_tone(880)
        say(near, tone(near, 660, 60_000))
        await far_side.hears_tone(660)


async def test_two_changes_at_once_are_both_made() -> None:
    """Glare: 491 both ways, and each side tries again after a while of its own."""
    async with line() as made:
        near, far, near_side, far_side = await up(made)
        async with asyncio.timeout(30):
            await asyncio.gather(near.hold(True), far.hold(True))
        assert {type(event) for event in near_side.events} >= {Held}
        assert {type(event) for event in far_side.events} >= {Held}
        assert near._media.agreed.direction == far._media.agreed.direction == "inactive"


# -- other changes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", [PCMA, L16_16K], ids=lambda codec: codec.name)
async def test_a_change_of_codec_is_heard_through(codec: Codec) -> None:
    """Frames keep their rate, whatever the new codec's is."""
    async with line(codecs=(PCMU, codec), far_codecs=(PCMU, codec)) as made:
        near, far, near_side, far_side = await up(made)
        far._media.local = replace(far._media.local, codecs=(codec,))
        reoffer(far, far._media.offer())
        await far_side.until(lambda: far._media.agreed.codec == codec)
        assert near._media.agreed.codec == codec
        assert near.sample_rate == 8000
        near_side.frames.clear()
        far_side.frames.clear()
        await far_side.hears_tone(440)
        await near_side.hears_tone(880)
        assert near.quality.packets_rejected == 0


async def test_a_change_that_leaves_no_codec_is_refused_and_nothing_changes() -> None:
    async with line(codecs=(PCMU,), far_codecs=(PCMU,)) as made:
        near, far, near_side, _far_side = await up(made)
        local = far._media.local
        far._media.local = replace(local, codecs=(PCMA,))
        with pytest.raises(LegError, match="488"):
            await far.hold(True)
        far._media.local = local
        near_side.frames.clear()
        await near_side.hears_tone(880)
        assert near._media.agreed.codec == PCMU


async def test_a_re_invite_without_an_offer_gets_ours() -> None:
    async with line() as made:
        near, far, near_side, far_side = await up(made)
        before = near._media.agreed
        reoffer(far, None)
        await near_side.until(lambda: near._media.agreed is not before)
        near_side.frames.clear()
        far_side.frames.clear()
        await far_side.hears_tone(440)
        await near_side.hears_tone(880)


# -- digits -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("near_mode", "far_mode"), [("info", "info"), ("auto", "info"), ("info", "auto")], ids="-".join
)
async def test_digits_go_by_info_where_one_side_has_no_events(near_mode, far_mode) -> None:
    async with line(near_options=SipLegOptions(dtmf=near_mode), far_options=SipLegOptions(dtmf=far_mode)) as made:
        near, far, near_side, far_side = await up(made)
        assert near._media.agreed.dtmf_payload_type is None
        near.send_dtmf("19*", tone_ms=50, gap_ms=20)
        far.send_dtmf("#A", tone_ms=50, gap_ms=20)
        await far_side.until(lambda: digits(far_side) == "19*")
        await near_side.until(lambda: digits(near_side) == "#A")


async def test_a_trunk_without_events_and_without_info_takes_no_digits() -> None:
    async with line(near_options=SipLegOptions(dtmf="rfc4733"), far_options=SipLegOptions(dtmf="info")) as made:
        near, _far, _near_side, _far_side = await up(made)
        assert Capability.DTMF_SEND not in near.capabilities
        with pytest.raises(NotCapableError):
            near.send_dtmf("1")


async def test_a_digit_told_twice_is_one() -> None:
    """Some send each digit in RTP and in INFO."""
    async with line() as made:
        _near, far, near_side, _far_side = await up(made)
        far.send_dtmf("5", tone_ms=60, gap_ms=20)
        await near_side.until(lambda: digits(near_side) == "5")
        far.agent.info(far.key, "application/dtmf-relay", b"Signal=5\r\nDuration=60\r\n", far.now())
        far.flush()
        far.send_dtmf("6", tone_ms=60, gap_ms=20)
        await near_side.until(lambda: "6" in digits(near_side))
        assert digits(near_side) == "56"
