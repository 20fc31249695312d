"""A stand-in for OpenAI's transcription: realtime sessions (`/v1/realtime?intent=transcription`) and files
(`/v1/audio/transcriptions`), as in the SDK's types.

What is heard comes from a script: in a session the n-th stretch of speech has the n-th text, whether the client or
the server's own voice activity commits it; the n-th file has the n-th text.
"""

import base64
import io
import json
import wave
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import HTTP
from typing import Any

from standin import Exchange, Reply, Socket, Standin
from standin_ear import ScriptedEar

MODELS = ("gpt-live-transcribe", "gpt-realtime-whisper", "gpt-transcribe", "whisper-1", "whisper-large-v3-turbo")

STREAMING = ("gpt-live-transcribe", "gpt-realtime-whisper")
"""These give text before the buffer is committed."""

SHORTEST_MS = 100

ENCODINGS = {"audio/pcmu": ("mulaw", 8000, 1), "audio/pcma": ("alaw", 8000, 1), "audio/pcm": ("linear16", 24000, 2)}


@dataclass(frozen=True)
class Upload:
    """One file that came."""

    fields: dict[str, list[str]]
    rate: int
    channels: int
    pcm: bytes
    authorization: str


@dataclass(eq=False)
class Session:
    """One socket's transcription session."""

    socket: Socket
    exchange: Exchange
    ear: ScriptedEar | None = None
    config: dict[str, Any] = field(default_factory=dict)
    format: tuple[str, int] = ("", 0)
    """Encoding and rate; empty: not set up."""
    bytes_per_ms: int = 8
    buffered_ms: float = 0.0
    said: list[str] = field(default_factory=list)
    """Texts of utterances that ended in the present buffer."""
    given: str = ""
    """Of the present item's text, what went out as deltas."""
    item: int = 0
    events: int = 0
    held: list[dict[str, Any]] = field(default_factory=list)

    @property
    def item_id(self) -> str:
        return f"item_{self.item}"

    async def say(self, kind: str, **fields: Any) -> None:
        self.events += 1
        await self.socket.json({"type": kind, "event_id": f"event_{self.events}", **fields})


