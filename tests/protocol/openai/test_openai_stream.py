"""What is OpenAI's own about language models: options of the two interfaces, oddities of compatible servers, keys."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from openai_request import KEY, request
from openai_server import ChatStandin, ResponsesStandin, chunk
from standin import Exchange, Reply
from standin_llm import Call, Says

from bridge.providers.base import (
    LlmEvent,
    Message,
    ProviderBusyError,
    ProviderError,
    ProviderUnavailableError,
    ReplyDone,
    TextDelta,
    ToolCall,
)
from bridge.providers.openai.llm import OpenAiLlm
from bridge.providers.openai.settings import OpenAiLlmSettings, OpenAiSettings
from bridge.providers.registry import KINDS, settings_class

MakeLlm = Callable[..., OpenAiLlm]
BOOK = Call("book_table", {"people": 4}, id="a")
BOOKED = ToolCall("a", "book_table", {"people": 4})


async def collect(llm: OpenAiLlm, *messages: Message) -> tuple[str, tuple[ToolCall, ...]]:
    asked = replace(request(*messages), call_id="call-1")
    events: list[LlmEvent] = [event async for event in llm.reply(asked)]
    assert isinstance(events[-1], ReplyDone)
    return "".join(event.text for event in events if isinstance(event, TextDelta)), events[-1].tool_calls


async def test_settings_that_are_not_given_are_not_sent(
    chat: ChatStandin, responses: ResponsesStandin, make_llm: MakeLlm
) -> None:
    await collect(make_llm(chat))
    await collect(make_llm(responses))
    assert set(chat.asked[0].body) == {"model", "messages", "stream", "tools"}
    assert set(responses.asked[0].body) == {"model", "instructions", "input", "store", "stream", "tools"}


async def test_options_of_chat_completions(chat: ChatStandin, make_llm: MakeLlm) -> None:
    llm = make_llm(
        chat,
        temperature=0.3,
        reasoning_effort="low",
        verbosity="low",
        service_tier="priority",
        parallel_tool_calls=False,
        prompt_cache=True,
        max_reply_tokens=200,
    )
    await collect(llm)
    sent = chat.asked[0].body
    assert {name: sent[name] for name in sent if name not in ("model", "messages", "stream", "tools")} == {
        "temperature": 0.3,
        "reasoning_effort": "low",
        "verbosity": "low",
        "service_tier": "priority",
        "parallel_tool_calls": False,
        "prompt_cache_key": "call-1",
        "max_completion_tokens": 200,
    }
    assert chat.exchanges[0].headers["authorization"] == f"Bearer {KEY}"


async def test_options_of_responses(responses: ResponsesStandin, make_llm: MakeLlm) -> None:
    llm = make_llm(
        responses,
        temperature=0.3,
        reasoning_effort="low",
        verbosity="low",
        service_tier="priority",
        parallel_tool_calls=False,
        prompt_cache=True,
        max_reply_tokens=200,
    )
    await collect(llm)
    sent = responses.asked[0].body
    usual = ("model", "instructions", "input", "stream", "tools", "store")
    assert {name: sent[name] for name in sent if name not in usual} == {
        "temperature": 0.3,
        "reasoning": {"effort": "low"},
        "include": ["reasoning.encrypted_content"],
        "text": {"verbosity": "low"},
        "service_tier": "priority",
        "parallel_tool_calls": False,
        "prompt_cache_key": "call-1",
        "max_output_tokens": 200,
    }


@pytest.mark.parametrize(
    "quirks",
    [
        {"no index"},
        {"no index", "no id"},
        {"no id"},
        {"stop", "no done", "usage"},
        {"whole calls", "no index"},
        {"whole calls", "no index", "no id"},
    ],
)
async def test_calls_of_odd_servers_are_joined(quirks: set[str], chat: ChatStandin, make_llm: MakeLlm) -> None:
    chat.quirks = frozenset(quirks)
    chat.on("", Says("Wait.", [BOOK, Call("hang_up", {"why": "bye"}, id="b")]))
    text, called = await collect(make_llm(chat))
    assert text == "Wait."
    assert [(call.name, call.arguments) for call in called] == [
        ("book_table", {"people": 4}),
        ("hang_up", {"why": "bye"}),
    ]
    assert len({call.id for call in called}) == 2 and all(call.id for call in called)


async def streamed(chat: ChatStandin, *events: bytes) -> None:
    """The next request is answered with these."""

    async def answer(exchange: Exchange, reply: Reply) -> None:
        await reply.begin()
        for event in events:
            await reply.piece(event)
        await reply.end()

    chat.raw.append(answer)


async def test_calls_that_share_an_index_are_told_apart_by_their_ids(chat: ChatStandin, make_llm: MakeLlm) -> None:
    first = {"index": 0, "id": "a", "function": {"name": "book_table", "arguments": '{"people": 4}'}}
    second = {"index": 0, "id": "b", "function": {"name": "hang_up", "arguments": ""}}
    await streamed(chat, chunk({"tool_calls": [first]}), chunk({"tool_calls": [second]}), chunk({}, "stop"))
    _, called = await collect(make_llm(chat))
    assert called == (BOOKED, ToolCall("b", "hang_up", {}))


async def test_interleaved_calls_are_joined_by_their_index(chat: ChatStandin, make_llm: MakeLlm) -> None:
    pieces = [
        {"index": 0, "id": "a", "function": {"name": "book_table", "arguments": '{"peo'}},
        {"index": 1, "id": "b", "function": {"name": "hang_up", "arguments": "{"}},
        {"index": 0, "function": {"arguments": 'ple": 4}'}},
        {"index": 1, "function": {"arguments": "}"}},
    ]
    await streamed(chat, *(chunk({"tool_calls": [piece]}) for piece in pieces), chunk({}, "tool_calls"))
    _, called = await collect(make_llm(chat))
    assert called == (BOOKED, ToolCall("b", "hang_up", {}))


async def test_comments_unknown_keys_and_usage_are_tolerated(chat: ChatStandin, make_llm: MakeLlm) -> None:
    chat.quirks = frozenset({"usage"})
    await streamed(
        chat,
        b": keep-alive\n\n",
        chunk({"content": "Yes."}, obfuscation="xyz", x_groq={"id": "r"}),
        chunk({}, "stop"),
    )
    assert await collect(make_llm(chat)) == ("Yes.", ())


async def test_groqs_error_in_the_stream_is_one(chat: ChatStandin, make_llm: MakeLlm) -> None:
    broken = chunk({}, None, x_groq={"id": "r", "error": "over capacity"})
    await streamed(chat, chunk({"content": "Yes"}), broken)
    with pytest.raises(ProviderError, match="over capacity"):
        await collect(make_llm(chat))


async def test_arguments_broken_twice_are_an_error(chat: ChatStandin, make_llm: MakeLlm) -> None:
    chat.on("", Says("", [Call("book_table", "[1]")]))
    with pytest.raises(ProviderError, match="not JSON for book_table"):
        await collect(make_llm(chat))


@pytest.mark.parametrize("api", ["chat", "responses"])
async def test_a_withheld_reply_is_an_error(
    api: str, chat: ChatStandin, responses: ResponsesStandin, make_llm: MakeLlm
) -> None:
    server = chat if api == "chat" else responses
    server.on("", Says("", finish="content_filter"))
    with pytest.raises(ProviderError, match=r"content.filter"):
        await collect(make_llm(server))


@pytest.mark.parametrize("api", ["chat", "responses"])
async def test_a_reply_that_became_too_long_is_spoken_as_far_as_it_came(
    api: str, chat: ChatStandin, responses: ResponsesStandin, make_llm: MakeLlm
) -> None:
    server = chat if api == "chat" else responses
    server.on("", Says("We open at", finish="length" if api == "chat" else "max_output_tokens"))
    assert await collect(make_llm(server)) == ("We open at", ())


async def test_a_response_that_fails_says_why(responses: ResponsesStandin, make_llm: MakeLlm) -> None:
    writer = responses.writer()
    error = {"code": "rate_limit_exceeded", "message": f"Too fast for {KEY}."}
    failed = writer.head()[0].replace(b"response.created", b"response.failed")
    failed = failed.replace(b'"error": null', b'"error": ' + repr(error).replace("'", '"').encode())

    async def answer(exchange: Exchange, reply: Reply) -> None:
        await reply.begin()
        await reply.piece(failed)
        await reply.end()

    responses.raw.append(answer)
    with pytest.raises(ProviderBusyError, match="Too fast") as caught:
        await collect(make_llm(responses))
    assert KEY not in str(caught.value)


async def test_a_server_of_ones_own_is_not_shown_openais_key(chat: ChatStandin) -> None:
    environ = {"OPENAI_API_KEY": KEY}
    for settings in (
        OpenAiSettings(base_url=chat.base_url),
        OpenAiSettings(kind="openai", base_url=chat.base_url),
        settings_class("vllm")(kind="vllm", base_url=chat.base_url, llm={"model": "mine"}),
    ):
        assert isinstance(settings, OpenAiSettings)
        llm = OpenAiLlm(settings.kind or "openai", settings, environ=environ)
        assert await collect(llm) == ("All right.", ())
        await llm.aclose()
    assert all(KEY not in str(exchange.headers) for exchange in chat.exchanges)


@pytest.mark.parametrize("kind", ["openai", "groq", "cerebras", "together"])
def test_a_vendors_own_server_wants_its_key(kind: str) -> None:
    settings = OpenAiSettings(kind=kind, **KINDS[kind].preset)
    with pytest.raises(ProviderUnavailableError, match=f"set {KINDS[kind].key_env}"):
        OpenAiLlm("mine", settings, environ={})
    OpenAiLlm("mine", settings, environ={KINDS[kind].key_env: KEY})


@pytest.mark.parametrize("kind", ["vllm", "ollama", "llamacpp"])
def test_a_server_of_ones_own_needs_its_model_named_and_no_key(kind: str) -> None:
    with pytest.raises(ProviderUnavailableError, match=r"set providers\.mine\.llm\.model"):
        OpenAiLlm("mine", OpenAiSettings(kind=kind, **KINDS[kind].preset), environ={})
    named = OpenAiSettings(kind=kind, **KINDS[kind].preset, llm=OpenAiLlmSettings(model="llama"))
    OpenAiLlm("mine", named, environ={})


def test_another_region_of_openai_wants_the_key() -> None:
    with pytest.raises(ProviderUnavailableError, match="set OPENAI_API_KEY"):
        OpenAiLlm("openai", OpenAiSettings(base_url="https://eu.api.openai.com/v1"), environ={})
