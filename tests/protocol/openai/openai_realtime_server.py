"""A stand-in for OpenAI's Realtime interface: a model that hears by energy and speaks in tones, on one socket a call.

Everything it sends and receives is checked against the installed SDK's own types (`protocols/llm.md` 4).
"""

import asyncio
import audioop
import base64
import itertools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from openai.types.realtime import RealtimeClientEvent, RealtimeServerEvent
from pydantic import TypeAdapter
from realtime_standin import LoudEar, Turn, spoken
from standin import Exchange, Gone, Socket, Standin

KEY = "sk-realtime-0123456789abcdef"
DELTA_MS = 200

_SERVER_EVENT: TypeAdapter[Any] = TypeAdapter(RealtimeServerEvent)
_CLIENT_EVENT: TypeAdapter[Any] = TypeAdapter(RealtimeClientEvent)
_VERBATIM = re.compile(r'"(.*)"\Z', re.DOTALL)


@dataclass(eq=False)
class Talk:
    """One session, as the server sees it."""

    session: dict[str, Any] = field(default_factory=dict)
    items: list[dict[str, Any]] = field(default_factory=list)
    """Items the client created."""
    sent_ms: dict[str, float] = field(default_factory=dict)
    """Audio of each reply that went out."""
    truncated: dict[str, int] = field(default_factory=dict)
    cancelled: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    results: dict[str, str] = field(default_factory=dict)
    """What tools came to, by call."""
    creates: list[dict[str, Any]] = field(default_factory=list)
    heard_frames: int = 0
    loud_frames: int = 0


class RealtimeServer(Standin):
    """`script` is gone through turn by turn, over all sessions."""

    def __init__(self, script: Sequence[Turn] = ()) -> None:
        super().__init__()
        self.script = list(script)
        self.talks: list[Talk] = []
        self.delta_s = 0.0
        """Between two pieces of a reply's audio: 0 sends a reply as fast as the socket takes it."""
        self.session_error: dict[str, Any] | None = None
        """In place of `session.updated`."""
        self.transcript_s = 0.0
        """How much later than the answer's start the transcript of the caller comes."""
        self.numbers = itertools.count(1)
        self.socket("/v1/realtime", self._converse)

    @property
    def url(self) -> str:
        return f"{self.ws_url}/v1"

    @property
    def talk(self) -> Talk:
        """The newest session."""
        return self.talks[-1]

    def next_turn(self) -> Turn:
        return self.script.pop(0) if self.script else Turn("something", "You said something.")

    async def _converse(self, exchange: Exchange, socket: Socket) -> None:
        assert exchange.headers["authorization"] == f"Bearer {KEY}", "the key, and nothing else"
        assert exchange.asked("model").startswith("gpt-realtime")
        assert "openai-beta" not in exchange.headers
        talk = Talk()
        self.talks.append(talk)
        conversation = _Conversation(self, talk, socket)
        try:
            await conversation.run()
        finally:
            await conversation.close()


