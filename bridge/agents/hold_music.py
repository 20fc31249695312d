"""The telephone system's music for a caller who waits for a tool, in the place of words.

Only where the carrier has music of its own. Without, nothing takes its place: our hold tone says that nobody is
there, but the agent is, hears the caller all the time and can be interrupted; its words say that better.
"""

import asyncio
from collections.abc import Callable

import structlog

from bridge.agents.outlet import Outlet
from bridge.legs.base import Capability, Leg, LegError, LegState

log = structlog.get_logger(__name__)

STOP_S = 2.0
"""What the agent says waits so long at most for the music to end."""


class HoldMusic:
    """One call's. What the agent says while it plays waits until it has stopped."""

    def __init__(self, leg: Leg, outlet: Outlet, after_ms: int, note: Callable[[str, str], None]) -> None:
        """`after_ms` from a tool's beginning; 0: none. `note` puts on record that it could not be had."""
        self._leg = leg
        self._outlet = outlet
        self._note = note
        self._failed = False
        self._wanted = False
        self._on = False
        """As the carrier was last told."""
        self._task: asyncio.Task[None] | None = None
        self.after_s = after_ms / 1000
        """How long a tool may work without it."""

    @property
    def possible(self) -> bool:
        """Whether there can be any."""
        return self.after_s > 0 and not self._failed and Capability.MUSIC in self._leg.capabilities

    @property
    def playing(self) -> bool:
        """It plays, or is about to."""
        return self._wanted

    def want(self, on: bool) -> None:
        """Have it play, or stop. Returns at once."""
        on = on and self.possible
        if on != self._wanted:
            self._wanted = on
            if on:
                self._outlet.pause("music")
            self._begin()

    async def aclose(self) -> None:
        """The agent's part in the call is over."""
        self.want(False)
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=STOP_S)
        if self._task is not None:
            self._task.cancel()

    def _begin(self) -> None:
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._follow(), name="music on hold")
            self._task.add_done_callback(self._done)

    async def _follow(self) -> None:
        while self._on != self._wanted and self._leg.state is LegState.UP:
            on = self._wanted
            try:
                async with asyncio.timeout(STOP_S):
                    await self._leg.music(on)
            except (LegError, TimeoutError) as error:
                log.warning("music on hold could not be switched", on=on, error=str(error) or "timeout")
                if on:
                    self._failed, self._wanted = True, False
                    self._note("no-music", str(error) or f"not within {STOP_S:g} s")
            self._on = on

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._task = None
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("switching the music crashed", exc_info=error)
            self._on = self._wanted = False
        if self._wanted != self._on and not task.cancelled() and self._leg.state is LegState.UP:
            self._begin()
        elif not self._wanted:
            self._outlet.unpause("music")
