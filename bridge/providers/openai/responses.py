"""OpenAI's Responses, streamed and stateless (`store: false`): the memory travels as input items.

`protocols/llm.md` 3: the events and their order. What a reasoning model thought before a tool call comes encrypted,
and goes back with that call (`ToolCall.signature`).
"""

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

from openai.types.responses import Response, ResponseOutputItem, ResponseStreamEvent

from bridge.providers.base import LlmRequest, Message, ProviderBusyError, ProviderError, Tool
from bridge.providers.calls import CallPiece
from bridge.providers.dialogue import Dialogue
from bridge.providers.openai.settings import OpenAiLlmSettings
from bridge.providers.replies import Pieces
from bridge.providers.scrub import scrubbed
from bridge.providers.signatures import signature_for, signed

_BUSY = ("rate_limit_exceeded", "server_overloaded", "slow_down")


def response_tools(tools: Sequence[Tool]) -> list[dict[str, Any]]:
    return [
        {
            "type": "function",
            "name": tool.name,
            "description": tool.description,
            "parameters": tool.parameters,
            "strict": False,
        }
        for tool in tools
    ]


def input_items(name: str, messages: Sequence[Message]) -> list[dict[str, Any]]:
    """The memory as input; `name` is the provider's, whose own signatures are sent along."""
    items: list[dict[str, Any]] = []
    for message in messages:
        if message.role == "tool":
            items.append({"type": "function_call_output", "call_id": message.tool_call_id, "output": message.content})
            continue
        if message.content:
            items.append({"role": message.role, "content": message.content})
        for call in message.tool_calls:
            if thought := signature_for(name, call):
                items.append(json.loads(thought))
            arguments = json.dumps(call.arguments, ensure_ascii=False)
            items.append({"type": "function_call", "call_id": call.id, "name": call.name, "arguments": arguments})
    return items


def response_body(
    name: str, settings: OpenAiLlmSettings, request: LlmRequest, dialogue: Dialogue, *, cached: bool
) -> dict[str, Any]:
    """The request, with only what is set. `cached`: with the cache's key."""
    body: dict[str, Any] = {
        "model": settings.model,
        "instructions": dialogue.prompt,
        "input": input_items(name, dialogue.messages),
        "store": False,
        "stream": True,
    }
    if request.tools:
        body["tools"] = response_tools(request.tools)
        if settings.parallel_tool_calls is not None:
            body["parallel_tool_calls"] = settings.parallel_tool_calls
    if settings.temperature is not None:
        body["temperature"] = settings.temperature
    if settings.reasoning_effort:
        body["reasoning"] = {"effort": settings.reasoning_effort}
        if settings.reasoning_effort != "none":
            # Models that don't reason refuse to be asked for it.
            body["include"] = ["reasoning.encrypted_content"]
    if settings.verbosity:
        body["text"] = {"verbosity": settings.verbosity}
    if settings.service_tier:
        body["service_tier"] = settings.service_tier
    if settings.max_reply_tokens is not None:
        body["max_output_tokens"] = settings.max_reply_tokens
    if cached and request.call_id:
        body["prompt_cache_key"] = request.call_id
    return body


def is_response_token(event: ResponseStreamEvent) -> bool:
    """Whether the reply has begun with it."""
    match event.type:
        case "response.output_text.delta" | "response.refusal.delta" | "response.function_call_arguments.delta":
            return bool(event.delta)
        case "response.output_item.added":
            return event.item.type == "function_call"
    return False


async def response_pieces(name: str, events: AsyncIterator[ResponseStreamEvent]) -> Pieces:
    """Text and pieces of tool calls. Raises ProviderError where the response fails, or the stream ends before it."""
    finished, said, thought = False, False, ""
    given: set[int] = set()
    """Output indexes of calls whose arguments came in pieces."""
    async for event in events:
        match event.type:
            case "response.output_text.delta" | "response.refusal.delta":
                said = said or bool(event.delta)
                yield event.delta
            case "response.output_item.added":
                if event.item.type == "function_call":
                    said = True
                    yield CallPiece(event.output_index, event.item.call_id, event.item.name, signature=thought)
                    thought = ""
            case "response.function_call_arguments.delta":
                given.add(event.output_index)
                yield CallPiece(event.output_index, arguments=event.delta)
            case "response.output_item.done":
                if event.item.type == "function_call" and event.output_index not in given:
                    yield CallPiece(
                        event.output_index, event.item.call_id, event.item.name, event.item.arguments, thought
                    )
                    said, thought = True, ""
                elif encrypted := _encrypted(event.item):
                    thought = signed(name, encrypted)
            case "response.completed":
                finished = True
            case "response.incomplete":
                # Too long: what came of it is spoken.
                if not said or _why_incomplete(event.response) == "content_filter":
                    raise ProviderError(name, f"the reply is not complete: {_why_incomplete(event.response)}")
                finished = True
            case "response.failed":
                error = event.response.error
                raise _failed(name, error.code if error else "", error.message if error else "no reason given")
            case "error":
                raise _failed(name, event.code or "", event.message or "no reason given")
    if not finished:
        raise ProviderError(name, "the stream broke off before the reply was complete")


def _encrypted(item: ResponseOutputItem) -> str:
    """A reasoning item as it goes back."""
    if item.type != "reasoning" or not item.encrypted_content:
        return ""
    kept = {"type": "reasoning", "id": item.id, "summary": [], "encrypted_content": item.encrypted_content}
    return json.dumps(kept)


def _why_incomplete(response: Response) -> str:
    details = response.incomplete_details
    return (details.reason if details else "") or "no reason given"


def _failed(name: str, code: str, message: str) -> ProviderError:
    said = scrubbed(f"{code}: {message}" if code else message)
    return ProviderBusyError(name, said) if code in _BUSY else ProviderError(name, f"the reply failed: {said}")
