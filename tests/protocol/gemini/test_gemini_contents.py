"""What is Gemini's own about language models: thoughts and their signatures, reasons why a reply ended."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from gemini_server import GeminiStandin, chunk, error
from standin import Exchange, Reply
from standin_llm import Call, Says

from bridge.providers.base import (
    LlmEvent,
    LlmRequest,
    Message,
    ProviderError,
    ProviderUnavailableError,
    ReplyDone,
    TextDelta,
    Tool,
    ToolCall,
)
from bridge.providers.brief import Brief
from bridge.providers.gemini.llm import GeminiLlm
from bridge.providers.gemini.settings import GeminiSettings

KEY = "AIzaSyTest0123456789"
TOOLS = [
    Tool("hang_up", "End the call.", {"type": "object", "properties": {}}),
    Tool("book", "Book.", {"type": "object", "properties": {"people": {"type": "integer"}}}),
]


@pytest.fixture
async def server() -> AsyncIterator[GeminiStandin]:
    async with GeminiStandin() as server:
        yield server
        await server.all_closed()


async def ask(server: GeminiStandin, *messages: Message, **llm: Any) -> list[LlmEvent]:
    settings = GeminiSettings(base_url=server.base_url, llm={"model": "gemini-test", **llm})
    model = GeminiLlm("gemini", settings, environ={"GEMINI_API_KEY": KEY, "GOOGLE_API_KEY": "another"})
    memory = messages or (Message("user", "Hello"),)
    request = LlmRequest(Brief(), memory, TOOLS, datetime(2026, 5, 5, 15, 0, tzinfo=UTC))
    try:
        return [event async for event in model.reply(request)]
    finally:
        await model.aclose()


async def streamed(server: GeminiStandin, *events: bytes) -> None:
    """The next request is answered with these."""

    async def answer(exchange: Exchange, reply: Reply) -> None:
        await reply.begin()
        for event in events:
            await reply.piece(event)
        await reply.end()

    server.raw.append(answer)


async def test_thoughts_are_not_spoken(server: GeminiStandin) -> None:
    await streamed(
        server,
        chunk({"text": "The caller greets me.", "thought": True}),
        chunk({"text": "Hello!"}),
        chunk({"text": "", "thoughtSignature": "YWJj"}, finish="STOP"),
    )
    events = await ask(server)
    assert [event.text for event in events if isinstance(event, TextDelta)] == ["Hello!"]


@pytest.mark.parametrize(
    ("model", "thinking", "sent"),
    [
        ("gemini-3.8-flash", "least", {"thinking_level": "LOW"}),
        ("gemini-2.5-flash", "least", {"thinking_budget": 0}),
        ("gemini-2.5-pro", "least", None),
        ("gemini-3.8-flash", "minimal", {"thinking_level": "MINIMAL"}),
        ("gemini-3.8-flash", "", None),
    ],
)
async def test_as_little_is_thought_as_the_model_can(
    model: str, thinking: str, sent: dict[str, Any] | None, server: GeminiStandin
) -> None:
    await ask(server, model=model, thinking=thinking)
    assert server.asked[0].body.get("generationConfig", {}).get("thinkingConfig") == sent


async def test_the_key_configured_is_the_one_used(server: GeminiStandin) -> None:
    await ask(server)
    assert server.exchanges[0].headers["x-goog-api-key"] == KEY


async def test_calls_of_the_same_function_without_ids_are_told_apart(server: GeminiStandin) -> None:
    server.ids = False
    server.on("", Says("", [Call("book", {"people": 2}), Call("book", {"people": 3})]))
    done = (await ask(server))[-1]
    assert isinstance(done, ReplyDone)
    assert [call.arguments["people"] for call in done.tool_calls] == [2, 3]
    assert len({call.id for call in done.tool_calls}) == 2


async def test_a_call_of_another_model_is_excused_from_its_signature(server: GeminiStandin) -> None:
    calls = (ToolCall("a", "book", {"people": 2}), ToolCall("b", "hang_up", {}))
    results = [Message("tool", "gone", tool_call_id=call.id) for call in calls]
    await ask(server, Message("user", "Yes"), Message("assistant", "", calls), *results)
    model = server.asked[0].body["contents"][1]["parts"]
    assert ["thoughtSignature" in part for part in model] == [True, False]
    user = server.asked[0].body["contents"][2]["parts"]
    assert [part["functionResponse"]["response"] for part in user] == [{"result": "gone"}] * 2


@pytest.mark.parametrize("why", ["SAFETY", "PROHIBITED_CONTENT", "RECITATION"])
async def test_a_withheld_reply_is_an_error(why: str, server: GeminiStandin) -> None:
    server.on("", Says("", finish=why))
    with pytest.raises(ProviderError, match=f"withheld: {why}"):
        await ask(server)


async def test_a_blocked_request_and_a_broken_call_are_errors(server: GeminiStandin) -> None:
    await streamed(server, chunk(promptFeedback={"blockReason": "SAFETY"}))
    with pytest.raises(ProviderError, match="blocked: SAFETY"):
        await ask(server)
    server.on("", Says("", finish="MALFORMED_FUNCTION_CALL"))
    with pytest.raises(ProviderError, match="not usable"):
        await ask(server)


async def test_a_wrong_key_is_answered_with_400_and_understood(server: GeminiStandin) -> None:
    body = error(400, "INVALID_ARGUMENT", f"API key not valid. Please pass a valid API key: {KEY}")
    server.misbehave(status=400, body=body)
    with pytest.raises(ProviderUnavailableError, match="check GEMINI_API_KEY") as caught:
        await ask(server)
    assert KEY not in str(caught.value)
