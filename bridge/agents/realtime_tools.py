"""The tools that a speech-to-speech model asked for, at work beside its talking."""

from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from bridge.agents.tools import Toolbox, ToolResult
from bridge.providers.base import ToolCall


@dataclass(frozen=True, slots=True)
class ToolDone:
    call: ToolCall
    number: int
    """Of the session that asked for it."""
    result: ToolResult


class ToolRuns:
    """One call's."""

    def __init__(
        self,
        toolbox: Toolbox,
        *,
        filler_ms: int,
        music_after_s: float,
        start: Callable[[Coroutine[Any, Any, None]], Callable[[], object]],
        announce: Callable[[str], None],
        drained: Callable[[], Awaitable[None]],
        done: Callable[[ToolDone], None],
    ) -> None:
        """`start` runs work in the call's task group, and returns what cancels it. `announce` has the caller hear
        what will happen, unless the model said something; `drained` returns when all that was said was heard."""
        self._toolbox = toolbox
        self._filler_s = filler_ms / 1000
        self._music_after_s = music_after_s
        self._start = start
        self._announce = announce
        self._drained = drained
        self._done = done
        self._working: dict[str, Callable[[], object]] = {}
        """What cancels each, by call."""
        self.filler_at: float | None = None
        """When a caller who hears nothing until then is to hear something (s)."""
        self.music_at: float | None = None
        """When a caller who still waits then may have music (s)."""

    def __bool__(self) -> bool:
        return bool(self._working)

    def run(self, now: float, call: ToolCall, number: int) -> None:
        """Carry it out for the session `number`."""
        manner = self._toolbox.manner(call)
        if manner.covered and self.filler_at is None:
            self.filler_at = now + self._filler_s
        if manner.covered and manner.music and self.music_at is None:
            self.music_at = now + self._music_after_s
        self._working[call.id] = self._start(self._carry_out(call, number))

    def finished(self, call: ToolCall) -> bool:
        """Its result came. False: it was cancelled meanwhile."""
        found = self._working.pop(call.id, None) is not None
        if not self._working:
            self.filler_at = self.music_at = None
        return found

    def cancel(self, call_id: str) -> None:
        """The model does not want it any more."""
        cancel = self._working.pop(call_id, None)
        if cancel is not None:
            cancel()
        if not self._working:
            self.filler_at = self.music_at = None

    def cancel_all(self) -> None:
        for call_id in list(self._working):
            self.cancel(call_id)

    async def _carry_out(self, call: ToolCall, number: int) -> None:
        manner = self._toolbox.manner(call)
        if manner.announce is not None:
            # The caller hears what happens before the line is taken away.
            self._announce(manner.announce)
            await self._drained()
        result = await self._toolbox.call(call, asked=self._drained)
        self._done(ToolDone(call, number, result))
