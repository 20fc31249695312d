"""OpenAI Realtime (GA): one model that hears and speaks, over the SDK's WebSocket."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, cast

from openai import AsyncOpenAI
from openai.types.websocket_connection_options import WebSocketConnectionOptions

from bridge.providers.base import ProviderError, ProviderTimeoutError, ProviderUnavailableError, ToolCall
from bridge.providers.models_table import default_model
from bridge.providers.openai.realtime_dialogue import SETUP_ID, Dialogue, failure, history_items, session_update
from bridge.providers.openai.settings import BASE_URL, OpenAiSettings
from bridge.providers.realtime import RealtimeEvent, RealtimeSession, RealtimeSetup, SessionEnding
from bridge.providers.realtime_link import PING_S, Pump, Spares
from bridge.providers.registry import KINDS
from bridge.providers.sdk_sockets import SdkSocket, connection_options, open_sdk_socket

LEFT_S = 60.0
"""How long before its end a session asks for another one in its place."""


class OpenAiRealtime:
    """A `Realtime`. One for all calls; each call has a socket of its own."""

    def __init__(self, name: str, settings: OpenAiSettings, *, environ: Mapping[str, str] = os.environ) -> None:
        """Raises ProviderUnavailableError when there is no key."""
        self._name = name
        self._settings = settings.realtime
        kind = settings.kind or name
        self._model = self._settings.model or default_model("openai", "realtime")
        self._connect_s = settings.connect_s
        key_env = KINDS[kind if kind in KINDS else "openai"].key_env
        self._key_hint = settings.api_key_env or key_env if settings.api_key_file is None else "api_key_file"
        self._key = settings.key(name, key_env, environ).get_secret_value()
        self._url = settings.socket_url("ws" + BASE_URL.removeprefix("http"))
        self._client = AsyncOpenAI(api_key=self._key, websocket_base_url=self._url, max_retries=0)
        self._spares = Spares(self._connect, SdkSocket.close)

    @property
    def name(self) -> str:
        return self._name

    async def start(self) -> None:
        """Nothing to load."""

    async def probe(self) -> str:
        """Open a session and close it: the key is taken, the model is there. Raises ProviderError."""
        socket = await self._connect()
        try:
            async with asyncio.timeout(self._settings.setup_s):
                await self._set_up(socket, RealtimeSetup("", (), 8000))
        except TimeoutError:
            raise ProviderTimeoutError(self._name, f"{self._url} does not set a session up") from None
        finally:
            await socket.close()
        return f"{self._model} at {self._url}"

    async def warm(self) -> None:
        await self._spares.warm()

    async def aclose(self) -> None:
        await self._spares.aclose()
        await self._client.close()

    async def open(self, setup: RealtimeSetup, emit: Callable[[RealtimeEvent], None]) -> RealtimeSession:
        """Open a session, set up and with its history. Raises ProviderError."""
        socket, spare = await self._spares.take()
        try:
            return await self._open(socket, setup, emit)
        except ProviderUnavailableError:
            raise
        except ProviderError:
            if not spare:
                raise
        # It had died while it waited.
        return await self._open(await self._connect(), setup, emit)

    async def _connect(self) -> SdkSocket:
        # Frequent keep-alives find a dead line within seconds: a caller is waiting.
        options: dict[str, Any] = {**connection_options(self._url), "ping_interval": PING_S, "ping_timeout": PING_S}
        manager = self._client.realtime.connect(
            model=self._model, websocket_connection_options=cast(WebSocketConnectionOptions, options)
        )
        return await open_sdk_socket(self._name, manager, connect_s=self._connect_s, secrets=(self._key,))

    async def _open(
        self, socket: SdkSocket, setup: RealtimeSetup, emit: Callable[[RealtimeEvent], None]
    ) -> RealtimeSession:
        try:
            async with asyncio.timeout(self._settings.setup_s):
                await self._set_up(socket, setup)
        except TimeoutError:
            await socket.close()
            raise ProviderTimeoutError(
                self._name, f"the session was not set up within {self._settings.setup_s:g} s"
            ) from None
        except BaseException:
            await socket.close()
            raise
        pump: Pump[str, bytes] = Pump(
            self._name, send=socket.send, messages=lambda: _messages(socket), emit=emit, secrets=(self._key,)
        )
        dialogue = Dialogue(
            self._name,
            setup.sample_rate,
            emit=pump.emit,
            send=lambda message: pump.put(json.dumps(message)),
            secret=self._key,
            key_hint=self._key_hint,
        )
        return _Session(socket, pump, dialogue, self._settings.session_minutes * 60)

    async def _set_up(self, socket: SdkSocket, setup: RealtimeSetup) -> None:
        await socket.send(json.dumps(session_update(self._settings, setup, self._model)))
        async for event in socket.objects():
            error = event.get("error")
            if event.get("type") == "error" and isinstance(error, dict) and error.get("event_id") in (None, SETUP_ID):
                raise failure(self._name, error, self._key, self._key_hint)
            if event.get("type") == "session.updated":
                break
        for message in history_items(setup.history):
            await socket.send(json.dumps(message))


class _Session:
    """A `RealtimeSession`."""

    def __init__(self, socket: SdkSocket, pump: "Pump[str, bytes]", dialogue: Dialogue, longest_s: float) -> None:
        self._socket = socket
        self._pump = pump
        self._dialogue = dialogue
        self._expiry = asyncio.get_running_loop().call_later(longest_s, pump.emit, SessionEnding(LEFT_S))
        pump.run(lambda message: dialogue.receive(json.loads(message)))

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
        self._dialogue.interrupt(item, heard_ms)

    def tool_result(self, call: ToolCall, content: str, *, go_on: bool = True) -> None:
        self._dialogue.tool_result(call, content, go_on)

    async def aclose(self) -> None:
        self._expiry.cancel()
        await self._pump.aclose()
        await self._socket.close()


async def _messages(socket: SdkSocket) -> AsyncIterator[bytes]:
    while True:
        yield await socket.receive()
