"""OpenAI Realtime (GA): one model that hears and speaks, over the SDK's WebSocket."""

import asyncio
import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, cast

import openai
from openai import AsyncOpenAI
from openai.resources.realtime.realtime import AsyncRealtimeConnection
from openai.types.websocket_connection_options import WebSocketConnectionOptions
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from bridge.providers.base import (
    ProviderBusyError,
    ProviderError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    ToolCall,
)
from bridge.providers.models_table import default_model
from bridge.providers.openai.realtime_dialogue import SETUP_ID, Dialogue, failure, history_items, session_update
from bridge.providers.openai.settings import BASE_URL, OpenAiSettings
from bridge.providers.realtime import RealtimeEvent, RealtimeFailed, RealtimeSession, RealtimeSetup, SessionEnding
from bridge.providers.realtime_link import CLOSE_S, Outgoing, Spares, stop
from bridge.providers.registry import KINDS
from bridge.providers.scrub import scrubbed

MAX_MESSAGE_BYTES = 16 << 20


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
        self._spares = Spares(self._connect, _close)

    @property
    def name(self) -> str:
        return self._name

    async def start(self) -> None:
        """Nothing to load."""

    async def probe(self) -> str:
        """Open a session and close it: the key is taken, the model is there. Raises ProviderError."""
        await _close(await self._connect())
        return f"{self._model} at {self._url}"

    async def warm(self) -> None:
        await self._spares.warm()

    async def aclose(self) -> None:
        await self._spares.aclose()
        await self._client.close()

    async def open(self, setup: RealtimeSetup, emit: Callable[[RealtimeEvent], None]) -> RealtimeSession:
        """Open a session, set up and with its history. Raises ProviderError."""
        connection, spare = await self._spares.take()
        try:
            return await self._open(connection, setup, emit)
        except ProviderUnavailableError:
            raise
        except ProviderError:
            if not spare:
                raise
        # It had died while it waited.
        return await self._open(await self._connect(), setup, emit)

    async def _open(
        self, connection: AsyncRealtimeConnection, setup: RealtimeSetup, emit: Callable[[RealtimeEvent], None]
    ) -> RealtimeSession:
        try:
            async with asyncio.timeout(self._settings.setup_s):
                await self._set_up(connection, setup)
        except BaseException as error:
            await _close(connection)
            if isinstance(error, TimeoutError):
                raise ProviderTimeoutError(
                    self._name, f"the session was not set up within {self._settings.setup_s:g} s"
                ) from None
            if isinstance(
                error, WebSocketException | openai.OpenAIError | OSError | ValueError | TypeError | KeyError
            ):
                raise self.lost(error) from None
            raise
        return _Session(self, connection, setup, emit)

    async def _set_up(self, connection: AsyncRealtimeConnection, setup: RealtimeSetup) -> None:
        await connection.send_raw(json.dumps(session_update(self._settings, setup, self._model)))
        while True:
            event = json.loads(await connection.recv_bytes())
            if event["type"] == "error" and (event["error"].get("event_id") in (None, SETUP_ID)):
                raise failure(self._name, event["error"], self._key, self._key_hint)
            if event["type"] == "session.updated":
                break
        for message in history_items(setup.history):
            await connection.send_raw(json.dumps(message))

    async def _connect(self) -> AsyncRealtimeConnection:
        """Raises ProviderError."""
        # Keep-alives find a dead line within seconds, not within TCP's minutes.
        options: dict[str, Any] = {
            "open_timeout": None,
            "close_timeout": CLOSE_S,
            "ping_interval": 5,
            "ping_timeout": 5,
            "max_size": MAX_MESSAGE_BYTES,
            "compression": None,
        }
        manager = self._client.realtime.connect(
            model=self._model, websocket_connection_options=cast(WebSocketConnectionOptions, options)
        )
        try:
            async with asyncio.timeout(self._connect_s):
                return await manager.enter()
        except TimeoutError:
            raise ProviderTimeoutError(
                self._name, f"no connection to {self._url} within {self._connect_s:g} s"
            ) from None
        except (WebSocketException, openai.OpenAIError, OSError, ValueError) as error:
            raise self.lost(error) from None

    def lost(self, error: BaseException) -> ProviderError:
        """What befell a connection, as ours."""
        name = self._name
        match error:
            case InvalidStatus(response=response):
                said = self._refusal(response.body)
                if response.status_code in (401, 403):
                    return ProviderUnavailableError(
                        name, f"the key was refused ({response.status_code}): check {self._key_hint}. {said}".rstrip()
                    )
                if response.status_code == 404:
                    return ProviderUnavailableError(
                        name, f"no model {self._model!r} at {self._url} (404). {said}".rstrip()
                    )
                if response.status_code == 429:
                    return ProviderBusyError(name, f"too many requests, or no credit left (429). {said}".rstrip())
                return ProviderError(name, f"HTTP {response.status_code}. {said}".rstrip())
            case ConnectionClosed():
                return ProviderError(name, f"the socket was closed: {scrubbed(error, self._key)}")
            case OSError():
                return ProviderUnavailableError(name, f"can't connect to {self._url}: {scrubbed(error, self._key)}")
        return ProviderError(name, f"not the Realtime protocol: {scrubbed(repr(error), self._key)}")

    def _refusal(self, body: bytes | None) -> str:
        try:
            said = json.loads(body or b"")["error"]["message"]
        except (ValueError, KeyError, TypeError):
            return ""
        return scrubbed(said, self._key)

    def dialogue(self, setup: RealtimeSetup, emit: Callable[[RealtimeEvent], None], send: Any) -> Dialogue:
        return Dialogue(
            self._name, setup.sample_rate, emit=emit, send=send, secret=self._key, key_hint=self._key_hint
        )

    @property
    def longest_s(self) -> float:
        """How long a session may be used."""
        return self._settings.session_minutes * 60


