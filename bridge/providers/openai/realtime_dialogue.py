"""OpenAI's Realtime protocol (GA) for one session, without I/O: server events in; provider events and messages out.

`protocols/llm.md` 4 has the events and their order.
"""

import base64
import binascii
import json
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bridge.audio.codec import PCMU
from bridge.audio.frames import duration_ms
from bridge.audio.resample import FrameResampler, Resampler
from bridge.providers.base import Message, ProviderBusyError, ProviderError, ProviderUnavailableError, ToolCall
from bridge.providers.openai.settings import OpenAiRealtimeSettings
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
)
from bridge.providers.realtime_link import Pieces, function, verbatim
from bridge.providers.scrub import scrubbed

WIDE_HZ = 24_000
"""The only rate of linear audio there."""

SETUP_ID = "setup"
"""Of the message that sets the session up, so that an error about it can be told."""

_HARMLESS = frozenset(
    {"response_cancel_not_active", "input_audio_buffer_commit_empty", "item_truncate_invalid_item_id"}
)
_BUSY = frozenset({"rate_limit_exceeded", "insufficient_quota", "slow_down"})
_REFUSED = frozenset({"invalid_api_key", "invalid_model", "model_not_found", "unsupported_country_region_territory"})
_ENDS = frozenset({"session_expired", *_BUSY, *_REFUSED})

Send = Callable[[dict[str, Any]], None]


@dataclass(slots=True)
class _Item:
    """One reply of the model, as far as it has come."""

    response: str
    audio_ms: float = 0.0
    ended: bool = False
    cut: bool = False


def session_update(settings: OpenAiRealtimeSettings, setup: RealtimeSetup, model: str) -> dict[str, Any]:
    """The message that makes a session what `setup` wants."""
    narrow = setup.sample_rate == PCMU.sample_rate
    format_: dict[str, Any] = {"type": "audio/pcmu"} if narrow else {"type": "audio/pcm", "rate": WIDE_HZ}
    transcription = {"model": settings.transcription_model}
    if setup.language != "auto":
        transcription["language"] = setup.language.split("-")[0].lower()
    detection: dict[str, Any] = {
        "type": settings.turn_detection,
        "create_response": True,
        "interrupt_response": setup.interrupts,
    }
    if settings.turn_detection == "server_vad":
        detection["threshold"] = settings.vad_threshold
        detection["prefix_padding_ms"] = settings.prefix_padding_ms
        detection["silence_duration_ms"] = settings.silence_ms
    else:
        detection["eagerness"] = settings.eagerness
    audio_in: dict[str, Any] = {"format": format_, "transcription": transcription, "turn_detection": detection}
    if settings.noise_reduction:
        audio_in["noise_reduction"] = {"type": settings.noise_reduction}
    session: dict[str, Any] = {
        "type": "realtime",
        "model": model,
        "instructions": setup.instructions,
        "output_modalities": ["audio"],
        "audio": {
            "input": audio_in,
            "output": {"format": format_, "voice": setup.voice or settings.voice, "speed": settings.speed},
        },
        "tools": [{"type": "function", **function(tool)} for tool in setup.tools],
        "tool_choice": "auto",
    }
    if settings.reasoning_effort:
        session["reasoning"] = {"effort": settings.reasoning_effort}
    return {"type": "session.update", "event_id": SETUP_ID, "session": session}


