"""A conversation with the brain as a call has it: memory with what was heard, tools carried out."""

import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from bridge.providers.base import LlmRequest, Message, ReplyDone, TextDelta, ToolCall
from bridge.providers.brief import Brief
from bridge.providers.local.brain import LocalBrain
from bridge.providers.tools import HANG_UP, form_tools

GREETING = "Hello, La Lanterna restaurant, how can I help you?"
TUESDAY = datetime(2026, 5, 5, 15, 0)  # noqa: DTZ001 the caller's local time, as a request has it


@dataclass
class Answer:
    text: str
    """Everything meant to be said, tools' follow-ups included."""
    calls: list[ToolCall]


@dataclass
class BrainCall:
    brain: LocalBrain
    brief: Brief
    now: datetime = TUESDAY
    messages: list[Message] = field(default_factory=lambda: [Message("assistant", GREETING)])

    async def say(self, text: str, *, heard_words: int | None = None, tool_fails: bool = False) -> Answer:
        """The caller says `text`. Of the reply only `heard_words` words are heard, all if not given."""
        self.messages.append(Message("user", text))
        said: list[str] = []
        calls: list[ToolCall] = []
        while True:
            reply, asked = await self._reply()
            said.append(reply)
            calls += asked
            self._remember(reply, asked, heard_words)
            if not asked or any(call.name == HANG_UP for call in asked):
                break
            for call in asked:
                result = {"ok": False, "error": "no"} if tool_fails else {"ok": True}
                self.messages.append(Message("tool", json.dumps(result), tool_call_id=call.id))
        return Answer(" ".join(part for part in said if part), calls)

    async def _reply(self) -> tuple[str, list[ToolCall]]:
        text, calls = "", []
        request = LlmRequest(self.brief, list(self.messages), form_tools(self.brief), self.now)
        async for event in self.brain.reply(request):
            match event:
                case TextDelta():
                    text += event.text
                case ReplyDone():
                    calls += event.tool_calls
        return text, calls

    def _remember(self, reply: str, calls: list[ToolCall], heard_words: int | None) -> None:
        heard = reply if heard_words is None else " ".join(reply.split()[:heard_words])
        if heard or calls:
            self.messages.append(Message("assistant", heard, tuple(calls), interrupted=heard != reply))


def arguments(calls: list[ToolCall]) -> dict[str, dict[str, Any]]:
    """Tool arguments by tool name."""
    return {call.name: call.arguments for call in calls}
