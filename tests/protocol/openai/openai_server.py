"""A stand-in for OpenAI's language models and for servers after their model: Chat Completions and Responses.

The wire format is that of the public API description (chunks, `data: [DONE]`, events, error bodies).
"""

import json
from collections.abc import Sequence
from typing import Any

from standin import Exchange, Reply
from standin_llm import Asked, Call, LlmStandin, Says, Writer, sse

MODEL = "test-model"
DONE = b"data: [DONE]\n\n"


class ChatStandin(LlmStandin):
    """`/v1/chat/completions`, and `/v1/models/{model}`."""

    def __init__(self) -> None:
        super().__init__()
        self.quirks: frozenset[str] = frozenset()
        """What some servers do differently: `no index`, `no id`, `stop` (as the reason with tool calls), `no done`,
        `usage` (in a chunk without choices), `whole calls` (arguments in one piece, as an object)."""
        self.route("POST", "/v1/chat/completions", self.reply)
        self.route("GET", "/v1/models/{model}", self._model)

    @property
    def base_url(self) -> str:
        return f"{self.http_url}/v1"

    async def _model(self, exchange: Exchange, reply: Reply) -> None:
        await reply.json({"id": exchange.params["model"], "object": "model", "created": 1, "owned_by": "test"})

    def read(self, exchange: Exchange) -> Asked:
        body = exchange.json()
        prompt, *messages = body["messages"]
        assert prompt["role"] == "system"
        _check_alternation(messages)
        texts = [(message["role"], message.get("content") or "") for message in messages]
        tools = [tool["function"]["name"] for tool in body.get("tools", ())]
        return Asked(body["model"], prompt["content"], texts, tools, body)

    def writer(self) -> Writer:
        return _ChatWriter(self.quirks)


USAGE = {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}


def _check_alternation(messages: Sequence[dict[str, Any]]) -> None:
    """What strict servers insist on: the caller first and last, and each call followed by its result."""
    open_calls: list[str] = []
    for message in messages:
        if message["role"] == "tool":
            open_calls.remove(message["tool_call_id"])
            continue
        assert not open_calls, f"no result of {open_calls}"
        open_calls = [call["id"] for call in message.get("tool_calls", ())]
    assert not open_calls, f"no result of {open_calls}"
    assert messages[0]["role"] == "user" and messages[-1]["role"] != "assistant"


