"""What chan_websocket and we say to each other beside the audio, in JSON or plain text (protocols/asterisk.md).

Commands are made within Asterisk's limits, events are read whatever they are: nothing that comes raises.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

Control = Literal["json", "plain-text"]

MAX_COMMAND_BYTES = 128
"""Asterisk ignores a longer one."""

MAX_AUDIO_BYTES = 65_000
"""In one message: Asterisk closes the connection over one of more than 65,535."""

MAX_ID = 32
"""Characters of a correlation id: a command that carries one fits into either dialect."""

_ID = re.compile(rf"[A-Za-z0-9_.-]{{1,{MAX_ID}}}\Z")
_PAIR = re.compile(r"(?:^|\s)([a-z_]+):(\S*)")
_NO_VARIABLES: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class MediaStart:
    """The first message: audio may flow."""

    connection_id: str
    channel: str
    """Its name, `WebSocket/...`."""
    channel_id: str
    format: str
    """As Asterisk names it, e.g. `slin16`."""
    frame_bytes: int
    """Of its audio messages, and of those that it likes best; 0 where it passes through what comes."""
    ptime_ms: int
    variables: Mapping[str, str] = field(default_factory=lambda: _NO_VARIABLES)
    """Of the media channel; JSON alone has them."""


@dataclass(frozen=True, slots=True)
class MediaXoff:
    """18 s of audio wait in Asterisk: send no more."""


@dataclass(frozen=True, slots=True)
class MediaXon:
    """There is room again."""


@dataclass(frozen=True, slots=True)
class MarkProcessed:
    """All audio before the mark has been played."""

    id: str


@dataclass(frozen=True, slots=True)
class BufferingCompleted:
    """What was sent between start and stop of buffering has been played."""

    id: str


@dataclass(frozen=True, slots=True)
class QueueDrained:
    """Asterisk wanted audio to play and had none; told once for each `report_queue_drained`."""


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """How much audio waits in Asterisk."""

    frames: int
    """Of 20 ms."""
    xon_level: int
    xoff_level: int
    full: bool
    buffering: bool
    paused: bool


@dataclass(frozen=True, slots=True)
class DigitEnded:
    """A digit, which ARI tells as well (`ChannelDtmfReceived`)."""

    digit: str


@dataclass(frozen=True, slots=True)
class MediaFault:
    """Asterisk did not take a command."""

    text: str


@dataclass(frozen=True, slots=True)
class UnknownMediaEvent:
    """Nothing that is known, of a later Asterisk or malformed; at most 200 characters of it."""

    text: str


MediaEvent = (
    MediaStart
    | MediaXoff
    | MediaXon
    | MarkProcessed
    | BufferingCompleted
    | QueueDrained
    | QueueStatus
    | DigitEnded
    | MediaFault
    | UnknownMediaEvent
)


class MediaCommands:
    """Commands as Asterisk reads them in one of the dialects."""

    def __init__(self, control: Control) -> None:
        self.control: Control = control
        self.hang_up = self._command("HANGUP")
        """The media channel; closing the socket does the same."""
        self.answer = self._command("ANSWER")
        """A media channel that was made not to answer by itself."""
        self.start_buffering = self._command("START_MEDIA_BUFFERING")
        """Messages of any size follow; Asterisk cuts them into frames."""
        self.flush = self._command("FLUSH_MEDIA")
        """Drop all audio that waits, and the marks in it, silently."""
        self.pause = self._command("PAUSE_MEDIA")
        self.go_on = self._command("CONTINUE_MEDIA")
        self.get_status = self._command("GET_STATUS")
        """Answered at once by a `QueueStatus`."""
        self.report_queue_drained = self._command("REPORT_QUEUE_DRAINED")

    def mark(self, id: str) -> str:
        """Answered by `MarkProcessed` when all audio before it was played. Raises ValueError for an unfit `id`."""
        return self._command("MARK_MEDIA", id)

    def stop_buffering(self, id: str) -> str:
        """Answered by `BufferingCompleted`. Raises ValueError for an unfit `id`."""
        return self._command("STOP_MEDIA_BUFFERING", id)

    def _command(self, name: str, id: str | None = None) -> str:
        if id is not None and _ID.match(id) is None:
            raise ValueError(f"{id!r} is no correlation id: 1 to {MAX_ID} letters, digits, '_', '.' and '-'")
        if self.control == "plain-text":
            return name if id is None else f"{name} {id}"
        words = {"command": name} if id is None else {"command": name, "correlation_id": id}
        return json.dumps(words, separators=(",", ":"))


def parse_event(text: str) -> MediaEvent:
    """What a text message of Asterisk's says; in the dialect that it is written in."""
    # Asterisk ends some messages with a line feed.
    text = text.strip()
    if text.startswith("{"):
        try:
            found = _parse_json(text)
        except (ValueError, RecursionError):
            found = None
    else:
        found = _parse_plain(text)
    return UnknownMediaEvent(text[:200]) if found is None else found


