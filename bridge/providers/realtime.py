"""The contract of the fourth provider role: one model that hears and speaks by itself (speech to speech)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from bridge.providers.base import Message, Provider, ProviderError, Tool, ToolCall


@dataclass(frozen=True, slots=True)
class RealtimeSetup:
    """What one call's session is to be."""

    instructions: str
    """The system prompt (`bridge.providers.brief.render_prompt`)."""
    tools: Sequence[Tool]
    sample_rate: int
    """Hz of the call's audio both ways; what the provider can't carry itself, the session resamples."""
    voice: str = ""
    """The provider's own name, empty for its default."""
    language: str = "en"
    """BCP 47, or `auto`."""
    call_id: str = ""
    history: Sequence[Message] = ()
    """What was said before this session, by another provider or an earlier session: it goes on from there, unasked it
    says nothing."""
    interrupts: bool = True
    """It stops its own reply when it hears the caller. False: `interrupt` alone does, as far as it can leave that."""


ASKED = "asked"
"""The mark of replies to a tool's result or to what was told."""


# -- what it tells ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CallerSpeaks:
    """Its ear noticed that the caller began (`ended` false) or stopped speaking; after that it answers by itself."""

    ended: bool = False
    item: str = ""
    """The turn's id there, where it has one: `CallerSaid` has the same."""


@dataclass(frozen=True, slots=True)
class CallerSaid:
    """The text of a caller's turn, often later than the answer to it."""

    text: str
    """Empty: nothing intelligible was in it, or its text can't be had."""
    item: str = ""
    """Its id there; without one the order of turns is that of `CallerSpeaks(ended=True)`."""


@dataclass(frozen=True, slots=True)
class ReplyStarted:
    """The first sign of the reply `item`, before its text and audio. A session has one id for each reply."""

    item: str
    mark: str = ""
    """That of the `say` which it comes from, or `ASKED`; empty: its own ear's answer to the caller."""


@dataclass(frozen=True, slots=True)
class AgentAudio:
    """The next audio of the reply `item`: int16 mono at the setup's rate, faster than real time."""

    item: str
    pcm: bytes


@dataclass(frozen=True, slots=True)
class AgentText:
    """The next words of the reply `item`; they run ahead of its audio."""

    item: str
    text: str


@dataclass(frozen=True, slots=True)
class ReplyEnded:
    """A reply is complete (all its audio was told). Not `completed`: it was cut off, by the caller's voice where
    `error` is empty, else by what `error` says."""

    item: str
    """Empty: the model was to answer and said nothing."""
    completed: bool
    error: str = ""


@dataclass(frozen=True, slots=True)
class ToolAsked:
    """The model wants a tool; it waits for `RealtimeSession.tool_result`."""

    call: ToolCall


@dataclass(frozen=True, slots=True)
class ToolCancelled:
    """The model does not want it any more: it needs no result."""

    call_id: str


@dataclass(frozen=True, slots=True)
class SessionEnding:
    """The session's time is running out: another one is to go on, with the history. It ends by itself in `left_s`."""

    left_s: float


@dataclass(frozen=True, slots=True)
class RealtimeFailed:
    """Something went wrong; `fatal`: the session says nothing more."""

    error: ProviderError
    fatal: bool


RealtimeEvent = (
    CallerSpeaks
    | CallerSaid
    | ReplyStarted
    | AgentAudio
    | AgentText
    | ReplyEnded
    | ToolAsked
    | ToolCancelled
    | SessionEnding
    | RealtimeFailed
)


class RealtimeSession(Protocol):
    """One call's model. Methods return at once; what comes of them is told through `emit`."""

    def push(self, pcm: bytes) -> None:
        """One frame of the caller's audio (20 ms int16 mono)."""
        ...

    def say(self, text: str, mark: str = "") -> None:
        """Have it speak these very words, as far as the model obeys: the greeting, a goodbye. The reply that comes of
        it has the `mark`; where it can't be told from others, the next one."""
        ...

    def respond(self) -> None:
        """Answer now: what the caller is saying, whose end its ear does not find, else what was said before."""
        ...

    def tell(self, text: str) -> None:
        """Give it something as if the caller had written it, and have it answer: keys that were pressed."""
        ...

    def interrupt(self, item: str, heard_ms: float) -> None:
        """The caller spoke over the reply `item`, of which `heard_ms` was played: stop it, and remember only that."""
        ...

    def tool_result(self, call: ToolCall, content: str, *, go_on: bool = True) -> None:
        """What a tool came to (JSON); the model goes on with it, unless it is to keep quiet for now."""
        ...

    async def aclose(self) -> None: ...


class Realtime(Provider, Protocol):
    async def open(self, setup: RealtimeSetup, emit: Callable[[RealtimeEvent], None]) -> RealtimeSession:
        """Open one call's session. `emit` may be called until its `aclose` returns. Raises ProviderError."""
        ...
