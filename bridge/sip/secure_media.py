"""Whether a stream is encrypted: what we offer, which of the offered streams we take, and what an answer means.

"Offered" is done as the field does it: plain RTP/AVP with keys beside it, which a peer that knows SRTP takes up and
any other overlooks. RFC 4568 would have RTP/SAVP alone, and another INVITE where the peer refuses that (488): slower,
and lost on peers that refuse in other words. RTP/SAVP is what "required" offers, and is always understood.
"""

from collections.abc import Sequence
from typing import Literal

from bridge.rtp.srtp_keys import SrtpKeys
from bridge.sip.errors import SdpError
from bridge.sip.sdes import Crypto, SdesError, accept_line, answer_line, choose
from bridge.sip.sdp import Attribute, MediaDescription

PLAIN = ("RTP/AVP", "RTP/AVPF")
"""With or without early feedback."""

SECURE = ("RTP/SAVP", "RTP/SAVPF")

SrtpPolicy = Literal["off", "offered", "required"]

REFUSED, CLEAR, ENCRYPTED = range(3)
"""What becomes of an offered stream, worst first."""


def offered_protocol(policy: SrtpPolicy) -> str:
    """Of the m= line in an offer of ours."""
    return "RTP/SAVP" if policy == "required" else "RTP/AVP"


def offered_keys(policy: SrtpPolicy, keys: Sequence[Crypto]) -> tuple[Attribute, ...]:
    """The `a=crypto` lines of an offer of ours."""
    return () if policy == "off" else tuple(("crypto", str(line)) for line in keys)


def judge(media: MediaDescription, policy: SrtpPolicy) -> tuple[int, str]:
    """What becomes of this stream of an offer; for a refused one also why."""
    lines = _lines(media)
    if media.protocol in SECURE:
        if policy == "off":
            return REFUSED, f"{media.protocol}, and SRTP is off"
        try:
            choose(lines)
        except SdesError as error:
            return REFUSED, f"{media.protocol} without a key that can be used ({error})"
        return ENCRYPTED, ""
    if media.protocol not in PLAIN:
        return REFUSED, media.protocol
    if policy == "off":
        return CLEAR, ""
    try:
        choose(lines)
    except SdesError:
        return (CLEAR, "") if policy == "offered" else (REFUSED, f"{media.protocol} in clear, and SRTP is required")
    return ENCRYPTED, ""


def answer_keys(
    media: MediaDescription, policy: SrtpPolicy, keys: Sequence[Crypto]
) -> tuple[tuple[Attribute, ...], SrtpKeys | None]:
    """What our answer to an offered stream says of its encryption, and the keys; a stream that `judge` did not
    refuse."""
    if judge(media, policy)[0] != ENCRYPTED:
        return (), None
    line, agreed = answer_line(choose(_lines(media)), keys)
    return (("crypto", str(line)),), agreed


def accept_keys(
    offered: MediaDescription, answer: MediaDescription, policy: SrtpPolicy, keys: Sequence[Crypto]
) -> SrtpKeys | None:
    """The keys after the answer to our offer; None: in clear. Raises SdpError for less than we must have, and for an
    answer to what was not offered."""
    lines = _lines(answer)
    if lines or answer.protocol in SECURE:
        if policy == "off":
            raise SdpError("the answer is encrypted, which was not offered")
        return accept_line(lines, keys)
    if policy == "required" or offered.protocol in SECURE:
        raise SdpError("the answer is in clear, and SRTP is required")
    return None


def _lines(media: MediaDescription) -> list[str]:
    return [value or "" for name, value in media.attributes if name == "crypto"]
