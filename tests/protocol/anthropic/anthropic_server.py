"""A stand-in for Anthropic's Messages interface; the events are those of anthropic 2.11's own types."""

from typing import Any

from standin import Exchange, Reply
from standin_llm import Asked, Call, LlmStandin, Says, Writer, sse

MODEL = "test-model"


def event(kind: str, **fields: Any) -> bytes:
    """One event of a stream."""
    return sse({"type": kind, **fields}, kind)


def error(kind: str, message: str) -> dict[str, Any]:
    """An error as a body, and as an event in the middle of a stream."""
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"}


class AnthropicStandin(LlmStandin):
    """`/v1/messages`, and `/v1/models/{model}`."""

    def __init__(self) -> None:
        super().__init__()
        self.thought = ""
        """Thought before the first call of a reply, and wanted back with it."""
        self.route("POST", "/v1/messages", self.reply)
        self.route("GET", "/v1/models/{model}", self._model)

    @property
    def base_url(self) -> str:
        return self.http_url

    async def _model(self, exchange: Exchange, reply: Reply) -> None:
        model = exchange.params["model"]
        await reply.json({"type": "model", "id": model, "display_name": model, "created_at": "2026-01-01T00:00:00Z"})

    def read(self, exchange: Exchange) -> Asked:
        body = exchange.json()
        assert exchange.headers["anthropic-version"]
        texts: list[tuple[str, str]] = []
        open_calls: list[str] = []
        seen: set[str] = set()
        for number, turn in enumerate(body["messages"]):
            assert turn["role"] == ("assistant" if number % 2 else "user"), "roles alternate"
            results = [block["tool_use_id"] for block in turn["content"] if block["type"] == "tool_result"]
            assert sorted(results) == sorted(open_calls), "each call is answered in the next turn"
            open_calls = []
            for block in turn["content"]:
                match block["type"]:
                    case "text":
                        assert block["text"], "a block of text is not empty"
                        texts.append((turn["role"], block["text"]))
                    case "tool_use":
                        assert block["id"] not in seen, "ids are unique"
                        seen.add(block["id"])
                        open_calls.append(block["id"])
                    case "tool_result":
                        texts.append(("tool", block["content"]))
        assert not open_calls and body["messages"][-1]["role"] == "user"
        tools = [tool["name"] for tool in body.get("tools", ())]
        return Asked(body["model"], "\n\n".join(block["text"] for block in body["system"]), texts, tools, body)

    def writer(self) -> Writer:
        return _MessageWriter(self.thought)


class _MessageWriter(Writer):
    def __init__(self, thought: str) -> None:
        self._thought = thought
        self._index = -1
        self._in_text = False

    def head(self) -> list[bytes]:
        message = {
            "id": "msg_1", "type": "message", "role": "assistant", "model": MODEL, "content": [],
            "stop_reason": None, "stop_sequence": None, "usage": {"input_tokens": 9, "output_tokens": 1},
        }  # fmt: skip
        return [event("message_start", message=message), event("ping")]

    def _begin(self, block: dict[str, Any]) -> bytes:
        self._index += 1
        return event("content_block_start", index=self._index, content_block=block)

    def _delta(self, **delta: Any) -> bytes:
        return event("content_block_delta", index=self._index, delta=delta)

    def _end(self) -> bytes:
        return event("content_block_stop", index=self._index)

    def text(self, token: str) -> list[bytes]:
        begin = [] if self._in_text else [self._begin({"type": "text", "text": ""})]
        self._in_text = True
        return [*begin, self._delta(type="text_delta", text=token)]

    def call(self, number: int, call_id: str, call: Call) -> list[bytes]:
        events = self._end_text()
        if self._thought and not number:
            events += [
                self._begin({"type": "thinking", "thinking": "", "signature": ""}),
                self._delta(type="thinking_delta", thinking=self._thought),
                self._delta(type="signature_delta", signature="signed"),
                self._end(),
            ]
        events.append(self._begin({"type": "tool_use", "id": call_id, "name": call.name, "input": {}}))
        events.append(self._delta(type="input_json_delta", partial_json=""))
        events += [self._delta(type="input_json_delta", partial_json=piece) for piece in call.pieces()]
        return [*events, self._end()]

    def _end_text(self) -> list[bytes]:
        ended = [self._end()] if self._in_text else []
        self._in_text = False
        return ended

    def tail(self, says: Says) -> list[bytes]:
        why = says.finish or ("tool_use" if says.calls else "end_turn")
        delta = {"stop_reason": why, "stop_sequence": None}
        done = event("message_delta", delta=delta, usage={"output_tokens": 12})
        return [*self._end_text(), done, event("message_stop")]
