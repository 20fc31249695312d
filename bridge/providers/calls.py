"""Tool calls put together from the pieces of a model's stream."""

import json
from dataclasses import dataclass
from typing import Any

from bridge.providers.base import Message, ToolCall


@dataclass(frozen=True, slots=True)
class CallPiece:
    """A piece of a tool call, as the stream brought it."""

    index: int | None = None
    """Which call of the reply it belongs to; None where the server does not tell."""
    id: str = ""
    name: str = ""
    arguments: str = ""
    """The next characters of the JSON object."""
    signature: str = ""
    """See `ToolCall.signature`."""


@dataclass(slots=True)
class _Pieces:
    id: str
    name: str = ""
    arguments: str = ""
    signature: str = ""


class JoinedCalls:
    """Tool calls of one reply, joined per index; pieces of several may come interleaved."""

    def __init__(self, made_up_id: str = "call") -> None:
        """`made_up_id`: what the ids of calls begin with that came without one."""
        self._made_up_id = made_up_id
        self._pieces: list[_Pieces] = []
        self._by_index: dict[int, _Pieces] = {}
        self._with_id: set[int] = set()

    def add(self, piece: CallPiece) -> None:
        """The next piece from the stream."""
        index = piece.index
        if index is None:
            index = len(self._pieces) - (not self._begins(piece))
        current = self._by_index.get(index)
        # Some servers give every call the index 0: another id begins another call.
        if current is None or (piece.id and index in self._with_id and piece.id != current.id):
            current = _Pieces(piece.id or f"{self._made_up_id}-{len(self._pieces)}")
            self._pieces.append(current)
            self._by_index[index] = current
            self._with_id.discard(index)
        if piece.id:
            current.id = piece.id
            self._with_id.add(index)
        current.name = current.name or piece.name
        current.arguments += piece.arguments
        current.signature = current.signature or piece.signature

    def _begins(self, piece: CallPiece) -> bool:
        """Whether a piece without index begins a call, or goes on with the last one."""
        if not self._pieces:
            return True
        last = self._pieces[-1]
        if piece.id:
            return piece.id != last.id
        return bool(piece.name and last.arguments)

    @property
    def unreadable(self) -> list[str]:
        """Names of the calls whose arguments are not a JSON object."""
        return [piece.name for piece in self._pieces if _arguments(piece.arguments) is None]

    def calls(self) -> tuple[ToolCall, ...]:
        """The calls in the order they began. Only when none is unreadable."""
        return tuple(
            ToolCall(piece.id, piece.name, _arguments(piece.arguments) or {}, piece.signature)
            for piece in self._pieces
        )

    def repair(self, said: str) -> list[Message]:
        """What tells the model, which said `said` before, that its calls were not carried out, so that it writes them
        again. The broken arguments stand in the result, not in the call: some servers parse what is sent to them."""
        calls = tuple(ToolCall(piece.id, piece.name, {}, piece.signature) for piece in self._pieces)
        results = []
        for piece in self._pieces:
            broken = _arguments(piece.arguments) is None
            error = f"the arguments are not a JSON object: {piece.arguments}" if broken else "not carried out yet"
            content = json.dumps({"ok": False, "error": f"{error}. Call the tool again, and say nothing before it."})
            results.append(Message("tool", content, tool_call_id=piece.id))
        return [Message("assistant", said, calls), *results]


def _arguments(text: str) -> dict[str, Any] | None:
    if not text.strip():
        return {}
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
