"""A load of RTP calls from one process: sends at an even pace, and measures what comes back, packet by packet.

It serves any bridge whose media addresses are known, however its calls were set up. The network between can be made
bad: packets left out, packets late.
"""

import math
import random
import select
import socket
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bridge.audio.codec import PCMU
from bridge.audio.tones import tone

SLOTS = 20
"""Calls send spread over the 20 ms, one slot a millisecond, as independent callers would."""

SO_TIMESTAMPNS = 35
_stamp = struct.Struct("@qq")
_header = struct.Struct(">BBHII")

GAP_BIN_MS = 0.05
GAP_BINS = 20_000
"""Up to one second."""


class Cipher(Protocol):
    """One call's SRTP, as the generator needs it."""

    def protect(self, packet: bytes) -> bytes: ...

    def unprotect(self, packet: bytes) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Wire:
    """What is sent, and what the network does to it."""

    payloads: Sequence[bytes] = ()
    """20 ms each, sent over and over by every call, each from a place of its own; none: a tone of G.711 mu-law."""
    payload_type: int = 0
    step: int = 160
    """Timestamp units in 20 ms."""
    loss: float = 0.0
    """Part of the packets that is never sent, at random."""
    jitter_ms: int = 0
    """Each packet is late by a random time up to this; some overtake others."""


@dataclass(slots=True, eq=False)
class Stream:
    """One call's media as the generator sees it."""

    sock: socket.socket
    destination: tuple[str, int]
    sequence: int = 0
    sent: int = 0
    received: int = 0
    expected: int = 0
    last_sequence: int = -1
    last_at: float = 0.0
    shift: int = 0
    """Where in the payloads this call begins, so that callers don't talk in chorus."""
    cipher: Cipher | None = None


class Watch(Protocol):
    """Sees every packet."""

    def sent(self, stream: Stream, place: int) -> None:
        """`place`: which of the payloads it was."""
        ...

    def came(self, stream: Stream, payload: bytes, at: float) -> None:
        """`at`: of its arrival, by the wall clock (s)."""
        ...


@dataclass(frozen=True, slots=True)
class LoadResult:
    calls: int
    seconds: float
    sent: int
    received: int
    lost: int
    """By the sequence numbers of what came back."""
    gap_p50_ms: float
    gap_p99_ms: float
    gap_p999_ms: float
    gap_max_ms: float
    late_sends: int
    """Sends of the generator itself that were more than 5 ms late: with many, the measurement says little."""


