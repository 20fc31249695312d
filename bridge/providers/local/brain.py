"""The embedded language model: deterministic, without a key, never inventing anything.

It knows what the brief says and no more. Facts and wishes are found by sentence embeddings, everything else is rules;
each reply replays the conversation's memory, so the brain keeps nothing of a call and any reply can be reproduced.
It understands English.
"""

import json
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from bridge.providers.base import LlmEvent, LlmRequest, Message, ReplyDone, TextDelta, ToolCall
from bridge.providers.brief import Brief
from bridge.providers.local.brain_acts import acts
from bridge.providers.local.brain_dialogue import Dialogue
from bridge.providers.local.brain_floor import Plan
from bridge.providers.local.brain_match import NO_MATCH, Embeds, Match, Matcher, parts
from bridge.providers.tools import HANG_UP, TRANSFER

__all__ = ["Embeds", "LocalBrain"]

_REMEMBERED = 2048
"""Sentences of all live calls whose match is kept, so that a replay costs no embedding."""


@dataclass(slots=True)
class _Prepared:
    matcher: Matcher
    matches: OrderedDict[str, Match]


class LocalBrain:
    """An `Llm`. `embeds` turns sentences into vectors."""

    def __init__(self, embeds: Embeds) -> None:
        self._embeds = embeds
        self._prepared: list[_Prepared] = []

    @property
    def name(self) -> str:
        return "local"

    @property
    def follows_instructions(self) -> bool:
        return False

    async def start(self) -> None:
        """Nothing to load: the embedder has the model."""

    async def probe(self) -> str:
        return "the embedded brain"

    async def warm(self) -> None:
        """Nothing to open."""

    async def aclose(self) -> None:
        self._prepared.clear()

    async def prepare(self, brief: Brief) -> None:
        """Embed a brief's examples (7 ms each) before the first caller waits for it. Raises ProviderError."""
        await self._prepare(brief)

    async def _prepare(self, brief: Brief) -> _Prepared:
        for prepared in self._prepared:
            if prepared.matcher.brief is brief or prepared.matcher.brief == brief:
                return prepared
        prepared = _Prepared(await Matcher.prepare(brief, self._embeds), OrderedDict())
        self._prepared.append(prepared)
        return prepared

    async def reply(self, request: LlmRequest) -> AsyncIterator[LlmEvent]:
        """Answer the last message: a sentence a `TextDelta`. Raises ProviderError if the embedder does."""
        prepared = await self._prepare(request.brief)
        turns = _turns(request.messages)
        matches = await self._matches(prepared, [turn.content for turn in turns if turn.role == "user"])
        plan = replay(request, turns, matches)
        for number, sentence in enumerate(plan.say):
            yield TextDelta(f" {sentence}" if number else sentence)
        yield ReplyDone(
            tuple(
                ToolCall(f"local-{len(request.messages)}-{number}", name, arguments)
                for number, (name, arguments) in enumerate(plan.calls)
            )
        )

    async def _matches(self, prepared: _Prepared, texts: Sequence[str]) -> dict[str, Match]:
        """What each sentence is about; the ones not met before are embedded together."""
        known = prepared.matches
        matches: dict[str, Match] = {}
        wanted: dict[str, list[str]] = {}
        for text in texts:
            if text in known:
                known.move_to_end(text)
                matches[text] = known[text]
            elif acts(text).any or not text.strip():
                matches[text] = NO_MATCH
            else:
                wanted[text] = parts(text)
        if wanted:
            vectors = await self._embeds.embed([part for found in wanted.values() for part in found])
            at = 0
            for text, found in wanted.items():
                matches[text] = known[text] = prepared.matcher.match(found, vectors[at : at + len(found)])
                at += len(found)
            while len(known) > _REMEMBERED:
                known.popitem(last=False)
        return matches


def replay(request: LlmRequest, turns: Sequence[Message], matches: dict[str, Match]) -> Plan:
    """What to do after `turns`, as `_turns` made them of the memory."""
    dialogue = Dialogue(request.brief, request.now, _tool_names(request))
    called: dict[str, str] = {}
    plan: Plan | None = None
    for turn in turns:
        match turn.role:
            case "user":
                plan = dialogue.caller_said(turn.content, matches[turn.content])
            case "assistant":
                called |= {call.id: call.name for call in turn.tool_calls}
                names = [call.name for call in turn.tool_calls]
                dialogue.agent_said(turn.content, interrupted=turn.interrupted, calls=names)
                plan = None
            case "tool":
                plan = dialogue.tool_answered(called.get(turn.tool_call_id, ""), _succeeded(turn.content))
    return plan if plan is not None else dialogue.nothing_said()


def _tool_names(request: LlmRequest) -> list[str]:
    names = [tool.name for tool in request.tools]
    if names:
        return names
    # A conversation that wants words only, in the last of several rounds: what was called before must be understood.
    return [*(form.id for form in request.brief.forms), HANG_UP, TRANSFER]


def _turns(messages: Sequence[Message]) -> list[Message]:
    """The memory without agent turns that nobody heard, the caller's words around them joined."""
    turns: list[Message] = []
    for message in messages:
        if message.role == "assistant" and not message.content.strip() and not message.tool_calls:
            continue
        last = turns[-1] if turns else None
        if message.role == "user" and last is not None and last.role == "user":
            turns[-1] = Message("user", f"{last.content} {message.content}")
        else:
            turns.append(message)
    return turns


def _succeeded(result: str) -> bool:
    """A tool's result is JSON with `ok`; a plain text that begins with "ok" will do."""
    try:
        content = json.loads(result)
    except ValueError:
        return result.strip().lower().startswith("ok")
    return bool(content.get("ok")) if isinstance(content, dict) else False
