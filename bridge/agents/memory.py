"""What was said and heard, for the model: the messages of one call."""

from collections.abc import Sequence
from dataclasses import replace

from bridge.providers.base import Message


class Memory:
    """The messages of one call, oldest first; at most `limit`."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._messages: list[Message] = []

    @property
    def messages(self) -> tuple[Message, ...]:
        return tuple(self._messages)

    @property
    def awaits_reply(self) -> bool:
        """The last word is the caller's, or a tool's result."""
        return bool(self._messages) and self._messages[-1].role != "assistant"

    def with_user(self, text: str) -> tuple[Message, ...]:
        """The messages as they would be with `text` said by the caller. Words that follow the caller's own, with
        nothing heard between them, continue them."""
        last = self._messages[-1] if self._messages else None
        if last is not None and last.role == "user":
            return (*self._messages[:-1], replace(last, content=f"{last.content} {text}"))
        return (*self._messages, Message("user", text))

    def add_user(self, text: str) -> None:
        self._messages = list(self.with_user(text))
        self._trim()

    def take_back(self) -> None:
        """Forget the agent's last message if it was cut off: it is said again."""
        last = self._messages[-1] if self._messages else None
        if last is not None and last.role == "assistant" and last.interrupted and not last.tool_calls:
            self._messages.pop()

    def add(self, messages: Sequence[Message]) -> None:
        self._messages += messages
        self._trim()

    def _trim(self) -> None:
        """Forget the oldest; a tool's result never outlives the call that asked for it."""
        excess = len(self._messages) - self._limit
        if excess > 0:
            while excess < len(self._messages) and self._messages[excess].role == "tool":
                excess += 1
            del self._messages[:excess]
