"""A stand-in for Deepgram's Voice Agent: a model that hears by loudness and speaks in tones, on one socket a call.

What it sends and receives is checked against the installed SDK's own types (`agent/v1/types`).
"""

import asyncio
import audioop
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from deepgram.agent.v1 import types as wire
from realtime_standin import LoudEar, Turn, spoken
from standin import Exchange, Gone, Socket, Standin

KEY = "dg0123456789abcdef0123456789abcdef"
CHUNK_MS = 200
SILENCE_MS = 500

_SENT: dict[str, Any] = {
    "Welcome": wire.AgentV1Welcome,
    "SettingsApplied": wire.AgentV1SettingsApplied,
    "ConversationText": wire.AgentV1ConversationText,
    "UserStartedSpeaking": wire.AgentV1UserStartedSpeaking,
    "AgentThinking": wire.AgentV1AgentThinking,
    "AgentStartedSpeaking": wire.AgentV1AgentStartedSpeaking,
    "AgentAudioDone": wire.AgentV1AgentAudioDone,
    "FunctionCallRequest": wire.AgentV1FunctionCallRequest,
    "FunctionCallCancelled": wire.AgentV1FunctionCallCancelled,
    "Error": wire.AgentV1Error,
    "Warning": wire.AgentV1Warning,
    "InjectionRefused": wire.AgentV1InjectionRefused,
}
_RECEIVED: dict[str, Any] = {
    "Settings": wire.AgentV1Settings,
    "InjectAgentMessage": wire.AgentV1InjectAgentMessage,
    "InjectUserMessage": wire.AgentV1InjectUserMessage,
    "FunctionCallResponse": wire.AgentV1SendFunctionCallResponse,
    "ForceEndTurn": wire.AgentV1ForceEndTurn,
    "KeepAlive": wire.AgentV1KeepAlive,
}


@dataclass(eq=False)
class Talk:
    """One session, as the server sees it."""

    settings: dict[str, Any] = field(default_factory=dict)
    injected: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    results: dict[str, str] = field(default_factory=dict)
    keep_alives: int = 0
    loud_frames: int = 0


class AgentServer(Standin):
    """`script` is gone through turn by turn, over all sessions."""

    def __init__(self, script: Sequence[Turn] = ()) -> None:
        super().__init__()
        self.script = list(script)
        self.talks: list[Talk] = []
        self.chunk_s = 0.0
        """Between two pieces of a reply's audio."""
        self.settings_error: dict[str, Any] | None = None
        """In place of `SettingsApplied`."""
        self.numbers = itertools.count(1)
        self.socket("/v1/agent/converse", self._converse)

    @property
    def talk(self) -> Talk:
        """The newest session."""
        return self.talks[-1]

    def next_turn(self) -> Turn:
        return self.script.pop(0) if self.script else Turn("something", "You said something.")

    async def _converse(self, exchange: Exchange, socket: Socket) -> None:
        assert exchange.headers["authorization"] == f"Token {KEY}"
        talk = Talk()
        self.talks.append(talk)
        conversation = _Conversation(self, talk, socket)
        try:
            await conversation.run()
        finally:
            await conversation.close()


