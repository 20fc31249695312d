"""Callers of a bench in a process of their own: they send numbered frames, and keep what comes, with its times.

    python -m bench.asterisk_callers PORT USER CALLS RATE SECONDS FILE

What they saw is pickled into FILE, a `Heard` as a dict. Times are of the monotonic clock, which all processes share.
"""

import pickle
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from bench.frame_codes import NUMBERS, SENT_BEFORE_S, Seen, decode, encode
from bench.rtp_load import RtpLoad, Stream, Wire
from bench.sip_load import SipLoad
from bridge.audio.codec import PCMU

LOUD = 500
"""A sample of a frame that is no silence."""


@dataclass(slots=True)
class Heard:
    """By the callers."""

    sent: list[Seen] = field(default_factory=list)
    came: list[list[Seen]] = field(default_factory=list)
    """Of each caller."""
    loud: list[list[float]] = field(default_factory=list)
    """Of each caller: when packets came that were no silence."""
    up_at: float = 0.0
    up: int = 0
    late_sends: int = 0
    lost: int = 0
    """By Asterisk's sequence numbers."""
    ended: int = 0


class _Ear:
    """A `bench.rtp_load.Watch`."""

    def __init__(self) -> None:
        self.sent_frames: list[Seen] = []
        self.packets: dict[int, list[tuple[bytes, float]]] = {}
        self._ahead = time.time() - time.monotonic()

    def sent(self, stream: Stream, place: int) -> None:
        self.sent_frames.append((place, time.monotonic() - SENT_BEFORE_S))

    def came(self, stream: Stream, payload: bytes, at: float) -> None:
        self.packets.setdefault(stream.sock.fileno(), []).append((payload, at - self._ahead))


def main(arguments: list[str]) -> int:
    port, user, calls, rate, seconds, file = arguments
    encode_pcm, decode_pcm = PCMU.encoder(), PCMU.decoder()
    ear = _Ear()
    media = RtpLoad(wire=Wire([encode_pcm(encode(number)) for number in range(NUMBERS)]), watch=ear)
    sip = SipLoad(("127.0.0.1", int(port)), user, media, int(calls), float(rate))
    heard = Heard()
    try:
        media.run(int(calls) / float(rate) + 1.0, measure=False, poll=sip.poll, poll_slots=1)
        heard.up, heard.up_at = sip.up, time.monotonic()
        result = media.run(float(seconds), measure=True, poll=sip.poll, poll_slots=100)
        heard.ended = sip.hang_up()
    finally:
        sip.close()
        media.close()
    heard.late_sends, heard.lost = result.late_sends, result.lost
    heard.sent = ear.sent_frames
    for packets in ear.packets.values():
        frames = [(decode_pcm(payload), at) for payload, at in packets]
        heard.came.append(decode(frames))
        heard.loud.append([at for pcm, at in frames if np.abs(np.frombuffer(pcm, "<i2")).max() > LOUD])
    Path(file).write_bytes(pickle.dumps(asdict(heard)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
