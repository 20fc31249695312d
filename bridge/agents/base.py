"""The Agent contract: what talks on a call, and what a call gives it to talk with."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from bridge.audio.voice import OpenVoiceDetector
from bridge.events import AgentEvent, Cause
from bridge.legs.base import Leg


class SpeakError(Exception):
    """The agent's voice could not be had; the message says why."""


Speak = Callable[[Leg, str], Awaitable[None]]
"""Speaks a text in the agent's voice to a leg that is up; returns when it was played to its end. Cancelled, it stops
at once. Raises SpeakError."""


@dataclass(frozen=True, slots=True)
class Introduction:
    """What somebody is told about a caller, alone, before the two are put through to each other."""

    text: str
    accept_key: str = ""
    """The key that takes the call, so that no machine does; empty: who hears the text to its end takes it."""
    refuse_key: str = ""
    """The key that refuses it, as hanging up does; empty: none."""
    key_s: float = 10.0
    """How long to wait for `accept_key` after the text."""


class Introductions(Protocol):
    """Putting a caller through to somebody who is told about the call first."""

    def lend_voice(self, speak: Speak | None) -> None:
        """How the agent speaks to others than its caller, from now on; None: it does not."""
        ...

    async def hand_over(self, target: str, introduction: Introduction) -> None:
        """Call `target` while the caller waits, tell them, and connect the two. Returns when that is under way; the
        outcome is a `TransferResult` event of the session's leg, and `Leg.stop_transfer` gives it up. After failure
        the caller is with the agent. Raises LegError."""
        ...


@dataclass(frozen=True, slots=True)
class QueueNumbers:
    """A queue at this moment."""

    waiting_callers: int
    free_members: int
    """Who could take a call now."""


class QueueView(Protocol):
    """The queues of the telephone system that a call came from."""

    async def queue(self, name: str) -> QueueNumbers | None:
        """How it looks there; None: there is no such queue, or it is not known now."""
        ...


@dataclass(frozen=True, slots=True)
class CallSession:
    """What an agent sees of its call. The leg is up when the agent runs."""

    call_id: str
    leg: Leg
    emit: Callable[[AgentEvent], None]
    """Put an event on the record. Returns at once."""
    open_voice: OpenVoiceDetector
    clock: Callable[[], float]
    """Time now (s, monotonic), the time base of frames and voice events."""
    answered_at: float
    """`clock()` at the answer: the zero of every `at_ms`."""
    introductions: Introductions | None = None
    """None: this call can call nobody."""
    queues: QueueView | None = None
    """None: nobody knows of queues there."""

    def at_ms(self, at: float) -> float:
        """A clock time as ms since the answer, the position in the recording."""
        return (at - self.answered_at) * 1000


@dataclass(frozen=True, slots=True)
class AgentDone:
    """Why the agent is through with the call, so that the call can end with it."""

    cause: Cause
    detail: str = ""


class Agent(Protocol):
    """One agent kind with its settings, serving many calls at once."""

    @property
    def name(self) -> str: ...

    async def warm(self) -> None:
        """A call is coming, and its phone rings: open what its first moments would have to wait for, in bounded time.
        Never raises. It runs beside the call's set-up, which does not wait for it, and is cancelled with the call."""
        ...

    async def run(self, session: CallSession) -> AgentDone:
        """Talk until done. Cancelled when the call ends for another reason (the caller hung up); by its return
        everything it opened is closed. Raises only for a bug: the call then ends with `internal-error`."""
        ...
