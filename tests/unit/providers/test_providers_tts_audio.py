"""What voices send, and the PCM it becomes."""

import audioop

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.providers.tts_audio import WireDecoder, WireFormat, wire_format


def tone(rate_hz: int, length_ms: int) -> bytes:
    times = np.arange(rate_hz * length_ms // 1000) / rate_hz
    return np.rint(8000 * np.sin(2 * np.pi * 440 * times)).astype("<i2").tobytes()


def decoded(wire: WireFormat, rate_hz: int, data: bytes, cuts: list[int]) -> bytes:
    decoder = WireDecoder(wire, rate_hz)
    out, at = b"", 0
    for cut in cuts:
        out += decoder.decode(data[at : at + cut])
        at += cut
    return out + decoder.decode(data[at:]) + decoder.flush()


def test_the_telephone_gets_mulaw_and_others_a_rate_that_loses_nothing() -> None:
    rates = (16000, 24000)
    assert wire_format(8000, rates) == WireFormat("mulaw", 8000)
    assert wire_format(16000, rates) == WireFormat("linear16", 16000)
    assert wire_format(48000, rates) == WireFormat("linear16", 24000)


@given(st.lists(st.integers(1, 700), max_size=20))
def test_mulaw_and_the_same_rate_come_out_as_they_are_however_they_are_cut(cuts: list[int]) -> None:
    pcm = tone(8000, 500)
    mulaw = audioop.lin2ulaw(pcm, 2)
    assert decoded(WireFormat("mulaw", 8000), 8000, mulaw, cuts) == audioop.ulaw2lin(mulaw, 2)
    assert decoded(WireFormat("linear16", 16000), 16000, pcm, cuts) == pcm


@given(st.lists(st.integers(1, 3000), max_size=20))
def test_cuts_do_not_show_after_a_change_of_rate(cuts: list[int]) -> None:
    wire, pcm = WireFormat("linear16", 24000), tone(24000, 333)
    assert decoded(wire, 8000, pcm, cuts) == decoded(wire, 8000, pcm, [])


@pytest.mark.parametrize(("from_hz", "to_hz"), [(24000, 8000), (24000, 16000), (24000, 48000), (22050, 8000)])
@pytest.mark.parametrize("length_ms", [1, 20, 99, 100, 1000])
def test_speech_keeps_its_length_and_its_end_after_a_change_of_rate(from_hz: int, to_hz: int, length_ms: int) -> None:
    pcm = decoded(WireFormat("linear16", from_hz), to_hz, tone(from_hz, length_ms), [])
    length = len(pcm) / 2 * 1000 / to_hz
    assert length_ms - 1 <= length <= length_ms + 5
    samples = np.frombuffer(pcm, "<i2").astype(float)
    # The tone is as loud in its last part as in the middle: nothing stayed in the filter.
    if length_ms >= 99:
        assert np.abs(samples[-to_hz // 100 :]).max() > 7000


def test_nothing_becomes_nothing() -> None:
    assert decoded(WireFormat("linear16", 24000), 8000, b"", []) == b""
