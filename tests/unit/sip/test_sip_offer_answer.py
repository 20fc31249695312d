"""Offer and answer."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.sip.errors import NoAudioError, NoCommonCodecError, SdpError
from bridge.sip.offer_answer import (
    G722,
    L16_8K,
    L16_16K,
    OPUS,
    PCMA,
    PCMU,
    Codec,
    LocalMedia,
    Negotiated,
    accept_answer,
    make_offer,
    negotiate_answer,
    revised,
)
from bridge.sip.sdp import SessionDescription, parse_sdp

LOCAL = LocalMedia("192.0.2.2", 6000)


def described(media: str, session: str = "c=IN IP4 192.0.2.1\n") -> SessionDescription:
    return parse_sdp(f"v=0\no=- 5 9 IN IP4 192.0.2.1\ns=-\n{session}t=0 0\n{media}".encode())


def answered(media: str, local: LocalMedia = LOCAL, session: str = "c=IN IP4 192.0.2.1\n") -> Negotiated:
    return negotiate_answer(described(media, session), local)


def lines(sdp: SessionDescription) -> list[str]:
    return sdp.serialise().decode().split("\r\n")


def test_static_payload_types_need_no_rtpmap() -> None:
    agreed = answered("m=audio 4000 RTP/AVP 18 8 0 3\n")
    assert (agreed.codec, agreed.payload_type) == (PCMU, 0)
    assert agreed.receive == {0: PCMU}
    assert agreed.dtmf_payload_type is None
    assert (agreed.remote, agreed.remote_rtcp) == (("192.0.2.1", 4000), ("192.0.2.1", 4001))
    assert "m=audio 6000 RTP/AVP 0" in lines(agreed.local)


def test_our_preference_counts() -> None:
    assert answered("m=audio 4000 RTP/AVP 0 8\n", replace(LOCAL, codecs=(PCMA, PCMU))).codec is PCMA


def test_dynamic_types_go_by_rtpmap_and_are_used_back() -> None:
    agreed = answered(
        "m=audio 4000 RTP/AVP 111 107 96 102\na=rtpmap:111 opus/48000/2\na=rtpmap:107 l16/16000\n"
        "a=rtpmap:96 telephone-event/8000\na=rtpmap:102 telephone-event/16000\n",
        replace(LOCAL, codecs=(L16_16K, PCMU)),
    )
    assert (agreed.codec, agreed.payload_type) == (L16_16K, 107)
    assert (agreed.dtmf_payload_type, agreed.dtmf_clock_rate) == (102, 16000)
    text = lines(agreed.local)
    assert "m=audio 6000 RTP/AVP 107 102" in text
    assert "a=rtpmap:107 L16/16000" in text
    assert "a=fmtp:102 0-15" in text


def test_an_rtpmap_overrides_the_static_meaning() -> None:
    assert (
        answered("m=audio 4000 RTP/AVP 0\na=rtpmap:0 PCMA/8000\n", replace(LOCAL, codecs=(PCMA,))).payload_type == 0
    )


def test_events_at_another_rate_are_better_than_none() -> None:
    agreed = answered("m=audio 4000 RTP/AVP 0 101\na=rtpmap:101 telephone-event/48000\n")
    assert (agreed.dtmf_payload_type, agreed.dtmf_clock_rate) == (101, 48000)
    assert agreed.dtmf_receive == {101: 48000}


def test_events_can_be_left_out() -> None:
    offer = "m=audio 4000 RTP/AVP 0 101\na=rtpmap:101 telephone-event/8000\n"
    agreed = answered(offer, replace(LOCAL, dtmf=False))
    assert agreed.dtmf_payload_type is None
    assert "m=audio 6000 RTP/AVP 0" in lines(agreed.local)


def test_every_other_stream_is_declined_in_its_place() -> None:
    agreed = answered(
        "m=video 5000 RTP/AVP 99\na=rtpmap:99 H264/90000\nm=audio 0 RTP/AVP 0\nm=audio 4001 RTP/SAVP 0\n"
        "m=audio 4002 RTP/AVP 8\nm=audio 4004 RTP/AVP 0\nm=image 5004 udptl t38\n"
    )
    assert [(m.media, m.port) for m in agreed.local.media] == [
        ("video", 0), ("audio", 0), ("audio", 0), ("audio", 6000), ("audio", 0), ("image", 0),
    ]  # fmt: skip
    assert agreed.local.media[5].formats == ("t38",)
    assert agreed.remote == ("192.0.2.1", 4002)


@pytest.mark.parametrize(
    "media",
    ["", "m=video 50 RTP/AVP 99\n", "m=audio 0 RTP/AVP 0\n", "m=audio 40 RTP/SAVP 0\n", "m=image 4 udptl t38\n"],
)  # fmt: skip
def test_no_usable_audio_is_its_own_error(media: str) -> None:
    with pytest.raises(NoAudioError):
        answered(media)


@pytest.mark.parametrize(
    "media", ["m=audio 4000 RTP/AVP 18\n", "m=audio 4000 RTP/AVP 97\n", "m=audio 4000 RTP/AVP 0/1\n"]
)
def test_no_common_codec_is_its_own_error(media: str) -> None:
    with pytest.raises(NoCommonCodecError):
        answered(media)


def test_a_stream_without_address_is_an_error() -> None:
    with pytest.raises(SdpError):
        answered("m=audio 4000 RTP/AVP 0\n", session="")


def test_the_streams_own_address_counts_above_the_sessions() -> None:
    agreed = answered("m=audio 4000 RTP/AVP 0\nc=IN IP6 2001:db8::7\na=rtcp:5001\n")
    assert (agreed.remote, agreed.remote_rtcp) == (("2001:db8::7", 4000), ("2001:db8::7", 5001))


def test_our_ipv6_address_is_written_as_such() -> None:
    assert "c=IN IP6 2001:db8::2" in lines(make_offer(LocalMedia("2001:db8::2", 6000)))


@pytest.mark.parametrize(
    ("attribute", "direction", "held"),
    [("a=sendrecv", "sendrecv", False), ("a=sendonly", "recvonly", True), ("a=recvonly", "sendonly", False),
     ("a=inactive", "inactive", True), ("c=IN IP4 0.0.0.0", "recvonly", True), ("", "sendrecv", False),
     ("c=IN IP4 0.0.0.0\na=inactive", "inactive", True)],
)  # fmt: skip
def test_hold_is_answered_with_its_counterpart(attribute: str, direction: str, held: bool) -> None:
    agreed = answered(f"m=audio 4000 RTP/AVP 0\n{attribute}\n")
    assert (agreed.direction, agreed.held) == (direction, held)
    assert f"a={direction}" in lines(agreed.local)


def test_our_own_hold_is_not_taken_for_the_peers() -> None:
    local = replace(LOCAL, direction="sendonly")
    offer = make_offer(local)
    assert "a=sendonly" in lines(offer)
    answer = negotiate_answer(offer, LocalMedia("192.0.2.9", 7000))
    assert (answer.direction, answer.held) == ("recvonly", True)
    agreed = accept_answer(offer, answer.local, local)
    assert (agreed.direction, agreed.held) == ("sendonly", False)


@pytest.mark.parametrize(
    ("attribute", "ptime_ms"),
    [("", 20), ("a=ptime:30", 30), ("a=ptime:20.0", 20), ("a=ptime:60\na=maxptime:40", 40), ("a=ptime:0", 20),
     ("a=ptime:9000", 60), ("a=ptime:25", 20), ("a=ptime:5", 10), ("a=maxptime:10", 10), ("a=ptime:x", 20)],
)  # fmt: skip
def test_ptime_is_the_peers_wish_within_reason(attribute: str, ptime_ms: int) -> None:
    agreed = answered(f"m=audio 4000 RTP/AVP 0\n{attribute}\n")
    assert agreed.ptime_ms == ptime_ms
    assert f"a=ptime:{ptime_ms}" in lines(agreed.local)
    session = f"c=IN IP4 192.0.2.1\nt=0 0\n{attribute}\n"
    assert answered("m=audio 4000 RTP/AVP 0\n", session=session).ptime_ms == ptime_ms


def test_offer_lists_our_codecs_in_order_with_events_for_each_rate() -> None:
    offer = make_offer(replace(LOCAL, codecs=(L16_16K, PCMU, PCMA)))
    text = lines(offer)
    assert "m=audio 6000 RTP/AVP 96 0 8 101 102" in text
    for line in (
        "96 L16/16000",
        "0 PCMU/8000",
        "8 PCMA/8000",
        "101 telephone-event/8000",
        "102 telephone-event/16000",
    ):
        assert f"a=rtpmap:{line}" in text


def test_answer_may_number_its_types_differently() -> None:
    local = replace(LOCAL, codecs=(L16_16K, PCMU))
    offer = make_offer(local)
    answer = described(
        "m=audio 4000 RTP/AVP 120 121\na=rtpmap:120 L16/16000\na=rtpmap:121 telephone-event/16000\na=ptime:20\n"
    )
    agreed = accept_answer(offer, answer, local)
    assert (agreed.codec, agreed.payload_type) == (L16_16K, 120)
    assert agreed.receive[96] is L16_16K
    assert agreed.receive[120] is L16_16K
    assert PCMU not in agreed.receive.values()
    assert agreed.dtmf_payload_type == 121
    assert agreed.dtmf_receive == {101: 8000, 102: 16000, 121: 16000}


def test_answer_with_several_codecs_is_sent_its_first_and_may_send_any() -> None:
    agreed = accept_answer(make_offer(LOCAL), described("m=audio 4000 RTP/AVP 8 0\n"), LOCAL)
    assert agreed.codec is PCMA
    assert agreed.receive == {0: PCMU, 8: PCMA}
    assert agreed.dtmf_payload_type is None
    assert agreed.dtmf_receive == {}


@pytest.mark.parametrize(
    ("media", "error"),
    [("m=audio 0 RTP/AVP 0\n", NoAudioError), ("m=audio 4000 RTP/AVP 18\n", NoCommonCodecError), ("", SdpError),
     ("m=audio 4000 RTP/AVP 0\nm=audio 4002 RTP/AVP 0\n", SdpError)],
)  # fmt: skip
def test_answer_that_declines_is_an_error(media: str, error: type[SdpError]) -> None:
    with pytest.raises(error):
        accept_answer(make_offer(LOCAL), described(media), LOCAL)


def test_version_goes_up_only_when_something_changed() -> None:
    first = make_offer(replace(LOCAL, session_id=77, version=4))
    assert revised(first, make_offer(replace(LOCAL, session_id=1, version=1))) is first
    changed = revised(first, make_offer(replace(LOCAL, direction="sendonly")))
    assert (changed.origin.session_id, changed.origin.version) == ("77", "5")
    assert changed.media[0].attributes[-1] == ("sendonly", None)


_sets = st.lists(st.sampled_from([PCMU, PCMA, L16_16K, L16_8K, G722, OPUS]), min_size=1, unique=True).map(tuple)


@given(_sets, _sets, st.booleans(), st.booleans())
def test_two_of_us_agree_whenever_there_is_a_common_codec(
    ours: tuple[Codec, ...], theirs: tuple[Codec, ...], our_dtmf: bool, their_dtmf: bool
) -> None:
    alice = LocalMedia("192.0.2.1", 4000, codecs=ours, dtmf=our_dtmf)
    bob = LocalMedia("192.0.2.2", 6000, codecs=theirs, dtmf=their_dtmf)
    offer = make_offer(alice)
    if not set(ours) & set(theirs):
        with pytest.raises(NoCommonCodecError):
            negotiate_answer(offer, bob)
        return
    b = negotiate_answer(parse_sdp(offer.serialise()), bob)
    a = accept_answer(offer, parse_sdp(b.local.serialise()), alice)
    assert a.codec == b.codec
    assert a.receive[b.payload_type] == a.codec
    assert b.receive[a.payload_type] == a.codec
    assert (a.dtmf_payload_type is not None) == (our_dtmf and their_dtmf)
    if a.dtmf_payload_type is not None:
        assert a.dtmf_payload_type in b.dtmf_receive
        assert b.dtmf_payload_type in a.dtmf_receive