def _parse_json(text: str) -> MediaEvent | None:
    values = json.loads(text)
    if not isinstance(values, dict):
        return None
    read = _EVENTS.get(_text(values, "event"))
    return None if read is None else read(values)


def _parse_plain(text: str) -> MediaEvent | None:
    name, _, rest = text.partition(" ")
    read = _EVENTS.get(name)
    if read is None:
        return None
    values: dict[str, Any] = {key: value for key, value in _PAIR.findall(rest)}
    match name:
        case "MEDIA_MARK_PROCESSED" | "MEDIA_BUFFERING_COMPLETED":
            # The id stands alone here; as a pair in case a later Asterisk writes it like the others.
            values.setdefault("correlation_id", rest.strip())
        case "ERROR":
            values["error_text"] = rest.partition("error_text:")[2].strip() or rest
        case _:
            pass
    return read(values)


def _media_start(values: Mapping[str, Any]) -> MediaStart:
    variables = values.get("channel_variables")
    known = variables if isinstance(variables, dict) else {}
    return MediaStart(
        connection_id=_text(values, "connection_id"),
        channel=_text(values, "channel"),
        channel_id=_text(values, "channel_id"),
        format=_text(values, "format"),
        frame_bytes=_number(values, "optimal_frame_size"),
        ptime_ms=_number(values, "ptime"),
        variables=MappingProxyType({str(name): str(value) for name, value in known.items()}),
    )


def _status(values: Mapping[str, Any]) -> QueueStatus:
    return QueueStatus(
        frames=_number(values, "queue_length"),
        xon_level=_number(values, "xon_level"),
        xoff_level=_number(values, "xoff_level"),
        full=_truth(values, "queue_full"),
        buffering=_truth(values, "bulk_media"),
        paused=_truth(values, "media_paused"),
    )


def _digit(values: Mapping[str, Any]) -> DigitEnded | None:
    digit = _text(values, "digit").upper()
    return DigitEnded(digit) if len(digit) == 1 and digit in "0123456789*#ABCD" else None


def _text(values: Mapping[str, Any], name: str) -> str:
    value = values.get(name)
    return value if isinstance(value, str) else ""


def _number(values: Mapping[str, Any], name: str) -> int:
    """Not negative; 0 for what is none."""
    value = values.get(name)
    if isinstance(value, str):
        # Nothing longer is a count; and int() takes its time over a million digits.
        value = int(value) if value.isascii() and value.isdecimal() and len(value) < 10 else 0
    return max(0, value) if isinstance(value, int) and not isinstance(value, bool) else 0


def _truth(values: Mapping[str, Any], name: str) -> bool:
    return values.get(name) in (True, "true")


_EVENTS: Mapping[str, Callable[[Mapping[str, Any]], MediaEvent | None]] = {
    "MEDIA_START": _media_start,
    "MEDIA_XOFF": lambda values: MediaXoff(),
    "MEDIA_XON": lambda values: MediaXon(),
    "MEDIA_MARK_PROCESSED": lambda values: MarkProcessed(_text(values, "correlation_id")),
    "MEDIA_BUFFERING_COMPLETED": lambda values: BufferingCompleted(_text(values, "correlation_id")),
    "QUEUE_DRAINED": lambda values: QueueDrained(),
    "STATUS": _status,
    "DTMF_END": _digit,
    "ERROR": lambda values: MediaFault(_text(values, "error_text")),
}
