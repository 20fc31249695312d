"""An SBC takes over in mid-call: another address, another SSRC, other numbers; and somebody who would like to."""

import numpy as np

from bridge.audio.codec import PCMU
from bridge.audio.playout import Playout
from bridge.rtp.latch import PROOF_PACKETS, RELATCH_AFTER_S, Address
from bridge.rtp.packet import RtpPacket
from bridge.rtp.session import RtpEvent, RtpFormat, RtpSession, SourceChanged

OLD: Address = ("10.0.0.1", 4000)
NEW: Address = ("10.0.0.2", 6000)
SPEECH = PCMU.encoder()(np.full(160, 4000, "<i2").tobytes())
SILENCE = bytes(320)


class Stream:
    """One source of RTP."""

    def __init__(self, address: Address, ssrc: int, sequence: int, timestamp: int) -> None:
        self.address, self.ssrc, self.sequence, self.timestamp = address, ssrc, sequence, timestamp

    def send(self, call: "Call") -> None:
        self.sequence = self.sequence + 1 & 0xFFFF
        self.timestamp = self.timestamp + 160 & 0xFFFFFFFF
        packet = RtpPacket(0, self.sequence, self.timestamp, self.ssrc, SPEECH)
        call.session.receive(packet.serialize(), self.address, call.now)


class Call:
    def __init__(self) -> None:
        self.now = 100.0
        self.events: list[RtpEvent] = []
        self.frames: list[bytes] = []
        self.session = RtpSession(
            RtpFormat(PCMU, 0), Playout(8000), remote=OLD, now=self.now, on_event=self.events.append
        )
        self.session.listen(lambda frame, now: self.frames.append(frame))

    def run(self, seconds: float, *streams: Stream) -> int:
        """Frames with sound in this time."""
        before = len(self.frames)
        for _ in range(round(seconds / 0.02)):
            for stream in streams:
                stream.send(self)
            self.now += 0.02
            self.session.tick(self.now)
        return sum(frame != SILENCE for frame in self.frames[before:])


def test_another_stream_from_the_same_source_is_played_at_once() -> None:
    call = Call()
    call.run(2, Stream(OLD, 1, 100, 5000))
    heard = call.run(1, Stream(OLD, 2, 60000, 0xFFFFF000))
    assert heard >= 47
    assert call.session.quality.packets_lost == 0 and call.session.quality.packets_rejected == 0


def test_another_source_is_taken_once_the_first_is_silent() -> None:
    call = Call()
    call.run(2, Stream(OLD, 1, 100, 5000))
    new = Stream(NEW, 2, 60000, 77)
    call.run(RELATCH_AFTER_S + 0.1, new)
    assert call.session.destination == NEW
    assert call.events[-1] == SourceChanged(NEW)
    assert call.run(1, new) >= 48
    assert call.session.quality.packets_lost == 0


def test_the_new_source_stays_when_the_old_one_comes_back() -> None:
    call = Call()
    old, new = Stream(OLD, 1, 100, 5000), Stream(NEW, 2, 60000, 77)
    call.run(2, old)
    call.run(RELATCH_AFTER_S + 1, new)
    refused = call.session.quality.packets_rejected
    call.run(1, new, old)
    assert call.session.destination == NEW
    assert call.session.quality.packets_rejected == refused + 50


def test_nobody_takes_over_while_the_source_speaks() -> None:
    call = Call()
    old = Stream(OLD, 1, 100, 5000)
    call.run(1, old)
    call.run(10, old, Stream(NEW, 2, 60000, 77), Stream(("10.0.0.3", 1), 1, old.sequence, old.timestamp))
    assert call.session.destination == OLD
    assert call.session.quality.packets_received == 550
    assert call.session.quality.packets_rejected == 1000


def test_a_few_packets_from_anywhere_prove_nothing() -> None:
    call = Call()
    call.run(2, Stream(OLD, 1, 100, 5000))
    call.run(RELATCH_AFTER_S + 1)
    for port in range(30):
        stray = Stream(("10.0.0.9", port), 5, 7, 7)
        for _ in range(PROOF_PACKETS - 1):
            stray.send(call)
    assert call.session.destination == OLD
