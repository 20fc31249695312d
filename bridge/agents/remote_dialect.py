"""The media-stream protocols of Twilio and Telnyx from the carrier's side, without I/O: what a bot is told, and what
it says.

Messages are JSON text. Twilio: "Media Streams: WebSocket messages"; Telnyx: "Stream call media over WebSocket".
A bot that was written for either can't tell this from the carrier.
"""

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

Encoding = Literal["PCMU", "PCMA", "L16"]

MAX_MESSAGE = 4 * 1024 * 1024
"""Bytes of one message from a bot: 30 s of L16 at 16 kHz is 1.3 MB in base64."""


@dataclass(frozen=True, slots=True)
class StreamFacts:
    """What a bot learns of the call it is given."""

    call_id: str
    """Ours: 32 hexadecimal digits, as the carriers' ids have."""
    stream_id: str
    """As many."""
    from_: str
    to: str
    encoding: Encoding
    sample_rate: int
    """Hz on the wire."""
    parameters: Mapping[str, str] = field(default_factory=dict)
    account: str = ""
    """The account that the stream belongs to, as the bot knows it."""
    token: str = ""
    """Told to a Telnyx bot in its first message, as Telnyx does."""


@dataclass(frozen=True, slots=True)
class Media:
    """Audio to be played after what was sent before: payload bytes of the stream's encoding."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Mark:
    """To be sent back once everything before it was played."""

    name: str


@dataclass(frozen=True, slots=True)
class Clear:
    """Drop what was not played yet; its marks are sent back at once."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A message that can't be understood; the bot's author wants to know."""

    why: str


BotMessage = Media | Mark | Clear | Refused


class Dialect(Protocol):
    """One stream as one carrier speaks it. Numbers messages itself; all times are ms since the stream's start."""

    call_sid: str
    """The call as the bot knows it."""

    def begin(self) -> list[str]:
        """What is told first: that a stream is there, and which."""
        ...

    def media(self, payload: bytes, at_ms: float) -> str: ...

    def dtmf(self, digit: str, at_ms: float) -> str: ...

    def mark(self, name: str) -> str: ...

    def error(self, why: str) -> str | None:
        """Where the carrier tells the bot that it could not be understood."""
        ...

    def end(self) -> str: ...


def read(text: str | bytes, stream_sid: str = "") -> BotMessage:
    """A bot's message. `stream_sid`: it must carry this one (Twilio)."""
    if isinstance(text, bytes):
        return Refused("a binary message: they are JSON text")
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        return Refused("a message that is not JSON")
    if not isinstance(message, dict):
        return Refused("a message that is not an object")
    if stream_sid and message.get("streamSid") != stream_sid:
        return Refused("a message without this stream's streamSid")
    match message.get("event"):
        case "media":
            return _media(message.get("media"))
        case "mark":
            mark = message.get("mark")
            name = mark.get("name") if isinstance(mark, dict) else None
            return Mark(name[:256]) if isinstance(name, str) else Refused("a mark without a name")
        case "clear":
            return Clear()
        case event:
            return Refused(f"an event that there is not: {str(event)[:40]!r}")


def _media(media: object) -> BotMessage:
    payload = media.get("payload") if isinstance(media, dict) else None
    if not isinstance(payload, str):
        return Refused("media without a payload")
    try:
        return Media(base64.b64decode(payload, validate=True))
    except (binascii.Error, ValueError):
        return Refused("a payload that is not base64")