class _Conversation:
    def __init__(self, server: RealtimeServer, talk: Talk, socket: Socket) -> None:
        self._server = server
        self._talk = talk
        self._socket = socket
        self._response: asyncio.Task[None] | None = None
        self._response_id = ""
        self._cancel_reason = ""
        self._others: set[asyncio.Task[None]] = set()
        self._ear = LoudEar(0)
        self._speaking = ""
        """The item of the caller's turn under way."""
        self._waiting: list[Turn] = []

    async def run(self) -> None:
        self._talk.session = {"type": "realtime", "model": "gpt-realtime-2.1"}
        await self._tell("session.created", session=self._talk.session)
        async for message in self._socket:
            event = json.loads(message)
            if event["type"] != "input_audio_buffer.append":
                _CLIENT_EVENT.validate_python(event)
            await self._take(event)

    async def close(self) -> None:
        tasks = [task for task in (self._response, *self._others) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _tell(self, kind: str, **fields: Any) -> None:
        event = {"type": kind, "event_id": f"event_{next(self._server.numbers)}", **fields}
        if kind != "response.output_audio.delta":
            _SERVER_EVENT.validate_python(event)
        await self._socket.json(event)

    async def _error(self, code: str, message: str, event_id: str | None) -> None:
        self._talk.errors.append(code)
        await self._tell(
            "error", error={"type": "invalid_request_error", "code": code, "message": message, "event_id": event_id}
        )

    async def _take(self, event: dict[str, Any]) -> None:
        talk, event_id = self._talk, event.get("event_id")
        match event["type"]:
            case "input_audio_buffer.append":
                await self._hear(base64.b64decode(event["audio"], validate=True))
            case "session.update":
                if self._server.session_error is not None:
                    await self._tell("error", error={**self._server.session_error, "event_id": event_id})
                    return
                talk.session = event["session"]
                await self._tell("session.updated", session=talk.session)
            case "input_audio_buffer.commit":
                assert self._speaking, "its ear was in a turn"
                item, self._speaking = self._speaking, ""
                await self._tell("input_audio_buffer.committed", item_id=item, previous_item_id=None)
                task = asyncio.create_task(self._transcribe(item, Turn(self._server.script[0].heard)))
                self._others.add(task)
            case "conversation.item.create":
                item = {"id": f"item_{next(self._server.numbers)}", **event["item"]}
                talk.items.append(item)
                if item["type"] == "function_call_output":
                    talk.results[item["call_id"]] = item["output"]
                await self._tell("conversation.item.added", item=item, previous_item_id=None)
                await self._tell("conversation.item.done", item=item, previous_item_id=None)
            case "conversation.item.truncate":
                await self._truncate(event)
            case "response.create":
                talk.creates.append(event.get("response", {}))
                if self._busy:
                    await self._error(
                        "conversation_already_has_active_response",
                        "Conversation already has an active response",
                        event_id,
                    )
                else:
                    self._create(event.get("response", {}))
            case "response.cancel":
                if self._busy:
                    self._cancel("client_cancelled")
                else:
                    await self._error(
                        "response_cancel_not_active", "Cancellation failed: no active response", event_id
                    )

    async def _truncate(self, event: dict[str, Any]) -> None:
        item, end_ms = event["item_id"], event["audio_end_ms"]
        if item not in self._talk.sent_ms:
            await self._error("item_truncate_invalid_item_id", f"Item {item} not found", event.get("event_id"))
        elif end_ms > self._talk.sent_ms[item]:
            await self._error(
                "invalid_value", f"Audio content of {self._talk.sent_ms[item]}ms is shorter than {end_ms}ms", None
            )
        else:
            self._talk.truncated[item] = end_ms
            await self._tell("conversation.item.truncated", item_id=item, content_index=0, audio_end_ms=end_ms)

    # -- hearing ----------------------------------------------------------------------------------------------

    async def _hear(self, payload: bytes) -> None:
        audio = self._talk.session["audio"]["input"]
        narrow = audio["format"]["type"] == "audio/pcmu"
        pcm, size = (audioop.ulaw2lin(payload, 2), 320) if narrow else (payload, 960)
        assert pcm and not len(pcm) % size, "whole frames of 20 ms"
        for at in range(0, len(pcm), size):
            await self._hear_frame(audio, pcm[at : at + size])

    async def _hear_frame(self, audio: dict[str, Any], pcm: bytes) -> None:
        detection = audio["turn_detection"]
        self._ear.silence_ms = detection.get("silence_duration_ms", 500)
        sign = self._ear.hear(pcm)
        self._talk.heard_frames, self._talk.loud_frames = self._ear.frames, self._ear.loud_frames
        if sign == "started":
            self._speaking = f"item_{next(self._server.numbers)}"
            await self._tell(
                "input_audio_buffer.speech_started", audio_start_ms=self._ear.onset_ms, item_id=self._speaking
            )
            if detection["interrupt_response"] and self._busy:
                self._cancel("turn_detected")
        elif sign == "stopped" and self._speaking:
            item, self._speaking = self._speaking, ""
            await self._turn_over(item)

    async def _turn_over(self, item: str) -> None:
        turn = self._server.next_turn()
        await self._tell("input_audio_buffer.speech_stopped", audio_end_ms=self._ear.frames * 20, item_id=item)
        await self._tell("input_audio_buffer.committed", item_id=item, previous_item_id=None)
        content = [{"type": "input_audio", "transcript": None}]
        added = {"id": item, "type": "message", "role": "user", "status": "completed", "content": content}
        await self._tell("conversation.item.added", item=added, previous_item_id=None)
        await self._tell("conversation.item.done", item=added, previous_item_id=None)
        task = asyncio.create_task(self._transcribe(item, turn))
        self._others.add(task)
        task.add_done_callback(self._others.discard)
        if self._response is not None and self._cancel_reason:
            await asyncio.gather(self._response, return_exceptions=True)
        if not turn.silent and self._talk.session["audio"]["input"]["turn_detection"]["create_response"]:
            if not self._busy:
                self._begin(turn, {})
        else:
            self._waiting.append(turn)

    async def _transcribe(self, item: str, turn: Turn) -> None:
        await asyncio.sleep(self._server.transcript_s)
        base = {"item_id": item, "content_index": 0}
        try:
            if turn.heard:
                await self._tell("conversation.item.input_audio_transcription.delta", **base, delta=turn.heard)
                await self._tell(
                    "conversation.item.input_audio_transcription.completed",
                    **base,
                    transcript=f"{turn.heard}\n",
                    usage={"type": "duration", "seconds": 1.0},
                )
            else:
                await self._tell(
                    "conversation.item.input_audio_transcription.failed",
                    **base,
                    error={"code": "audio_unintelligible", "message": "no words", "type": "transcription_error"},
                )
        except Gone:
            pass

    # -- speaking ---------------------------------------------------------------------------------------------

    @property
    def _busy(self) -> bool:
        return self._response is not None and not self._response.done() and not self._cancel_reason

    def _cancel(self, reason: str) -> None:
        assert self._response is not None
        self._cancel_reason = reason
        self._talk.cancelled.append(self._response_id)
        self._response.cancel()

    def _create(self, response: dict[str, Any]) -> None:
        quoted = _VERBATIM.search(response.get("instructions", ""))
        if quoted:
            self._begin(Turn(says=quoted[1]), response)
        elif self._waiting:
            self._begin(self._waiting.pop(0), response)
        else:
            self._begin(self._server.next_turn(), response)

    def _begin(self, turn: Turn, asked: dict[str, Any]) -> None:
        self._cancel_reason = ""
        self._response_id = f"resp_{next(self._server.numbers)}"
        before, self._response = self._response, asyncio.create_task(self._respond(turn, asked, self._response))
        del before

    async def _respond(self, turn: Turn, asked: dict[str, Any], before: "asyncio.Task[None] | None") -> None:
        if before is not None:
            await asyncio.gather(before, return_exceptions=True)
        response: dict[str, Any] = {"id": self._response_id, "object": "realtime.response", "status": "in_progress"}
        response |= {"output": [], "metadata": asked.get("metadata"), "status_details": None}
        state: dict[str, Any] = {}
        try:
            await self._tell("response.created", response=response)
            await asyncio.sleep(turn.think_s)
            if turn.fails is None:
                await self._output(turn, response, state)
            details = None if turn.fails is None else {"type": "failed", "error": turn.fails}
            status = "completed" if turn.fails is None else "failed"
            if turn.incomplete:
                status, details = "incomplete", {"type": "incomplete", "reason": turn.incomplete}
            await self._done(response, status, details)
        except asyncio.CancelledError:
            if not self._cancel_reason:
                raise
            await self._cut_off(response, state)
        except Gone:
            pass

    async def _cut_off(self, response: dict[str, Any], state: dict[str, Any]) -> None:
        try:
            if item := state.get("item"):
                cut = {**item, "status": "incomplete", "content": [{"type": "output_audio", "transcript": ""}]}
                await self._tell("response.output_item.done", response_id=response["id"], output_index=0, item=cut)
                response["output"].append(cut)
            await self._done(response, "cancelled", {"type": "cancelled", "reason": self._cancel_reason})
        except Gone:
            pass

    async def _done(self, response: dict[str, Any], status: str, details: dict[str, Any] | None) -> None:
        response |= {"status": status, "status_details": details, "usage": {"total_tokens": 7}}
        await self._tell("response.done", response=response)
        limits = [{"name": "requests", "limit": 100, "remaining": 99, "reset_seconds": 1.0}]
        await self._tell("rate_limits.updated", rate_limits=limits)

    async def _output(self, turn: Turn, response: dict[str, Any], state: dict[str, Any]) -> None:
        id_ = response["id"]
        if turn.says:
            await self._speak(turn.says, response, state)
            if turn.incomplete:
                return
        for name, arguments in turn.tools:
            index = len(response["output"])
            text = arguments if isinstance(arguments, str) else json.dumps(arguments)
            item = {"id": f"item_{next(self._server.numbers)}", "type": "function_call", "name": name}
            item |= {"call_id": f"call_{next(self._server.numbers)}", "arguments": "", "status": "in_progress"}
            await self._tell("response.output_item.added", response_id=id_, output_index=index, item=item)
            base = {"response_id": id_, "item_id": item["id"], "output_index": index, "call_id": item["call_id"]}
            for piece in (text[:5], text[5:]):
                await self._tell("response.function_call_arguments.delta", **base, delta=piece)
            await self._tell("response.function_call_arguments.done", **base, name=name, arguments=text)
            item = {**item, "arguments": text, "status": "completed"}
            await self._tell("response.output_item.done", response_id=id_, output_index=index, item=item)
            response["output"].append(item)

    async def _speak(self, text: str, response: dict[str, Any], state: dict[str, Any]) -> None:
        format_ = self._talk.session["audio"]["output"]["format"]
        narrow = format_["type"] == "audio/pcmu"
        rate = 8000 if narrow else format_["rate"]
        item = {"id": f"item_{next(self._server.numbers)}", "type": "message", "role": "assistant"}
        item |= {"status": "in_progress", "content": []}
        index, id_ = len(response["output"]), response["id"]
        state["item"] = item
        base = {"response_id": id_, "item_id": item["id"], "output_index": index, "content_index": 0}
        await self._tell("response.output_item.added", response_id=id_, output_index=index, item=item)
        await self._tell("conversation.item.added", item=item, previous_item_id=None)
        await self._tell("response.content_part.added", **base, part={"type": "audio", "transcript": ""})
        pcm, size = spoken(text, rate), rate * DELTA_MS // 1000 * 2
        words = iter(re.findall(r"\S+\s*", text))
        self._talk.sent_ms[item["id"]] = 0.0
        for at in range(0, len(pcm), size):
            # The transcript runs ahead of the audio.
            for word in itertools.islice(words, 2):
                await self._tell("response.output_audio_transcript.delta", **base, delta=word)
            piece = pcm[at : at + size]
            payload = audioop.lin2ulaw(piece, 2) if narrow else piece
            await self._tell("response.output_audio.delta", **base, delta=base64.b64encode(payload).decode())
            self._talk.sent_ms[item["id"]] += len(piece) * 1000 / (2 * rate)
            await asyncio.sleep(self._server.delta_s)
        await self._tell("response.output_audio.done", **base)
        await self._tell("response.output_audio_transcript.done", **base, transcript=text)
        await self._tell("response.content_part.done", **base, part={"type": "audio", "transcript": text})
        done = {**item, "status": "completed", "content": [{"type": "output_audio", "transcript": text}]}
        await self._tell("response.output_item.done", response_id=id_, output_index=index, item=done)
        await self._tell("conversation.item.done", item=done, previous_item_id=None)
        state.pop("item")
        response["output"].append(done)
