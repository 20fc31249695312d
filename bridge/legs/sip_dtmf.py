"""Digits in INFO (application/dtmf-relay, application/dtmf), for peers without telephone-events."""

import asyncio
import re
from collections import deque
from collections.abc import Callable
from typing import Literal

import structlog

from bridge.events import DtmfReceived

log = structlog.get_logger(__name__)

DtmfMode = Literal["auto", "rfc4733", "info"]
"""How digits go: telephone-events in RTP, INFO, or what the peer takes (events first)."""

RELAY = "application/dtmf-relay"
PLAIN = "application/dtmf"
DEFAULT_MS = 160
LONGEST_MS = 10_000

_SIGNAL = re.compile(r"(?im)^[ \t]*signal[ \t]*=[ \t]*([0-9]{1,2}|[*#A-Da-d])[ \t]*\r?$")
_DURATION = re.compile(r"(?im)^[ \t]*duration[ \t]*=[ \t]*([0-9]{1,6})[ \t]*\r?$")
_NUMBERED = {"10": "*", "11": "#", "12": "A", "13": "B", "14": "C", "15": "D"}
"""As events of RFC 4733 are numbered, which some write."""


def parse_info(content_type: str, body: bytes) -> DtmfReceived | None:
    """The digit that an INFO brings, None where it brings none (a flash, something else)."""
    text = body[:512].decode("ascii", "replace")
    kind = content_type.partition(";")[0].strip().lower()
    duration_ms = DEFAULT_MS
    if kind == RELAY:
        found = _SIGNAL.search(text)
        signal = found[1] if found else ""
        if (lasted := _DURATION.search(text)) is not None:
            duration_ms = min(int(lasted[1]), LONGEST_MS)
    elif kind == PLAIN:
        signal = text.strip()
    else:
        return None
    digit = _NUMBERED.get(signal, signal.upper())
    return DtmfReceived(digit, duration_ms) if len(digit) == 1 and digit in "0123456789*#ABCD" else None


def relay_body(digit: str, duration_ms: int) -> bytes:
    """The body of an INFO of type RELAY."""
    return f"Signal={digit}\r\nDuration={duration_ms}\r\n".encode()


class InfoDigits:
    """The digits that one leg sends: one INFO at a time, at the pace of keys, as the order on the way is not kept."""

    def __init__(self, send: Callable[[str, bytes], None]) -> None:
        """`send` takes content type and body, and raises nothing."""
        self._send = send
        self._queue: deque[tuple[str, int, int]] = deque()
        self._answered = self._spaced = True
        self._timer: asyncio.TimerHandle | None = None

    def queue(self, digits: str, *, tone_ms: int, gap_ms: int) -> None:
        self._queue.extend((digit, tone_ms, gap_ms) for digit in digits)
        self._next()

    def answered(self, status: int) -> None:
        """The last INFO was answered; a refusal ends what was queued."""
        if status >= 300 and self._queue:
            log.info("the far side takes no digits in INFO", status=status, dropped=len(self._queue))
            self._queue.clear()
        self._answered = True
        self._next()

    def close(self) -> None:
        self._queue.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _next(self) -> None:
        if not self._queue or not self._answered or not self._spaced:
            return
        digit, tone_ms, gap_ms = self._queue.popleft()
        self._answered = self._spaced = False
        self._timer = asyncio.get_running_loop().call_later((tone_ms + gap_ms) / 1000, self._pause_over)
        self._send(RELAY, relay_body(digit, tone_ms))

    def _pause_over(self) -> None:
        self._spaced = True
        self._timer = None
        self._next()
