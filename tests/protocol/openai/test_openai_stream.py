"""The OpenAI-compatible client against a stand-in server that speaks the documented wire format."""

import asyncio
from collections.abc import Callable

import pytest
from openai_request import KEY, request
from openai_server import DONE, ChatServer, Exchange, calls, chunk, fails, says, streams

from bridge.providers.base import (
    LlmEvent,
    Message,
    ProviderBusyError,
    ProviderError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    ReplyDone,
    TextDelta,
    ToolCall,
)
from bridge.providers.openai.llm import OpenAiLlm

MakeLlm = Callable[..., OpenAiLlm]


async def collect(llm: OpenAiLlm, *messages: Message) -> tuple[str, tuple[ToolCall, ...]]:
    events: list[LlmEvent] = [event async for event in llm.reply(request(*messages))]
    assert isinstance(events[-1], ReplyDone)
    return "".join(event.text for event in events if isinstance(event, TextDelta)), events[-1].tool_calls


@pytest.mark.parametrize("cut", [0, 1, 7])
async def test_text_arrives_however_the_stream_is_cut(cut: int, server: ChatServer, make_llm: MakeLlm) -> None:
    server.scripts.append(says("We open ", "at noon – ", "é.", cut=cut))
    assert await collect(make_llm()) == ("We open at noon – é.", ())


async def test_comments_unknown_keys_and_usage_are_tolerated(server: ChatServer, make_llm: MakeLlm) -> None:
    usage = b'data: {"id":"c1","object":"chat.completion.chunk","choices":[],"usage":{"total_tokens":3}}\n\n'
    events = (
        b": keep-alive\n\n",
        chunk({"content": "Yes."}, obfuscation="xyz", x_groq={"id": "r"}),
        chunk({}, "stop"),
    )
    server.scripts.append(streams(*events, usage))
    assert await collect(make_llm()) == ("Yes.", ())


async def test_a_stream_that_ends_without_done_is_complete_once_it_gave_its_reason(
    server: ChatServer, make_llm: MakeLlm
) -> None:
    server.scripts.append(streams(chunk({"content": "Yes."}), chunk({}, "stop"), done=False))
    assert await collect(make_llm()) == ("Yes.", ())


async def test_the_request_has_prompt_memory_and_tools(server: ChatServer, make_llm: MakeLlm) -> None:
    server.scripts.append(says("At noon."))
    await collect(make_llm(temperature=0.3, reasoning_effort="low", max_reply_tokens=200))
    sent = server.completions[0]
    assert sent.headers["authorization"] == f"Bearer {KEY}"
    assert sent.body["model"] == "test-model"
    assert sent.body["stream"] is True
    assert (sent.body["temperature"], sent.body["reasoning_effort"]) == (0.3, "low")
    assert sent.body["max_completion_tokens"] == 200
    assert [message["role"] for message in sent.body["messages"]] == ["system", "user"]
    assert "We open at noon." in sent.body["messages"][0]["content"]
    assert [tool["function"]["name"] for tool in sent.body["tools"]] == ["book_table", "hang_up"]


async def test_settings_that_are_not_given_are_not_sent(server: ChatServer, make_llm: MakeLlm) -> None:
    server.scripts.append(says("At noon."))
    await collect(make_llm())
    assert set(server.completions[0].body) == {"model", "messages", "stream", "tools"}


async def test_tool_calls_are_joined_from_interleaved_pieces(server: ChatServer, make_llm: MakeLlm) -> None:
    book = calls(0, "book_table", "call_a", ['{"date": "2026-', '05-08", "peo', 'ple": 4}'])
    hang_up = calls(1, "hang_up", "call_b", ["{", "}"])
    mixed = [book[0], hang_up[0], book[1], hang_up[1], book[2], hang_up[2], book[3]]
    server.scripts.append(streams(chunk({"content": "Bye."}), *mixed, chunk({}, "tool_calls"), cut=11))
    text, called = await collect(make_llm())
    assert text == "Bye."
    assert called == (
        ToolCall("call_a", "book_table", {"date": "2026-05-08", "people": 4}),
        ToolCall("call_b", "hang_up", {}),
    )


