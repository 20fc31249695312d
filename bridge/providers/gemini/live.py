"""Gemini Live: one model that hears and speaks, over Google's BidiGenerateContent socket.

The socket is ours: the SDK's `aio.live.connect` takes neither deadlines nor keep-alives, only TLS, and its `receive`
stops at the end of every turn. What goes over it is checked in tests against the SDK's own types.
"""

import asyncio
import json
import os
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

from bridge.providers.base import ProviderError, ProviderTimeoutError, ProviderUnavailableError, ToolCall
from bridge.providers.gemini.live_dialogue import LiveDialogue, history_message, setup_message
from bridge.providers.gemini.settings import BASE_URL, GeminiSettings
from bridge.providers.models_table import default_model
from bridge.providers.realtime import RealtimeEvent, RealtimeSession, RealtimeSetup, SessionEnding
from bridge.providers.realtime_link import Pump
from bridge.providers.registry import KINDS
from bridge.providers.sockets import ProviderSocket, open_socket

MAX_HANDLES = 256
"""Calls whose session may be resumed, at one time."""


class GeminiLive:
    """A `Realtime`. One for all calls; each call has a socket of its own."""

    def __init__(self, name: str, settings: GeminiSettings, *, environ: Mapping[str, str] = os.environ) -> None:
        """Raises ProviderUnavailableError when there is no key."""
        self._name = name
        self._settings = settings.realtime
        self._connect_s = settings.connect_s
        self._key = settings.key(name, KINDS["gemini"].key_env, environ).get_secret_value()
        self._url = settings.socket_url("ws" + BASE_URL.removeprefix("http"))
        self._model = self._settings.model or default_model("gemini", "realtime")
        self._handles: OrderedDict[str, str] = OrderedDict()
        """How to resume the session of a call whose server leaves."""

    @property
    def name(self) -> str:
        return self._name

    async def start(self) -> None:
        """Nothing to load."""

    async def probe(self) -> str:
        """Set a session up and close it: the key is taken, the model is there. Raises ProviderError."""
        socket = await self._opened(RealtimeSetup("Say nothing.", (), 8000), "")
        await socket.close()
        return f"{self._model} at {self._url}"

    async def warm(self) -> None:
        """Nothing to open: a connection is a session, whose setup has to be known."""

    async def aclose(self) -> None:
        """Nothing to do: sessions are closed by whom they were opened for."""

    async def open(self, setup: RealtimeSetup, emit: Callable[[RealtimeEvent], None]) -> RealtimeSession:
        """Open a session: the call's own, if its server left, else a new one with its history. Raises
        ProviderError."""
        handle = self._handles.pop(setup.call_id, "")
        if handle:
            try:
                return self._session(await self._opened(setup, handle), setup, emit)
            except ProviderError:
                # It was kept too short, or can't be resumed here: the history has all that was said.
                pass
        return self._session(await self._opened(setup, ""), setup, emit)

    def _session(
        self, socket: ProviderSocket, setup: RealtimeSetup, emit: Callable[[RealtimeEvent], None]
    ) -> RealtimeSession:
        pump: Pump[str, str | bytes] = Pump(
            self._name, send=socket.send, messages=socket.__aiter__, emit=emit, secrets=(self._key,)
        )

        def tell(event: RealtimeEvent) -> None:
            if isinstance(event, SessionEnding) and setup.call_id and dialogue.handle:
                self._handles[setup.call_id] = dialogue.handle
                while len(self._handles) > MAX_HANDLES:
                    self._handles.popitem(last=False)
            pump.emit(event)

        dialogue = LiveDialogue(setup.sample_rate, emit=tell, send=pump.put)
        return _Session(socket, pump, dialogue)

    async def _opened(self, setup: RealtimeSetup, handle: str) -> ProviderSocket:
        """A socket whose session is set up. Raises ProviderError."""
        version = self._settings.api_version
        socket = await open_socket(
            self._name,
            f"{self._url}/ws/google.ai.generativelanguage.{version}.GenerativeService.BidiGenerateContent",
            headers={"x-goog-api-key": self._key},
            connect_s=self._connect_s,
            secrets=(self._key,),
        )
        try:
            async with asyncio.timeout(self._settings.setup_s):
                await self._set_up(socket, setup, handle)
        except TimeoutError:
            await socket.close()
            wait = f"{self._settings.setup_s:g} s"
            raise ProviderTimeoutError(self._name, f"the session was not set up within {wait}") from None
        except BaseException:
            await socket.close()
            raise
        return socket

    async def _set_up(self, socket: ProviderSocket, setup: RealtimeSetup, handle: str) -> None:
        """Raises ProviderError."""
        await socket.send(json.dumps(setup_message(self._settings, setup, self._model, handle)))
        try:
            answer = json.loads(await socket.recv())
        except ValueError:
            raise ProviderError(self._name, "answered with something that is not its protocol") from None
        except ProviderError as error:
            # The key, the model and the settings are refused by closing (1007, 1008), with why.
            said = str(error).removeprefix(f"{self._name}: ")
            raise ProviderUnavailableError(self._name, f"refused the session: {said}") from None
        if not isinstance(answer, dict) or "setupComplete" not in answer:
            raise ProviderError(self._name, "answered the setup with something else")
        if setup.history and not handle:
            await socket.send(json.dumps(history_message(setup.history), ensure_ascii=False))


class _Session:
    """A `RealtimeSession`."""

    def __init__(self, socket: ProviderSocket, pump: "Pump[str, str | bytes]", dialogue: LiveDialogue) -> None:
        self._socket = socket
        self._pump = pump
        self._dialogue = dialogue
        pump.run(self._take, closing=dialogue.closing)

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

    def _take(self, message: str | bytes) -> None:
        content: Any = json.loads(message)
        self._dialogue.receive(content)
