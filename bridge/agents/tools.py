"""Carrying out what the model asks for: forms, hanging up, handing the caller over."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from bridge.agents.base import AgentDone, CallSession
from bridge.agents.settings import LimitSettings
from bridge.events import Cause, FormCompleted, ToolCalled, TransferResult
from bridge.legs.base import Capability, LegError
from bridge.providers.base import Tool, ToolCall
from bridge.providers.brief import Brief
from bridge.providers.tools import HANG_UP, TRANSFER, check_arguments, form_tools


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a tool came to; the model reads it."""

    ok: bool
    error: str = ""
    """What was wrong, in words the model can act on."""

    @property
    def content(self) -> str:
        """As JSON: `{"ok": true}`, or `{"ok": false, "error": ...}`."""
        return json.dumps({"ok": True} if self.ok else {"ok": False, "error": self.error}, ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class _Bound:
    tool: Tool
    run: Callable[[dict[str, Any]], Awaitable[ToolResult]]
    deadline_s: float


class Toolbox:
    """The tools of one call. `call` never raises for what a model or the far side does wrong."""

    def __init__(self, session: CallSession, brief: Brief, limits: LimitSettings) -> None:
        self._session = session
        self._brief = brief
        self._limits = limits
        self._transfer_results: asyncio.Queue[TransferResult] = asyncio.Queue()
        can_transfer = Capability.TRANSFER in session.leg.capabilities
        tool_s, transfer_s = limits.tool_ms / 1000, limits.transfer_ms / 1000
        self._bound: dict[str, _Bound] = {}
        for tool in form_tools(brief):
            match tool.name:
                case name if name == HANG_UP:
                    self._bound[name] = _Bound(tool, self._hang_up, tool_s)
                case name if name == TRANSFER:
                    if can_transfer:
                        self._bound[name] = _Bound(tool, self._transfer, transfer_s)
                case name:
                    self._bound[name] = _Bound(tool, self._form(name), tool_s)
        self.hang_up_asked = False
        """The model wants the call to end once it has spoken."""
        self.done: AgentDone | None = None
        """A tool ended our part in the call."""
        self.transferring = False

    @property
    def tools(self) -> tuple[Tool, ...]:
        """What the model may call on this leg."""
        return tuple(bound.tool for bound in self._bound.values())

    def transfer_result(self, event: TransferResult) -> None:
        """The leg told how a transfer ended."""
        self._transfer_results.put_nowait(event)

    async def call(self, call: ToolCall) -> ToolResult:
        """Carry out `call`, within the tool's deadline, and put it on record."""
        started = self._session.clock()
        result = await self._call(call)
        now = self._session.clock()
        took_ms = (now - started) * 1000
        self._session.emit(
            ToolCalled(call.name, call.arguments, result.ok, result.content, took_ms, self._session.at_ms(started))
        )
        return result

    async def _call(self, call: ToolCall) -> ToolResult:
        bound = self._bound.get(call.name)
        if bound is None:
            if call.name == TRANSFER:
                return ToolResult(False, "nobody can be reached; say so")
            return ToolResult(False, f"there is no tool {call.name!r}; there are: {', '.join(self._bound)}")
        if wrong := check_arguments(bound.tool, call.arguments):
            return ToolResult(False, wrong)
        try:
            async with asyncio.timeout(bound.deadline_s):
                return await bound.run(call.arguments)
        except TimeoutError:
            return ToolResult(False, f"no result within {bound.deadline_s:g} s")

    def _form(self, form: str) -> Callable[[dict[str, Any]], Awaitable[ToolResult]]:
        async def complete(fields: dict[str, Any]) -> ToolResult:
            now = self._session.clock()
            self._session.emit(FormCompleted(form, dict(fields), self._session.at_ms(now)))
            return ToolResult(True)

        return complete

    async def _hang_up(self, _: dict[str, Any]) -> ToolResult:
        self.hang_up_asked = True
        return ToolResult(True)

    async def _transfer(self, _: dict[str, Any]) -> ToolResult:
        target = self._brief.handover.target
        while not self._transfer_results.empty():
            self._transfer_results.get_nowait()
        self.transferring = True
        try:
            await self._session.leg.transfer(target)
            outcome = await self._transfer_results.get()
        except asyncio.CancelledError:
            # Out of time: a phone that still rings must not take the caller away from what is said now.
            self._session.leg.stop_transfer()
            raise
        except LegError as error:
            return ToolResult(False, f"the transfer failed: {error}")
        finally:
            self.transferring = False
        if not 200 <= outcome.status < 300:
            return ToolResult(False, f"the transfer failed: {outcome.status} {outcome.reason}".rstrip())
        self.done = AgentDone(Cause.TRANSFERRED, target)
        return ToolResult(True)
