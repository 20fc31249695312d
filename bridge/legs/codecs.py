"""The codecs that a trunk may name, as SDP knows them: those that work on this machine."""

from collections.abc import Mapping

from bridge.audio.codec import CODECS as CODERS
from bridge.sip.codecs import G722, L16_16K, OPUS, PCMA, PCMU, Codec

_OF_SDP = {
    ("PCMU", 8000): PCMU,
    ("PCMA", 8000): PCMA,
    ("G722", 8000): G722,
    ("OPUS", 48000): OPUS,
    ("L16", 16000): L16_16K,
}

CODECS: Mapping[str, Codec] = {
    coder.name: _OF_SDP[coder.name, coder.clock_rate] for coder in CODERS if (coder.name, coder.clock_rate) in _OF_SDP
}
"""By name, in upper case."""
