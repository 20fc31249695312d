"""A stand-in for Gemini Live: a model that hears by loudness and speaks in tones, on one socket a call.

What it sends and receives is checked against the installed SDK's own types (google-genai, `types.Live*`).
"""

import asyncio
import base64
import itertools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from google.genai import types
from realtime_standin import LoudEar, Turn, spoken
from standin import Exchange, Gone, Socket, Standin

KEY = "AIzaSyTest0123456789abcdefghijklmnop"
PATH = "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent"
CHUNK_MS = 200
OUT_HZ = 24_000

_VERBATIM = re.compile(r'"(.*)"\Z', re.DOTALL)


@dataclass(eq=False)
class Talk:
    """One session, as the server sees it."""

    setup: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    results: dict[str, Any] = field(default_factory=dict)
    loud_frames: int = 0
    socket: Socket | None = None


class LiveServer(Standin):
    """`script` is gone through turn by turn, over all sessions."""

    def __init__(self, script: Sequence[Turn] = ()) -> None:
        super().__init__()
        self.script = list(script)
        self.talks: list[Talk] = []
        self.chunk_s = 0.0
        """Between two pieces of a reply's audio."""
        self.late_transcripts = False
        """The caller's text comes after the answer."""
        self.refuse_setup: tuple[int, str] | None = None
        """Code and reason of a close in place of `setupComplete`."""
        self.numbers = itertools.count(1)
        self.socket(PATH, self._converse)

    @property
    def talk(self) -> Talk:
        """The newest session."""
        return self.talks[-1]

    def next_turn(self) -> Turn:
        return self.script.pop(0) if self.script else Turn("something", "You said something.")

    async def leave(self, left_s: float) -> None:
        """Announce the end of the newest session, which can be resumed."""
        assert self.talk.socket is not None
        update = {"sessionResumptionUpdate": {"newHandle": f"handle-{next(self.numbers)}", "resumable": True}}
        await send(self.talk.socket, update)
        await send(self.talk.socket, {"goAway": {"timeLeft": f"{left_s:g}s"}})

    async def _converse(self, exchange: Exchange, socket: Socket) -> None:
        assert exchange.headers["x-goog-api-key"] == KEY
        talk = Talk(socket=socket)
        self.talks.append(talk)
        conversation = _Conversation(self, talk, socket)
        try:
            await conversation.run()
        finally:
            await conversation.stop()


async def send(socket: Socket, message: dict[str, Any]) -> None:
    """JSON in a binary message, as Google sends it."""
    types.LiveServerMessage.model_validate(message)
    await socket.send(json.dumps(message).encode())