async def _close(connection: AsyncRealtimeConnection) -> None:
    with suppress(TimeoutError, WebSocketException, OSError):
        async with asyncio.timeout(CLOSE_S):
            await connection.close()


class _Session:
    """A `RealtimeSession`."""

    def __init__(
        self,
        provider: OpenAiRealtime,
        connection: AsyncRealtimeConnection,
        setup: RealtimeSetup,
        emit: Callable[[RealtimeEvent], None],
    ) -> None:
        self._provider = provider
        self._connection = connection
        self._told = emit
        self._over = False
        self._dialogue = provider.dialogue(setup, self._emit, lambda message: self._put(json.dumps(message)))
        self._outgoing: Outgoing[str] = Outgoing(connection.send_raw)
        loop = asyncio.get_running_loop()
        self._expiry = loop.call_later(provider.longest_s, self._emit, SessionEnding(60.0))
        self._tasks = (
            loop.create_task(self._guard(self._read())),
            loop.create_task(self._guard(self._outgoing.run())),
        )

    def push(self, pcm: bytes) -> None:
        self._put(self._dialogue.audio(pcm))

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
        self._over = True
        self._expiry.cancel()
        await stop(*self._tasks)
        await _close(self._connection)

    def _emit(self, event: RealtimeEvent) -> None:
        if not self._over:
            self._over = isinstance(event, RealtimeFailed) and event.fatal
            self._told(event)

    def _put(self, message: str) -> None:
        if not self._over and not self._outgoing.put(message):
            self._emit(
                RealtimeFailed(ProviderTimeoutError(self._provider.name, "it reads nothing any more"), fatal=True)
            )

    async def _read(self) -> None:
        while True:
            event = json.loads(await self._connection.recv_bytes())
            self._dialogue.receive(event)

    async def _guard(self, work: Any) -> None:
        try:
            await work
        except (WebSocketException, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            self._emit(RealtimeFailed(self._provider.lost(error), fatal=True))
