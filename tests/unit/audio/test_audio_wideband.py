"""G.722 and Opus: what comes out is what went in, and what a lost packet leaves."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.audio.codec import G722, OPUS, Codec, opus_codec
from bridge.audio.opus import OpusDecoder, OpusEncoder, OpusParameters
from bridge.audio.tones import tone, tone_level

FRAME = 640
"""Bytes of 20 ms at 16 kHz."""


def voice(ms: int) -> bytes:
    """A vowel whose pitch and loudness move."""
    times = np.arange(16 * ms) / 16000
    phase = 2 * np.pi * np.cumsum(140 + 30 * np.sin(2 * np.pi * 2 * times)) / 16000
    wave = sum(np.sin(k * phase) / k for k in range(1, 12)) * (1.2 + np.sin(2 * np.pi * 3 * times))
    return (3000 * wave).astype("<i2").tobytes()


def frames(pcm: bytes, size: int = FRAME) -> list[bytes]:
    return [pcm[at : at + size] for at in range(0, len(pcm) - size + 1, size)]


def samples(pcm: bytes) -> np.ndarray:
    return np.frombuffer(pcm, "<i2").astype(float)


def likeness(pcm: bytes, original: bytes) -> float:
    """Best normalised correlation over the codec's own delay."""
    a, b = samples(pcm), samples(original)
    best = 0.0
    for lag in range(0, 320, 2):
        x, y = a[lag:], b[: len(a) - lag]
        best = max(best, float((x * y).sum() / np.sqrt((x**2).sum() * (y**2).sum() + 1)))
    return best


@pytest.mark.parametrize(("codec", "largest"), [(G722, 160), (OPUS, 120)])
def test_wideband_speech_survives(codec: Codec, largest: int) -> None:
    encode, decode = codec.encoder(), codec.decoder()
    pcm = voice(1000)
    payloads = [encode(frame) for frame in frames(pcm)]
    assert max(map(len, payloads)) <= largest
    out = b"".join(map(decode, payloads))
    assert len(out) == len(pcm)
    assert likeness(out[6400:], pcm[6400:]) > 0.8


@pytest.mark.parametrize("codec", [G722, OPUS])
def test_band_above_the_telephones_is_heard(codec: Codec) -> None:
    encode, decode = codec.encoder(), codec.decoder()
    out = b"".join(decode(encode(frame)) for frame in frames(tone((5200.0,), 600, 16000, level=8000)))
    assert tone_level(out[-12800:], 5200.0, 16000) > 4000


@pytest.mark.parametrize("codec", [G722, OPUS])
def test_streams_share_no_state(codec: Codec) -> None:
    pcm = frames(voice(200))
    alone = list(map(codec.encoder(), pcm))
    first, second = codec.encoder(), codec.encoder()
    together = [(first(a), second(b)) for a, b in zip(pcm, reversed(pcm), strict=True)]
    assert [a for a, _ in together] == alone


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=300), max_size=8), st.sampled_from([G722, OPUS]))
def test_any_payload_decodes_to_whole_samples_in_order(payloads: list[bytes], codec: Codec) -> None:
    decode = codec.decoder()
    for payload in payloads:
        pcm = decode(payload)
        assert len(pcm) % 2 == 0 and len(pcm) <= 3840


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300), st.integers(-10, 4000))
def test_any_payload_recovers_to_whole_samples(payload: bytes, count: int) -> None:
    assert len(OpusDecoder().recover(payload, count)) <= max(0, 2 * count)


@pytest.mark.parametrize("ms", [10, 20, 40, 60])
def test_opus_takes_its_packet_lengths(ms: int) -> None:
    encode, decode = OPUS.encoder(), OPUS.decoder()
    for frame in frames(voice(240), 32 * ms):
        assert len(decode(encode(frame))) == 32 * ms


def test_lost_packet_comes_back_from_the_next_ones_redundancy() -> None:
    payloads = list(map(opus_codec("useinbandfec=1").encoder(), frames(voice(2000))))
    whole = list(map(OPUS.decoder(), payloads))
    decode = OpusDecoder()
    error = energy = 0.0
    for n, payload in enumerate(payloads):
        if n % 10 == 5:
            continue
        if n % 10 == 6:
            lost = samples(decode.recover(payload, 320))
            # An encoder makes redundancy for what is speech to it.
            assert len(lost) in (0, 320)
            lost = lost if len(lost) else np.zeros(320)
            error += float(((lost - samples(whole[n - 1])) ** 2).sum())
            energy += float((samples(whole[n - 1]) ** 2).sum())
        assert len(decode(payload)) == FRAME
    assert error < 0.5 * energy


def test_packet_without_redundancy_recovers_nothing() -> None:
    payloads = list(map(opus_codec("useinbandfec=0").encoder(), frames(voice(400))))
    assert [OpusDecoder().recover(payload, 320) for payload in payloads] == [b""] * len(payloads)
    with_it = list(map(opus_codec("useinbandfec=1").encoder(), frames(voice(400))))[-1]
    assert len(OpusDecoder().recover(with_it, 320)) == FRAME
    assert OpusDecoder().recover(with_it, 160) == b""


def test_redundancy_is_sent_where_it_is_wanted_only() -> None:
    pcm = frames(voice(1000))
    plain, wanted = (sum(map(len, map(opus_codec(fmtp).encoder(), pcm))) for fmtp in ("", "useinbandfec=1;cbr=0"))
    assert wanted != plain


def test_silence_is_not_sent_with_dtx() -> None:
    encode = opus_codec("usedtx=1").encoder()
    sent = [bool(encode(frame)) for frame in itertools.chain(frames(voice(400)), [bytes(FRAME)] * 100)]
    assert all(sent[:20])
    assert sum(sent[40:]) < 20
    assert all(map(opus_codec("usedtx=0").encoder(), [bytes(FRAME)] * 100))


@pytest.mark.parametrize(
    ("fmtp", "parameters"),
    [
        ("", OpusParameters()),
        ("useinbandfec=1; usedtx=1;stereo=1", OpusParameters(fec=True, dtx=True)),
        ("maxaveragebitrate=20000;cbr=1", OpusParameters(bit_rate=20000, constant=True)),
        ("maxaveragebitrate=128000", OpusParameters()),
        ("maxaveragebitrate=1;maxplaybackrate=8000", OpusParameters(bit_rate=6000, playback_rate=8000)),
        ("maxaveragebitrate=x;;=;useinbandfec=2;minptime=10", OpusParameters()),
        ("maxaveragebitrate=99999999999999999999", OpusParameters()),
    ],
)
def test_format_parameters_are_read_leniently(fmtp: str, parameters: OpusParameters) -> None:
    assert OpusParameters.of_fmtp(fmtp) == parameters


@pytest.mark.parametrize("rate", [6000, 12000])
def test_bit_rate_of_the_far_end_is_kept(rate: int) -> None:
    encode = OpusEncoder(OpusParameters(bit_rate=rate))
    payloads = list(map(encode, frames(voice(3000))))
    assert sum(map(len, payloads)) * 8 / 3 < rate * 1.25
