"""Deepgram's Voice Agent: hearing, thinking and speaking behind one socket, through the SDK's socket client.

The connection under it is ours, as in `stt.py`.
"""

import asyncio
import json
import os
from collections.abc import Callable, Mapping
from typing import Any, cast

from deepgram.agent.v1.socket_client import AsyncV1SocketClient

from bridge.providers.base import ProviderError, ProviderTimeoutError, ProviderUnavailableError, ToolCall
from bridge.providers.deepgram.settings import DeepgramSettings
from bridge.providers.deepgram.voice_agent_dialogue import VoiceAgentDialogue, failure, session_settings
from bridge.providers.models_table import default_model
from bridge.providers.realtime import RealtimeEvent, RealtimeSession, RealtimeSetup
from bridge.providers.realtime_link import Pump, Spares
from bridge.providers.registry import KINDS
from bridge.providers.sockets import ProviderSocket, open_socket

AGENT_URL = "wss://agent.deepgram.com"
PATH = "/v1/agent/converse"

KEEP_ALIVE_S = 5.0
"""A session that gets no audio for 10 s is closed there."""

SAMPLE_RATES = (8000, 16000, 24000, 48000)


class DeepgramVoiceAgent:
    """A `Realtime`. One for all calls; each call has a socket of its own."""

    def __init__(self, name: str, settings: DeepgramSettings, *, environ: Mapping[str, str] = os.environ) -> None:
        """Raises ProviderUnavailableError when there is no key."""
        self._name = name
        self._settings = settings.realtime
        self._connect_s = settings.connect_s
        self._url = self._settings.websocket_url or settings.socket_url(AGENT_URL)
        self._key = settings.key(name, KINDS["deepgram"].key_env, environ).get_secret_value()
        self._model = self._settings.model or default_model("deepgram", "realtime")
        self._spares = Spares(self._connect, ProviderSocket.close)

    @property
    def name(self) -> str:
        return self._name

    async def start(self) -> None:
        """Nothing to load."""

    async def probe(self) -> str:
        """Set a session up and close it: the key is taken, and so are model and voice. Raises ProviderError."""
        socket = await self._connect()
        try:
            await self._set_up(socket, RealtimeSetup("Say nothing.", (), SAMPLE_RATES[0]))
        finally:
            await socket.close()
        return f"a voice agent at {self._url}"

    async def warm(self) -> None:
        await self._spares.warm()

    async def aclose(self) -> None:
        await self._spares.aclose()

    async def open(self, setup: RealtimeSetup, emit: Callable[[RealtimeEvent], None]) -> RealtimeSession:
        """Open a session, set up and with its history. Raises ProviderError."""
        if setup.sample_rate not in SAMPLE_RATES:
            raise ProviderUnavailableError(self._name, f"{setup.sample_rate} Hz; known: {SAMPLE_RATES}")
        socket, spare = await self._spares.take()
        try:
            return await self._open(socket, setup, emit)
        except ProviderError:
            if not spare:
                raise
        # It had died while it waited.
        return await self._open(await self._connect(), setup, emit)

    async def _connect(self) -> ProviderSocket:
        return await open_socket(
            self._name,
            f"{self._url}{PATH}",
            headers={"Authorization": f"Token {self._key}"},
            connect_s=self._connect_s,
            secrets=(self._key,),
        )

    async def _open(
        self, socket: ProviderSocket, setup: RealtimeSetup, emit: Callable[[RealtimeEvent], None]
    ) -> RealtimeSession:
        try:
            await self._set_up(socket, setup)
        except BaseException:
            await socket.close()
            raise
        client = AsyncV1SocketClient(websocket=cast(Any, socket))

        async def send(message: bytes | dict[str, Any]) -> None:
            if isinstance(message, bytes):
                await client.send_media(message)
            else:
                await client.send_raw(message)

        pump: Pump[bytes | dict[str, Any], str | bytes] = Pump(
            self._name,
            send=send,
            messages=socket.__aiter__,
            emit=emit,
            secrets=(self._key,),
            ping={"type": "KeepAlive"},
            ping_s=KEEP_ALIVE_S,
        )
        dialogue = VoiceAgentDialogue(self._name, setup.sample_rate, emit=pump.emit, send=pump.put, secret=self._key)
        return _Session(socket, pump, dialogue)

    async def _set_up(self, socket: ProviderSocket, setup: RealtimeSetup) -> None:
        """Raises ProviderError."""
        try:
            async with asyncio.timeout(self._settings.setup_s):
                await socket.send(json.dumps(session_settings(self._settings, setup, self._model)))
                async for message in socket:
                    event = json.loads(message) if isinstance(message, str) else {}
                    kind = event.get("type") if isinstance(event, dict) else None
                    if kind == "SettingsApplied":
                        return
                    if kind == "Error":
                        raise failure(self._name, event, self._key)
        except TimeoutError:
            wait = f"{self._settings.setup_s:g} s"
            raise ProviderTimeoutError(self._name, f"the session was not set up within {wait}") from None
        except ValueError:
            raise ProviderError(self._name, "answered with something that is not its protocol") from None
        raise ProviderError(self._name, "closed the connection before the session was set up")


class _Session:
    """A `RealtimeSession`."""

    def __init__(
        self,
        socket: ProviderSocket,
        pump: "Pump[bytes | dict[str, Any], str | bytes]",
        dialogue: VoiceAgentDialogue,
    ) -> None:
        self._socket = socket
        self._pump = pump
        self._dialogue = dialogue
        pump.run(dialogue.receive)

    def push(self, pcm: bytes) -> None:
        message = self._dialogue.audio(pcm)
        if message is not None:
            self._pump.put(message)

    def say(self, text: str, mark: str = "") -> None:
        self._dialogue.say(text, mark)

    def respond(self) -> None:
        self._dialogue.respond()

    def tell(self, text: str) -> None:
        self._dialogue.tell(text)

    def interrupt(self, item: str, heard_ms: float) -> None:
        self._dialogue.interrupt(item)

    def tool_result(self, call: ToolCall, content: str, *, go_on: bool = True) -> None:
        self._dialogue.tool_result(call, content, go_on)

    async def aclose(self) -> None:
        await self._pump.aclose()
        await self._socket.close()
