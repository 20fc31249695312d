"""Codecs as session descriptions name them; what codes and decodes them is `bridge.audio.codec`'s."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Codec:
    name: str
    """Encoding name as in an rtpmap, upper case."""
    clock_rate: int
    """Of RTP timestamps (Hz). Not always that of the samples: G.722 says 8000 by an old mistake."""
    sample_rate: int
    payload_type: int | None = None
    """The static one (RFC 3551 6), None for a dynamic one."""
    channels: int = 1
    """As the rtpmap says: Opus always says 2 (RFC 7587 7)."""
    fmtp: str = ""
    """Format parameters that we send with it."""
    lengths_ms: tuple[int, ...] = ()
    """Packet lengths that it can have; empty: any multiple of 10 ms."""

    @property
    def rtpmap(self) -> str:
        channels = "" if self.channels == 1 else f"/{self.channels}"
        # Names know no case (RFC 8866 6.6), but some peers do, and all write this one so.
        name = "opus" if self.name == "OPUS" else self.name
        return f"{name}/{self.clock_rate}{channels}"

    def means(self, name: str, clock_rate: int, channels: int) -> bool:
        """Whether an rtpmap (name in upper case) means this codec. Some peers forget the channels of Opus."""
        same = (name, clock_rate) == (self.name.upper(), self.clock_rate)
        return same and (channels == self.channels or self.name == "OPUS")


PCMU = Codec("PCMU", 8000, 8000, 0)
PCMA = Codec("PCMA", 8000, 8000, 8)
G722 = Codec("G722", 8000, 16000, 9)
OPUS = Codec(
    "OPUS",
    48000,
    16000,
    channels=2,
    fmtp="useinbandfec=1;maxplaybackrate=16000;sprop-maxcapturerate=16000",
    lengths_ms=(10, 20, 40, 60),
)
L16_16K = Codec("L16", 16000, 16000)
L16_8K = Codec("L16", 8000, 8000)

STATIC = {
    0: ("PCMU", 8000, 1), 3: ("GSM", 8000, 1), 4: ("G723", 8000, 1), 8: ("PCMA", 8000, 1), 9: ("G722", 8000, 1),
    10: ("L16", 44100, 2), 11: ("L16", 44100, 1), 13: ("CN", 8000, 1), 15: ("G728", 8000, 1), 18: ("G729", 8000, 1),
}  # fmt: skip
"""What a payload type without an rtpmap means (RFC 3551 6): name, clock rate (Hz), channels."""