class TranscriptionServer(Standin):
    """`key`: the only one it takes; empty: any."""

    def __init__(self, script: list[str] | None = None, *, key: str = "") -> None:
        super().__init__()
        self.script = script if script is not None else []
        self.key = key
        self.uploads: list[Upload] = []
        self.sessions: list[Session] = []
        self.holding = False
        """Completed transcriptions wait for `release`."""
        self.fail_next = 0
        """Transcriptions of so many items fail."""
        self.language = ""
        """Told with each transcription, where given."""
        self.route("POST", "/v1/audio/transcriptions", self._file)
        self.route("GET", "/v1/models/{model}", self._model)
        self.socket("/v1/realtime", self._session)

    @property
    def base_url(self) -> str:
        return f"{self.http_url}/v1"

    async def release(self) -> None:
        """Send what was held, and hold nothing more."""
        self.holding = False
        for session in self.sessions:
            held, session.held = session.held, []
            for fields in held:
                await session.say("conversation.item.input_audio_transcription.completed", **fields)

    async def _refused(self, exchange: Exchange, reply: Reply) -> bool:
        given = exchange.headers.get("authorization", "").removeprefix("Bearer ")
        if not self.key or given == self.key:
            return False
        await reply.json(
            {
                "error": {
                    "message": f"Incorrect API key provided: {given}.",
                    "type": "invalid_request_error",
                    "param": None,
                    "code": "invalid_api_key",
                }
            },
            401,
        )
        return True

    async def _model(self, exchange: Exchange, reply: Reply) -> None:
        if await self._refused(exchange, reply):
            return
        model = exchange.params["model"]
        if model not in MODELS:
            message = f"The model '{model}' does not exist"
            error = {"message": message, "type": "invalid_request_error", "param": "model", "code": "model_not_found"}
            await reply.json({"error": error}, 404)
            return
        await reply.json({"id": model, "object": "model", "created": 1, "owned_by": "openai"})

    # -- files ----------------------------------------------------------------------------------------------

    async def _file(self, exchange: Exchange, reply: Reply) -> None:
        if await self._refused(exchange, reply):
            return
        kind = exchange.headers["content-type"].encode()
        message = BytesParser(policy=HTTP).parsebytes(b"content-type: " + kind + b"\r\n\r\n" + exchange.body)
        fields: dict[str, list[str]] = {}
        audio = b""
        for part in message.iter_parts():
            assert isinstance(part, EmailMessage)
            name = str(part.get_param("name", header="content-disposition"))
            content = part.get_payload(decode=True)
            assert isinstance(content, bytes)
            if name == "file":
                audio = content
            else:
                fields.setdefault(name, []).append(content.decode())
        with wave.open(io.BytesIO(audio)) as sound:
            assert sound.getsampwidth() == 2
            upload = Upload(
                fields,
                sound.getframerate(),
                sound.getnchannels(),
                sound.readframes(sound.getnframes()),
                exchange.headers.get("authorization", ""),
            )
        number = len(self.uploads)
        self.uploads.append(upload)
        assert fields["model"][0] in MODELS
        text = self.script[number] if number < len(self.script) else ""
        await reply.json({"text": text, "usage": {"type": "duration", "seconds": len(upload.pcm) // 2 / upload.rate}})

    # -- sessions -------------------------------------------------------------------------------------------

    async def _session(self, exchange: Exchange, socket: Socket) -> None:
        assert exchange.asked("intent") == "transcription"
        session = Session(socket, exchange)
        self.sessions.append(session)
        given = exchange.headers.get("authorization", "").removeprefix("Bearer ")
        if self.key and given != self.key:
            # Sessions are refused after the upgrade.
            message = f"Incorrect API key provided: {given}."
            await session.say("error", error=_error("invalid_request_error", "invalid_api_key", message))
            await socket.close(3000, "invalid_request_error.invalid_api_key")
            return
        await session.say("session.created", session={"type": "transcription", "id": "sess_1"})
        async for message in socket:
            assert isinstance(message, str)
            await self._event(session, json.loads(message))

    async def _event(self, session: Session, event: dict[str, Any]) -> None:
        match event["type"]:
            case "session.update":
                await self._update(session, event)
            case "input_audio_buffer.append":
                await self._append(session, base64.b64decode(event["audio"], validate=True))
            case "input_audio_buffer.commit":
                await self._commit(session, event.get("event_id"))
            case "input_audio_buffer.clear":
                session.buffered_ms, session.given = 0.0, ""
                session.said.clear()
                if session.ear is not None:
                    session.ear.end()
                session.item += 1
                await session.say("input_audio_buffer.cleared")
            case other:
                raise AssertionError(f"{other!r} is no event of a transcription session")

    async def _update(self, session: Session, event: dict[str, Any]) -> None:
        config = event["session"]
        assert config["type"] == "transcription"
        sound = config["audio"]["input"]
        encoding, rate, width = ENCODINGS[sound["format"]["type"]]
        assert sound["format"].get("rate", rate) == rate
        assert set(sound) <= {"format", "transcription", "turn_detection", "noise_reduction"}
        model = sound["transcription"]["model"]
        if model not in MODELS:
            error = _error("invalid_request_error", "model_not_found", f"The model '{model}' does not exist")
            await session.say("error", error=error | {"event_id": event.get("event_id")})
            return
        session.config = sound
        session.bytes_per_ms = rate * width // 1000
        session.format = (encoding, rate)
        await session.say("session.updated", session=config)

    async def _append(self, session: Session, audio: bytes) -> None:
        encoding, rate = session.format
        assert encoding, "audio before the session was set up"
        ear = session.ear = session.ear or ScriptedEar(self.script, encoding=encoding, sample_rate=rate)
        session.buffered_ms += len(audio) / session.bytes_per_ms
        detects = session.config.get("turn_detection") is not None
        for heard in ear.feed(audio):
            if heard.what == "began" and detects:
                await session.say(
                    "input_audio_buffer.speech_started", audio_start_ms=heard.began_ms, item_id=session.item_id
                )
            if heard.what == "ended":
                session.said.append(heard.text)
                if detects:
                    await session.say(
                        "input_audio_buffer.speech_stopped", audio_end_ms=heard.at_ms, item_id=session.item_id
                    )
                    await self._transcribe(session)
            elif session.config["transcription"]["model"] in STREAMING:
                await self._delta(session, " ".join([*session.said, heard.text]))

    async def _delta(self, session: Session, text: str) -> None:
        fresh = text[len(session.given) :]
        if fresh:
            session.given = text
            await session.say(
                "conversation.item.input_audio_transcription.delta",
                item_id=session.item_id,
                content_index=0,
                delta=fresh,
            )

    async def _commit(self, session: Session, event_id: str | None) -> None:
        if session.buffered_ms < SHORTEST_MS:
            message = (
                "Error committing input audio buffer: buffer too small. Expected at least 100ms of audio, "
                f"but buffer only has {session.buffered_ms:.2f}ms of audio."
            )
            error = _error("invalid_request_error", "input_audio_buffer_commit_empty", message)
            await session.say("error", error=error | {"event_id": event_id})
            return
        assert session.ear is not None
        session.said += [heard.text for heard in session.ear.end()]
        await self._transcribe(session)

    async def _transcribe(self, session: Session) -> None:
        """The buffer becomes an item, and that is transcribed."""
        item_id = session.item_id
        previous = f"item_{session.item - 1}" if session.item else None
        text = " ".join(session.said)
        session.said.clear()
        session.buffered_ms = 0.0
        await session.say("input_audio_buffer.committed", item_id=item_id, previous_item_id=previous)
        item = {"id": item_id, "type": "message", "role": "user", "content": [{"type": "input_audio"}]}
        await session.say("conversation.item.added", item=item, previous_item_id=previous)
        await session.say("conversation.item.done", item=item, previous_item_id=previous)
        if self.fail_next:
            self.fail_next -= 1
            error = {
                "type": "server_error",
                "code": "audio_unintelligible",
                "message": "The audio could not be read.",
            }
            session.item, session.given = session.item + 1, ""
            await session.say(
                "conversation.item.input_audio_transcription.failed", item_id=item_id, content_index=0, error=error
            )
            return
        await self._delta(session, text)
        session.item, session.given = session.item + 1, ""
        fields: dict[str, Any] = {
            "item_id": item_id,
            "content_index": 0,
            "transcript": text,
            "usage": {"type": "duration", "seconds": 1.0},
        }
        if self.language:
            fields["languages"] = [{"code": self.language}]
        if self.holding:
            session.held.append(fields)
        else:
            await session.say("conversation.item.input_audio_transcription.completed", **fields)


def _error(kind: str, code: str, message: str) -> dict[str, Any]:
    return {"type": kind, "code": code, "message": message, "param": None, "event_id": None}
