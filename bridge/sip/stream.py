"""SIP on a stream, without I/O: cuts TCP's bytes into messages and keep-alives (RFC 3261 18.3, RFC 5626 3.5.1)."""

import re
from dataclasses import dataclass

PING = b"\r\n\r\n"
PONG = b"\r\n"

_CONTENT_LENGTH = re.compile(rb"\n(?:content-length|l)[ \t]*+:((?:[^\n]|\n[ \t])*+)", re.I)
_FOLD = re.compile(rb"\r?\n[ \t]+")
_STARTS_A_MESSAGE = re.compile(rb"[A-Za-z0-9\-.!%*_+`'~]")


@dataclass(frozen=True, slots=True)
class Message:
    """One whole message, as `UserAgent.receive` takes it."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Ping:
    """The peer asks whether we are there: it is to be sent `PONG`."""


@dataclass(frozen=True, slots=True)
class Pong:
    """The answer to the `PING` that we sent."""


@dataclass(frozen=True, slots=True)
class Broken:
    """Nothing more can be read from this stream: it is to be closed."""

    reason: str


Frame = Message | Ping | Pong | Broken


class SipStream:
    """One direction of one connection: what the peer sends. `max_bytes` bounds a message's head, and head and body
    together; a peer that goes beyond breaks the stream."""

    def __init__(self, max_bytes: int = 16_384) -> None:
        self.messages = 0
        """Whole messages so far."""
        self._max_bytes = max_bytes
        self._buffer = bytearray()
        self._searched = 0
        """Up to here there is no end of a head."""
        self._line_checked = False
        self._needed: int | None = None
        """Bytes of the message that has begun, once its head is whole."""
        self._half_ping = False
        """One CRLF came between messages: another one makes it a ping."""
        self._awaits_pong = False
        self._broken = False

    @property
    def mid_message(self) -> bool:
        """Whether a message has begun and not ended."""
        return bool(self._buffer)

    def pinged(self) -> None:
        """We have sent `PING`: the next lone CRLF is its answer."""
        self._awaits_pong = True

    def feed(self, data: bytes) -> None:
        """Take the next bytes, cut anywhere; `next` gives what they complete."""
        if not self._broken:
            self._buffer += data

    def next(self) -> Frame | None:
        """The next frame, None until more was fed. `Broken` is the last one ever."""
        if not self._buffer:
            return None
        frame = self._keep_alive() if self._needed is None and not self._searched else self._message()
        if isinstance(frame, Message):
            self.messages += 1
        elif isinstance(frame, Broken):
            self._broken = True
            self._buffer.clear()
        return frame

    def _keep_alive(self) -> Frame | None:
        """Between messages: line breaks, then the first bytes of a message."""
        buffer = self._buffer
        while buffer[:1] == b"\r" or buffer[:1] == b"\n":
            if buffer == b"\r":
                return None
            if buffer[:2] != b"\r\n":
                # Half a line break before a message means nothing, and harms nobody.
                del buffer[:1]
                continue
            del buffer[:2]
            if self._awaits_pong:
                self._awaits_pong = False
                return Pong()
            self._half_ping = not self._half_ping
            if not self._half_ping:
                return Ping()
        if not buffer:
            return None
        self._half_ping = False
        if not _STARTS_A_MESSAGE.match(buffer):
            return Broken("this is no SIP")
        return self._message()

    def _message(self) -> Frame | None:
        if self._needed is None:
            broken = self._head()
            if broken is not None:
                return broken
        if self._needed is None or len(self._buffer) < self._needed:
            return None
        data = bytes(self._buffer[: self._needed])
        del self._buffer[: self._needed]
        self._needed, self._searched, self._line_checked = None, 0, False
        return Message(data)

    def _head(self) -> Broken | None:
        """Look for the end of the head, and for what makes reading on pointless."""
        buffer = self._buffer
        if not self._line_checked and (end := buffer.find(b"\n")) >= 0:
            # Told by its first line, so that an HTTP client or a scanner holds the connection no longer.
            if b"SIP/" not in buffer[:end].upper():
                return Broken("this is no SIP")
            self._line_checked = True
        end = buffer.find(b"\r\n\r\n", max(0, self._searched - 3))
        if end < 0:
            self._searched = len(buffer)
            return Broken("head too long") if len(buffer) > self._max_bytes else None
        if end + 4 > self._max_bytes:
            return Broken("head too long")
        lengths = {_FOLD.sub(b" ", value).strip() for value in _CONTENT_LENGTH.findall(bytes(buffer[:end]))}
        if len(lengths) != 1:
            return Broken("Content-Length repeated" if lengths else "no Content-Length")
        text = lengths.pop()
        if not text.isdigit() or len(text) > 9:
            return Broken("malformed Content-Length")
        if end + 4 + int(text) > self._max_bytes:
            return Broken("message too long")
        self._needed = end + 4 + int(text)
        return None
