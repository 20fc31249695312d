"""Gemini's Live protocol (BidiGenerateContent) for one session, without I/O: server messages in; provider events and
messages out.

The SDK's `types.Live*`. The server stops its own reply when it hears the caller, and can't be asked to.
"""

import base64
import binascii
import json
import re
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from bridge.audio.resample import FrameResampler, Resampler
from bridge.providers.base import Message, ToolCall
from bridge.providers.gemini.settings import GeminiRealtimeSettings
from bridge.providers.realtime import (
    ASKED,
    AgentAudio,
    AgentText,
    CallerSaid,
    CallerSpeaks,
    RealtimeEvent,
    RealtimeSetup,
    ReplyEnded,
    ReplyStarted,
    SessionEnding,
    ToolAsked,
    ToolCancelled,
)
from bridge.providers.realtime_link import Pieces, verbatim

IN_HZ = 16_000
OUT_HZ = 24_000

ANSWER = "(The caller has spoken and waits for your answer.)"

_RATE = re.compile(r"rate=(\d+)")
_SECONDS = re.compile(r"([\d.]+)s\Z")


def setup_message(settings: GeminiRealtimeSettings, setup: RealtimeSetup, model: str, handle: str) -> dict[str, Any]:
    """The first message of a session. `handle` resumes an earlier one; empty: a new one."""
    voice = setup.voice or settings.voice
    generation: dict[str, Any] = {"responseModalities": ["AUDIO"]}
    if voice:
        generation["speechConfig"] = {"voiceConfig": {"prebuiltVoiceConfig": {"voiceName": voice}}}
    if settings.temperature is not None:
        generation["temperature"] = settings.temperature
    detection: dict[str, Any] = {"silenceDurationMs": settings.silence_ms}
    if settings.prefix_padding_ms is not None:
        detection["prefixPaddingMs"] = settings.prefix_padding_ms
    body: dict[str, Any] = {
        "model": model if "/" in model else f"models/{model}",
        "generationConfig": generation,
        "systemInstruction": {"parts": [{"text": setup.instructions}]},
        "realtimeInputConfig": {"automaticActivityDetection": detection},
        "inputAudioTranscription": {},
        "outputAudioTranscription": {},
        "sessionResumption": {"handle": handle} if handle else {},
        "contextWindowCompression": {"slidingWindow": {}},
    }
    if setup.tools:
        declared = []
        for tool in setup.tools:
            one: dict[str, Any] = {"name": tool.name, "description": tool.description}
            if tool.parameters.get("properties"):
                one["parametersJsonSchema"] = tool.parameters
            declared.append(one)
        body["tools"] = [{"functionDeclarations": declared}]
    if setup.history and not handle:
        body["historyConfig"] = {"initialHistoryInClientContent": True}
    return {"setup": body}


def history_message(messages: Sequence[Message]) -> dict[str, Any]:
    """What was said before; it triggers no reply. Tools and their results are told as text."""
    names = {call.id: call.name for message in messages for call in message.tool_calls}
    turns: list[dict[str, Any]] = []

    def add(role: str, text: str) -> None:
        if turns and turns[-1]["role"] == role:
            turns[-1]["parts"].append({"text": text})
        else:
            turns.append({"role": role, "parts": [{"text": text}]})

    for message in messages:
        if message.role == "tool":
            add("user", f"(The tool {names.get(message.tool_call_id, '')} came to: {message.content})")
        elif message.content:
            text = f"{message.content} —" if message.interrupted else message.content
            add("user" if message.role == "user" else "model", text)
    return {"clientContent": {"turns": turns, "turnComplete": True}}


