"""Deepgram's Voice Agent protocol for one session, without I/O: server messages in; provider events and messages out.

The SDK's `agent/v1/types`. The server stops its own reply when it hears the caller, and can't be asked to.
"""

import json
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from bridge.audio.codec import PCMU
from bridge.providers.base import Message, ProviderError, ToolCall
from bridge.providers.deepgram.settings import DeepgramRealtimeSettings
from bridge.providers.realtime import (
    ASKED,
    AgentAudio,
    AgentText,
    CallerSaid,
    CallerSpeaks,
    RealtimeEvent,
    RealtimeFailed,
    RealtimeSetup,
    ReplyEnded,
    ReplyStarted,
    ToolAsked,
    ToolCancelled,
)
from bridge.providers.realtime_link import Pieces, function
from bridge.providers.scrub import scrubbed


def session_settings(settings: DeepgramRealtimeSettings, setup: RealtimeSetup, think_model: str) -> dict[str, Any]:
    """The `Settings` message that makes a session what `setup` wants."""
    narrow = setup.sample_rate == PCMU.sample_rate
    format_ = {"encoding": "mulaw" if narrow else "linear16", "sample_rate": setup.sample_rate}
    think: dict[str, Any] = dict(settings.think) or {"type": "deepgram", "model": think_model}
    if settings.temperature is not None:
        think["temperature"] = settings.temperature
    agent: dict[str, Any] = {
        "listen": {"provider": _listen(settings, setup.language)},
        "think": {
            "provider": think,
            "prompt": setup.instructions,
            "functions": [{**function(tool), "defer_until_eot": True} for tool in setup.tools],
        },
        "speak": {"provider": dict(settings.speak) or {"type": "deepgram", "model": setup.voice or settings.voice}},
    }
    if history := _history(setup.history):
        agent["context"] = {"messages": history}
    return {
        "type": "Settings",
        "flags": {"history": False},
        "audio": {"input": format_, "output": {**format_, "container": "none"}},
        "agent": agent,
    }


def _listen(settings: DeepgramRealtimeSettings, language: str) -> dict[str, Any]:
    model, base = settings.listen_model, language.partition("-")[0].lower()
    if not model.startswith("flux"):
        return {
            "type": "deepgram",
            "version": "v1",
            "model": model,
            "language": "multi" if language == "auto" else language,
        }
    if model == "flux-general-en" and base not in ("en", "auto"):
        model = "flux-general-multi"
    provider: dict[str, Any] = {"type": "deepgram", "version": "v2", "model": model}
    if model.endswith("multi") and base != "auto":
        provider["language_hints"] = [base]
    return provider


def _history(messages: Sequence[Message]) -> list[dict[str, Any]]:
    results = {message.tool_call_id: message.content for message in messages if message.role == "tool"}
    entries: list[dict[str, Any]] = []
    for message in messages:
        if message.role != "tool" and message.content:
            content = f"{message.content} —" if message.interrupted else message.content
            entries.append({"type": "History", "role": message.role, "content": content})
        calls = [
            {
                "id": call.id,
                "name": call.name,
                "client_side": True,
                "arguments": json.dumps(call.arguments),
                "response": results[call.id],
            }
            for call in message.tool_calls
            if call.id in results
        ]
        if calls:
            entries.append({"type": "History", "function_calls": calls})
    return entries


