"""Codecs and tones."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.audio.codec import (
    CODECS,
    G722,
    L16,
    L16_8K,
    OPUS,
    PCMA,
    PCMU,
    Codec,
    find_codec,
    opus_codec,
    static_codec,
)
from bridge.audio.tones import BUSY, DTMF_KEYS, cadence, detect_dtmf, dtmf, dtmf_pair, tone, tone_level


@pytest.mark.parametrize("codec", [PCMU, PCMA])
def test_g711_keeps_a_tone_within_its_own_noise(codec: Codec) -> None:
    pcm = tone((1000.0,), 500, 8000)
    payload = codec.encoder()(pcm)
    assert len(payload) == len(pcm) // 2
    error = np.frombuffer(codec.decoder()(payload), "<i2").astype(float) - np.frombuffer(pcm, "<i2")
    signal = np.frombuffer(pcm, "<i2").astype(float)
    assert 10 * np.log10((signal**2).mean() / (error**2).mean()) > 35


@given(st.binary(max_size=1000).map(lambda data: data[: len(data) // 2 * 2]))
def test_l16_is_the_identity_in_network_order(pcm: bytes) -> None:
    payload = L16.encoder()(pcm)
    assert payload[::2] == pcm[1::2]
    assert L16.decoder()(payload) == pcm


@given(st.binary(max_size=400))
def test_any_payload_decodes_to_whole_samples(payload: bytes) -> None:
    for codec in CODECS:
        assert len(codec.decoder()(payload)) % 2 == 0


def test_silence_of_pcmu_is_ff() -> None:
    assert PCMU.encoder()(bytes(4)) == b"\xff\xff"
    assert PCMA.encoder()(bytes(4)) == b"\xd5\xd5"


def test_codecs_are_found_as_sdp_names_them() -> None:
    assert find_codec("pcmu", 8000) is PCMU
    assert find_codec("L16", 16000) is L16
    assert find_codec("L16", 44100) is None
    assert find_codec("L16", 8000) is L16_8K
    assert find_codec("G722", 8000) is G722
    assert find_codec("opus", 48000) is OPUS
    assert find_codec("opus", 48000, "useinbandfec=1") == opus_codec("useinbandfec=1") != OPUS
    assert find_codec("G722", 16000) is None
    assert static_codec(8) is PCMA
    assert static_codec(9) is G722
    assert static_codec(18) is None


@pytest.mark.parametrize("digit", [*"".join(DTMF_KEYS)])
@pytest.mark.parametrize("rate", [8000, 16000])
def test_dtmf_made_is_dtmf_found(digit: str, rate: int) -> None:
    pcm = dtmf(digit, rate)
    assert detect_dtmf(pcm[: len(pcm) // 2], rate) == digit
    assert detect_dtmf(pcm[len(pcm) // 2 :], rate) is None


def test_other_sounds_are_no_dtmf() -> None:
    assert detect_dtmf(tone((697.0,), 100, 8000), 8000) is None
    noise = np.random.default_rng(1).normal(0, 3000, 800).astype("<i2").tobytes()
    assert detect_dtmf(noise, 8000) is None
    with pytest.raises(ValueError, match="keys"):
        dtmf_pair("x")


def test_tone_level_tells_one_frequency_from_others() -> None:
    pcm = tone((480.0, 620.0), 200, 8000, level=5000)
    assert tone_level(pcm, 480.0, 8000) == pytest.approx(5000, rel=0.05)
    assert tone_level(pcm, 1000.0, 8000) < 100


def test_cadence_is_on_and_off() -> None:
    pcm = np.frombuffer(cadence(BUSY, 1500, 8000), "<i2").astype(float)
    assert len(pcm) == 12000
    assert np.abs(pcm[:4000]).max() > 5000 and not pcm[4000:8000].any() and np.abs(pcm[8000:]).max() > 5000