async def test_calls_that_share_an_index_are_told_apart_by_their_ids(server: ChatServer, make_llm: MakeLlm) -> None:
    pieces = calls(0, "book_table", "a", ['{"people": 2}']) + calls(0, "hang_up", "b", [])
    server.scripts.append(streams(*pieces, chunk({}, "stop")))
    _, called = await collect(make_llm())
    assert [(call.id, call.name, call.arguments) for call in called] == [
        ("a", "book_table", {"people": 2}),
        ("b", "hang_up", {}),
    ]


async def test_a_call_without_index_and_id_gets_them(server: ChatServer, make_llm: MakeLlm) -> None:
    function = {"name": "book_table", "arguments": '{"people": 3}'}
    server.scripts.append(streams(chunk({"tool_calls": [{"function": function}]}), chunk({}, "tool_calls")))
    _, called = await collect(make_llm())
    assert called == (ToolCall("call-1-0", "book_table", {"people": 3}),)


async def test_broken_arguments_go_back_to_the_model_which_repairs_them(
    server: ChatServer, make_llm: MakeLlm
) -> None:
    server.scripts.append(streams(*calls(0, "book_table", "a", ['{"people": ', "four"]), chunk({}, "tool_calls")))
    server.scripts.append(streams(*calls(0, "book_table", "b", ['{"people": 4}']), chunk({}, "tool_calls")))
    _, called = await collect(make_llm())
    assert called == (ToolCall("b", "book_table", {"people": 4}),)
    assistant, result = server.completions[1].body["messages"][-2:]
    assert assistant["tool_calls"][0]["id"] == result["tool_call_id"] == "a"
    assert assistant["tool_calls"][0]["function"]["arguments"] == "{}"
    assert "four" in result["content"]


async def test_arguments_broken_twice_are_an_error(server: ChatServer, make_llm: MakeLlm) -> None:
    for _ in range(2):
        server.scripts.append(streams(*calls(0, "book_table", "a", ["[1]"]), chunk({}, "tool_calls")))
    with pytest.raises(ProviderError, match="not JSON for book_table"):
        await collect(make_llm())


async def test_the_cancelled_reply_closes_the_response_at_once(server: ChatServer, make_llm: MakeLlm) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.begin()
        await exchange.send(chunk({"content": "Well, "}))
        await exchange.client_is_gone()

    server.scripts.append(script)
    reply = make_llm().reply(request())
    assert await anext(reply) == TextDelta("Well, ")
    await reply.aclose()  # type: ignore[attr-defined] - an async generator behind the contract's iterator
    async with asyncio.timeout(2):
        await server.exchanges[0].hung_up.wait()


async def test_the_task_cancelled_before_the_first_token_closes_the_connection(
    server: ChatServer, make_llm: MakeLlm
) -> None:
    arrived = asyncio.Event()

    async def script(exchange: Exchange) -> None:
        arrived.set()
        await exchange.client_is_gone()

    server.scripts.append(script)
    task = asyncio.create_task(collect(make_llm()))
    await arrived.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(2):
        await server.exchanges[0].hung_up.wait()


async def test_a_server_that_hangs_before_the_first_token(server: ChatServer, make_llm: MakeLlm) -> None:
    server.scripts.append(Exchange.client_is_gone)
    with pytest.raises(ProviderTimeoutError, match="first token"):
        await collect(make_llm(first_token_s=0.2))


async def test_keep_alives_are_no_first_token(server: ChatServer, make_llm: MakeLlm) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.begin()
        await exchange.send(b": waiting\n\n" + chunk({"role": "assistant", "content": ""}))
        await exchange.client_is_gone()

    server.scripts.append(script)
    with pytest.raises(ProviderTimeoutError, match="first token"):
        await collect(make_llm(first_token_s=0.3))


async def test_a_server_that_stops_between_tokens(server: ChatServer, make_llm: MakeLlm) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.begin()
        await exchange.send(chunk({"content": "Well, "}))
        await exchange.client_is_gone()

    server.scripts.append(script)
    with pytest.raises(ProviderTimeoutError, match="next token"):
        await collect(make_llm(between_tokens_s=0.2))
    await server.exchanges[0].hung_up.wait()


async def test_an_error_in_the_middle_of_the_stream(server: ChatServer, make_llm: MakeLlm) -> None:
    error = b'data: {"error": {"message": "The server is overloaded", "type": "server_error", "code": null}}\n\n'
    server.scripts.append(streams(chunk({"content": "Well, "}), error))
    with pytest.raises(ProviderError, match="overloaded"):
        await collect(make_llm())


