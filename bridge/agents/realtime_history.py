"""What was said on a call with a speech-to-speech model, as another session of a model is told it."""

from dataclasses import replace

from bridge.agents.memory import message_tokens
from bridge.agents.realtime_turn import RealtimeTurn
from bridge.providers.base import Message


class History:
    """What was said, for a session that goes on in another one's place. A text that comes late stands where it was
    said."""

    def __init__(self, limit: int, budget: float) -> None:
        """At most the last `limit` things that were said, of about `budget` tokens."""
        self._limit = limit
        self._budget = budget
        self._entries: list[list[Message]] = []

    def place(self) -> list[Message]:
        """A place for what is said now, to be filled later."""
        entry: list[Message] = []
        self._entries.append(entry)
        excess = len(self._entries) - self._limit
        if excess > 0:
            del self._entries[:excess]
        return entry

    def add(self, *messages: Message) -> None:
        self.place().extend(messages)

    def spoken(self, turn: RealtimeTurn, heard_ms: float | None) -> None:
        """The agent said this, of which `heard_ms` was heard (None: all)."""
        said = turn.speech.said()
        heard = said if heard_ms is None else turn.speech.heard(heard_ms)
        place = self.place() if turn.place is None else turn.place
        place[:] = [Message("assistant", heard, interrupted=heard != said)] if heard else []

    @property
    def messages(self) -> tuple[Message, ...]:
        """Oldest first; what one side said in a row is one message. Of what is beyond the budget the oldest is left
        out, a tool's call and its result together."""
        joined: list[Message] = []
        for message in (message for entry in self._within_budget() for message in entry):
            last = joined[-1] if joined else None
            same = last is not None and last.role == message.role == "user"
            if same and last is not None:
                joined[-1] = replace(last, content=f"{last.content} {message.content}")
            else:
                joined.append(message)
        return tuple(joined)

    def _within_budget(self) -> list[list[Message]]:
        """The last entries, the very last one whatever its size. Texts come late, so they are measured here."""
        left, count = self._budget, 0
        for entry in reversed(self._entries):
            size = sum(map(message_tokens, entry))
            if size > left and left < self._budget:
                break
            left -= size
            count += 1
        return self._entries[len(self._entries) - count :]
