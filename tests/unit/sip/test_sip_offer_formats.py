"""Offer and answer: wideband codecs, events at their clock rates, comfort noise, and what a re-offer must keep."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.sip.errors import NoCommonCodecError, SdpError
from bridge.sip.offer_answer import (
    G722,
    L16_8K,
    L16_16K,
    OPUS,
    PCMA,
    PCMU,
    Codec,
    LocalMedia,
    accept_answer,
    make_offer,
    negotiate_answer,
    revised,
)
from bridge.sip.sdp import SessionDescription, parse_sdp

LOCAL = LocalMedia("192.0.2.2", 6000, codecs=(OPUS, G722, PCMU, PCMA))
WEBRTC_LIKE = (
    "m=audio 4000 RTP/AVP 109 9 0 101 110 13\na=rtpmap:109 opus/48000/2\n"
    "a=fmtp:109 maxaveragebitrate=20000;useinbandfec=1\n"
    "a=rtpmap:101 telephone-event/8000\na=rtpmap:110 telephone-event/48000\na=ptime:30\n"
)


def described(media: str, session: str = "c=IN IP4 192.0.2.1\n") -> SessionDescription:
    return parse_sdp(f"v=0\no=- 5 9 IN IP4 192.0.2.1\ns=-\n{session}t=0 0\n{media}".encode())


def lines(sdp: SessionDescription) -> list[str]:
    return sdp.serialise().decode().split("\r\n")


# -- codecs -------------------------------------------------------------------------------------------------


def test_opus_is_taken_with_what_the_peer_wants_of_it() -> None:
    agreed = negotiate_answer(described(WEBRTC_LIKE), LOCAL)
    assert (agreed.codec, agreed.payload_type) == (OPUS, 109)
    assert agreed.fmtp == "maxaveragebitrate=20000;useinbandfec=1"
    text = lines(agreed.local)
    assert "a=rtpmap:109 opus/48000/2" in text
    assert f"a=fmtp:109 {OPUS.fmtp}" in text
    assert "useinbandfec=1" in OPUS.fmtp


def test_packet_length_is_one_that_the_codec_can_have() -> None:
    assert negotiate_answer(described(WEBRTC_LIKE), LOCAL).ptime_ms == 20
    assert negotiate_answer(described(WEBRTC_LIKE), replace(LOCAL, codecs=(G722,))).ptime_ms == 30


@pytest.mark.parametrize("rtpmap", ["opus/48000/2", "OPUS/48000", "Opus/48000/1"])
def test_opus_is_known_however_it_is_written(rtpmap: str) -> None:
    agreed = negotiate_answer(described(f"m=audio 4000 RTP/AVP 96\na=rtpmap:96 {rtpmap}\n"), LOCAL)
    assert agreed.codec is OPUS


def test_g722_is_static_at_its_old_mistaken_rate() -> None:
    agreed = negotiate_answer(described("m=audio 4000 RTP/AVP 9 0\n"), LOCAL)
    assert (agreed.codec, agreed.payload_type) == (G722, 9)
    assert "a=rtpmap:9 G722/8000" in lines(agreed.local)
    with pytest.raises(NoCommonCodecError):
        negotiate_answer(described("m=audio 4000 RTP/AVP 96\na=rtpmap:96 G722/16000\n"), LOCAL)


@pytest.mark.parametrize(("rate", "codec"), [(8000, L16_8K), (16000, L16_16K)])
def test_l16_goes_by_its_rate_and_mono(rate: int, codec: Codec) -> None:
    local = replace(LOCAL, codecs=(L16_8K, L16_16K))
    assert negotiate_answer(described(f"m=audio 4000 RTP/AVP 99\na=rtpmap:99 L16/{rate}\n"), local).codec is codec
    with pytest.raises(NoCommonCodecError):
        negotiate_answer(described(f"m=audio 4000 RTP/AVP 99\na=rtpmap:99 L16/{rate}/2\n"), local)


def test_codecs_of_one_call_and_their_order_are_ours_to_choose() -> None:
    for codecs in ((PCMA, G722), (G722, PCMA), (PCMU,)):
        local = replace(LOCAL, codecs=codecs)
        assert negotiate_answer(described(WEBRTC_LIKE.replace(" 0 ", " 0 8 ")), local).codec is codecs[0]
        assert f"m=audio 6000 RTP/AVP {' '.join(str(c.payload_type) for c in codecs)} 101" in lines(make_offer(local))


def test_stream_with_a_codec_of_ours_is_taken_before_one_without() -> None:
    offer = described("m=audio 4000 RTP/AVP 18\nm=audio 4002 RTP/AVP 0\nm=audio 4004 RTP/AVP 8\n")
    agreed = negotiate_answer(offer, LOCAL)
    assert agreed.remote == ("192.0.2.1", 4002)
    assert [media.port for media in agreed.local.media] == [0, 6000, 0]


# -- events -------------------------------------------------------------------------------------------------


def test_events_match_the_codecs_clock_and_others_that_were_named_are_taken_too() -> None:
    agreed = negotiate_answer(described(WEBRTC_LIKE), LOCAL)
    assert (agreed.dtmf_payload_type, agreed.dtmf_clock_rate) == (110, 48000)
    assert agreed.dtmf_receive == {101: 8000, 110: 48000}
    narrow = negotiate_answer(described(WEBRTC_LIKE), replace(LOCAL, codecs=(G722,)))
    assert (narrow.dtmf_payload_type, narrow.dtmf_clock_rate) == (101, 8000)


def test_offer_has_events_for_each_clock_rate() -> None:
    text = lines(make_offer(replace(LOCAL, codecs=(OPUS, L16_16K, PCMU))))
    assert {f"a=rtpmap:{n} telephone-event/{rate}" for n, rate in ((101, 8000), (102, 16000), (103, 48000))} <= set(
        text
    )
    assert "m=audio 6000 RTP/AVP 96 97 0 101 102 103" in text


# -- comfort noise ------------------------------------------------------------------------------------------


def test_comfort_noise_is_named_only_where_it_is_wanted_and_taken_always() -> None:
    offer = described("m=audio 4000 RTP/AVP 0 13 98\na=rtpmap:98 CN/16000\n")
    plain = negotiate_answer(offer, LOCAL)
    assert "m=audio 6000 RTP/AVP 0" in lines(plain.local)
    assert plain.comfort_noise == {13}
    wanted = negotiate_answer(offer, replace(LOCAL, comfort_noise=True))
    assert "m=audio 6000 RTP/AVP 0 13" in lines(wanted.local)
    assert "a=rtpmap:13 CN/8000" in lines(wanted.local)


def test_comfort_noise_is_offered_for_each_clock_rate_that_has_it() -> None:
    local = replace(LOCAL, codecs=(OPUS, L16_16K, PCMU), comfort_noise=True)
    offer = make_offer(local)
    assert "m=audio 6000 RTP/AVP 96 97 0 13 102 101 103 104" in lines(offer)
    assert "a=rtpmap:102 CN/16000" in lines(offer)
    agreed = accept_answer(offer, described("m=audio 4000 RTP/AVP 0 13\n"), local)
    assert agreed.comfort_noise >= {13, 102}
    assert agreed.receive == {0: PCMU}


# -- in mid-call --------------------------------------------------------------------------------------------


def test_offer_in_mid_call_keeps_each_payload_types_meaning() -> None:
    first = negotiate_answer(described(WEBRTC_LIKE.replace("109", "97")), LOCAL)
    again = make_offer(replace(LOCAL, codecs=(L16_16K, OPUS, PCMU), direction="sendonly"), first.local)
    text = lines(again)
    assert "a=rtpmap:97 opus/48000/2" in text and "a=rtpmap:96 L16/16000" in text
    assert "a=rtpmap:110 telephone-event/48000" in text
    third = make_offer(replace(LOCAL, codecs=(PCMU, OPUS, L16_16K)), again)
    kept = {row.split()[0]: row for row in text if row.startswith("a=rtpmap")}
    assert all(kept.get(row.split()[0], row) == row for row in lines(third) if row.startswith("a=rtpmap"))


def test_offer_in_mid_call_keeps_each_stream_in_its_place() -> None:
    offer = described("m=video 5000 RTP/AVP 99\nm=audio 4000 RTP/AVP 0\nm=image 5004 udptl t38\n")
    ours = negotiate_answer(offer, LOCAL).local
    again = make_offer(replace(LOCAL, direction="sendonly"), ours)
    assert [(media.media, media.port) for media in again.media] == [("video", 0), ("audio", 6000), ("image", 0)]
    answer = described("m=video 0 RTP/AVP 99\nm=audio 4000 RTP/AVP 0\na=recvonly\nm=image 0 udptl t38\n")
    agreed = accept_answer(again, answer, LOCAL)
    assert (agreed.direction, agreed.held, agreed.remote) == ("sendonly", False, ("192.0.2.1", 4000))
    assert revised(ours, again).origin.version == str(int(ours.origin.version) + 1)


def test_answer_must_take_the_stream_that_was_offered() -> None:
    ours = negotiate_answer(described("m=video 5000 RTP/AVP 99\nm=audio 4000 RTP/AVP 0\n"), LOCAL).local
    with pytest.raises(SdpError):
        accept_answer(make_offer(LOCAL, ours), described("m=audio 4000 RTP/AVP 0\nm=audio 0 RTP/AVP 0\n"), LOCAL)


def test_codec_may_change_to_any_of_ours_in_mid_call() -> None:
    first = negotiate_answer(described("m=audio 4000 RTP/AVP 0\n"), LOCAL)
    second = negotiate_answer(described("m=audio 4000 RTP/AVP 9\n"), LOCAL)
    assert (first.codec.sample_rate, second.codec.sample_rate) == (8000, 16000)


@pytest.mark.parametrize("connection", ["c=IN IP6 ::", "c=IN IP4 0.0.0.0"])
@pytest.mark.parametrize("session_level", [True, False])
def test_old_fashioned_hold_is_one_at_either_level(connection: str, session_level: bool) -> None:
    if session_level:
        offer = described("m=audio 4000 RTP/AVP 0\n", f"{connection}\n")
    else:
        offer = described(f"m=audio 4000 RTP/AVP 0\n{connection}\n")
    agreed = negotiate_answer(offer, LOCAL)
    assert (agreed.held, agreed.direction) == (True, "recvonly")


@pytest.mark.parametrize(("session", "media", "held"), [("sendonly", "", True), ("sendonly", "sendrecv", False)])
def test_direction_of_the_stream_counts_above_the_sessions(session: str, media: str, held: bool) -> None:
    attribute = f"a={media}\n" if media else ""
    offer = described(f"m=audio 4000 RTP/AVP 0\n{attribute}", f"c=IN IP4 192.0.2.1\na={session}\n")
    assert negotiate_answer(offer, LOCAL).held is held


_codecs = st.lists(st.sampled_from([OPUS, G722, PCMU, PCMA, L16_16K, L16_8K]), min_size=1, unique=True).map(tuple)


@given(st.lists(_codecs, min_size=2, max_size=6), st.booleans())
def test_no_series_of_offers_ever_gives_a_payload_type_two_meanings(
    series: list[tuple[Codec, ...]], noise: bool
) -> None:
    previous = None
    meanings: dict[str, str] = {}
    for codecs in series:
        previous = make_offer(replace(LOCAL, codecs=codecs, comfort_noise=noise), previous)
        current = {row.split()[0]: row for row in lines(previous) if row.startswith("a=rtpmap")}
        assert len(current) == sum(row.startswith("a=rtpmap") for row in lines(previous))
        assert all(meanings.get(number, row) == row for number, row in current.items())
        meanings = current