class LiveDialogue:
    """One session's state. `receive` raises KeyError, TypeError, ValueError or AttributeError for what is not in the
    protocol."""

    def __init__(
        self, sample_rate: int, *, emit: Callable[[RealtimeEvent], None], send: Callable[[str], None]
    ) -> None:
        self._emit = emit
        self._send = send
        self._widen = None if sample_rate == IN_HZ else FrameResampler(sample_rate, IN_HZ)
        self._sample_rate = sample_rate
        self._narrow = Resampler(OUT_HZ, sample_rate)
        self._pieces = Pieces()
        self._id = uuid.uuid4().hex[:8]
        self._replies = 0
        self._reply = ""
        """The reply under way."""
        self._muted = False
        """What comes is of a reply that was cut off, until its turn ends."""
        self._hears = False
        """The caller is in a turn."""
        self._heard = ""
        """The text of the caller's turn, as far as it has come."""
        self._untold = False
        """A turn of the caller is over, and its text is not told yet."""
        self._asked: deque[str] = deque()
        """Marks of what it was asked, so that the next reply does not answer the caller; empty: without a mark."""
        self.handle = ""
        """Resumes the session as it is now; empty: it can't be."""

    # -- what we tell it --------------------------------------------------------------------------------------

    def audio(self, pcm: bytes) -> str | None:
        """One 20 ms frame of the caller; returns the message that is due, made by hand as there are so many."""
        piece = self._pieces.add(pcm if self._widen is None else self._widen.convert(pcm))
        if piece is None:
            return None
        data = base64.b64encode(piece).decode()
        return f'{{"realtimeInput":{{"audio":{{"mimeType":"audio/pcm;rate={IN_HZ}","data":"{data}"}}}}}}'

    def say(self, text: str, mark: str) -> None:
        self._ask(verbatim(text), mark)

    def tell(self, text: str) -> None:
        self._ask(text, ASKED)

    def respond(self) -> None:
        if self._hears:
            # Ends what its ear has not found the end of.
            self._put({"realtimeInput": {"audioStreamEnd": True}})
        else:
            self._ask(ANSWER, "")

    def interrupt(self, item: str) -> None:
        if item == self._reply:
            self._reply, self._muted = "", True

    def tool_result(self, call: ToolCall, content: str, go_on: bool) -> None:
        # A result makes it speak: where it is to keep quiet, it gets none.
        if not go_on:
            return
        try:
            result = json.loads(content)
        except ValueError:
            result = None
        response = result if isinstance(result, dict) else {"result": content}
        self._asked.append(ASKED)
        self._put({"toolResponse": {"functionResponses": [{"id": call.id, "name": call.name, "response": response}]}})

    def _ask(self, text: str, mark: str) -> None:
        self._asked.append(mark)
        self._put({"realtimeInput": {"text": text}})

    def _put(self, message: dict[str, Any]) -> None:
        self._send(json.dumps(message, ensure_ascii=False))

    # -- what it tells us -------------------------------------------------------------------------------------

    def receive(self, message: dict[str, Any]) -> None:
        """Take one message of the server."""
        if content := message.get("serverContent"):
            self._content(content)
        if asked := message.get("toolCall"):
            self._answers()
            self._ended()
            for call in asked["functionCalls"]:
                self._emit(ToolAsked(ToolCall(call["id"], call["name"], dict(call.get("args") or {}))))
        if cancelled := message.get("toolCallCancellation"):
            for call_id in cancelled["ids"]:
                self._emit(ToolCancelled(call_id))
        if activity := message.get("voiceActivity"):
            self._activity(activity.get("voiceActivityType"))
        if update := message.get("sessionResumptionUpdate"):
            self.handle = (update.get("newHandle") or "") if update.get("resumable") else ""
        if leaving := message.get("goAway"):
            found = _SECONDS.match(leaving.get("timeLeft") or "")
            self._emit(SessionEnding(float(found[1]) if found else 0.0))

    def closing(self) -> None:
        """The session is over: tell what the caller said, as far as it is known."""
        if self._heard:
            self._listened()
            self._tell_heard()

    def _content(self, content: dict[str, Any]) -> None:
        if heard := content.get("inputTranscription"):
            self._transcribed(heard.get("text") or "", bool(heard.get("finished")))
        if content.get("interrupted"):
            self._interrupted()
        if said := (content.get("outputTranscription") or {}).get("text"):
            self._begin()
            if not self._muted:
                self._emit(AgentText(self._reply, said))
        for part in (content.get("modelTurn") or {}).get("parts") or ():
            if data := part.get("inlineData"):
                self._audio(data)
        if content.get("generationComplete") or content.get("turnComplete"):
            self._done(turn=bool(content.get("turnComplete")))

    def _activity(self, kind: str | None) -> None:
        if kind == "ACTIVITY_START":
            self._listens()
        elif kind == "ACTIVITY_END":
            self._listened()

    def _transcribed(self, text: str, finished: bool) -> None:
        if text and not self._untold:
            self._listens()
        self._heard += text
        if finished and self._heard:
            self._listened()
            self._tell_heard()

    def _listens(self) -> None:
        """The caller is in a turn."""
        if not self._hears:
            self._tell_heard()
            self._hears = True
            self._emit(CallerSpeaks())

    def _listened(self) -> None:
        """The caller's turn is over."""
        if self._hears:
            self._hears, self._untold = False, True
            self._emit(CallerSpeaks(ended=True))

    def _tell_heard(self) -> None:
        text, self._heard = self._heard.strip(), ""
        if self._untold:
            self._untold = False
            self._emit(CallerSaid(text))

    def _answers(self) -> None:
        """It says or does something: in answer to the caller, unless it was asked by us."""
        if self._hears:
            self._listened()
        elif not self._asked and not self._untold:
            # Its transcripts can come later than its answers.
            self._listens()
            self._listened()

    def _begin(self) -> None:
        if self._reply or self._muted:
            return
        self._answers()
        mark = self._asked.popleft() if self._asked else ""
        self._replies += 1
        self._reply = f"{self._id}-{self._replies}"
        self._emit(ReplyStarted(self._reply, mark))

    def _audio(self, data: dict[str, Any]) -> None:
        found = _RATE.search(data["mimeType"])
        if found and int(found[1]) != OUT_HZ:
            raise ValueError(f"audio of {found[1]} Hz")
        self._begin()
        if self._muted:
            return
        try:
            payload = base64.b64decode(data["data"], validate=True)
        except binascii.Error as error:
            raise ValueError(f"audio that is not base64: {error}") from error
        if pcm := self._narrow.process(payload):
            self._emit(AgentAudio(self._reply, pcm))

    def _interrupted(self) -> None:
        """It heard the caller, and stopped what it was saying, or takes us to be playing still."""
        item, self._reply = self._reply, ""
        self._narrow.flush()
        self._listens()
        if item:
            self._muted = True
            self._emit(ReplyEnded(item, False))

    def _ended(self) -> None:
        """All of the reply was told."""
        item, self._reply = self._reply, ""
        if item:
            if pcm := self._narrow.flush():
                self._emit(AgentAudio(item, pcm))
            self._emit(ReplyEnded(item, True))

    def _done(self, *, turn: bool) -> None:
        self._ended()
        if not self._hears and (self._heard or turn):
            self._tell_heard()
        if turn:
            self._muted = False
