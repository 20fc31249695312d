"""What was said and heard, for the model: the messages of one call, within a budget, and what was before them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

from bridge.providers.base import Message, ToolCall

KEEP_SHARE = 0.5
"""Of the budget: what is left of the messages as they are when the oldest are summed up."""

OVERDRAFT = 1.5
"""Times the budget that the messages may take while the summary is being made, or after it failed; then the oldest
are forgotten."""

LOSS_SHARE = 0.25
"""Of the messages: what more may be cut off for the rest to begin with words of the caller."""

MESSAGE_TOKENS = 4
"""What a message takes besides its words."""

MAX_DONE = 20
"""Lines of what tools did that outlive their messages."""

MAX_DONE_CHARS = 200
"""Of one such line."""


def tokens(text: str) -> float:
    """About how many tokens a model makes of `text`: a quarter of its characters in Latin script without marks, more
    in other alphabets, one of each character in scripts that write words or syllables."""
    count = 0.0
    for char in text:
        code = ord(char)
        count += 0.25 if code < 0x80 else 0.5 if code < 0x2E80 else 1.0
    return count


def message_tokens(message: Message) -> float:
    """About how many tokens a message takes in a request."""
    calls = sum(tokens(call.name) + tokens(_json(call)) + MESSAGE_TOKENS for call in message.tool_calls)
    return MESSAGE_TOKENS + tokens(message.content) + calls


@dataclass(frozen=True, slots=True)
class Excerpt:
    """The oldest messages, to be summed up."""

    summary: str
    """What is summed up already, of what was before them."""
    messages: tuple[Message, ...]
    begins: int
    """Number of the first of them within the call."""


class Memory:
    """The messages of one call, oldest first: at most `limit`, and of about `budget` tokens.

    Above the budget the oldest are to be summed up (`excerpt`, `summed_up`); what nobody sums up is forgotten, save
    what tools did: that is kept in a line each."""

    def __init__(self, limit: int, budget: int | None = None) -> None:
        """`budget` None: messages are counted, not measured."""
        self._limit = limit
        self._budget = budget
        self._messages: list[Message] = []
        self._sizes: list[float] = []
        self._forgotten = 0
        """Messages of the call before the first that is here."""
        self._told = ""
        self._done: list[str] = []

    @property
    def messages(self) -> tuple[Message, ...]:
        return tuple(self._messages)

    @property
    def summary(self) -> str:
        """What was before the messages, as far as it is kept: the summary, and what tools did."""
        done = "\n".join(f"- {line}" for line in self._done)
        parts = [self._told, f"What tools did so far:\n{done}" if done else ""]
        return "\n".join(part for part in parts if part)

    @property
    def tokens(self) -> float:
        """About how many tokens the messages take, without the summary."""
        return sum(self._sizes)

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
        *_, last = self.with_user(text)
        if self._messages and self._messages[-1].role == "user":
            self._pop()
        self.add([last])

    def take_back(self) -> None:
        """Forget the agent's last message if it was cut off: it is said again."""
        last = self._messages[-1] if self._messages else None
        if last is not None and last.role == "assistant" and last.interrupted and not last.tool_calls:
            self._pop()

    def add(self, messages: Sequence[Message]) -> None:
        self._messages += messages
        self._sizes += map(message_tokens, messages)
        self._trim()

    def excerpt(self) -> Excerpt | None:
        """What should be summed up now: None while the messages are within the budget."""
        if self._budget is None or self.tokens <= self._budget:
            return None
        count = self._cut(self._too_many(len(self._messages), self._budget * KEEP_SHARE))
        return Excerpt(self._told, tuple(self._messages[:count]), self._forgotten) if count else None

    def summed_up(self, excerpt: Excerpt, summary: str) -> None:
        """`summary` stands for the messages of `excerpt` and for what was summed up before them."""
        self._told = summary
        self._forget(max(0, excerpt.begins + len(excerpt.messages) - self._forgotten))

    def _trim(self) -> None:
        """Forget the oldest of what is too much."""
        most = self._budget * OVERDRAFT if self._budget is not None else float("inf")
        self._forget(self._cut(self._too_many(self._limit, most)))

    def _too_many(self, limit: int, most: float) -> int:
        """How many of the oldest are too many, for `limit` messages of `most` tokens; the last one never is."""
        count, size = 0, self.tokens
        while count < len(self._messages) - 1 and (len(self._messages) - count > limit or size > most):
            size -= self._sizes[count]
            count += 1
        return count

    def _cut(self, count: int) -> int:
        """Where to cut so that at least the first `count` are off: before words of the caller, or, where that would
        take far more, anywhere but between a call and its results. 0: nowhere."""
        if not count:
            return 0
        places = [n for n in range(count, len(self._messages)) if self._messages[n].role != "tool"]
        turn = next((n for n in places if self._messages[n].role == "user"), None)
        if turn is not None and turn - count <= len(self._messages) * LOSS_SHARE:
            return turn
        return places[0] if places else 0

    def _forget(self, count: int) -> None:
        results = {message.tool_call_id: message.content for message in self._messages if message.role == "tool"}
        for message in self._messages[:count]:
            self._done += [_line(call, results.get(call.id, "")) for call in message.tool_calls]
        self._done = list(dict.fromkeys(self._done))[-MAX_DONE:]
        del self._messages[:count]
        del self._sizes[:count]
        self._forgotten += count

    def _pop(self) -> None:
        self._messages.pop()
        self._sizes.pop()


def _json(call: ToolCall) -> str:
    return json.dumps(call.arguments, ensure_ascii=False)


def _line(call: ToolCall, result: str) -> str:
    line = f"{call.name} {_json(call)}: {' '.join(result.split())}"
    return line if len(line) <= MAX_DONE_CHARS else f"{line[: MAX_DONE_CHARS - 1]}…"