class RtpLoad:
    """Any number of calls. `run` paces them; gaps are those between kernel arrival times of a call's packets."""

    def __init__(self, host: str = "127.0.0.1", wire: Wire = Wire(), watch: Watch | None = None) -> None:
        self._host = host
        self._watch = watch
        self._wire = wire
        self._random = random.Random(7)
        self._late: dict[int, list[tuple[Stream, bytes]]] = {}
        """Packets held back, by the slot in which they are sent."""
        self._epoll = select.epoll()
        self._streams: dict[int, Stream] = {}
        self._slots: list[list[Stream]] = [[] for _ in range(SLOTS)]
        self._payload = wire.payloads or _speechlike()
        self._spread = bool(wire.payloads)
        self._bins = [0] * GAP_BINS
        self._late_sends = 0
        self._measuring = False
        self._slot = 0

    def open(self) -> socket.socket:
        """A socket for one call; its address goes into the call's SDP."""
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        sock.setblocking(False)
        sock.bind((self._host, 0))
        return sock

    def add(self, sock: socket.socket, destination: tuple[str, int], cipher: Cipher | None = None) -> None:
        """The call is up: send to `destination` from now on."""
        shift = len(self._streams) * 997 % len(self._payload) if self._spread else 0
        stream = Stream(sock, destination, shift=shift, cipher=cipher)
        self._streams[sock.fileno()] = stream
        self._slots[len(self._streams) % SLOTS].append(stream)
        self._epoll.register(sock.fileno(), select.EPOLLIN)

    def close(self) -> None:
        for stream in self._streams.values():
            stream.sock.close()
        self._epoll.close()

    def run(
        self, seconds: float, *, measure: bool, poll: Callable[[], None] | None = None, poll_slots: int = 1000
    ) -> LoadResult:
        """Send and receive for `seconds`; with `measure`, count from zero. `poll` is called each `poll_slots` ms."""
        if measure:
            self._bins = [0] * GAP_BINS
            self._late_sends = 0
            for stream in self._streams.values():
                stream.sent = stream.received = stream.expected = 0
        self._measuring = measure
        slot = self._slot
        # Held-back packets of the run before have their places in this one.
        begun = time.monotonic() - slot * 0.02 / SLOTS
        over = time.monotonic() + seconds
        while True:
            due = begun + slot * 0.02 / SLOTS
            now = time.monotonic()
            if due >= over:
                break
            if now < due:
                self._receive(due - now)
                continue
            if now - due > 0.005:
                self._late_sends += len(self._slots[slot % SLOTS])
            self._send(self._slots[slot % SLOTS], slot)
            for late, packet in self._late.pop(slot, ()):
                late.sock.sendto(packet, late.destination)
            slot += 1
            if poll and slot % poll_slots == 0:
                poll()
        self._slot = slot
        self._receive(0.0)
        streams = self._streams.values()
        return LoadResult(
            calls=len(self._streams),
            seconds=seconds,
            sent=sum(stream.sent for stream in streams),
            received=sum(stream.received for stream in streams),
            lost=sum(stream.expected - stream.received for stream in streams),
            gap_p50_ms=self._gap(0.5),
            gap_p99_ms=self._gap(0.99),
            gap_p999_ms=self._gap(0.999),
            gap_max_ms=self._gap(1.0),
            late_sends=self._late_sends,
        )

    def _send(self, streams: list[Stream], slot: int) -> None:
        payloads, wire = self._payload, self._wire
        for stream in streams:
            sequence = stream.sequence
            stream.sequence = sequence + 1
            stream.sent += 1
            if wire.loss and self._random.random() < wire.loss:
                continue
            head = _header.pack(
                0x80, wire.payload_type, sequence & 0xFFFF, (sequence * wire.step) & 0xFFFFFFFF, 0x1000
            )
            place = (sequence + stream.shift) % len(payloads)
            packet = head + payloads[place]
            if self._watch is not None:
                self._watch.sent(stream, place)
            if stream.cipher is not None:
                packet = stream.cipher.protect(packet)
            if wire.jitter_ms and (late := self._random.randrange(wire.jitter_ms * SLOTS // 20)):
                self._late.setdefault(slot + late, []).append((stream, packet))
            else:
                stream.sock.sendto(packet, stream.destination)

    def _receive(self, timeout: float) -> None:
        for fd, _ in self._epoll.poll(timeout):
            stream = self._streams[fd]
            data, extra, _flags, _address = stream.sock.recvmsg(2048, 64)
            if 192 <= data[1] <= 223:
                # RTCP for the call whose port is the one below.
                continue
            seconds, nanoseconds = _stamp.unpack(extra[0][2])
            at = seconds + nanoseconds * 1e-9
            sequence = data[2] << 8 | data[3]
            if stream.last_sequence >= 0:
                step = (sequence - stream.last_sequence) & 0xFFFF
                stream.expected += step
                if self._measuring and step == 1:
                    gap = int((at - stream.last_at) * 1000 / GAP_BIN_MS)
                    self._bins[min(gap, GAP_BINS - 1)] += 1
                stream.received += 1
                if self._watch is not None:
                    self._watch.came(stream, data[12:], at)
            stream.last_sequence = sequence
            stream.last_at = at

    def _gap(self, part: float) -> float:
        wanted = math.ceil(sum(self._bins) * part)
        count = 0
        for index, number in enumerate(self._bins):
            count += number
            if count >= wanted:
                return (index + 0.5) * GAP_BIN_MS
        return 0.0


def _speechlike() -> list[bytes]:
    """One second of G.711: a tone that is on and off as words are."""
    encode = PCMU.encoder()
    pcm = tone((200.0, 700.0), 600, 8000) + bytes(2 * 3200)
    return [encode(pcm[at : at + 320]) for at in range(0, len(pcm), 320)]


def cpu_seconds(pid: int) -> float:
    """CPU time of a process, all its threads, to the nanosecond (Linux)."""
    return sum(int((task / "schedstat").read_text().split()[0]) for task in Path(f"/proc/{pid}/task").iterdir()) / 1e9


def row(result: LoadResult, cpu: float, lateness_p99_ms: float | None = None) -> str:
    """One line of the table."""
    late = "" if lateness_p99_ms is None else f"{lateness_p99_ms:>9.1f}"
    return (
        f"{result.calls:>6}{cpu * 1000 / (result.calls * result.seconds):>14.3f}{100 * cpu / result.seconds:>8.1f}"
        f"{result.gap_p50_ms:>9.1f}{result.gap_p99_ms:>9.1f}{result.gap_p999_ms:>9.1f}{result.gap_max_ms:>9.1f}"
        f"{result.lost:>7}{result.late_sends:>7}{late}"
    )


HEADER = (
    f"{'calls':>6}{'ms CPU/call-s':>14}{'CPU %':>8}{'gap p50':>9}{'p99':>9}{'p99.9':>9}{'max ms':>9}"
    f"{'lost':>7}{'late*':>7}{'tick p99':>9}"
)
FOOTNOTE = "* packets that the load generator itself sent more than 5 ms late"
