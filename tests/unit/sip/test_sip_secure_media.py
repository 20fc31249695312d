"""SRTP and RTCP's port as offer and answer agree on them."""

import base64
from dataclasses import replace

import pytest

from bridge.sip.errors import NoAudioError, SdpError
from bridge.sip.offer_answer import LocalMedia, accept_answer, make_offer, negotiate_answer
from bridge.sip.sdes import new_keys
from bridge.sip.sdp import SessionDescription, parse_sdp
from bridge.sip.secure_media import SrtpPolicy

HERE = LocalMedia("10.0.0.1", 4000)
THERE = LocalMedia("10.0.0.2", 5000)
KEY = base64.b64encode(bytes(30)).decode()
CRYPTO = f"a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}"


def offer(*streams: str) -> SessionDescription:
    lines = ["v=0", "o=- 1 1 IN IP4 10.0.0.2", "s=-", "c=IN IP4 10.0.0.2", "t=0 0", *streams]
    return parse_sdp("\r\n".join(lines).encode() + b"\r\n")


def passed(description: SessionDescription) -> SessionDescription:
    """As the other side reads it."""
    return parse_sdp(description.serialise())


@pytest.mark.parametrize(
    ("ours", "theirs", "protocol", "encrypted"),
    [
        ("off", "off", "RTP/AVP", False),
        ("off", "offered", "RTP/AVP", False),
        ("offered", "off", "RTP/AVP", False),
        ("offered", "offered", "RTP/AVP", True),
        ("offered", "required", "RTP/AVP", True),
        ("required", "offered", "RTP/SAVP", True),
        ("required", "required", "RTP/SAVP", True),
    ],
)
def test_both_sides_agree(ours: SrtpPolicy, theirs: SrtpPolicy, protocol: str, encrypted: bool) -> None:
    here, there = replace(HERE, srtp=ours), replace(THERE, srtp=theirs)
    offered = make_offer(here)
    answered = negotiate_answer(passed(offered), there)
    agreed = accept_answer(offered, passed(answered.local), here)
    assert offered.media[0].protocol == answered.local.media[0].protocol == protocol
    if encrypted:
        assert agreed.srtp is not None and answered.srtp is not None
        assert (agreed.srtp.send, agreed.srtp.receive) == (answered.srtp.receive, answered.srtp.send)
        assert agreed.srtp.suite == answered.srtp.suite == "AES_CM_128_HMAC_SHA1_80"
    else:
        assert agreed.srtp is answered.srtp is None
        assert answered.local.media[0].attribute("crypto") is None


@pytest.mark.parametrize(
    ("ours", "theirs", "why"),
    [("required", "off", "RTP/SAVP, and SRTP is off"), ("off", "required", "RTP/AVP in clear, and SRTP is required")],
)
def test_what_one_side_must_have_and_the_other_does_not_want_is_refused(
    ours: SrtpPolicy, theirs: SrtpPolicy, why: str
) -> None:
    offered = make_offer(replace(HERE, srtp=ours))
    with pytest.raises(NoAudioError, match=why):
        negotiate_answer(passed(offered), replace(THERE, srtp=theirs))


def test_the_encrypted_one_of_two_streams_is_taken() -> None:
    twice = offer("m=audio 6000 RTP/AVP 0", "m=audio 6002 RTP/SAVP 0", CRYPTO)
    agreed = negotiate_answer(twice, replace(HERE, srtp="offered"))
    assert agreed.srtp is not None and agreed.remote[1] == 6002
    assert [media.port for media in agreed.local.media] == [0, 4000]
    plain = negotiate_answer(twice, HERE)
    assert plain.srtp is None and [media.port for media in plain.local.media] == [4000, 0]


def test_encrypted_stream_without_a_usable_key_gives_way_to_the_plain_one() -> None:
    twice = offer("m=audio 6002 RTP/SAVP 0", f"{CRYPTO} UNENCRYPTED_SRTP", "m=audio 6000 RTP/AVP 0")
    agreed = negotiate_answer(twice, replace(HERE, srtp="offered"))
    assert agreed.srtp is None and agreed.remote[1] == 6000
    with pytest.raises(NoAudioError, match=r"UNENCRYPTED_SRTP.*in clear, and SRTP is required"):
        negotiate_answer(twice, replace(HERE, srtp="required"))


