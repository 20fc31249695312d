"""The contracts of the three provider roles: speech to text, language model, text to speech.

A provider knows neither calls nor legs. It is told what to do in text and PCM, answers with typed events, and
fails with a `ProviderError`. The deterministic local brain and a cloud model take the same `LlmRequest`.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol

from bridge.providers.brief import Brief


class ProviderError(Exception):
    """A provider could not do its work. `provider` names it; the message has no secret in it."""

    def __init__(self, provider: str, message: str) -> None:
        super().__init__(f"{provider}: {message}")
        self.provider = provider


class ProviderBusyError(ProviderError):
    """Its queue is full; the work was not taken."""


class ProviderTimeoutError(ProviderError):
    """No result before the deadline."""


class ProviderUnavailableError(ProviderError):
    """It can't be used at all: a model file is missing or altered, a key is wrong, the server is gone."""


class Provider(Protocol):
    @property
    def name(self) -> str: ...

    async def start(self) -> None:
        """Load and warm up. Raises ProviderUnavailableError with a message that says what to do."""
        ...

    async def aclose(self) -> None: ...


# -- speech to text -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Heard:
    """The text of the caller's present turn, from its start (or the last `commit`) up to now.

    A later one replaces an earlier one."""

    text: str
    """Empty when nothing intelligible was in the audio."""
    settled: bool
    """True: covers all audio up to the last `speech_paused`; nothing more will come unless the caller goes on."""
    pause: int
    """Which pause it answers: the count of `speech_paused` calls so far (0 for text while speech goes on)."""
    took_ms: float = 0.0
    """Engine time, queueing included."""


@dataclass(frozen=True, slots=True)
class SttFailed:
    error: str
    fatal: bool
    """True: this stream will say nothing more."""


SttEvent = Heard | SttFailed


class SttStream(Protocol):
    """One call's ear. Methods return at once; results come through the `emit` given to `Stt.open`."""

    def push(self, pcm: bytes) -> None:
        """One frame of the caller's audio (20 ms int16 mono at the stream's rate), speech or not."""
        ...

    def speech_started(self) -> None:
        """Voice activity began; the onset may lie up to 300 ms back in what was pushed."""
        ...

    def speech_paused(self) -> None:
        """Voice activity stopped: a settled `Heard` for the turn so far is wanted, soon."""
        ...

    def want_partial(self) -> None:
        """The caller is still speaking, perhaps over the agent: an unsettled `Heard` is wanted, soon.
        An engine that streams partials by itself ignores this."""
        ...

    def commit(self) -> None:
        """The turn is over; text starts anew. Results still under way for it are discarded."""
        ...

    async def aclose(self) -> None: ...


class Stt(Provider, Protocol):
    async def open(self, *, sample_rate: int, language: str, emit: Callable[[SttEvent], None]) -> SttStream:
        """Open an ear at `sample_rate` (8000 or 16000 Hz) for `language` (BCP 47). Raises ProviderError."""
        ...


# -- language model -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ToolCall:
    """The model asks for a tool."""

    id: str
    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Message:
    """One entry of a conversation's memory."""

    role: Literal["user", "assistant", "tool"]
    content: str
    """For the assistant: only what was heard. For a tool: its result."""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""
    interrupted: bool = False
    """The assistant was cut off here by the caller."""


@dataclass(frozen=True, slots=True)
class Tool:
    name: str
    description: str
    parameters: dict[str, Any]
    """JSON schema of an object."""


@dataclass(frozen=True, slots=True)
class LlmRequest:
    """Everything a model needs for one reply. Stateless: the memory travels with it."""

    brief: Brief
    messages: Sequence[Message]
    tools: Sequence[Tool]
    now: datetime
    """The caller's local date and time, for "tomorrow at seven"."""
    language: str = "en"


@dataclass(frozen=True, slots=True)
class TextDelta:
    text: str


@dataclass(frozen=True, slots=True)
class ReplyDone:
    """The reply is complete; `tool_calls` are to be carried out and their results sent in a next request."""

    tool_calls: tuple[ToolCall, ...] = ()


LlmEvent = TextDelta | ReplyDone


class Llm(Provider, Protocol):
    def reply(self, request: LlmRequest) -> AsyncIterator[LlmEvent]:
        """Stream a reply; `ReplyDone` comes last. Closing the iterator cancels the work. Raises ProviderError."""
        ...


# -- text to speech -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class WordTiming:
    word: str
    start_ms: float
    """From the start of the synthesised text."""
    end_ms: float


@dataclass(frozen=True, slots=True)
class SpeechChunk:
    pcm: bytes
    """int16 mono at the asked rate; any length."""
    words: tuple[WordTiming, ...] = field(default=())
    """Alignment where the voice gives one; else the conversation estimates by time."""


class Tts(Provider, Protocol):
    def synthesize(self, text: str, *, voice: str, sample_rate: int, language: str) -> AsyncIterator[SpeechChunk]:
        """Speak `text` at `sample_rate` (Hz). `voice` is the provider's own name, empty for its default.
        Closing the iterator cancels the work. Raises ProviderError."""
        ...
