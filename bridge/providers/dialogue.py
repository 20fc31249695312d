"""A call's memory as any language model's interface takes it, and the prompt that goes before it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

from bridge.providers.base import LlmRequest, Message
from bridge.providers.brief import steady_prompt, varying_prompt

CUT_OFF = "—"
"""Ends what the caller heard of a reply that was cut off; the prompt explains it (`bridge.providers.brief`)."""

SILENCE = "(The caller says nothing.)"
_NOT_DONE = json.dumps({"ok": False, "error": "not carried out"})

GO_ON = (
    "(Your reply broke off there for a technical reason; the caller hears it up to that point. Go on from exactly "
    "there, in the same sentence if it was not complete. Repeat nothing, and don't mention this.)"
)
"""Said for the caller to a model whose reply broke off, behind what was given to the voice: its rest is asked for."""


@dataclass(frozen=True, slots=True)
class Dialogue:
    """What a request to a model is made of."""

    steady: str
    """The part of the prompt that is the same in all calls of an agent: what a prompt cache keeps."""
    varying: str
    """The rest of it: the language, the time, what was said before `messages`."""
    messages: tuple[Message, ...]
    """Roles alternate, the caller's first and the model's never last; each tool call is followed by its result."""

    @property
    def prompt(self) -> str:
        return "\n\n".join(part for part in (self.steady, self.varying) if part)


def dialogue(request: LlmRequest, messages: Sequence[Message] | None = None) -> Dialogue:
    """`request` (with `messages` in place of its own) in the form that every server takes.

    The greeting goes into the prompt, neighbours of one role are joined, a lost result is made up for, one whose call
    was forgotten is dropped."""
    greeting, rest = _greeting(request.messages if messages is None else messages)
    before = "After that you said" if request.summary else "You have answered the phone with"
    said = [f"{before}: {greeting}"] if greeting else []
    if request.instructions:
        return Dialogue(request.instructions, "\n\n".join(said), tidied(rest))
    if request.summary:
        said.insert(
            0, f"EARLIER IN THIS CALL (summed up; the caller was told only what stands here)\n{request.summary}"
        )
    varying = [varying_prompt(request.now, request.language), request.known, *said]
    return Dialogue(steady_prompt(request.brief), "\n\n".join(filter(None, varying)), tidied(rest))


def _greeting(memory: Sequence[Message]) -> tuple[str, Sequence[Message]]:
    """What the agent said before the caller said anything, and the rest."""
    count = 0
    while count < len(memory) and memory[count].role == "assistant" and not memory[count].tool_calls:
        count += 1
    return " ".join(filter(None, map(_heard, memory[:count]))), memory[count:]


def _heard(message: Message) -> str:
    return f"{message.content}{CUT_OFF}" if message.interrupted and message.content else message.content


def tidied(memory: Sequence[Message]) -> tuple[Message, ...]:
    """`memory` as `Dialogue.messages`; marks what was cut off."""
    tidy: list[Message] = []
    open_calls: list[str] = []
    for message in memory:
        if message.role == "tool":
            if message.tool_call_id in open_calls:
                open_calls.remove(message.tool_call_id)
                tidy.append(message)
            continue
        tidy += _made_up(open_calls)
        open_calls = [call.id for call in message.tool_calls]
        text = _heard(message)
        last = tidy[-1] if tidy else None
        if last is not None and last.role == message.role and not last.tool_calls:
            content = f"{last.content} {text}".strip()
            tidy[-1] = replace(last, content=content, tool_calls=message.tool_calls, interrupted=False)
        elif text or message.tool_calls:
            tidy.append(replace(message, content=text, interrupted=False))
    tidy += _made_up(open_calls)
    if not tidy or tidy[-1].role == "assistant":
        tidy.append(Message("user", SILENCE))
    return tuple(tidy)


def _made_up(open_calls: Sequence[str]) -> list[Message]:
    return [Message("tool", _NOT_DONE, tool_call_id=call) for call in open_calls]