class TwilioDialect:
    """Twilio's `<Connect><Stream>`: 8 kHz mu-law."""

    def __init__(self, facts: StreamFacts) -> None:
        self._facts = facts
        self.call_sid = f"CA{facts.call_id}"
        self.stream_sid = f"MZ{facts.stream_id}"
        self._sequence = 0
        self._chunk = 0

    def begin(self) -> list[str]:
        facts = self._facts
        start = {
            "accountSid": facts.account,
            "streamSid": self.stream_sid,
            "callSid": self.call_sid,
            "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": facts.sample_rate, "channels": 1},
            "customParameters": {"from": facts.from_, "to": facts.to, **facts.parameters},
        }
        return [
            json.dumps({"event": "connected", "protocol": "Call", "version": "1.0.0"}),
            self._numbered("start", start),
        ]

    def media(self, payload: bytes, at_ms: float) -> str:
        self._sequence += 1
        self._chunk += 1
        # Fifty a second and call: put together by hand, of parts that need no escaping.
        return (
            f'{{"event":"media","sequenceNumber":"{self._sequence}","media":{{"track":"inbound",'
            f'"chunk":"{self._chunk}","timestamp":"{at_ms:.0f}","payload":"{_base64(payload)}"}},'
            f'"streamSid":"{self.stream_sid}"}}'
        )

    def dtmf(self, digit: str, at_ms: float) -> str:
        return self._numbered("dtmf", {"track": "inbound_track", "digit": digit})

    def mark(self, name: str) -> str:
        return self._numbered("mark", {"name": name})

    def error(self, why: str) -> str | None:
        return None  # Twilio tells the account, not the bot.

    def end(self) -> str:
        return self._numbered("stop", {"accountSid": self._facts.account, "callSid": self.call_sid})

    def _numbered(self, event: str, what: dict[str, Any]) -> str:
        self._sequence += 1
        message = {"event": event, "sequenceNumber": str(self._sequence), event: what, "streamSid": self.stream_sid}
        return json.dumps(message)


class TelnyxDialect:
    """Telnyx's bidirectional media streaming in RTP mode."""

    stream_sid = ""

    def __init__(self, facts: StreamFacts) -> None:
        self._facts = facts
        self.call_sid = f"v3:{facts.call_id}"
        self._stream = _uuid(facts.stream_id)
        self._sequence = 0
        self._chunk = 0

    def begin(self) -> list[str]:
        facts = self._facts
        state = base64.b64encode(json.dumps(dict(facts.parameters)).encode()).decode() if facts.parameters else None
        start: dict[str, Any] = {
            "user_id": facts.account,
            "call_control_id": self.call_sid,
            "call_session_id": _uuid(facts.call_id),
            "from": facts.from_,
            "to": facts.to,
            "tags": [],
            "client_state": state,
            "media_format": {"encoding": facts.encoding, "sample_rate": facts.sample_rate, "channels": 1},
        }
        connected: dict[str, Any] = {"event": "connected", "version": "1.0.0"}
        if facts.token:
            connected["connected"] = {"x-telnyx-streaming-auth-token": facts.token}
        return [json.dumps(connected), self._numbered("start", {"start": start})]

    def media(self, payload: bytes, at_ms: float) -> str:
        self._sequence += 1
        self._chunk += 1
        return (
            f'{{"event":"media","sequence_number":"{self._sequence}","stream_id":"{self._stream}",'
            f'"media":{{"track":"inbound","chunk":"{self._chunk}","timestamp":"{at_ms:.0f}",'
            f'"payload":"{_base64(payload)}"}}}}'
        )

    def dtmf(self, digit: str, at_ms: float) -> str:
        return self._numbered("dtmf", {"dtmf": {"digit": digit}})

    def mark(self, name: str) -> str:
        return self._numbered("mark", {"mark": {"name": name}})

    def error(self, why: str) -> str | None:
        payload = {"code": 100003, "title": "malformed_frame", "detail": why}
        return json.dumps({"event": "error", "stream_id": self._stream, "payload": payload})

    def end(self) -> str:
        stop = {"user_id": self._facts.account, "call_control_id": self.call_sid}
        return self._numbered("stop", {"stop": stop})

    def _numbered(self, event: str, what: dict[str, Any]) -> str:
        self._sequence += 1
        return json.dumps({"event": event, "sequence_number": str(self._sequence), "stream_id": self._stream, **what})


def _base64(payload: bytes) -> str:
    return base64.b64encode(payload).decode("ascii")


def _uuid(digits: str) -> str:
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
