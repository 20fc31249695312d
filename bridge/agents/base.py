"""The Agent contract: what talks on a call, and what a call gives it to talk with."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from bridge.audio.voice import OpenVoiceDetector
from bridge.events import AgentEvent, Cause
from bridge.legs.base import Leg


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
