"""A stand-in for Gemini's generateContent, streamed (`alt=sse`), after google-genai 3.4's own types."""

import base64
from typing import Any

from standin import Exchange, Reply
from standin_llm import Asked, Call, LlmStandin, Says, Writer, sse

MODEL = "gemini-test"


def error(code: int, status: str, message: str) -> dict[str, Any]:
    """An error as a body, and in the middle of a stream."""
    return {"error": {"code": code, "message": message, "status": status}}


def chunk(*parts: dict[str, Any], finish: str = "", **extra: Any) -> bytes:
    """One piece of the reply."""
    candidate: dict[str, Any] = {"index": 0}
    if parts:
        candidate["content"] = {"role": "model", "parts": list(parts)}
    if finish:
        candidate["finishReason"] = finish
    return sse({"candidates": [candidate], "modelVersion": MODEL, "responseId": "r1", **extra})


class GeminiStandin(LlmStandin):
    """`/v1beta/models/{model}:streamGenerateContent`, and `/v1beta/models/{model}`."""

    def __init__(self) -> None:
        super().__init__()
        self.ids = True
        """Calls have ids, as those of newer models have."""
        self.thought = "a thought"
        """Signs the first call of a reply; the next request must bring it back."""
        self.route("POST", "/v1beta/models/{model}", self.reply)
        self.route("GET", "/v1beta/models/{model}", self._model)

    @property
    def base_url(self) -> str:
        return self.http_url

    async def _model(self, exchange: Exchange, reply: Reply) -> None:
        await reply.json({"name": f"models/{exchange.params['model']}"})

    def read(self, exchange: Exchange) -> Asked:
        model, _, method = exchange.params["model"].partition(":")
        assert method == "streamGenerateContent" and exchange.asked("alt") == "sse"
        body = exchange.json()
        texts: list[tuple[str, str]] = []
        open_calls: list[str] = []
        for number, turn in enumerate(body["contents"]):
            assert turn["role"] == ("model" if number % 2 else "user"), "roles alternate"
            answered = [part["functionResponse"]["name"] for part in turn["parts"] if "functionResponse" in part]
            assert answered == open_calls, "each call is answered in the next turn"
            open_calls = [part["functionCall"]["name"] for part in turn["parts"] if "functionCall" in part]
            signed = [part for part in turn["parts"] if "functionCall" in part and "thoughtSignature" in part]
            assert len(signed) == (1 if open_calls else 0), "the first call of a step is signed"
            for part in turn["parts"]:
                if "text" in part:
                    texts.append(("assistant" if turn["role"] == "model" else "user", part["text"]))
                elif "functionResponse" in part:
                    texts.append(("tool", str(part["functionResponse"]["response"])))
        assert not open_calls and body["contents"][-1]["role"] == "user"
        tools = [
            function["name"] for tool in body.get("tools", ()) for function in tool.get("functionDeclarations", ())
        ]
        prompt = "".join(part["text"] for part in body["systemInstruction"]["parts"])
        return Asked(model, prompt, texts, tools, body)

    def writer(self) -> Writer:
        return _ContentWriter(self.thought, ids=self.ids)


class _ContentWriter(Writer):
    def __init__(self, thought: str, *, ids: bool) -> None:
        self._thought = thought
        self._ids = ids

    def text(self, token: str) -> list[bytes]:
        return [chunk({"text": token})]

    def call(self, number: int, call_id: str, call: Call) -> list[bytes]:
        function: dict[str, Any] = {"name": call.name, "args": call.arguments}
        if self._ids:
            function["id"] = call_id
        part: dict[str, Any] = {"functionCall": function}
        if self._thought and not number:
            part["thoughtSignature"] = base64.b64encode(self._thought.encode()).decode()
        return [chunk(part)]

    def tail(self, says: Says) -> list[bytes]:
        usage = {"promptTokenCount": 9, "candidatesTokenCount": 2, "totalTokenCount": 11}
        return [chunk(finish=says.finish or "STOP", usageMetadata=usage)]
