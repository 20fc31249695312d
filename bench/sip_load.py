"""A load of SIP calls from one socket: prepared messages, paced; what a caller would retransmit is counted."""

import contextlib
import re
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from bench.rtp_load import Cipher, RtpLoad

T1_S = 0.5
"""RFC 3261 17.1.1.2: an INVITE without any answer is sent again after T1, then after twice that."""

TRIES = 7

_port = re.compile(rb"m=audio (\d+)")
_tag = re.compile(rb"^To:[^\r]*;tag=([^\s;]+)", re.MULTILINE | re.IGNORECASE)
_contact = re.compile(rb"^Contact:\s*<([^>]+)>", re.MULTILINE | re.IGNORECASE)
_call_id = re.compile(rb"^Call-ID:\s*(\S+)", re.MULTILINE | re.IGNORECASE)
_cseq = re.compile(rb"^CSeq:\s*\d+\s+(\w+)", re.MULTILINE | re.IGNORECASE)


PCMU_FORMATS = "RTP/AVP 0 101\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-15"


@dataclass(frozen=True, slots=True)
class Offer:
    """What the callers offer."""

    formats: str = PCMU_FORMATS
    """Of the m= line and after: transport, payload types, attributes."""
    cipher: Callable[[str], Cipher] | None = None
    """Makes a call's SRTP of the answer's session description."""


@dataclass(slots=True)
class SipCall:
    number: int
    sock: socket.socket
    invite: bytes
    sent_at: float = 0.0
    tries: int = 0
    answered: bool = False
    """By anything, a 100 too."""
    ack: bytes = b""
    bye: bytes = b""
    bye_at: float = 0.0
    bye_tries: int = 0
    ended: bool = False


@dataclass(slots=True)
class SipCounts:
    setup_ms: list[float] = field(default_factory=list)
    """INVITE to 200."""
    refused: list[int] = field(default_factory=list)
    invites_repeated: int = 0
    byes_repeated: int = 0
    finals_repeated: int = 0
    """200s that came again although each was acknowledged on arrival."""


class SipLoad:
    """Sends `count` INVITEs at `rate` a second, acknowledges, and gives each call's media to `media`."""

    def __init__(
        self,
        target: tuple[str, int],
        user: str,
        media: RtpLoad,
        count: int,
        rate: float,
        offer: Offer = Offer(),
    ) -> None:
        self.counts = SipCounts()
        self._offer = offer
        self._target = target
        self._user = user
        self._media = media
        self._sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        self._sock.bind(("127.0.0.1", 0))
        self._sock.connect(target)
        self._sock.setblocking(False)
        self._calls = {self._name(number): self._call(number) for number in range(count)}
        self._due = list(self._calls.values())[::-1]
        self._waiting: list[SipCall] = []
        self._interval = 1 / rate
        self._next = 0.0

    @property
    def up(self) -> int:
        return len(self.counts.setup_ms)

    def poll(self) -> None:
        """Send what is due, take what has come."""
        now = time.monotonic()
        if self._due and now >= self._next:
            self._next = max(self._next + self._interval, now - 0.1)
            call = self._due.pop()
            call.sent_at, call.tries = now, 1
            self._waiting.append(call)
            self._sock.send(call.invite)
        with contextlib.suppress(BlockingIOError):
            while True:
                self._take(self._sock.recv(65535))
        for call in self._waiting:
            if not call.answered and call.tries < TRIES and now > call.sent_at + T1_S * (2**call.tries - 1):
                call.tries += 1
                self.counts.invites_repeated += 1
                self._sock.send(call.invite)
        self._waiting = [call for call in self._waiting if not call.answered]

    def hang_up(self, timeout_s: float = 10.0) -> int:
        """BYE to all; returns how many were confirmed."""
        calls = [call for call in self._calls.values() if call.bye]
        until = time.monotonic() + timeout_s
        for call in calls:
            self._bye(call)
            time.sleep(0.004)
        while not all(call.ended for call in calls) and (now := time.monotonic()) < until:
            with contextlib.suppress(BlockingIOError):
                while True:
                    self._take(self._sock.recv(65535))
            for call in calls:
                if not call.ended and now > call.bye_at + T1_S * (2**call.bye_tries - 1):
                    self.counts.byes_repeated += 1
                    self._bye(call, first=False)
            time.sleep(0.01)
        return sum(call.ended for call in calls)

    def close(self) -> None:
        self._sock.close()

    def _bye(self, call: SipCall, *, first: bool = True) -> None:
        if first:
            call.bye_at = time.monotonic()
        call.bye_tries += 1
        self._sock.send(call.bye)
        with contextlib.suppress(BlockingIOError):
            while True:
                self._take(self._sock.recv(65535))

    def _take(self, data: bytes) -> None:
        name = _call_id.search(data)
        call = self._calls.get(name[1]) if name else None
        method = _cseq.search(data)
        if call is None or method is None or not data.startswith(b"SIP/2.0 "):
            return
        status = int(data[8:11])
        if method[1] == b"BYE":
            call.ended = True
            return
        call.answered = True
        if status < 200:
            return
        if call.ack:
            self.counts.finals_repeated += 1
        elif status < 300:
            self._answered(call, data)
        else:
            self.counts.refused.append(status)
            call.ack = self._message("ACK", call, self._uri, _found(_tag, data), branch="i").encode()
        self._sock.send(call.ack)

    def _answered(self, call: SipCall, data: bytes) -> None:
        self.counts.setup_ms.append((time.monotonic() - call.sent_at) * 1000)
        tag, contact = _found(_tag, data), _found(_contact, data)
        call.ack = self._message("ACK", call, contact, tag, branch="a").encode()
        call.bye = self._message("BYE", call, contact, tag, branch="b", sequence=2).encode()
        cipher = self._offer.cipher(data.decode()) if self._offer.cipher else None
        self._media.add(call.sock, (self._target[0], int(_found(_port, data))), cipher)

    def _call(self, number: int) -> SipCall:
        sock = self._media.open()
        port = sock.getsockname()[1]
        sdp = (
            "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
            f"m=audio {port} {self._offer.formats}\r\na=ptime:20\r\na=sendrecv\r\n"
        )
        call = SipCall(number, sock, b"")
        call.invite = self._message("INVITE", call, self._uri, "", branch="i", body=sdp).encode()
        return call

    @property
    def _uri(self) -> str:
        return f"sip:{self._user}@{self._target[0]}:{self._target[1]}"

    def _name(self, number: int) -> bytes:
        return f"load-{number}-{self._sock.getsockname()[1]}".encode()

    def _message(
        self, method: str, call: SipCall, uri: str, tag: str, *, branch: str, sequence: int = 1, body: str = ""
    ) -> str:
        host, port = self._sock.getsockname()
        lines = [
            f"{method} {uri} SIP/2.0",
            f"Via: SIP/2.0/UDP {host}:{port};branch=z9hG4bK{branch}{call.number}-{port};rport",
            "Max-Forwards: 70",
            f"From: <sip:load{call.number}@{host}>;tag=f{call.number}",
            f"To: <{self._uri}>" + (f";tag={tag}" if tag else ""),
            f"Call-ID: {self._name(call.number).decode()}",
            f"CSeq: {sequence} {method}",
            f"Contact: <sip:load@{host}:{port}>",
        ]
        if body:
            lines.append("Content-Type: application/sdp")
        return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", body])


def _found(pattern: "re.Pattern[bytes]", data: bytes) -> str:
    match = pattern.search(data)
    if match is None:
        raise ValueError(f"no {pattern.pattern!r} in {data[:300]!r}")
    return match[1].decode()
