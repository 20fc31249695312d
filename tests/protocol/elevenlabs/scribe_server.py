"""A stand-in for ElevenLabs' Scribe: `/v1/speech-to-text/realtime`, as `protocols/stt.md` 6 and the SDK's types say.

It hears by a script: the n-th stretch of speech that is committed has the n-th text.
"""

import base64
import json
from dataclasses import dataclass, field
from typing import Any

from elevenlabs.types import InputAudioChunkPayload
from standin import Exchange, Socket, Standin
from standin_ear import ScriptedEar

KEY = "sk_scribe0123456789abcdef"

MODELS = ("scribe_v2_realtime", "scribe_v3_live")
FORMATS = {"ulaw_8000": ("mulaw", 8000), **{f"pcm_{rate}": ("linear16", rate) for rate in (8000, 16000, 24000)}}
LEAST_MS = 300


@dataclass(eq=False)
class Session:
    """One socket."""

    socket: Socket
    exchange: Exchange
    encoding: str
    rate: int
    ear: ScriptedEar | None = None
    uncommitted_ms: float = 0.0
    said: list[str] = field(default_factory=list)
    """Texts of utterances that ended in the present segment."""
    held: list[list[dict[str, Any]]] = field(default_factory=list)


class Scribe(Standin):
    """`key` is the one that it takes."""

    def __init__(self, script: list[str] | None = None, *, key: str = KEY) -> None:
        super().__init__()
        self.script = script if script is not None else []
        self.key = key
        self.sessions: list[Session] = []
        self.holding = False
        """Committed texts wait for `release`."""
        self.refuses: tuple[str, str] | None = None
        """`message_type` and text of the error that sessions begin, and end, with."""
        self.language = "en"
        self.always_detailed = False
        """Committed texts come a second time though nobody asked, as they have been seen to."""
        self.socket("/v1/speech-to-text/realtime", self._session)

    async def release(self) -> None:
        """Send what was held, and hold nothing more."""
        self.holding = False
        for session in self.sessions:
            held, session.held = session.held, []
            for messages in held:
                for message in messages:
                    await session.socket.json(message)

    async def _session(self, exchange: Exchange, socket: Socket) -> None:
        encoding, rate = FORMATS[exchange.asked("audio_format")]
        session = Session(socket, exchange, encoding, rate)
        wrong = self.refuses
        if exchange.headers.get("xi-api-key") != self.key:
            wrong = ("auth_error", f"Invalid API key {exchange.headers.get('xi-api-key')}")
        elif exchange.asked("model_id") not in MODELS:
            wrong = ("invalid_request", f"Invalid model_id {exchange.asked('model_id')}")
        if wrong is not None:
            await socket.json({"message_type": wrong[0], "error": wrong[1]})
            await socket.close(1008, wrong[1])
            return
        self.sessions.append(session)
        await socket.json(
            {
                "message_type": "session_started",
                "session_id": "s1",
                "config": {"sample_rate": rate, "audio_format": exchange.asked("audio_format")},
            }
        )
        async for message in socket:
            assert isinstance(message, str)
            chunk = InputAudioChunkPayload.model_validate(json.loads(message))
            assert (chunk.message_type, chunk.sample_rate) == ("input_audio_chunk", rate)
            await self._audio(session, base64.b64decode(chunk.audio_base_64, validate=True))
            if chunk.commit:
                await self._commit(session)

    async def _audio(self, session: Session, audio: bytes) -> None:
        ear = session.ear = session.ear or ScriptedEar(
            self.script, encoding=session.encoding, sample_rate=session.rate
        )
        session.uncommitted_ms += len(audio) * 1000 / session.rate / (2 if session.encoding == "linear16" else 1)
        for heard in ear.feed(audio):
            if heard.what == "words":
                text = " ".join([*session.said, heard.text])
                await session.socket.json({"message_type": "partial_transcript", "text": text})
            elif heard.what == "ended":
                session.said.append(heard.text)
                if session.exchange.asked("commit_strategy") == "vad":
                    await self._committed(session)

    async def _commit(self, session: Session) -> None:
        if session.uncommitted_ms < LEAST_MS:
            error = (
                f"Commit request ignored: only {session.uncommitted_ms / 1000:.2f}s of uncommitted audio. "
                "You need at least 0.3s of uncommitted audio before committing."
            )
            await session.socket.json({"message_type": "commit_throttled", "error": error})
            return
        if session.ear is not None:
            session.said += [heard.text for heard in session.ear.end()]
        await self._committed(session)

    async def _committed(self, session: Session) -> None:
        text = " ".join(session.said)
        session.said.clear()
        session.uncommitted_ms = 0.0
        messages: list[dict[str, Any]] = [{"message_type": "committed_transcript", "text": text}]
        if self.always_detailed or session.exchange.asked("include_language_detection") == "true":
            messages.append(
                {
                    "message_type": "committed_transcript_with_timestamps",
                    "text": text,
                    "language_code": self.language,
                    "words": None,
                }
            )
        if self.holding:
            session.held.append(messages)
            return
        for message in messages:
            await session.socket.json(message)
