"""Anthropic's Messages, streamed: the request, and the events of the reply (`protocols/llm.md` 7)."""

import json
import re
from collections.abc import AsyncIterator, Sequence
from typing import Any

from anthropic.types import RawMessageStreamEvent

from bridge.providers.anthropic.settings import AnthropicLlmSettings
from bridge.providers.base import LlmRequest, Message, ProviderError, Tool, ToolCall
from bridge.providers.calls import CallPiece
from bridge.providers.dialogue import Dialogue
from bridge.providers.replies import Pieces
from bridge.providers.signatures import signature_for, signed

_CACHED = {"type": "ephemeral"}
_NOT_IN_ID = re.compile(r"[^a-zA-Z0-9_-]")


def message_tools(tools: Sequence[Tool]) -> list[dict[str, Any]]:
    return [{"name": tool.name, "description": tool.description, "input_schema": tool.parameters} for tool in tools]


def message_turns(name: str, messages: Sequence[Message]) -> list[dict[str, Any]]:
    """The memory as turns of blocks: results of tools are part of the user's. `name` is the provider's, whose own
    signatures are sent along."""
    turns: list[dict[str, Any]] = []
    for message in messages:
        role = "assistant" if message.role == "assistant" else "user"
        blocks = _blocks(name, message)
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        else:
            turns.append({"role": role, "content": blocks})
    return turns


def _blocks(name: str, message: Message) -> list[dict[str, Any]]:
    if message.role == "tool":
        result = {"type": "tool_result", "tool_use_id": _id(message.tool_call_id), "content": message.content}
        return [result]
    blocks: list[dict[str, Any]] = []
    for call in message.tool_calls:
        if thoughts := signature_for(name, call):
            blocks += json.loads(thoughts)
    if message.content:
        blocks.append({"type": "text", "text": message.content})
    return [*blocks, *map(_tool_use, message.tool_calls)]


def _tool_use(call: ToolCall) -> dict[str, Any]:
    return {"type": "tool_use", "id": _id(call.id), "name": call.name, "input": call.arguments}


def _id(call_id: str) -> str:
    """Other servers' ids have characters in them that are refused here."""
    return _NOT_IN_ID.sub("_", call_id)


def message_body(
    name: str, settings: AnthropicLlmSettings, request: LlmRequest, dialogue: Dialogue
) -> dict[str, Any]:
    """The request."""
    system: list[dict[str, Any]] = [{"type": "text", "text": dialogue.steady}]
    body: dict[str, Any] = {
        "model": settings.model,
        "max_tokens": settings.max_reply_tokens,
        "system": system,
        "messages": message_turns(name, dialogue.messages),
        "stream": True,
    }
    if settings.prompt_cache and not request.instructions:
        # One mark behind what all calls share, tools included, and one that moves along with the conversation.
        system[0]["cache_control"] = _CACHED
        body["cache_control"] = _CACHED
    if dialogue.varying:
        system.append({"type": "text", "text": dialogue.varying})
    if request.tools:
        body["tools"] = message_tools(request.tools)
        if not settings.parallel_tool_calls:
            body["tool_choice"] = {"type": "auto", "disable_parallel_tool_use": True}
    if settings.thinking:
        body["thinking"] = {"type": settings.thinking}
    if settings.effort:
        body["output_config"] = {"effort": settings.effort}
    if settings.service_tier:
        body["service_tier"] = settings.service_tier
    return body


def is_message_token(event: RawMessageStreamEvent) -> bool:
    """Whether the reply has begun with it."""
    match event.type:
        case "content_block_start":
            return event.content_block.type == "tool_use"
        case "content_block_delta":
            return event.delta.type in ("text_delta", "input_json_delta")
    return False


async def message_pieces(name: str, events: AsyncIterator[RawMessageStreamEvent]) -> Pieces:
    """Text and pieces of tool calls. Raises ProviderError where the stream ends before the reply does."""
    why, complete, said = "", False, False
    thoughts: dict[int, dict[str, Any]] = {}
    """Blocks of thinking, as they go back with the call that they led to."""
    async for event in events:
        match event.type:
            case "content_block_start":
                block = event.content_block
                if block.type == "tool_use":
                    signature = signed(name, json.dumps(list(thoughts.values()))) if thoughts else ""
                    thoughts, said = {}, True
                    yield CallPiece(event.index, block.id, block.name, signature=signature)
                elif block.type == "text" and block.text:
                    said = True
                    yield block.text
                elif block.type in ("thinking", "redacted_thinking"):
                    thoughts[event.index] = block.to_dict(exclude_none=True)
            case "content_block_delta":
                delta = event.delta
                if delta.type == "text_delta":
                    said = said or bool(delta.text)
                    yield delta.text
                elif delta.type == "input_json_delta":
                    yield CallPiece(event.index, arguments=delta.partial_json)
                elif event.index in thoughts:
                    _think(thoughts[event.index], delta)
            case "message_delta":
                why = event.delta.stop_reason or why
            case "message_stop":
                complete = True
    if not complete:
        raise ProviderError(name, "the stream broke off before the reply was complete")
    if why == "refusal" and not said:
        raise ProviderError(name, "the model refused to reply")
    if why == "model_context_window_exceeded" and not said:
        raise ProviderError(name, "the conversation is too long for the model: lower limits.memory_tokens")


def _think(block: dict[str, Any], delta: Any) -> None:
    if delta.type == "thinking_delta":
        block["thinking"] = block.get("thinking", "") + delta.thinking
    elif delta.type == "signature_delta":
        block["signature"] = block.get("signature", "") + delta.signature
