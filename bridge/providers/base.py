"""The contracts of the three provider roles: speech to text, language model, text to speech; `realtime.py` has the
fourth, speech to speech.

A provider knows neither calls nor legs. It is told what to do in text and PCM, answers with typed events, and
fails with a `ProviderError`. The deterministic local brain and a cloud model take the same `LlmRequest`.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

from bridge.providers.brief import Brief

P = TypeVar("P")


class ProviderError(Exception):
    """A provider could not do its work. `provider` names it, `said` is the message without that name. There is no
    secret in it."""

    def __init__(self, provider: str, message: str) -> None:
        super().__init__(f"{provider}: {message}")
        self.provider = provider
        self.said = message


class ProviderBusyError(ProviderError):
    """Its queue is full; the work was not taken."""


class ProviderTimeoutError(ProviderError):
    """No result before the deadline."""


class ProviderUnavailableError(ProviderError):
    """It can't be used at all: a model file is missing or altered, a key is wrong, the server is gone."""


class ProviderUnfitError(ProviderUnavailableError):
    """It works, but can't do what was asked at all: a language, a sample rate, a voice that it does not have."""


Role = Literal["stt", "llm", "tts", "realtime"]


@dataclass(frozen=True, slots=True)
class Switched:
    """A chain left the provider `from_` for `to`, in the middle of a call; `error` is why."""

    role: Role
    from_: str
    to: str
    error: ProviderError


class Provider(Protocol):
    """One configured provider in one role, for all calls. Nothing it does blocks the event loop."""

    @property
    def name(self) -> str:
        """As configured, e.g. `deepgram`; on the record and in metrics."""
        ...

    async def start(self) -> None:
        """Load what is needed, without the network. Raises ProviderUnavailableError with a message that says what to
        do: no key, an SDK that is not installed, a model file that is missing."""
        ...

    async def probe(self) -> str:
        """Try it for real, as cheaply as it allows: reach it, have the key taken, see that the model is there.

        Returns what was seen, in a few words. Raises ProviderError with what is wrong and how to mend it."""
        ...

    async def warm(self) -> None:
        """A call is coming: open connections that the first request would have to wait for. Returns soon, and never
        raises; nothing to do is fine."""
        ...

    async def aclose(self) -> None: ...


P_co = TypeVar("P_co", covariant=True)


@runtime_checkable
class ForCalls(Protocol[P_co]):
    """A provider that remembers something of a call: a chain, which stays with the provider that works."""

    def for_call(self) -> P_co:
        """The same provider, as one call is to use it."""
        ...


def for_call(provider: P) -> P:
    """`provider` as one call is to use it."""
    return provider.for_call() if isinstance(provider, ForCalls) else provider


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
    language: str = ""
    """What it was spoken in (BCP 47), where the recogniser detects it; empty: not told."""


@dataclass(frozen=True, slots=True)
class SttEndpoint:
    """The recogniser's own sign about the end of the caller's turn (Deepgram's speech_final and Flux events, a
    server's VAD): one sign among others for the turn detector. The `Heard` it speaks of was emitted before it."""

    what: Literal["eager", "resumed", "end"]
    """`eager`: probably over. `resumed`: an eager one was wrong. `end`: over."""
    confidence: float | None = None
    """0 to 1, where it tells."""


@dataclass(frozen=True, slots=True)
class SttFailed:
    error: str
    fatal: bool
    """True: this stream will say nothing more."""
    provider: str = ""
    """Which one failed, where a chain tells; empty: whose stream it is."""


SttEvent = Heard | SttEndpoint | SttFailed | Switched
"""`Switched` comes from chains alone."""


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
        """Open an ear at `sample_rate` (8000, 16000, 24000 or 48000 Hz) for `language` (BCP 47; `auto`: detect it,
        where the provider can). Raises ProviderError."""
        ...


# -- language model -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ToolCall:
    """The model asks for a tool."""

    id: str
    name: str
    arguments: dict[str, Any]
    signature: str = ""
    """Opaque: what the provider that asked wants to see again with it (Gemini's thought signature, encrypted
    reasoning); others ignore it."""


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
    call_id: str = ""
    """For a provider's own prompt cache; never a secret."""
    summary: str = ""
    """What was said before the first of `messages`, where that was summed up."""
    instructions: str = ""
    """In place of the brief's prompt, for work beside the conversation (a summary). Only for a model whose
    `follows_instructions` is true."""
    known: str = ""
    """What was known of this call before it began, as it stands in the prompt."""


@dataclass(frozen=True, slots=True)
class TextDelta:
    text: str


@dataclass(frozen=True, slots=True)
class ReplyDone:
    """The reply is complete; `tool_calls` are to be carried out and their results sent in a next request."""

    tool_calls: tuple[ToolCall, ...] = ()
    by: str = ""
    """Who wrote it, as `provider/model`; empty: not a language model."""


LlmEvent = TextDelta | ReplyDone | Switched
"""`Switched` comes from chains alone, before the text of the next provider."""


class Llm(Provider, Protocol):
    @property
    def follows_instructions(self) -> bool:
        """It is a language model, which can do work beside the conversation; the deterministic brain can't."""
        ...

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


TtsEvent = SpeechChunk | Switched
"""`Switched` comes from chains alone, before the audio of the next provider."""


class Tts(Provider, Protocol):
    def synthesize(
        self, text: str, *, voice: str, sample_rate: int, language: str, turn: str = ""
    ) -> AsyncIterator[TtsEvent]:
        """Speak `text` at `sample_rate` (Hz). `voice` is the provider's own name, empty for its default. Texts of the
        same `turn` follow each other in one utterance: a voice that can keeps its melody going.
        Closing the iterator cancels the work. Raises ProviderError."""
        ...
