"""Chat Completions, streamed, as OpenAI and all servers after its model have it.

`protocols/llm.md` 2 and 7: the chunks, how tool calls are cut into pieces, what other servers do differently.
"""

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

from bridge.providers.base import LlmRequest, Message, ProviderError, Tool
from bridge.providers.calls import CallPiece
from bridge.providers.dialogue import Dialogue
from bridge.providers.openai.settings import OpenAiLlmSettings
from bridge.providers.replies import Pieces


def chat_tools(tools: Sequence[Tool]) -> list[dict[str, Any]]:
    return [
        {
            "type": "function",
            "function": {"name": tool.name, "description": tool.description, "parameters": tool.parameters},
        }
        for tool in tools
    ]


def chat_messages(dialogue: Dialogue) -> list[dict[str, Any]]:
    """The messages of a request."""
    return [{"role": "system", "content": dialogue.prompt}, *map(_message, dialogue.messages)]


def _message(message: Message) -> dict[str, Any]:
    if message.role == "tool":
        return {"role": "tool", "tool_call_id": message.tool_call_id, "content": message.content}
    made: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        made["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": json.dumps(call.arguments, ensure_ascii=False)},
            }
            for call in message.tool_calls
        ]
    return made


def chat_body(
    settings: OpenAiLlmSettings, request: LlmRequest, dialogue: Dialogue, *, cached: bool
) -> dict[str, Any]:
    """The request, with only what is set: servers differ in what they refuse. `cached`: with the cache's key."""
    body: dict[str, Any] = {"model": settings.model, "messages": chat_messages(dialogue), "stream": True}
    if request.tools:
        body["tools"] = chat_tools(request.tools)
        if settings.parallel_tool_calls is not None:
            body["parallel_tool_calls"] = settings.parallel_tool_calls
    if settings.temperature is not None:
        body["temperature"] = settings.temperature
    for name in ("reasoning_effort", "verbosity", "service_tier"):
        if value := getattr(settings, name):
            body[name] = value
    if settings.max_reply_tokens is not None:
        body["max_completion_tokens"] = settings.max_reply_tokens
    if cached and request.call_id:
        body["prompt_cache_key"] = request.call_id
    return body


def is_chat_token(chunk: object) -> bool:
    """Whether the reply has begun with it; the first chunk of a stream often only names the role."""
    delta = _delta(_choice(chunk))
    return bool(delta.get("content") or delta.get("refusal") or delta.get("tool_calls"))


async def chat_pieces(name: str, chunks: AsyncIterator[object]) -> Pieces:
    """Text and pieces of tool calls, of chunks as they came (JSON): fifty a second and call are too many to be made
    the SDK's objects, and many a server leaves out what those promise. Raises ProviderError where the stream ends
    before the reply does."""
    finished, said = "", False
    async for chunk in chunks:
        # Groq's own field tells of an error that comes in the middle of a reply.
        extra = chunk.get("x_groq") if isinstance(chunk, dict) else None
        if isinstance(extra, dict) and extra.get("error"):
            raise ProviderError(name, f"the reply broke off: {str(extra['error'])[:200]}")
        choice = _choice(chunk)
        finished = choice.get("finish_reason") or finished
        delta = _delta(choice)
        for piece in delta.get("tool_calls") or ():
            if isinstance(piece, dict):
                said = True
                yield _piece(piece)
        text = delta.get("content") or delta.get("refusal")
        if isinstance(text, str) and text:
            said = True
            yield text
    if not finished:
        raise ProviderError(name, "the stream broke off before the reply was complete")
    if finished == "content_filter" and not said:
        raise ProviderError(name, "the reply was withheld by the content filter")


def _choice(chunk: object) -> dict[str, Any]:
    """The first, empty if there is none: usage, for instance, comes in a chunk without."""
    choices = chunk.get("choices") if isinstance(chunk, dict) else None
    return choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}


def _delta(choice: dict[str, Any]) -> dict[str, Any]:
    # Some servers end with a choice that has none.
    delta = choice.get("delta")
    return delta if isinstance(delta, dict) else {}


def _piece(piece: dict[str, Any]) -> CallPiece:
    # A server may leave out what the protocol promises, or send an object for the arguments.
    function = piece.get("function")
    function = function if isinstance(function, dict) else {}
    arguments = function.get("arguments")
    if isinstance(arguments, dict):
        arguments = json.dumps(arguments)
    index = piece.get("index")
    return CallPiece(
        index if isinstance(index, int) else None, piece.get("id") or "", function.get("name") or "", arguments or ""
    )
