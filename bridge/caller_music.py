"""The carrier's music for a caller who waits, asked for by whoever lets it wait: plays while one of them wants it."""

import asyncio
from typing import Literal

import structlog

from bridge.legs.base import Capability, Leg, LegError, LegState, NotCapableError

log = structlog.get_logger(__name__)

Reason = Literal["agent", "waiting"]
"""Who wants it: the agent, which is busy; or the call, whose caller waits for somebody else."""


class CallerMusic:
    """One call's. `want` is told what is wanted; a task of its own asks the carrier for it, one request at a time."""

    def __init__(self, leg: Leg) -> None:
        self._leg = leg
        self._wanted: set[Reason] = set()
        self._on = False
        """What the carrier was last told."""
        self._failure: LegError | None = None
        """It was asked for and not given: it is not asked for again."""
        self._task: asyncio.Task[None] | None = None

    @property
    def playing(self) -> bool:
        """It plays, or is about to: nothing else need be heard meanwhile."""
        return bool(self._wanted) and self._possible

    @property
    def _possible(self) -> bool:
        return self._failure is None and Capability.MUSIC in self._leg.capabilities

    def want(self, reason: Reason, on: bool) -> None:
        """Have it play for this reason, or not any more. Does nothing where the carrier has no music."""
        if on:
            self._wanted.add(reason)
        else:
            self._wanted.discard(reason)
        self._begin()

    async def set(self, reason: Reason, on: bool) -> None:
        """As `want`; returns when the carrier did it. Raises NotCapableError, LegError."""
        if on and Capability.MUSIC not in self._leg.capabilities:
            raise NotCapableError("this call's carrier has no music")
        self.want(reason, on)
        await self.settled()
        if on and self._failure is not None:
            raise LegError(str(self._failure)) from self._failure

    async def settled(self) -> None:
        """Return when the carrier has done what was wanted of it."""
        while self._task is not None:
            await asyncio.wait({self._task})

    def close(self) -> None:
        """The call is over."""
        self._wanted.clear()
        if self._task is not None:
            self._task.cancel()

    def _begin(self) -> None:
        if self._task is None and self._differs:
            task = asyncio.get_running_loop().create_task(self._follow(), name=f"music of {self._leg.info.id}")
            self._task = task
            task.add_done_callback(self._done)

    @property
    def _differs(self) -> bool:
        """The carrier has something to do."""
        return self._on != self.playing and self._leg.state is LegState.UP

    async def _follow(self) -> None:
        while self._differs:
            on = not self._on
            try:
                await self._leg.music(on)
            except LegError as error:
                log.warning("the carrier's music could not be switched", on=on, error=str(error))
                if on:
                    self._failure = error
            self._on = on and self._failure is None

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._task = None
        if task.cancelled():
            return
        if (error := task.exception()) is not None:
            log.error("switching the music crashed", exc_info=error)
        else:
            # Something else may have been wanted since it last looked.
            self._begin()