def history_items(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """What was said before, as messages that add it to the conversation. A tool's call without its result is left
    out, and a result without its call."""
    answered = {message.tool_call_id for message in messages if message.role == "tool"}
    asked = {call.id for message in messages for call in message.tool_calls}
    items: list[dict[str, Any]] = []
    for message in messages:
        if message.role == "tool":
            if message.tool_call_id in asked:
                items.append(_result_item(message.tool_call_id, message.content))
            continue
        if message.content:
            kind = "input_text" if message.role == "user" else "output_text"
            text = f"{message.content} —" if message.interrupted else message.content
            items.append({"type": "message", "role": message.role, "content": [{"type": kind, "text": text}]})
        items += [
            {"type": "function_call", "call_id": c.id, "name": c.name, "arguments": json.dumps(c.arguments)}
            for c in message.tool_calls
            if c.id in answered
        ]
    return [{"type": "conversation.item.create", "item": item} for item in items]


def _result_item(call_id: str, content: str) -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": call_id, "output": content}


class Dialogue:
    """One session's state. `receive` raises KeyError, TypeError, ValueError or AttributeError for what is not in the
    protocol."""

    def __init__(
        self,
        name: str,
        sample_rate: int,
        *,
        emit: Callable[[RealtimeEvent], None],
        send: Send,
        secret: str,
        key_hint: str,
    ) -> None:
        """`key_hint` says where the key stands, for an operator whose key is refused."""
        self._name = name
        self._sample_rate = sample_rate
        self._emit = emit
        self._send = send
        self._secret = secret
        self._key_hint = key_hint
        narrow = sample_rate == PCMU.sample_rate
        self._pieces = Pieces()
        self._encode = PCMU.encoder()
        self._decode = PCMU.decoder()
        self._widen = None if narrow else FrameResampler(sample_rate, WIDE_HZ)
        self._narrow = None if narrow else Resampler(WIDE_HZ, sample_rate)
        self._items: dict[str, _Item] = {}
        self._active = ""
        """The response under way."""
        self._mark = ""
        """Of the response under way."""
        self._asked: dict[str, Any] | None = None
        """The `response.create` that was sent and has not been heeded yet."""
        self._creates: deque[dict[str, Any]] = deque()
        """Those that wait until the response under way is over: there is one at a time."""
        self._due: set[str] = set()
        """Calls whose results the model waits for."""
        self._go_on = False
        self._numbers = 0
        self._hearing = ""
        """The caller's turn that its ear is in."""

    # -- what we tell it --------------------------------------------------------------------------------------

    def audio(self, pcm: bytes) -> str | None:
        """One 20 ms frame of the caller; returns the message that is due, made by hand as there are so many."""
        payload = self._pieces.add(self._encode(pcm) if self._widen is None else self._widen.convert(pcm))
        if payload is None:
            return None
        return f'{{"type":"input_audio_buffer.append","audio":"{base64.b64encode(payload).decode()}"}}'

    def say(self, text: str, mark: str) -> None:
        response: dict[str, Any] = {"instructions": verbatim(text), "tool_choice": "none"}
        if mark:
            response["metadata"] = {"mark": mark}
        self._create(response)

    def respond(self) -> None:
        if self._hearing:
            self._send({"type": "input_audio_buffer.commit"})
            self._heard(self._hearing)
        self._create({})

    def tell(self, text: str) -> None:
        item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
        self._send({"type": "conversation.item.create", "item": item})
        self._create({"metadata": {"mark": ASKED}})

    def interrupt(self, item: str, heard_ms: float) -> None:
        known = self._items.get(item)
        if known is None:
            return
        known.cut = True
        if self._active and known.response == self._active:
            self._creates.clear()
            self._send({"type": "response.cancel", "response_id": self._active})
        if known.audio_ms:
            end_ms = int(max(0.0, min(heard_ms, known.audio_ms)))
            self._send(
                {"type": "conversation.item.truncate", "item_id": item, "content_index": 0, "audio_end_ms": end_ms}
            )

    def tool_result(self, call: ToolCall, content: str, go_on: bool) -> None:
        self._send({"type": "conversation.item.create", "item": _result_item(call.id, content)})
        self._due.discard(call.id)
        self._go_on = self._go_on or go_on
        if not self._due and self._go_on:
            self._go_on = False
            self._create({"metadata": {"mark": ASKED}})

    def _create(self, response: dict[str, Any]) -> None:
        if not response and {} in self._creates:
            return
        self._creates.append(response)
        self._next_create()

    def _next_create(self) -> None:
        if self._active or self._asked is not None or not self._creates:
            return
        self._asked = self._creates.popleft()
        self._numbers += 1
        message: dict[str, Any] = {"type": "response.create", "event_id": f"create-{self._numbers}"}
        if self._asked:
            message["response"] = self._asked
        self._send(message)

    # -- what it tells us -------------------------------------------------------------------------------------

    def receive(self, event: dict[str, Any]) -> None:
        """Take one server event."""
        match event["type"]:
            case "response.output_audio.delta":
                self._audio(event["item_id"], event["delta"])
            case "response.output_audio_transcript.delta":
                if not self._item(event["item_id"]).cut:
                    self._emit(AgentText(event["item_id"], event["delta"]))
            case "response.created":
                self._created(event["response"])
            case "response.output_item.added":
                if event["item"]["type"] == "message":
                    self._item(event["item"]["id"])
            case "response.output_item.done":
                if event["item"]["type"] == "message" and event["item"].get("status") != "incomplete":
                    self._ended(event["item"]["id"], True, "")
            case "response.done":
                self._done(event["response"])
            case "input_audio_buffer.speech_started":
                self._hearing = event["item_id"]
                self._emit(CallerSpeaks(item=event["item_id"]))
            case "input_audio_buffer.speech_stopped":
                self._heard(event["item_id"])
            case "conversation.item.input_audio_transcription.completed":
                self._emit(CallerSaid(event["transcript"].strip(), event["item_id"]))
            case "conversation.item.input_audio_transcription.failed":
                self._emit(CallerSaid("", event["item_id"]))
            case "error":
                self._error(event["error"])

    def _item(self, item_id: str) -> _Item:
        item = self._items.get(item_id)
        if item is None:
            item = self._items[item_id] = _Item(self._active)
            self._emit(ReplyStarted(item_id, self._mark))
        return item

    def _audio(self, item_id: str, delta: str) -> None:
        item = self._item(item_id)
        try:
            payload = base64.b64decode(delta, validate=True)
        except binascii.Error as error:
            raise ValueError(f"audio that is not base64: {error}") from error
        pcm = self._decode(payload) if self._narrow is None else self._narrow.process(payload)
        self._add(item_id, item, pcm)

    def _add(self, item_id: str, item: _Item, pcm: bytes) -> None:
        item.audio_ms += duration_ms(len(pcm), self._sample_rate)
        if pcm and not item.cut:
            self._emit(AgentAudio(item_id, pcm))

    def _created(self, response: dict[str, Any]) -> None:
        self._active = response["id"]
        mark = (response.get("metadata") or {}).get("mark", "")
        self._mark = mark
        # The server's own ear may have asked for this one, and ours is refused then (`_error`).
        if self._asked is not None and (self._asked.get("metadata") or {}).get("mark", "") == mark:
            self._asked = None

    def _ended(self, item_id: str, completed: bool, error: str) -> None:
        item = self._item(item_id)
        if item.ended:
            return
        item.ended = True
        if self._narrow is not None:
            self._add(item_id, item, self._narrow.flush())
        if not item.cut:
            self._emit(ReplyEnded(item_id, completed, error))

    def _done(self, response: dict[str, Any]) -> None:
        status, details = response["status"], response.get("status_details") or {}
        self._active = ""
        why = ""
        if status == "failed":
            why = self._said(details.get("error") or {})
        elif status == "incomplete":
            why = str(details.get("reason") or "incomplete")
        elif status == "cancelled" and details.get("reason") not in ("turn_detected", "client_cancelled"):
            why = "the model cancelled it"
        open_items = [id_ for id_, item in self._items.items() if item.response == response["id"] and not item.ended]
        for item_id in open_items:
            self._ended(item_id, status == "completed", why)
        if status == "failed":
            error = details.get("error") or {}
            self._emit(RealtimeFailed(self._failure(error), fatal=True))
            return
        if status == "completed":
            self._call_tools(response.get("output") or [])
        if status != "cancelled" and not response.get("output"):
            self._emit(ReplyEnded("", status == "completed", why))
        self._next_create()

    def _call_tools(self, output: list[dict[str, Any]]) -> None:
        calls = [item for item in output if item["type"] == "function_call"]
        self._due |= {item["call_id"] for item in calls}
        for item in calls:
            call = ToolCall(item["call_id"], item["name"], {})
            try:
                arguments = json.loads(item["arguments"] or "{}")
            except ValueError:
                arguments = None
            if isinstance(arguments, dict):
                self._emit(ToolAsked(ToolCall(call.id, call.name, arguments)))
            else:
                wrong = {"ok": False, "error": "the arguments are not a JSON object"}
                self.tool_result(call, json.dumps(wrong), True)

    def _heard(self, item_id: str) -> None:
        """The caller's turn is over."""
        self._hearing = ""
        self._emit(CallerSpeaks(ended=True, item=item_id))

    def _error(self, error: dict[str, Any]) -> None:
        code = error.get("code") or ""
        ours = str(error.get("event_id") or "").startswith("create-")
        if code == "conversation_already_has_active_response":
            # The server's ear was faster: ours comes after, unless it was a bare "go on".
            asked, self._asked = self._asked, None
            if asked:
                self._creates.appendleft(asked)
            return
        if ours:
            self._asked = None
        if code not in _HARMLESS:
            fatal = ours or code in _ENDS
            self._emit(RealtimeFailed(self._failure(error), fatal=fatal))

    def _failure(self, error: dict[str, Any]) -> ProviderError:
        return failure(self._name, error, self._secret, self._key_hint)

    def _said(self, error: dict[str, Any]) -> str:
        return scrubbed(error.get("message") or error.get("code") or "failed", self._secret)


def failure(name: str, error: dict[str, Any], secret: str, key_hint: str) -> ProviderError:
    """The server's `error` object as ours, without the key."""
    code = error.get("code") or error.get("type") or ""
    said = scrubbed(f"{error.get('message') or 'failed'} ({code})" if code else error.get("message"), secret)
    if code in _BUSY:
        return ProviderBusyError(name, said)
    if code == "invalid_api_key":
        return ProviderUnavailableError(name, f"the key was refused: check {key_hint}. {said}")
    if code in _REFUSED:
        return ProviderUnavailableError(name, said)
    return ProviderError(name, said)
