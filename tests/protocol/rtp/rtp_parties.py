"""What the RTP tests call with: parties on real sockets, and a network between them that misbehaves."""

import random
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from bridge.audio.codec import PCMU
from bridge.audio.playout import Playout
from bridge.rtp.endpoint import RtpEndpoint
from bridge.rtp.latch import Address
from bridge.rtp.mux import RtpMux
from bridge.rtp.ports import PortPair, PortPool
from bridge.rtp.rtcp_session import RtcpSession
from bridge.rtp.session import RtpEvent, RtpFormat, RtpSession

HOST = "127.0.0.1"
FORMAT = RtpFormat(PCMU, 0, dtmf_payload_type=101)


@dataclass
class Party:
    """One end of a call: a session on its socket, and what it heard."""

    pair: PortPair
    session: RtpSession
    endpoint: RtpEndpoint
    events: list[RtpEvent] = field(default_factory=list)
    frames: list[bytes] = field(default_factory=list)
    crashes: list[Exception] = field(default_factory=list)

    @property
    def address(self) -> Address:
        return HOST, self.pair.port

    def say(self, pcm: bytes) -> None:
        playout = self.session.playout
        generation = playout.begin()
        playout.write(generation, pcm)
        playout.end(generation)

    @property
    def heard(self) -> np.ndarray:
        return np.frombuffer(b"".join(self.frames), "<i2").astype(float)


@contextmanager
def exchange(*, rtcp: bool = False) -> Iterator[tuple[RtpMux, Callable[[], Party]]]:
    """A mux, and a function that puts one more party on it, with `rtcp` one that reports."""
    pool = PortPool(HOST, 42000, 47999)
    mux = RtpMux()
    parties: list[Party] = []

    def join() -> Party:
        pair = pool.allocate(0.0)
        events: list[RtpEvent] = []
        crashes: list[Exception] = []
        session = RtpSession(FORMAT, Playout(8000), remote=None, now=0.0, on_event=events.append)
        reports = RtcpSession(session, cname="x", now=time.monotonic(), unix_time=time.time()) if rtcp else None
        endpoint = mux.open(pair, session, crashes.append, rtcp=reports)
        party = Party(pair, session, endpoint, events, crashes=crashes)
        session.listen(lambda frame, now: party.frames.append(frame))
        parties.append(party)
        return party

    try:
        yield mux, join
    finally:
        for party in parties:
            party.endpoint.close()
            pool.release(party.pair, 0.0)
        assert len(mux) == 0 and pool.in_use == 0
        mux.close()


class BadNetwork:
    """A relay between two parties that loses, delays, doubles and so reorders packets, in ticks of 20 ms:
    a ticker of the media clock."""

    def __init__(self, seed: int, *, loss: float, delay_ticks: int, doubled: float) -> None:
        self._rng = random.Random(seed)
        self._loss, self._delay_ticks, self._doubled = loss, delay_ticks, doubled
        self._socks = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
        for sock in self._socks:
            sock.bind((HOST, 0))
            sock.setblocking(False)
        self._ends: list[Address] = []
        self._under_way: list[tuple[int, int, bytes]] = []
        self.ticks = 0
        self.lost = 0

    def join(self, first: Party, second: Party) -> None:
        self._ends = [first.address, second.address]
        first.session.update(0.0, remote=self._socks[0].getsockname())
        second.session.update(0.0, remote=self._socks[1].getsockname())

    def tick(self, now: float) -> None:
        self.ticks += 1
        for side, sock in enumerate(self._socks):
            while (data := _receive(sock)) is not None:
                if self._rng.random() < self._loss:
                    self.lost += 1
                    continue
                for _ in range(2 if self._rng.random() < self._doubled else 1):
                    due = self.ticks + self._rng.randint(0, self._delay_ticks)
                    self._under_way.append((due, 1 - side, data))
        due_now = [packet for packet in self._under_way if packet[0] <= self.ticks]
        self._under_way = [packet for packet in self._under_way if packet[0] > self.ticks]
        self._rng.shuffle(due_now)
        for _, side, data in due_now:
            self._socks[side].sendto(data, self._ends[side])

    def close(self) -> None:
        for sock in self._socks:
            sock.close()


def _receive(sock: socket.socket) -> bytes | None:
    try:
        return sock.recv(2048)
    except BlockingIOError:
        return None