def test_dtls_is_refused_by_its_name() -> None:
    with pytest.raises(NoAudioError, match="UDP/TLS/RTP/SAVPF"):
        negotiate_answer(offer("m=audio 6002 UDP/TLS/RTP/SAVPF 0"), replace(HERE, srtp="offered"))


def test_answer_names_the_line_it_takes() -> None:
    lines = [f"a=crypto:7 F8_128_HMAC_SHA1_80 inline:{KEY}", CRYPTO.replace(":1 ", ":9 ")]
    agreed = negotiate_answer(offer("m=audio 6000 RTP/SAVP 0", *lines), replace(HERE, srtp="required"))
    answer = agreed.local.media[0].attribute("crypto")
    assert answer is not None and answer.startswith("9 AES_CM_128_HMAC_SHA1_80 inline:") and KEY not in answer


@pytest.mark.parametrize(
    ("policy", "stream", "why"),
    [
        ("required", ("m=audio 6000 RTP/AVP 0",), "in clear"),
        ("required", ("m=audio 6000 RTP/SAVP 0",), "0 a=crypto lines"),
        ("required", ("m=audio 6000 RTP/SAVP 0", CRYPTO.replace(":1 ", ":5 ")), "not offered"),
        ("offered", ("m=audio 6000 RTP/AVP 0", CRYPTO, CRYPTO.replace(":1 ", ":2 ")), "2 a=crypto lines"),
        ("off", ("m=audio 6000 RTP/AVP 0", CRYPTO), "not offered"),
        ("off", ("m=audio 6000 RTP/SAVP 0", CRYPTO), "not offered"),
    ],
)
def test_answer_that_does_not_fit_the_offer_is_no_agreement(
    policy: SrtpPolicy, stream: tuple[str, ...], why: str
) -> None:
    here = replace(HERE, srtp=policy)
    with pytest.raises(SdpError, match=why):
        accept_answer(make_offer(here), offer(*stream), here)


def test_plain_answer_to_optional_encryption_is_taken_in_clear() -> None:
    here = replace(HERE, srtp="offered")
    assert accept_answer(make_offer(here), offer("m=audio 6000 RTP/AVP 0"), here).srtp is None


def test_our_keys_stay_in_a_later_offer_and_its_transport_does_too() -> None:
    here = replace(HERE, srtp="offered")
    agreed = negotiate_answer(offer("m=audio 6000 RTP/SAVP 0", CRYPTO), here)
    again = make_offer(replace(here, direction="sendonly"), agreed.local)
    assert again.media[0].protocol == "RTP/SAVP"
    assert agreed.srtp is not None
    assert base64.b64encode(agreed.srtp.send).decode() in (again.media[0].attribute("crypto") or "")


def test_new_key_in_a_later_offer_is_taken_and_ours_stays() -> None:
    here = replace(HERE, srtp="offered")
    first = negotiate_answer(offer("m=audio 6000 RTP/SAVP 0", CRYPTO), here).srtp
    other = f"a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{base64.b64encode(bytes([1] * 30)).decode()}"
    second = negotiate_answer(offer("m=audio 6000 RTP/SAVP 0", other), here).srtp
    assert first is not None and second is not None
    assert first.send == second.send and first.receive != second.receive


def test_two_sessions_have_keys_of_their_own() -> None:
    assert LocalMedia("10.0.0.1", 1).keys != LocalMedia("10.0.0.1", 1).keys
    assert new_keys()[0].key not in {line.key for line in HERE.keys}


@pytest.mark.parametrize("ours", [False, True])
@pytest.mark.parametrize("theirs", [False, True])
def test_rtcp_shares_the_port_if_it_is_offered(ours: bool, theirs: bool) -> None:
    here, there = replace(HERE, rtcp_mux=ours), replace(THERE, rtcp_mux=theirs)
    offered = make_offer(here)
    answered = negotiate_answer(passed(offered), there)
    assert answered.rtcp_mux is ours
    assert accept_answer(offered, passed(answered.local), here).rtcp_mux is ours


def test_port_is_not_shared_with_a_peer_that_does_not_know_how() -> None:
    here = replace(HERE, rtcp_mux=True)
    assert not accept_answer(make_offer(here), offer("m=audio 6000 RTP/AVP 0"), here).rtcp_mux
