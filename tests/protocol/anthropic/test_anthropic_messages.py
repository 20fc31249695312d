"""What is Anthropic's own about language models: cache marks, thinking, ids, errors in a stream of status 200."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from anthropic_server import AnthropicStandin, error, event
from standin import Exchange, Reply
from standin_llm import Says

from bridge.providers.anthropic.llm import AnthropicLlm
from bridge.providers.anthropic.settings import AnthropicSettings
from bridge.providers.base import (
    LlmRequest,
    Message,
    ProviderBusyError,
    ProviderError,
    ProviderUnavailableError,
    TextDelta,
    Tool,
    ToolCall,
)
from bridge.providers.brief import Brief

KEY = "sk-ant-api03-0123456789"
TOOL = Tool("hang_up", "End the call.", {"type": "object", "properties": {}})


@pytest.fixture
async def server() -> AsyncIterator[AnthropicStandin]:
    async with AnthropicStandin() as server:
        yield server
        await server.all_closed()


async def ask(server: AnthropicStandin, *messages: Message, **llm: Any) -> str:
    settings = AnthropicSettings(base_url=server.base_url, llm={"model": "test-model", **llm})
    model = AnthropicLlm("claude", settings, environ={"ANTHROPIC_API_KEY": KEY})
    memory = messages or (Message("user", "Hello"),)
    request = LlmRequest(Brief(), memory, [TOOL], datetime(2026, 5, 5, 15, 0, tzinfo=UTC))
    try:
        return "".join([item.text async for item in model.reply(request) if isinstance(item, TextDelta)])
    finally:
        await model.aclose()


async def test_what_all_calls_share_and_the_conversation_so_far_are_cached(server: AnthropicStandin) -> None:
    await ask(server)
    body = server.asked[0].body
    steady, varying = body["system"]
    assert steady["cache_control"] == body["cache_control"] == {"type": "ephemeral"}
    assert "2026" in varying["text"] and "2026" not in steady["text"]
    assert "cache_control" not in varying


async def test_options_are_sent(server: AnthropicStandin) -> None:
    await ask(server)
    await ask(
        server,
        thinking="adaptive",
        effort="low",
        service_tier="auto",
        parallel_tool_calls=False,
        prompt_cache=False,
        max_reply_tokens=99,
    )
    usual, asked = (asked.body for asked in server.asked)
    assert usual["thinking"] == {"type": "disabled"} and "tool_choice" not in usual
    assert (asked["thinking"], asked["output_config"]) == ({"type": "adaptive"}, {"effort": "low"})
    assert (asked["service_tier"], asked["max_tokens"]) == ("auto", 99)
    assert asked["tool_choice"] == {"type": "auto", "disable_parallel_tool_use": True}
    assert "cache_control" not in str(asked)


async def test_ids_of_other_servers_are_made_fit(server: AnthropicStandin) -> None:
    call = ToolCall("functions.hang_up:0", "hang_up", {})
    await ask(
        server,
        Message("user", "Bye"),
        Message("assistant", "", (call,)),
        Message("tool", "{}", tool_call_id=call.id),
    )
    assert server.asked[0].body["messages"][1]["content"][0]["id"] == "functions_hang_up_0"


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("overloaded_error", ProviderBusyError),
        ("rate_limit_error", ProviderBusyError),
        ("authentication_error", ProviderUnavailableError),
        ("api_error", ProviderError),
    ],
)
async def test_an_error_in_the_stream_is_told_by_its_type(
    kind: str, expected: type[ProviderError], server: AnthropicStandin
) -> None:
    async def answer(exchange: Exchange, reply: Reply) -> None:
        await reply.begin()
        for piece in (*server.writer().head(), *server.writer().text("Well")):
            await reply.piece(piece)
        body = error(kind, f"no, {KEY}")
        await reply.piece(event("error", **{key: value for key, value in body.items() if key != "type"}))
        await reply.end()

    server.raw.append(answer)
    with pytest.raises(expected) as caught:
        await ask(server)
    assert KEY not in str(caught.value)


async def test_a_refusal_is_an_error_and_a_cut_reply_is_spoken(server: AnthropicStandin) -> None:
    server.on("", Says("", finish="refusal"), Says("We open at", finish="max_tokens"))
    with pytest.raises(ProviderError, match="refused to reply"):
        await ask(server)
    assert await ask(server) == "We open at"
