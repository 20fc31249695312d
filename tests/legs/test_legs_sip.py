"""The SIP leg keeps the Leg contract; two endpoints on loopback call each other over real sockets."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from contract import LegContract, Listener
from sip_line import line, rtp_settings

from bridge.events import Cause, LegEnded
from bridge.legs.base import Leg, LegError, LegState
from bridge.legs.media import MediaUnavailableError
from bridge.sip.offer_answer import L16_16K, PCMU


class TestSipLeg(LegContract):
    @asynccontextmanager
    async def offered(self) -> AsyncIterator[tuple[Leg, Leg]]:
        async with line() as made:
            near, far = await made.call()
            yield near, far


class TestWidebandSipLeg(LegContract):
    """The same over L16 at 16 kHz."""

    @asynccontextmanager
    async def offered(self) -> AsyncIterator[tuple[Leg, Leg]]:
        async with line(codecs=(L16_16K,), far_codecs=(L16_16K,)) as made:
            near, far = await made.call()
            assert near.sample_rate == 16000
            yield near, far


async def test_an_offer_without_a_common_codec_can_only_be_refused() -> None:
    async with line(codecs=(PCMU,), far_codecs=(L16_16K,)) as made:
        near, far = await made.call()
        assert near.refusal is not None and "no common codec" in near.refusal[1]
        far_side = Listener(far)
        await near.hangup(Cause.REFUSED_MEDIA)
        ended = await far_side.event(LegEnded)
        assert ended == LegEnded(Cause.REJECTED, "488 Not Acceptable Here", "far", 488, 88)


async def test_refusals_have_their_status() -> None:
    expected = {
        Cause.REFUSED_NO_ROUTE: "404",
        Cause.REFUSED_BUSY: "503",
        Cause.REFUSED_DRAINING: "503",
        Cause.REFUSED_FORBIDDEN: "403",
        Cause.ENGINE_FAILED: "503",
    }
    async with line() as made:
        for cause, status in expected.items():
            near, far = await made.call()
            far_side = Listener(far)
            await near.hangup(cause)
            ended = await far_side.event(LegEnded)
            assert isinstance(ended, LegEnded)
            assert ended.detail.startswith(status)


async def test_a_caller_who_gives_up_cancels() -> None:
    async with line() as made:
        near, far = await made.call()
        near_side = Listener(near)
        await near.ringing()
        await far.hangup(Cause.CANCELLED)
        ended = await near_side.event(LegEnded)
        assert isinstance(ended, LegEnded)
        assert ended.cause is Cause.CANCELLED


async def test_nobody_answers_in_time() -> None:
    async with line() as made:
        near, far = await made.call(timeout_s=0.3)
        far_side, near_side = Listener(far), Listener(near)
        assert (await far_side.event(LegEnded)) == LegEnded(Cause.NO_ANSWER, "nobody answered in time", q850=19)
        await near_side.event(LegEnded)


async def test_a_call_without_rtp_ends_with_media_timeout() -> None:
    async with line(rtp=rtp_settings(media_timeout_s=0.3)) as made:
        near, far = await made.call()
        near_side = Listener(near)
        await near.answer()
        await near_side.until(lambda: near.quality.packets_received > 3)
        # The caller's media stops, its signalling does not: an SBC that lost its media path.
        far._media.stream.close()
        ended = await near_side.event(LegEnded)
        assert isinstance(ended, LegEnded)
        assert ended.cause is Cause.MEDIA_TIMEOUT


async def test_a_call_that_never_sends_rtp_ends_with_media_timeout() -> None:
    async with line(rtp=rtp_settings(first_media_timeout_s=0.3)) as made:
        near, far = await made.call()
        far._media.stream.close()
        near_side = Listener(near)
        await near.answer()
        ended = await near_side.event(LegEnded)
        assert ended == LegEnded(Cause.MEDIA_TIMEOUT, "no RTP ever came", q850=41)


async def test_no_free_port_is_a_refusal_and_a_clear_error() -> None:
    async with line(rtp=rtp_settings(4)) as made:
        near, _far = await made.call()
        with pytest.raises(MediaUnavailableError):
            await made.call()
        await near.answer()


@pytest.mark.parametrize(
    "target", ["", "nonsense", "tel:+4930123", "sip:a@127.0.0.1;transport=sctp", "sip:a@no-such-host.invalid"]
)
async def test_a_target_that_can_not_be_called_is_named(target: str) -> None:
    async with line() as made:
        with pytest.raises(LegError):
            await made.far.dial(target, from_user="caller")


async def test_headers_go_with_the_bye_and_the_reason_is_read() -> None:
    async with line() as made:
        near, far = await made.call()
        far_side = Listener(far)
        seen: list[str] = []
        made.far.transports.tap = lambda received, data, flow, now: seen.append(data.decode()) if received else None
        await near.answer()
        await far_side.until(lambda: far.state is LegState.UP)
        near.hang_up(Cause.MEDIA_TIMEOUT, headers=[("X-Disposition", "SALE")])
        ended = await far_side.event(LegEnded)
        assert ended == LegEnded(Cause.SIGNALLING_LOST, 'Q.850;cause=41;text="No RTP"', "far", None, 41)
        assert any(message.startswith("BYE ") and "X-Disposition: SALE\r\n" in message for message in seen)


async def test_a_cancel_says_why() -> None:
    async with line() as made:
        near, far = await made.call(timeout_s=0.3)
        near_side = Listener(near)
        await near.ringing()
        ended = await near_side.event(LegEnded)
        assert isinstance(ended, LegEnded)
        assert (ended.cause, ended.status, ended.q850, ended.by) == (Cause.CANCELLED, 487, 19, "far")
        assert far.state is LegState.ENDED
