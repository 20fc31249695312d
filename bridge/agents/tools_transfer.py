"""Handing a caller over as the model asks for it: at once, or to somebody who is told about the caller first."""

import asyncio
from collections.abc import Mapping
from typing import Any

from bridge.agents.base import AgentDone, CallSession, Introduction
from bridge.agents.call_notes import SUMMARY_ARGUMENT, CallNotes, with_summary
from bridge.agents.settings import LimitSettings
from bridge.agents.tools_result import ToolResult
from bridge.agents.transfer_settings import AnnounceSettings, TransferTarget
from bridge.events import Cause, Note, TransferResult
from bridge.legs.base import LegError
from bridge.providers.base import Tool

_SUMMARY = "who is calling, what they want and what was settled, in one to three short sentences"


class HandOvers:
    """One call's. The outcome of each is a `TransferResult` of the leg, passed on to `result`."""

    def __init__(
        self,
        session: CallSession,
        targets: Mapping[str, TransferTarget],
        limits: LimitSettings,
        notes: CallNotes,
        *,
        has_voice: bool,
    ) -> None:
        """`has_voice`: there is one that can speak to others than the caller."""
        self._session = session
        self._targets = targets
        self._limits = limits
        self._notes = notes
        self._has_voice = has_voice
        self._results: asyncio.Queue[TransferResult] = asyncio.Queue()
        self.under_way = False
        self.in_haste = False
        """The agent can't go on, for want of a model or a voice: nobody is told anything first."""
        self.done: AgentDone | None = None
        """The caller is with somebody else."""
        self.succeeded = False
        """The leg told so, though the call may have ended before we could look at it."""

    def tool(self, tool: Tool) -> Tool:
        """`tool`, which transfers, with an argument for a summary where somebody is to hear or read it."""
        told = [name for name, target in self._targets.items() if self._announced(target)]
        if told:
            who = "" if len(told) == len(self._targets) else f" ({', '.join(told)})"
            return with_summary(tool, f"Always give it. Spoken to the person who takes the call{who}: {_SUMMARY}.")
        if self._notes.settable:
            return with_summary(tool, f"Shown to the person who takes the call: {_SUMMARY}.")
        return tool

    def announced(self, name: str) -> bool:
        """Whether the target of this name is told about the caller first, who waits meanwhile."""
        return name in self._targets and self._announced(self._targets[name])

    def deadline_s(self, name: str) -> float:
        """How long a transfer to it may take."""
        return (self._limits.transfer_ms + self._limits.announce_ms * self.announced(name)) / 1000

    def result(self, event: TransferResult) -> None:
        """The leg told how a transfer ended."""
        self.succeeded = self.succeeded or 200 <= event.status < 300
        self._results.put_nowait(event)

    async def carry_out(self, arguments: dict[str, Any]) -> ToolResult:
        """Put the caller through."""
        target, leg = self._targets[arguments["target"]], self._session.leg
        self._notes.summarise(arguments.get(SUMMARY_ARGUMENT))
        self.under_way = True
        try:
            await self._notes.leave()
            while not self._results.empty():
                self._results.get_nowait()
            if target.announce.enabled and not self.in_haste:
                await self._announce(target)
            else:
                await leg.transfer(target.to)
            outcome = await self._results.get()
        except asyncio.CancelledError:
            # Out of time: a phone that still rings must not take the caller away from what is said now.
            leg.stop_transfer()
            raise
        except LegError as error:
            return ToolResult(False, f"the transfer failed: {error}")
        finally:
            self.under_way = False
        if not 200 <= outcome.status < 300:
            return ToolResult(False, f"the transfer failed: {outcome.status} {outcome.reason}".rstrip())
        self.done = AgentDone(Cause.TRANSFERRED, target.to)
        return ToolResult(True)

    async def _announce(self, target: TransferTarget) -> None:
        session = self._session
        if session.introductions is None or not self._has_voice:
            why = (
                "this call can call nobody" if session.introductions is None else "the agent has no voice of its own"
            )
            session.emit(Note("announcement-failed", why, session.at_ms(session.clock())))
            await session.leg.transfer(target.to)
            return
        announce = target.announce
        await session.introductions.hand_over(
            target.to,
            Introduction(
                _text(announce, self._notes.summary), announce.accept_key, announce.refuse_key, announce.key_s
            ),
        )

    def _announced(self, target: TransferTarget) -> bool:
        possible = self._has_voice and self._session.introductions is not None
        return target.announce.enabled and possible and not self.in_haste


def _text(announce: AnnounceSettings, summary: str) -> str:
    return " ".join(part.strip() for part in (announce.opening, summary, announce.closing) if part.strip())
