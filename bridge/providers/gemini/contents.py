"""Gemini's generateContent, streamed: the request, and what comes back (google-genai 3.4)."""

import base64
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

from google.genai import types

from bridge.providers.base import LlmRequest, Message, ProviderError, Tool
from bridge.providers.calls import CallPiece
from bridge.providers.dialogue import Dialogue
from bridge.providers.gemini.settings import GeminiLlmSettings
from bridge.providers.replies import Pieces
from bridge.providers.signatures import signature_for, signed

_NO_SIGNATURE = b"skip_thought_signature_validator"
"""Stands for the thought behind a call that another model made: Gemini 3 refuses a first call of a step without any.
Google's documents on thought signatures give this word."""

_WITHHELD = frozenset(
    {"SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "MODEL_ARMOR", "LANGUAGE", "OTHER"}
)
_BROKEN = frozenset(
    {"MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS", "MISSING_THOUGHT_SIGNATURE"}
    | {"MALFORMED_RESPONSE"}
)


def function_declarations(tools: Sequence[Tool]) -> list[types.FunctionDeclaration]:
    return [
        types.FunctionDeclaration(
            name=tool.name,
            description=tool.description,
            parameters_json_schema=tool.parameters if tool.parameters.get("properties") else None,
        )
        for tool in tools
    ]


def contents(name: str, model: str, messages: Sequence[Message]) -> list[types.Content]:
    """The memory as turns of parts: results of tools are part of the user's. `name` is the provider's, whose own
    signatures are sent along."""
    made: list[types.Content] = []
    names: dict[str, str] = {}
    """Of the functions, by the ids of their calls."""
    for message in messages:
        names |= {call.id: call.name for call in message.tool_calls}
        role = "model" if message.role == "assistant" else "user"
        parts = _parts(name, model, message, names)
        if made and made[-1].role == role:
            made[-1].parts = [*(made[-1].parts or ()), *parts]
        else:
            made.append(types.Content(role=role, parts=parts))
    return made


def _parts(name: str, model: str, message: Message, names: dict[str, str]) -> list[types.Part]:
    if message.role == "tool":
        call_id = message.tool_call_id
        response = types.FunctionResponse(id=call_id, name=names.get(call_id, ""), response=_result(message.content))
        return [types.Part(function_response=response)]
    parts = [types.Part(text=message.content)] if message.content else []
    for number, call in enumerate(message.tool_calls):
        signature = base64.b64decode(signature_for(name, call)) or None
        if signature is None and not number and not _is_old(model):
            signature = _NO_SIGNATURE
        function = types.FunctionCall(id=call.id, name=call.name, args=call.arguments)
        parts.append(types.Part(function_call=function, thought_signature=signature))
    return parts


def _is_old(model: str) -> bool:
    return model.removeprefix("models/").startswith(("gemini-1", "gemini-2"))


def _result(content: str) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except ValueError:
        value = None
    return value if isinstance(value, dict) else {"result": content}


def content_config(
    settings: GeminiLlmSettings, request: LlmRequest, dialogue: Dialogue
) -> types.GenerateContentConfig:
    """The request's settings, with only what is set."""
    config = types.GenerateContentConfig(
        system_instruction=dialogue.prompt,
        automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
        temperature=settings.temperature,
        max_output_tokens=settings.max_reply_tokens,
        thinking_config=_thinking(settings),
    )
    if request.tools:
        config.tools = [types.Tool(function_declarations=function_declarations(request.tools))]
    if settings.service_tier:
        config.service_tier = types.ServiceTier(settings.service_tier)
    return config


def _thinking(settings: GeminiLlmSettings) -> types.ThinkingConfig | None:
    if settings.thinking == "least":
        if not _is_old(settings.model):
            return types.ThinkingConfig(thinking_level=types.ThinkingLevel.LOW)
        # Only the Flash models of 2.5 can be told not to think; older ones don't, and refuse to be told.
        return types.ThinkingConfig(thinking_budget=0) if "2.5-flash" in settings.model else None
    return (
        types.ThinkingConfig(thinking_level=types.ThinkingLevel(settings.thinking.upper()))
        if (settings.thinking)
        else None
    )


def is_content_token(chunk: types.GenerateContentResponse) -> bool:
    """Whether the reply has begun with it."""
    return any(part.function_call or (part.text and not part.thought) for part in _parts_of(chunk))


def _parts_of(chunk: types.GenerateContentResponse) -> Sequence[types.Part]:
    candidate = chunk.candidates[0] if chunk.candidates else None
    return (candidate.content.parts if candidate and candidate.content else None) or ()


async def content_pieces(name: str, chunks: AsyncIterator[types.GenerateContentResponse]) -> Pieces:
    """Text and tool calls, which come whole. Raises ProviderError where the stream ends before the reply does."""
    why, said, count = "", False, 0
    async for chunk in chunks:
        feedback = chunk.prompt_feedback
        if feedback is not None and feedback.block_reason:
            raise ProviderError(name, f"the request was blocked: {feedback.block_reason.value}")
        for part in _parts_of(chunk):
            if part.function_call:
                said = True
                yield _piece(name, count, part, part.function_call)
                count += 1
            elif part.text and not part.thought:
                said = True
                yield part.text
        candidate = chunk.candidates[0] if chunk.candidates else None
        if candidate is not None and candidate.finish_reason:
            why = candidate.finish_reason.value
    if not why:
        raise ProviderError(name, "the stream broke off before the reply was complete")
    if why in _BROKEN:
        raise ProviderError(name, f"the model's tool call was not usable: {why}")
    if why in _WITHHELD and not said:
        raise ProviderError(name, f"the reply was withheld: {why}")


def _piece(name: str, index: int, part: types.Part, call: types.FunctionCall) -> CallPiece:
    thought = part.thought_signature
    signature = signed(name, base64.b64encode(thought).decode()) if thought else ""
    return CallPiece(index, call.id or "", call.name or "", json.dumps(call.args or {}), signature)