class _Conversation:
    def __init__(self, server: AgentServer, talk: Talk, socket: Socket) -> None:
        self._server = server
        self._talk = talk
        self._socket = socket
        self._ear = LoudEar(SILENCE_MS)
        self._reply: asyncio.Task[None] | None = None
        self._tools: dict[str, str] = {}
        self._rest = bytearray()

    async def run(self) -> None:
        await self._tell("Welcome", request_id="request-1")
        async for message in self._socket:
            if isinstance(message, bytes):
                await self._hear(message)
            else:
                event = json.loads(message)
                model = _RECEIVED[event["type"]]
                model.model_validate(event)
                unknown = set(event) - set(model.model_fields)
                assert not unknown, f"{event['type']} has no {unknown}"
                await self._take(event)

    async def close(self) -> None:
        await self._stop()

    async def _tell(self, kind: str, **fields: Any) -> None:
        event = {"type": kind, **fields}
        _SENT[kind].model_validate(event)
        await self._socket.json(event)

    async def _take(self, event: dict[str, Any]) -> None:
        talk = self._talk
        match event["type"]:
            case "Settings":
                assert not talk.settings, "once for each session"
                talk.settings = event
                if self._server.settings_error is not None:
                    await self._tell("Error", **self._server.settings_error)
                    await self._socket.close(1008, "settings")
                    raise Gone
                await self._tell("SettingsApplied")
            case "InjectAgentMessage":
                talk.injected.append(event["message"])
                await self._stop()
                self._begin(Turn(says=event["message"]))
            case "InjectUserMessage":
                talk.told.append(event["content"])
                await self._stop()
                self._begin(self._server.next_turn())
            case "FunctionCallResponse":
                assert self._tools.pop(event["id"]) == event["name"]
                talk.results[event["id"]] = event["content"]
                if not self._tools:
                    self._begin(self._server.next_turn())
            case "ForceEndTurn":
                if self._ear.speaking:
                    self._ear.speaking = False
                    await self._turn_over()
            case "KeepAlive":
                talk.keep_alives += 1

    async def _hear(self, audio: bytes) -> None:
        format_ = self._talk.settings["audio"]["input"]
        rate = format_["sample_rate"]
        assert format_["encoding"] == ("mulaw" if rate == 8000 else "linear16")
        self._rest += audioop.ulaw2lin(audio, 2) if rate == 8000 else audio
        size = rate // 50 * 2
        while len(self._rest) >= size:
            frame = bytes(self._rest[:size])
            del self._rest[:size]
            sign = self._ear.hear(frame)
            self._talk.loud_frames = self._ear.loud_frames
            if sign == "started":
                await self._stop()
                await self._tell("UserStartedSpeaking")
            elif sign == "stopped":
                await self._turn_over()

    async def _turn_over(self) -> None:
        turn = self._server.next_turn()
        if not turn.heard:
            return
        await self._tell("ConversationText", role="user", content=turn.heard, conversational_behavior="default")
        if not turn.silent:
            self._begin(turn)

    async def _stop(self) -> None:
        reply, self._reply = self._reply, None
        if reply is not None:
            reply.cancel()
            await asyncio.gather(reply, return_exceptions=True)

    def _begin(self, turn: Turn) -> None:
        self._reply = asyncio.create_task(self._respond(turn))

    async def _respond(self, turn: Turn) -> None:
        try:
            await asyncio.sleep(turn.think_s)
            if turn.fails is not None:
                await self._tell("Error", **turn.fails)
                await self._socket.close(1011, "failed")
                return
            if turn.says:
                await self._speak(turn.says)
            if turn.tools:
                calls = []
                for name, arguments in turn.tools:
                    id_ = f"func_{next(self._server.numbers)}"
                    self._tools[id_] = name
                    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
                    calls.append({"id": id_, "name": name, "arguments": text, "client_side": True})
                await self._tell("FunctionCallRequest", functions=calls)
        except Gone:
            pass

    async def _speak(self, text: str) -> None:
        format_ = self._talk.settings["audio"]["output"]
        rate = format_["sample_rate"]
        assert format_["container"] == "none"
        await self._tell("ConversationText", role="assistant", content=text, conversational_behavior="default")
        await self._tell("AgentStartedSpeaking", total_latency=0.5, tts_latency=0.1, ttt_latency=0.2)
        pcm, size = spoken(text, rate), rate * CHUNK_MS // 1000 * 2
        for at in range(0, len(pcm), size):
            piece = pcm[at : at + size]
            await self._socket.send(audioop.lin2ulaw(piece, 2) if format_["encoding"] == "mulaw" else piece)
            await asyncio.sleep(self._server.chunk_s)
        await self._tell("AgentAudioDone")
