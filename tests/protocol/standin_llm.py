"""What the stand-ins of all language models share: replies picked by what the caller said, at a given pace.

    server = ChatStandin()
    server.on("table", Says("For how many?"))
    server.on("four people", Says(calls=[Call("book_table", {"people": 4})]), Says("Done."))
    server.pace(first_s=0.3, per_token_s=0.02)

The first rule whose pattern is found in the last message of the caller answers; its replies come one after another,
the last one again and again. A vendor's stand-in reads requests and writes events in its vendor's format.
"""

import asyncio
import json
import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from standin import Exchange, HttpHandler, Reply, Standin


@dataclass(frozen=True)
class Call:
    """A tool that the model asks for."""

    name: str
    arguments: dict[str, Any] | str = field(default_factory=dict)
    """As a string: sent as it is, e.g. broken JSON."""
    id: str = ""
    """Empty: made up."""

    def pieces(self, length: int = 5) -> list[str]:
        """The arguments as a stream cuts them."""
        text = self.arguments if isinstance(self.arguments, str) else json.dumps(self.arguments)
        return [text[at : at + length] for at in range(0, len(text), length)]


@dataclass(frozen=True)
class Says:
    """One reply."""

    text: str = ""
    calls: Sequence[Call] = ()
    finish: str = ""
    """The vendor's word for why it ended; empty: the usual one."""
    first_s: float | None = None
    """From the request to the first token; None: the server's pace."""
    per_token_s: float | None = None

    def tokens(self) -> list[str]:
        """The text in pieces, about as tokens are."""
        return re.findall(r"\s*\S{1,6}|\s+", self.text)


@dataclass(frozen=True)
class Asked:
    """A request, in no vendor's format."""

    model: str
    prompt: str
    messages: Sequence[tuple[str, str]]
    """(`user`, `assistant` or `tool`, its text), in order."""
    tools: Sequence[str]
    body: dict[str, Any]

    @property
    def last(self) -> str:
        """What the caller said last."""
        return next((text for role, text in reversed(self.messages) if role == "user"), "")


class Writer:
    """One reply in a vendor's events."""

    def head(self) -> list[bytes]:
        """The events before the first token."""
        return []

    def text(self, token: str) -> list[bytes]:
        raise NotImplementedError

    def call(self, number: int, call_id: str, call: Call) -> list[bytes]:
        raise NotImplementedError

    def tail(self, says: Says) -> list[bytes]:
        """The events behind the last token."""
        raise NotImplementedError


class LlmStandin(Standin):
    """`read` and `writer` are the vendor's."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Asked] = []
        self.raw: deque[HttpHandler] = deque()
        """These answer first, one request each, byte by byte."""
        self.default = Says("All right.")
        self.cut = 0
        """Streams come in pieces of this many bytes; 0: an event a piece."""
        self._rules: list[tuple[re.Pattern[str], deque[Says]]] = []
        self._first_s = 0.0
        self._per_token_s = 0.0
        self._calls_made = 0

    # -- what a test or a bench sets ------------------------------------------------------------------------

    def on(self, pattern: str, *replies: Says) -> None:
        """Reply so when `pattern` is found in what the caller said last."""
        self._rules.append((re.compile(pattern, re.IGNORECASE), deque(replies)))

    def says(self, *texts: str) -> None:
        """Say these, whatever is asked, the last one again and again."""
        self.on("", *(Says(text) for text in texts))

    def pace(self, *, first_s: float, per_token_s: float) -> None:
        """Delays of all replies that have none of their own."""
        self._first_s, self._per_token_s = first_s, per_token_s

    # -- what a vendor's stand-in says ----------------------------------------------------------------------

    def read(self, exchange: Exchange) -> Asked:
        raise NotImplementedError

    def writer(self) -> Writer:
        raise NotImplementedError

    async def reply(self, exchange: Exchange, reply: Reply) -> None:
        """Answer a request for a reply."""
        asked = self.read(exchange)
        self.asked.append(asked)
        if self.raw:
            await self.raw.popleft()(exchange, reply)
            return
        says, writer = self._pick(asked), self.writer()
        await reply.begin()
        await self._put(reply, writer.head())
        await asyncio.sleep(self._first_s if says.first_s is None else says.first_s)
        per_token_s = self._per_token_s if says.per_token_s is None else says.per_token_s
        for token in says.tokens():
            await self._put(reply, writer.text(token))
            if per_token_s:
                await asyncio.sleep(per_token_s)
        for number, call in enumerate(says.calls):
            self._calls_made += 1
            await self._put(reply, writer.call(number, call.id or f"made-{self._calls_made}", call))
        await self._put(reply, writer.tail(says))
        await reply.end()

    def _pick(self, asked: Asked) -> Says:
        for pattern, replies in self._rules:
            if pattern.search(asked.last):
                return replies.popleft() if len(replies) > 1 else replies[0]
        return self.default

    async def _put(self, reply: Reply, events: Sequence[bytes]) -> None:
        for event in events:
            for at in range(0, len(event), self.cut or len(event)):
                await reply.piece(event[at : at + (self.cut or len(event))])
                if self.cut:
                    await asyncio.sleep(0)


def sse(data: object, name: str = "") -> bytes:
    """A server-sent event; `data` as it is if it is text, else as JSON."""
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
    return f"{f'event: {name}' + chr(10) if name else ''}data: {text}\n\n".encode()
