"""SIP legs over each codec, and a codec of another sample rate in mid-call: what is said is heard, the rate stays."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from contract import Listener, say, tone
from sip_line import line

from bridge.events import Answered
from bridge.sip.codecs import G722, L16_8K, L16_16K, OPUS, PCMA, PCMU, Codec


@pytest.mark.parametrize("codec", [PCMU, PCMA, G722, OPUS, L16_8K, L16_16K], ids=lambda codec: codec.rtpmap)
@pytest.mark.parametrize("ptime_ms", [10, 20, 60])
async def test_each_codec_carries_a_call_at_any_packet_length(codec: Codec, ptime_ms: int) -> None:
    async with line(codecs=(codec,), far_codecs=(codec,)) as made:
        near, far = await made.call()
        near_side, far_side = Listener(near), Listener(far)
        near._media.local = replace(near._media.local, ptime_ms=ptime_ms)
        await near.answer()
        await far_side.event(Answered)
        assert near.sample_rate == far.sample_rate == codec.sample_rate
        say(near, tone(near, 440, 60_000))
        say(far, tone(far, 880, 60_000))
        await far_side.hears_tone(440)
        await near_side.hears_tone(880)
        assert near.quality.packets_rejected == far.quality.packets_rejected == 0


@pytest.mark.parametrize(("first", "second"), [(PCMU, OPUS), (OPUS, PCMU), (PCMA, G722), (G722, L16_8K)])
async def test_codec_of_another_rate_in_mid_call_is_heard_through(first: Codec, second: Codec) -> None:
    async with line(codecs=(first, second), far_codecs=(first, second)) as made:
        near, far = await made.call()
        near_side, far_side = Listener(near), Listener(far)
        await near.answer()
        await far_side.event(Answered)
        say(near, tone(near, 440, 60_000))
        say(far, tone(far, 880, 60_000))
        await far_side.hears_tone(440)
        near._media.local = replace(near._media.local, codecs=(second,))
        await near.hold(True)
        await near.hold(False)
        await near_side.hears_tone(880)
        await far_side.hears_tone(440)
        assert near._media.agreed is not None and near._media.agreed.codec == second
        assert near.sample_rate == far.sample_rate == first.sample_rate
