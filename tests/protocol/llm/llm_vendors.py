"""The vendors of these tests, and requests to put to them."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import anthropic_server
import gemini_server
from anthropic_server import AnthropicStandin
from gemini_server import GeminiStandin
from openai_server import ChatStandin, ResponsesStandin
from standin_llm import LlmStandin

from bridge.providers.anthropic.llm import AnthropicLlm
from bridge.providers.anthropic.settings import AnthropicSettings
from bridge.providers.base import Llm, LlmEvent, LlmRequest, Message, ReplyDone, TextDelta, ToolCall
from bridge.providers.brief import Brief, Fact, Form, Slot
from bridge.providers.gemini.llm import GeminiLlm
from bridge.providers.gemini.settings import GeminiSettings
from bridge.providers.openai.llm import OpenAiLlm
from bridge.providers.openai.settings import OpenAiSettings
from bridge.providers.tools import form_tools

KEY = "sk-test-0123456789abcdef"

BRIEF = Brief(
    facts=[Fact(id="hours", ask=["when are you open"], say="We open at noon.")],
    forms=[
        Form(
            id="book_table",
            description="Book a table",
            ask=["book a table"],
            slots=[
                Slot(id="date", type="date", ask="Which day?"),
                Slot(id="people", type="number", ask="How many?", min=1, max=12),
            ],
            confirm="{people} on {date}?",
            done="Done.",
        )
    ],
)


@dataclass(frozen=True)
class Vendor:
    name: str
    server: Callable[[], LlmStandin]
    make: Callable[..., Llm]
    error: Callable[[int, str], Any]
    """The body of a refusal with a status and a message."""
    broken: bytes
    """An event of the stream that tells of an overload."""
    whole_calls: bool = False
    """Arguments of tools come in one piece, as an object."""


def _openai_error(status: int, message: str) -> Any:
    return {"error": {"message": message, "type": "error", "param": None, "code": None}}


def _openai(api: str) -> Callable[..., Llm]:
    def make(server: LlmStandin, **settings: Any) -> Llm:
        top = {"base_url": f"{server.http_url}/v1", "api_key_env": "OPENAI_API_KEY"}
        top |= {name: settings.pop(name) for name in ("base_url", "connect_s") if name in settings}
        whole = OpenAiSettings(**{"llm": {"model": "test-model", "api": api, **settings}, **top})
        return OpenAiLlm("openai", whole, environ={"OPENAI_API_KEY": KEY})

    return make


def _anthropic(server: LlmStandin, **settings: Any) -> Llm:
    top = {"base_url": server.http_url}
    top |= {name: settings.pop(name) for name in ("base_url", "connect_s") if name in settings}
    whole = AnthropicSettings(**{"llm": {"model": "test-model", **settings}, **top})
    return AnthropicLlm("anthropic", whole, environ={"ANTHROPIC_API_KEY": KEY})


def _gemini(server: LlmStandin, **settings: Any) -> Llm:
    top = {"base_url": server.http_url}
    top |= {name: settings.pop(name) for name in ("base_url", "connect_s") if name in settings}
    whole = GeminiSettings(**{"llm": {"model": "test-model", **settings}, **top})
    return GeminiLlm("gemini", whole, environ={"GEMINI_API_KEY": KEY})


_ANTHROPIC_KINDS = {401: "authentication_error", 403: "permission_error", 404: "not_found_error"} | {
    429: "rate_limit_error",
    529: "overloaded_error",
}

VENDORS = {
    "chat": Vendor(
        "openai",
        ChatStandin,
        _openai("chat"),
        _openai_error,
        b'data: {"error": {"message": "The server is overloaded", "type": "server_error", "code": null}}\n\n',
    ),
    "responses": Vendor(
        "openai",
        ResponsesStandin,
        _openai("responses"),
        _openai_error,
        b'event: error\ndata: {"type": "error", "sequence_number": 9, "code": "server_error", '
        b'"message": "The server is overloaded", "param": null}\n\n',
    ),
    "anthropic": Vendor(
        "anthropic",
        AnthropicStandin,
        _anthropic,
        lambda status, message: anthropic_server.error(_ANTHROPIC_KINDS.get(status, "api_error"), message),
        b'event: error\ndata: {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}\n\n',
    ),
    "gemini": Vendor(
        "gemini",
        GeminiStandin,
        _gemini,
        lambda status, message: gemini_server.error(status, "REFUSED", message),
        b'data: {"error": {"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}}\n\n',
        whole_calls=True,
    ),
}


@dataclass
class Bench:
    vendor: Vendor
    server: LlmStandin
    made: list[Llm] = field(default_factory=list)

    def llm(self, **settings: Any) -> Llm:
        self.made.append(self.vendor.make(self.server, **settings))
        return self.made[-1]

    async def ask(self, *messages: Message, **settings: Any) -> tuple[str, tuple[ToolCall, ...]]:
        """A whole reply of a new model."""
        return await collect(self.llm(**settings), request(*messages))


def request(*messages: Message, **fields: Any) -> LlmRequest:
    memory = messages or (Message("user", "When are you open?"),)
    now = datetime(2026, 5, 5, 15, 0)  # noqa: DTZ001 the caller's local time, as a request has it
    return replace(LlmRequest(BRIEF, memory, form_tools(BRIEF), now), **fields)


async def collect(llm: Llm, asked: LlmRequest) -> tuple[str, tuple[ToolCall, ...]]:
    """The text and the calls of a reply."""
    events: list[LlmEvent] = [event async for event in llm.reply(asked)]
    assert isinstance(events[-1], ReplyDone)
    return "".join(event.text for event in events if isinstance(event, TextDelta)), events[-1].tool_calls
