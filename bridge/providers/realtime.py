"""The contract of the fourth provider role: one model that hears and speaks by itself (speech to speech)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from bridge.providers.base import Provider, ProviderError, Tool, ToolCall


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


# -- what it tells ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CallerSpeaks:
    """Its ear noticed that the caller began (`ended` false) or stopped speaking."""

    ended: bool = False


@dataclass(frozen=True, slots=True)
class CallerSaid:
    """The text of a caller's turn, often later than the answer to it."""

    text: str
    item: str = ""
    """Its id there; the order of turns is that of `CallerSpeaks(ended=True)`."""


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
    """A reply is complete (all its audio was told), was cancelled, or failed; then `error` says why."""

    item: str
    completed: bool
    error: str = ""


@dataclass(frozen=True, slots=True)
class ToolAsked:
    """The model wants a tool; it waits for `RealtimeSession.tool_result`."""

    call: ToolCall


@dataclass(frozen=True, slots=True)
class RealtimeFailed:
    """Something went wrong; `fatal`: the session says nothing more."""

    error: ProviderError
    fatal: bool


RealtimeEvent = CallerSpeaks | CallerSaid | AgentAudio | AgentText | ReplyEnded | ToolAsked | RealtimeFailed


class RealtimeSession(Protocol):
    """One call's model. Methods return at once; what comes of them is told through `emit`."""

    def push(self, pcm: bytes) -> None:
        """One frame of the caller's audio (20 ms int16 mono)."""
        ...

    def say(self, text: str) -> None:
        """Have it speak these very words, as far as the model obeys: the greeting, a goodbye."""
        ...

    def tell(self, text: str) -> None:
        """Give it something as if the caller had written it, and have it answer: keys that were pressed."""
        ...

    def interrupt(self, item: str, heard_ms: float) -> None:
        """The caller spoke over the reply `item`, of which `heard_ms` was played: stop it, and remember only that."""
        ...

    def tool_result(self, call: ToolCall, content: str) -> None:
        """What a tool came to (JSON); the model goes on with it."""
        ...

    async def aclose(self) -> None: ...


class Realtime(Provider, Protocol):
    async def open(self, setup: RealtimeSetup, emit: Callable[[RealtimeEvent], None]) -> RealtimeSession:
        """Open one call's session. Raises ProviderError."""
        ...