@pytest.mark.parametrize("whole", [True, False])
async def test_a_stream_that_breaks_off_is_an_error(whole: bool, server: ChatServer, make_llm: MakeLlm) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.begin()
        await exchange.send(chunk({"content": "Well, "}))
        if whole:
            await exchange.end()
        else:
            exchange.abort()

    server.scripts.append(script)
    with pytest.raises(ProviderError, match="broke off"):
        await collect(make_llm())


async def test_a_stream_that_is_not_json_is_an_error(server: ChatServer, make_llm: MakeLlm) -> None:
    server.scripts.append(streams(b"data: {nonsense\n\n", DONE))
    with pytest.raises(ProviderError, match="not JSON"):
        await collect(make_llm())


async def test_a_withheld_reply_is_an_error(server: ChatServer, make_llm: MakeLlm) -> None:
    server.scripts.append(streams(chunk({}, "content_filter")))
    with pytest.raises(ProviderError, match="content filter"):
        await collect(make_llm())


@pytest.mark.parametrize(
    ("status", "error", "hint"),
    [
        (401, ProviderUnavailableError, "check OPENAI_API_KEY"),
        (403, ProviderUnavailableError, "check OPENAI_API_KEY"),
        (404, ProviderUnavailableError, "check providers.openai.llm.model"),
        (400, ProviderError, "HTTP 400"),
        (422, ProviderError, "HTTP 422"),
    ],
)
async def test_refusals_say_what_to_do_and_hide_the_key(
    status: int, error: type[ProviderError], hint: str, server: ChatServer, make_llm: MakeLlm
) -> None:
    server.scripts.append(fails(status, f"Incorrect key provided: {KEY}, or sk-te**********cdef."))
    with pytest.raises(error, match=hint) as caught:
        await collect(make_llm())
    assert KEY not in str(caught.value)
    assert "cdef" not in str(caught.value)
    assert caught.value.__cause__ is None


async def test_a_busy_server_is_asked_again_when_it_says_so_soon(server: ChatServer, make_llm: MakeLlm) -> None:
    server.scripts += [fails(429, "slow down", {"retry-after": "0"}), says("At noon.")]
    assert await collect(make_llm()) == ("At noon.", ())


async def test_a_busy_server_that_wants_a_long_pause_is_given_up_at_once(
    server: ChatServer, make_llm: MakeLlm
) -> None:
    server.scripts.append(fails(429, "quota", {"retry-after": "60"}))
    with pytest.raises(ProviderBusyError, match="429"):
        await collect(make_llm())
    assert len(server.completions) == 1


async def test_a_server_error_is_tried_once_more(server: ChatServer, make_llm: MakeLlm) -> None:
    server.scripts += [fails(500, "oops"), fails(503, "still oops")]
    with pytest.raises(ProviderError, match="HTTP 503: still oops"):
        await collect(make_llm())


async def test_a_kept_connection_that_died_is_replaced_silently(server: ChatServer, make_llm: MakeLlm) -> None:
    async def die(exchange: Exchange) -> None:
        exchange.abort()

    server.scripts += [die, says("At noon.")]
    assert await collect(make_llm()) == ("At noon.", ())


async def test_nobody_listening_is_unavailable(make_llm: MakeLlm) -> None:
    llm = make_llm(base_url="http://127.0.0.1:9/v1")
    with pytest.raises(ProviderUnavailableError, match=r"can't connect to http://127\.0\.0\.1:9/v1"):
        await collect(llm)
    with pytest.raises(ProviderUnavailableError, match="can't connect"):
        await llm.probe()


async def test_the_connection_is_opened_by_warming_and_kept(server: ChatServer, make_llm: MakeLlm) -> None:
    llm = make_llm()
    await llm.warm()
    server.scripts += [says("At noon."), says("Yes.")]
    await collect(llm)
    await collect(llm)
    assert [seen.connection for seen in server.requests] == [0, 0, 0]


async def test_a_probe_has_the_model_say_a_word(server: ChatServer, make_llm: MakeLlm) -> None:
    server.scripts.append(says("Hi."))
    assert (await make_llm().probe()).startswith(f"test-model at {server.base_url}: first token after ")
    server.scripts.append(fails(401, "no"))
    with pytest.raises(ProviderUnavailableError, match="key was refused"):
        await make_llm().probe()
