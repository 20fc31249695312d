"""What the turn detector tells: its decisions about the caller's turn, and the log of them."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class AskSettled:
    """Tell the recogniser that speech paused (`SttStream.speech_paused`)."""

    pause: int
    """The number of this request, the `pause` of the `Heard` that answers it."""


@dataclass(frozen=True, slots=True)
class EagerStart:
    """The turn will be over with this text unless the caller goes on: a reply may be prepared."""

    text: str
    why: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class EagerCancel:
    """What `EagerStart` allowed is void."""

    why: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class TurnComplete:
    """The caller's turn is over; the recogniser's text starts anew (`SttStream.commit`)."""

    text: str
    """Words and keys. Empty: there was speech, but no text came in time."""
    started_at: float
    """When its voice set in, or its first key was pressed (s)."""
    ended_at: float
    """When its voice was last heard, or its last key pressed (s)."""
    endpoint_ms: float
    """From `ended_at` to the end of the silence that was waited for."""
    stt_ms: float
    """From then to the text; 0 when it was there before."""
    held: bool
    """It had to wait for the agent, which had the floor when it was due: the delays tell nothing about us."""
    why: str


@dataclass(frozen=True, slots=True)
class TurnForgotten:
    """Nothing was said: noise, or words that were to be ignored. The recogniser's text starts anew."""

    why: str


TurnOutput = AskSettled | EagerStart | EagerCancel | TurnComplete | TurnForgotten


@dataclass(frozen=True, slots=True)
class Sign:
    """Something that was taken into account, for the log."""

    what: str


@dataclass(frozen=True, slots=True)
class LogEntry:
    at: float
    what: TurnOutput | Sign