class _Conversation:
    def __init__(self, server: LiveServer, talk: Talk, socket: Socket) -> None:
        self._server = server
        self._talk = talk
        self._socket = socket
        self._ear = LoudEar(500)
        self._reply: asyncio.Task[None] | None = None
        self._tools: dict[str, str] = {}

    async def run(self) -> None:
        async for message in self._socket:
            event = json.loads(message)
            if not self._talk.setup:
                await self._set_up(event["setup"])
                continue
            if "audio" not in event.get("realtimeInput", {}):
                types.LiveClientMessage.model_validate(event)
            await self._take(event)

    async def stop(self) -> None:
        reply, self._reply = self._reply, None
        if reply is not None:
            reply.cancel()
            await asyncio.gather(reply, return_exceptions=True)

    async def _set_up(self, setup: dict[str, Any]) -> None:
        if self._server.refuse_setup is not None:
            await self._socket.close(*self._server.refuse_setup)
            raise Gone
        self._talk.setup = setup
        self._ear.silence_ms = setup["realtimeInputConfig"]["automaticActivityDetection"]["silenceDurationMs"]
        await send(self._socket, {"setupComplete": {"sessionId": "session-1"}})

    async def _take(self, event: dict[str, Any]) -> None:
        if content := event.get("clientContent"):
            assert self._talk.setup["historyConfig"]["initialHistoryInClientContent"]
            assert content["turnComplete"] and not self._talk.history
            self._talk.history = content["turns"]
        elif response := event.get("toolResponse"):
            for one in response["functionResponses"]:
                assert self._tools.pop(one["id"]) == one["name"]
                self._talk.results[one["id"]] = one["response"]
            if not self._tools:
                await self._begin(self._server.next_turn())
        elif (text := event["realtimeInput"].get("text")) is not None:
            self._talk.texts.append(text)
            quoted = _VERBATIM.search(text)
            await self._begin(Turn(says=quoted[1]) if quoted else self._server.next_turn())
        elif event["realtimeInput"].get("audioStreamEnd"):
            if self._ear.speaking:
                self._ear.speaking = False
                await self._turn_over()
        else:
            audio = event["realtimeInput"]["audio"]
            assert audio["mimeType"] == "audio/pcm;rate=16000"
            pcm = base64.b64decode(audio["data"], validate=True)
            assert pcm and not len(pcm) % 640, "whole frames of 20 ms"
            for start in range(0, len(pcm), 640):
                await self._hear(pcm[start : start + 640])

    async def _hear(self, frame: bytes) -> None:
        sign = self._ear.hear(frame)
        self._talk.loud_frames = self._ear.loud_frames
        if sign == "started" and self._reply is not None and not self._reply.done():
            await self.stop()
            await send(self._socket, {"serverContent": {"interrupted": True}})
            await send(self._socket, {"serverContent": {"turnComplete": True, "interactionStatus": "IN_PROGRESS"}})
        elif sign == "stopped":
            await self._turn_over()

    async def _turn_over(self) -> None:
        turn = self._server.next_turn()
        if turn.heard and not self._server.late_transcripts:
            await self._transcribe(turn.heard)
        if not turn.silent and turn.heard:
            await self._begin(turn)

    async def _transcribe(self, text: str) -> None:
        for word in re.findall(r"\S+\s*", text):
            await send(self._socket, {"serverContent": {"inputTranscription": {"text": word}}})

    async def _begin(self, turn: Turn) -> None:
        await self.stop()
        self._reply = asyncio.create_task(self._respond(turn))

    async def _respond(self, turn: Turn) -> None:
        try:
            await asyncio.sleep(turn.think_s)
            if turn.fails is not None:
                await self._socket.close(turn.fails["code"], turn.fails["message"])
                return
            if turn.says:
                await self._speak(turn.says)
            if turn.tools:
                calls = []
                for name, arguments in turn.tools:
                    id_ = f"function-call-{next(self._server.numbers)}"
                    self._tools[id_] = name
                    calls.append({"id": id_, "name": name, "args": arguments})
                await send(self._socket, {"toolCall": {"functionCalls": calls}})
                return
            if turn.heard and self._server.late_transcripts:
                await self._transcribe(turn.heard)
            await send(self._socket, {"serverContent": {"generationComplete": True}})
            done = {"turnComplete": True, "interactionStatus": "IDLE"}
            await send(self._socket, {"serverContent": done, "usageMetadata": {"totalTokenCount": 9}})
        except Gone:
            pass

    async def _speak(self, text: str) -> None:
        pcm, size = spoken(text, OUT_HZ), OUT_HZ * CHUNK_MS // 1000 * 2
        words = iter(re.findall(r"\S+\s*", text))
        for at in range(0, len(pcm), size):
            data = {"mimeType": f"audio/pcm;rate={OUT_HZ}", "data": base64.b64encode(pcm[at : at + size]).decode()}
            await send(self._socket, {"serverContent": {"modelTurn": {"parts": [{"inlineData": data}]}}})
            for word in itertools.islice(words, 1):
                await send(self._socket, {"serverContent": {"outputTranscription": {"text": word}}})
            await asyncio.sleep(self._server.chunk_s)
        for word in words:
            await send(self._socket, {"serverContent": {"outputTranscription": {"text": word}}})