def chunk(delta: dict[str, Any], finish: str | None = None, **extra: Any) -> bytes:
    """One event of Chat Completions."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
    event = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": MODEL, "choices": [choice]}
    return sse({**event, **extra})


class _ChatWriter(Writer):
    def __init__(self, quirks: frozenset[str]) -> None:
        self._quirks = quirks

    def head(self) -> list[bytes]:
        return [chunk({"role": "assistant", "content": ""})]

    def text(self, token: str) -> list[bytes]:
        return [chunk({"content": token})]

    def call(self, number: int, call_id: str, call: Call) -> list[bytes]:
        function: dict[str, Any] = {"name": call.name, "arguments": ""}
        more = [{"function": {"arguments": piece}} for piece in call.pieces()]
        if "whole calls" in self._quirks:
            function["arguments"], more = call.arguments, []
        pieces = [{"id": call_id, "type": "function", "function": function}, *more]
        if "no id" in self._quirks:
            del pieces[0]["id"]
        if "no index" not in self._quirks:
            pieces = [{"index": number, **piece} for piece in pieces]
        return [chunk({"tool_calls": [piece]}) for piece in pieces]

    def tail(self, says: Says) -> list[bytes]:
        usual = "tool_calls" if says.calls and "stop" not in self._quirks else "stop"
        events = [chunk({}, says.finish or usual)]
        if "usage" in self._quirks:
            events.append(sse({"id": "c1", "object": "chat.completion.chunk", "choices": [], "usage": USAGE}))
        return events if "no done" in self._quirks else [*events, DONE]


class ResponsesStandin(LlmStandin):
    """`/v1/responses`, and `/v1/models/{model}`."""

    def __init__(self) -> None:
        super().__init__()
        self.thought = ""
        """Sent encrypted before the first call of a reply, and wanted back with it."""
        self.route("POST", "/v1/responses", self.reply)
        self.route("GET", "/v1/models/{model}", self._model)

    @property
    def base_url(self) -> str:
        return f"{self.http_url}/v1"

    async def _model(self, exchange: Exchange, reply: Reply) -> None:
        await reply.json({"id": exchange.params["model"], "object": "model", "created": 1, "owned_by": "test"})

    def read(self, exchange: Exchange) -> Asked:
        body = exchange.json()
        assert body["store"] is False and "previous_response_id" not in body
        texts: list[tuple[str, str]] = []
        calls: list[str] = []
        for item in body["input"]:
            match item.get("type", "message"):
                case "message":
                    texts.append((item["role"], item["content"]))
                case "function_call":
                    json.loads(item["arguments"])
                    calls.append(item["call_id"])
                case "function_call_output":
                    calls.remove(item["call_id"])
                    texts.append(("tool", item["output"]))
        assert not calls, f"no result of {calls}"
        tools = [tool["name"] for tool in body.get("tools", ())]
        return Asked(body["model"], body["instructions"], texts, tools, body)

    def writer(self) -> Writer:
        return _ResponsesWriter(self.thought)


class _ResponsesWriter(Writer):
    def __init__(self, thought: str) -> None:
        self._thought = thought
        self._sequence = 0
        self._items: list[dict[str, Any]] = []
        self._text = ""

    def _event(self, kind: str, **fields: Any) -> bytes:
        self._sequence += 1
        return sse({"type": kind, "sequence_number": self._sequence, **fields}, kind)

    def _response(self, status: str, **fields: Any) -> dict[str, Any]:
        return {
            "id": "resp_1", "object": "response", "created_at": 1, "model": MODEL, "status": status,
            "output": self._items, "parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "error": None,
            "incomplete_details": None, **fields,
        }  # fmt: skip

    def head(self) -> list[bytes]:
        return [
            self._event("response.created", response=self._response("in_progress")),
            self._event("response.in_progress", response=self._response("in_progress")),
        ]

    def text(self, token: str) -> list[bytes]:
        place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
        events = []
        if not self._text:
            item = {"id": "msg_1", "type": "message", "role": "assistant", "status": "in_progress", "content": []}
            self._items.append(item)
            part = {"type": "output_text", "text": "", "annotations": []}
            events += [
                self._event("response.output_item.added", output_index=0, item=item),
                self._event("response.content_part.added", part=part, **place),
            ]
        self._text += token
        return [*events, self._event("response.output_text.delta", delta=token, logprobs=[], **place)]

    def call(self, number: int, call_id: str, call: Call) -> list[bytes]:
        events = []
        if self._thought and not number:
            thought = {"id": "rs_1", "type": "reasoning", "summary": [], "encrypted_content": self._thought}
            index = len(self._items)
            self._items.append(thought)
            events.append(self._event("response.output_item.done", output_index=index, item=thought))
        index = len(self._items)
        item = {"type": "function_call", "id": f"fc_{index}", "call_id": call_id, "name": call.name, "arguments": ""}
        whole = "".join(call.pieces())
        place = {"item_id": item["id"], "output_index": index}
        events.append(self._event("response.output_item.added", output_index=index, item=item))
        events += [
            self._event("response.function_call_arguments.delta", delta=piece, **place) for piece in call.pieces()
        ]
        events.append(self._event("response.function_call_arguments.done", arguments=whole, **place))
        done = {**item, "arguments": whole, "status": "completed"}
        self._items.append(done)
        return [*events, self._event("response.output_item.done", output_index=index, item=done)]

    def tail(self, says: Says) -> list[bytes]:
        if says.finish:
            details = {"reason": says.finish}
            return [
                self._event("response.incomplete", response=self._response("incomplete", incomplete_details=details))
            ]
        events = []
        if self._text:
            place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
            events.append(self._event("response.output_text.done", text=self._text, logprobs=[], **place))
        return [*events, self._event("response.completed", response=self._response("completed"))]