class VoiceAgentDialogue:
    """One session's state. `receive` raises KeyError, TypeError, ValueError or AttributeError for what is not in the
    protocol."""

    def __init__(
        self,
        name: str,
        sample_rate: int,
        *,
        emit: Callable[[RealtimeEvent], None],
        send: Callable[[dict[str, Any]], None],
        secret: str,
    ) -> None:
        self._name = name
        self._emit = emit
        self._send = send
        self._secret = secret
        narrow = sample_rate == PCMU.sample_rate
        self._encode = PCMU.encoder() if narrow else bytes
        self._decode = PCMU.decoder() if narrow else bytes
        self._pieces = Pieces()
        self._id = uuid.uuid4().hex[:8]
        self._replies = 0
        self._reply = ""
        """The reply under way."""
        self._muted = False
        """What comes is of a reply that was cut off, until the next one begins."""
        self._hears = False
        """It said that the caller began to speak."""
        self._wanted: deque[tuple[str, str]] = deque()
        """Text and mark of what it was asked to say, and has not begun to."""
        self._asked = False
        """It is to answer what it was told, or go on with a tool's result."""

    # -- what we tell it --------------------------------------------------------------------------------------

    def audio(self, pcm: bytes) -> bytes | None:
        """One 20 ms frame of the caller; returns the message that is due."""
        return self._pieces.add(self._encode(pcm))

    def say(self, text: str, mark: str) -> None:
        self._wanted.append((_squash(text), mark))
        self._send({"type": "InjectAgentMessage", "message": text, "behavior": "interrupt"})

    def respond(self) -> None:
        self._send({"type": "ForceEndTurn"})

    def tell(self, text: str) -> None:
        self._asked = True
        self._send({"type": "InjectUserMessage", "content": text})

    def interrupt(self, item: str) -> None:
        if item == self._reply:
            self._reply, self._muted = "", True

    def tool_result(self, call: ToolCall, content: str, go_on: bool) -> None:
        # A result makes it speak: where it is to keep quiet, it gets none.
        if go_on:
            self._asked = True
            self._send({"type": "FunctionCallResponse", "id": call.id, "name": call.name, "content": content})

    # -- what it tells us -------------------------------------------------------------------------------------

    def receive(self, message: str | bytes) -> None:
        """Take one message of the server."""
        if isinstance(message, bytes):
            self._audio(message)
            return
        event = json.loads(message)
        match event["type"]:
            case "UserStartedSpeaking":
                self._hears = True
                self._emit(CallerSpeaks())
                self._cut()
            case "ConversationText":
                if event["role"] == "user":
                    self._heard(event["content"])
                else:
                    self._text(event["content"])
            case "AgentStartedSpeaking":
                self._muted = False
            case "AgentAudioDone":
                self._done()
            case "FunctionCallRequest":
                for call in event["functions"]:
                    if call["client_side"]:
                        self._call(call)
            case "FunctionCallCancelled":
                for call in event["functions"]:
                    self._emit(ToolCancelled(call["id"]))
            case "Error":
                self._failed(event, fatal=True)
            case "Warning" | "InjectionRefused":
                self._failed(event, fatal=False)

    def _heard(self, text: str) -> None:
        if not self._hears:
            self._emit(CallerSpeaks())
        self._hears = False
        self._emit(CallerSpeaks(ended=True))
        self._emit(CallerSaid(text.strip()))

    def _begin(self, text: str) -> None:
        self._muted = False
        if self._reply:
            return
        self._replies += 1
        self._reply = f"{self._id}-{self._replies}"
        mark = ""
        # Without a text nobody can tell whose words these are: then they are those that were asked for.
        if self._wanted and (not text or _squash(text) in self._wanted[0][0]):
            _, mark = self._wanted.popleft()
        elif self._asked:
            mark, self._asked = ASKED, False
        self._emit(ReplyStarted(self._reply, mark))

    def _text(self, text: str) -> None:
        self._begin(text)
        self._emit(AgentText(self._reply, f"{text.strip()} "))

    def _audio(self, payload: bytes) -> None:
        if self._muted:
            return
        self._begin("")
        if pcm := self._decode(payload):
            self._emit(AgentAudio(self._reply, pcm))

    def _done(self) -> None:
        item, self._reply = self._reply, ""
        self._muted = False
        if item:
            self._emit(ReplyEnded(item, True))

    def _cut(self) -> None:
        """The server has stopped the reply, if it was still sending it."""
        item, self._reply = self._reply, ""
        if item:
            self._muted = True
            self._emit(ReplyEnded(item, False))

    def _call(self, call: dict[str, Any]) -> None:
        try:
            arguments = json.loads(call["arguments"] or "{}")
        except ValueError:
            arguments = None
        asked = ToolCall(call["id"], call["name"], arguments if isinstance(arguments, dict) else {})
        if isinstance(arguments, dict):
            self._emit(ToolAsked(asked))
        else:
            wrong = {"ok": False, "error": "the arguments are not a JSON object"}
            self.tool_result(asked, json.dumps(wrong), True)

    def _failed(self, event: dict[str, Any], *, fatal: bool) -> None:
        self._emit(RealtimeFailed(failure(self._name, event, self._secret), fatal))


def failure(name: str, event: dict[str, Any], secret: str) -> ProviderError:
    """An `Error`, `Warning` or `InjectionRefused` as ours, without the key."""
    said = event.get("description") or event.get("message") or "failed"
    code = event.get("code")
    return ProviderError(name, scrubbed(f"{said} ({code})" if code else said, secret))


def _squash(text: str) -> str:
    return " ".join(text.split()).lower()
