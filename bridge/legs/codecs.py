"""The codecs that a trunk may name, as SDP knows them: those that work on this machine."""

from collections.abc import Mapping

from bridge.audio.codec import CODECS as CODERS
from bridge.sip.offer_answer import L16_16K, PCMA, PCMU, Codec

_OF_SDP = {
    ("PCMU", 8000): PCMU,
    ("PCMA", 8000): PCMA,
    ("G722", 8000): Codec("G722", 8000, 16000, 9),
    ("OPUS", 48000): Codec("OPUS", 48000, 16000, channels=2, fmtp="useinbandfec=1"),
    ("L16", 16000): L16_16K,
}

CODECS: Mapping[str, Codec] = {
    coder.name: _OF_SDP[coder.name, coder.clock_rate]
    for coder in CODERS
    if (coder.name, coder.clock_rate) in _OF_SDP
}
"""By name, in upper case."""
