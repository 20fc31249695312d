"""A conversation's memory as Chat Completions messages, and tool calls put together from the pieces of a stream."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from openai.types.chat.chat_completion_chunk import ChoiceDeltaToolCall

from bridge.providers.base import Message, Tool, ToolCall

CUT_OFF = "—"
"""Ends what the caller heard of a reply that was cut off; the prompt explains it (`bridge.providers.brief`)."""

_SILENCE = "(The caller says nothing.)"
_NOT_DONE = json.dumps({"ok": False, "error": "not carried out"})


def chat_tools(tools: Sequence[Tool]) -> list[dict[str, Any]]:
    return [
        {
            "type": "function",
            "function": {"name": tool.name, "description": tool.description, "parameters": tool.parameters},
        }
        for tool in tools
    ]


def chat_messages(prompt: str, memory: Sequence[Message]) -> list[dict[str, Any]]:
    """The messages of a request.

    Many servers insist that roles alternate, that the caller speaks first, and that each tool call has its result:
    the greeting goes into the prompt, neighbours of one role are joined, a lost result is made up for."""
    greeting, rest = _greeting(memory)
    if greeting:
        prompt = f"{prompt}\n\nYou have answered the phone with: {greeting}"
    messages: list[dict[str, Any]] = [{"role": "system", "content": prompt}]
    open_calls: list[str] = []
    for message in rest:
        if message.role == "tool":
            if message.tool_call_id in open_calls:
                open_calls.remove(message.tool_call_id)
                messages.append({"role": "tool", "tool_call_id": message.tool_call_id, "content": message.content})
            continue
        messages += [{"role": "tool", "tool_call_id": call, "content": _NOT_DONE} for call in open_calls]
        open_calls = [call.id for call in message.tool_calls]
        _add(messages, message)
    messages += [{"role": "tool", "tool_call_id": call, "content": _NOT_DONE} for call in open_calls]
    if messages[-1]["role"] not in ("user", "tool"):
        messages.append({"role": "user", "content": _SILENCE})
    return messages


def _greeting(memory: Sequence[Message]) -> tuple[str, Sequence[Message]]:
    """What the agent said before the caller said anything, and the rest."""
    count = 0
    while count < len(memory) and memory[count].role == "assistant" and not memory[count].tool_calls:
        count += 1
    return " ".join(_heard(message) for message in memory[:count]), memory[count:]


def _heard(message: Message) -> str:
    return f"{message.content}{CUT_OFF}" if message.interrupted else message.content


def _add(messages: list[dict[str, Any]], message: Message) -> None:
    text = _heard(message) if message.role == "assistant" else message.content
    last = messages[-1]
    if last["role"] == message.role and not message.tool_calls and "tool_calls" not in last:
        last["content"] = f"{last['content']} {text}"
        return
    added: dict[str, Any] = {"role": message.role, "content": text}
    if message.tool_calls:
        added["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": json.dumps(call.arguments, ensure_ascii=False)},
            }
            for call in message.tool_calls
        ]
    messages.append(added)


@dataclass(slots=True)
class _Pieces:
    id: str
    name: str
    arguments: str = ""


class JoinedCalls:
    """Tool calls of one reply, joined per index; pieces of several may come interleaved."""

    def __init__(self) -> None:
        self._pieces: list[_Pieces] = []
        self._by_index: dict[int, _Pieces] = {}

    def add(self, piece: ChoiceDeltaToolCall) -> None:
        """The next piece from the stream."""
        # Built without validation: a server may leave out what the type promises.
        index: int = piece.index if isinstance(piece.index, int) else max(len(self._pieces) - (not piece.id), 0)
        function = piece.function
        current = self._by_index.get(index)
        # Some servers give every call the index 0: another id begins another call.
        if current is None or (piece.id and current.id and piece.id != current.id):
            number = len(self._pieces)
            current = _Pieces(piece.id or f"call-{number}", (function.name if function else None) or "")
            self._pieces.append(current)
            self._by_index[index] = current
        elif function and function.name and not current.name:
            current.name = function.name
        if function and function.arguments:
            current.arguments += function.arguments

    @property
    def unreadable(self) -> list[str]:
        """Names of the calls whose arguments are not a JSON object."""
        return [piece.name for piece in self._pieces if _arguments(piece.arguments) is None]

    def calls(self) -> tuple[ToolCall, ...]:
        """The calls in the order they began. Only when none is unreadable."""
        return tuple(ToolCall(piece.id, piece.name, _arguments(piece.arguments) or {}) for piece in self._pieces)

    def raw(self) -> list[tuple[str, str, str]]:
        """(id, name, arguments as they came) of each call."""
        return [(piece.id, piece.name, piece.arguments) for piece in self._pieces]


def _arguments(text: str) -> dict[str, Any] | None:
    if not text.strip():
        return {}
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def repair_messages(said: str, joined: JoinedCalls) -> list[dict[str, Any]]:
    """What tells the model that its calls were not carried out, so that it writes them again.

    The broken arguments stand in the result, not in the call: some servers parse what is sent to them."""
    calls = [
        {"id": call, "type": "function", "function": {"name": name, "arguments": "{}"}}
        for call, name, _ in joined.raw()
    ]
    results = []
    for call, name, arguments in joined.raw():
        broken = name in joined.unreadable
        error = f"the arguments are not a JSON object: {arguments}" if broken else "not carried out yet"
        content = json.dumps({"ok": False, "error": f"{error}. Call the tool again, and say nothing before it."})
        results.append({"role": "tool", "tool_call_id": call, "content": content})
    return [{"role": "assistant", "content": said, "tool_calls": calls}, *results]
