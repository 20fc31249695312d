"""Supervisors of a leg: people who listen in on a call of an agent, tell the agent something, or join in."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from bridge.legs.base import Leg, LegError, NotCapableError

Mode = Literal["listen", "whisper", "barge"]
"""What becomes of the supervisor's words: nobody hears them; the agent alone hears them, as if the caller said them;
both hear them. The supervisor hears both in all of them."""


class NoSuchSupervisorError(LegError):
    """Nobody supervises the call under this id."""


@dataclass(frozen=True, slots=True)
class Supervisor:
    id: str
    """Of the leg's own: `1`, `2`, ..."""
    endpoint: str
    """Who was called for it, as it was asked for."""
    mode: Mode
    state: Literal["ringing", "connected"]


class Supervision(Protocol):
    """Of one leg. It ends with the leg."""

    @property
    def supervisors(self) -> Sequence[Supervisor]:
        """Whose phones ring, and who is connected."""
        ...

    async def begin(self, endpoint: str, mode: Mode) -> Supervisor:
        """Call a supervisor; returns when the phone is told to ring. Raises LegError; LegStateError for a leg that is
        not up."""
        ...

    async def change(self, id: str, mode: Mode) -> Supervisor:
        """Raises LegError, NoSuchSupervisorError."""
        ...

    async def stop(self, id: str) -> None:
        """Hang up on a supervisor. Raises NoSuchSupervisorError."""
        ...


@runtime_checkable
class Supervised(Protocol):
    """A leg whose carrier can do it."""

    @property
    def supervision(self) -> Supervision: ...


def supervision_of(leg: Leg) -> Supervision:
    """Raises NotCapableError where the leg's carrier has no way for it."""
    if not isinstance(leg, Supervised):
        raise NotCapableError(f"calls by {leg.info.kind} can't be supervised: those through Asterisk (ARI) can")
    return leg.supervision
