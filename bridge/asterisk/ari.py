"""The client of one Asterisk's REST interface (ARI): its events, its verbs, connected for as long as it lives."""

import asyncio
import os
import random
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

import structlog

from bridge.asterisk.ari_entering import Entering, EnteringChannels
from bridge.asterisk.ari_errors import (
    AriError,
    AriNotFoundError,
    AriRefusedError,
    AriTimeoutError,
    AriUnauthorizedError,
    AriUnavailableError,
    AriUntrustedError,
)
from bridge.asterisk.ari_events import (
    ApplicationReplaced,
    AriEvent,
    Bridge,
    Channel,
    Connected,
    Disconnected,
    MalformedError,
)
from bridge.asterisk.ari_http import AriHttp
from bridge.asterisk.ari_socket import EventSocket, address_towards, open_event_socket
from bridge.asterisk.ari_verbs import AriVerbs
from bridge.asterisk.ari_wire import (
    Backoff,
    RestResponse,
    authorization,
    outcome,
    read_message,
    socket_url,
)
from bridge.asterisk.changes import connection_of
from bridge.asterisk.settings import AsteriskSettings
from bridge.asterisk.status import AriState
from bridge.settings import PasswordError

__all__ = [
    "Ari",
    "AriError",
    "AriEvent",
    "AriNotFoundError",
    "AriRefusedError",
    "AriState",
    "AriUnauthorizedError",
    "AriUnavailableError",
    "Bridge",
    "Channel",
    "Entering",
]

log = structlog.get_logger(__name__)

PROBES_S = (1.0, 30.0)
"""How long each of the requests over the event socket that are sent at connect is waited for. Asterisks before 20.14,
21.9 and 22.4 know none and don't answer; others may be late while they start."""

SLOW_MS = 20.0
"""A handler that takes longer holds up every call of the process by a tick of media."""

HANDED_ON_S = 2.0
"""Asterisk says at once that another connection has the application."""

SLICE_S = 0.005
"""Events are handled in a row for so long at most; then others get the loop."""

REPEATABLE = ("/answer", "/addChannel", "/ring", "/variable")
"""What is asked of a channel or bridge by these comes to the same when it is asked twice, as is what only reads."""

COUNTERS = (
    "connects",
    "requests",
    "failed",
    "timeouts",
    "events",
    "unknown_events",
    "malformed",
    "slow_handlers",
    "failed_handlers",
)


class Ari(AriVerbs):
    """Connected from `start` until `aclose`. Events go to `on_event` one after another, on the loop; it must not
    block."""

    def __init__(
        self,
        settings: AsteriskSettings,
        on_event: Callable[[AriEvent], None],
        *,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self._settings = settings
        self._on_event = on_event
        self._environ = environ
        self.app = settings.app
        self._state: AriState = "connecting"
        self.state_since: float | None = None
        """Unix time at which `state` was entered; None: before the start."""
        self.last_error = ""
        """Why it is not up, or last was not."""
        self.last_error_at: float | None = None
        """Unix time (s) of that."""
        self.connected_at: float | None = None
        """Of the monotonic clock; None: not up."""
        self.version = ""
        """Asterisk's, e.g. 22.10.1; empty until it was up."""
        self.rest_over_socket = False
        """Whether requests go over the event socket at present."""
        self.slowest_handler_ms = 0.0
        """Of `on_event`, so far."""
        self._counters = dict.fromkeys(COUNTERS, 0)
        self._log = log.bind(asterisk=settings.name)
        self._http = AriHttp(settings.url, settings.trust)
        self._authorization = ""
        self._socket: EventSocket | None = None
        self._local_address = ""
        self._entering = EnteringChannels(self._in_application, lambda: self.connected_at)
        self._backoff = Backoff(settings.reconnect_s)
        self._task: asyncio.Task[None] | None = None
        self._wanted = asyncio.Event()
        self._changing = asyncio.Lock()
        self._next: EventSocket | None = None
        """Open already, to be served when the present one is through."""
        self._is_changing = False
        self._handed_on = asyncio.Event()
        """The present one has lost the application to the next one of ours."""
        self._attempted = asyncio.Event()
        self._told = ""
        """What the log was told last of why it is not up."""

    @property
    def state(self) -> AriState:
        return self._state

    @property
    def counters(self) -> Mapping[str, int]:
        """By the names of `COUNTERS`; they only grow."""
        return MappingProxyType(self._counters)

    @property
    def round_trip_s(self) -> float | None:
        """Of the event socket's last ping; None: there was none on this connection yet."""
        return (self._socket.round_trip_s or None) if self._socket is not None else None

    def start(self) -> None:
        """Begin to connect; for ever, in the background."""
        if self._task is None and self._state != "closed":
            self._enter("connecting")
            if not self._settings.verify and self._settings.url.startswith("https:"):
                self._log.warning("Asterisk's certificate is not checked: whoever is in between can be it (verify)")
            self._task = asyncio.create_task(self._run(), name=f"ari {self._settings.name}")

    async def aclose(self) -> None:
        """Close the event socket, and end what waits. From here on Asterisk refuses new calls for the application."""
        self._enter("closed")
        self._attempted.set()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        if self._next is not None:
            await self._next.close()
        self._entering.close(AriUnavailableError(f"the connection to {self._settings.name} is closed"))
        await self._http.aclose()

    async def reconnect(self) -> None:
        """Connect anew, also where another has taken the application: it is taken back. Returns when that was tried,
        however it went; `state` tells."""
        if self._state == "closed":
            return
        self._attempted.clear()
        self._wanted.set()
        if self._socket is not None:
            await self._socket.close("it is opened anew")
        self.start()
        await self._attempted.wait()

    async def take_up(self, settings: AsteriskSettings) -> None:
        """Changed settings, all but `app`, of the same Asterisk. The application is taken over from ourselves: a
        second event socket is opened before the first one goes, so that nobody finds it without us and no event is
        lost. Where that fails the first one goes all the same, and it is tried on as ever.

        Not while another process has the application: that is for `reconnect` to take back."""
        async with self._changing:
            former, self._settings = self._settings, settings
            if self._state == "closed" or connection_of(former) == connection_of(settings):
                return
            self._http.change(settings.url, settings.trust)
            self._authorization = ""
            self._backoff = Backoff(settings.reconnect_s)
            if self._state != "replaced":
                await self._change_over()

    async def _change_over(self) -> None:
        """From the present event socket, if there is one, to another by the settings as they are now."""
        present = self._socket
        if present is None:
            self._wanted.set()
            return
        self._is_changing = True
        self._handed_on.clear()
        try:
            self._next = await self._open()
            with suppress(TimeoutError):
                async with asyncio.timeout(HANDED_ON_S):
                    await self._handed_on.wait()
                    await present.all_answered()
        except AriError as error:
            self._log.warning("no connection by the changed settings yet, trying on", reason=str(error))
        finally:
            self._is_changing = False
            self._wanted.set()
            await present.close("its settings have changed")

    def entering(self, channel_id: str) -> AbstractContextManager[Entering]:
        """For a channel that is about to be created, under an id that was never used: its StasisStart goes to the
        waiter, not to `on_event` (its other events do)."""
        return self._entering.entering(channel_id)

    async def _in_application(self, channel_id: str) -> Channel | None:
        channel = await self.channel(channel_id)
        is_in = channel.app_name == "Stasis" and channel.app_data.partition(",")[0] == self.app
        return channel if is_in else None

    def local_address(self) -> str:
        """The address of ours that reaches this Asterisk. Raises AriUnavailableError while that is not known."""
        if self._local_address:
            return self._local_address
        found = address_towards(urlsplit(self._settings.url).hostname or "")
        if found is not None:
            return found
        raise AriUnavailableError(f"{self._settings.name} was not reached yet: by which address of ours is not known")

    async def identity(self) -> str:
        """What tells this Asterisk, as long as it runs, from any other; empty: it does not say. Raises AriError."""
        info = await self.request("GET", "asterisk/info", over_http=True)
        parts = [info.get(name) if isinstance(info, dict) else None for name in ("system", "status")]
        system, status = (part if isinstance(part, dict) else {} for part in parts)
        entity, since = system.get("entity_id"), status.get("startup_time")
        return f"{entity} {since}" if entity and since else ""

    # -- requests -------------------------------------------------------------------------------------------------

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: object = None,
        timeout_s: float | None = None,
        over_http: bool = False,
    ) -> Any:
        """`path` below /ari/, its parts percent-encoded (`ari_wire.segment`). Over the event socket where the server
        takes requests there, unless `over_http`. `timeout_s`: from when those before it on the socket are answered;
        None for `request_s` of the settings. JSON, or None where the answer is empty. Raises AriError."""
        path = path.lstrip("/")
        limit_s = self._settings.request_s if timeout_s is None else timeout_s
        self._counters["requests"] += 1
        try:
            return await self._asked(method, path, query or {}, body, limit_s, over_http)
        except TimeoutError:
            self._counters["timeouts"] += 1
            self._counters["failed"] += 1
            raise AriTimeoutError(f"{method} {path}: no answer within {limit_s:g} s") from None
        except AriError:
            self._counters["failed"] += 1
            raise

    async def _asked(
        self, method: str, path: str, query: Mapping[str, str], body: object, limit_s: float, over_http: bool
    ) -> Any:
        if self.rest_over_socket and self._socket is not None and not over_http:
            try:
                response = await self._socket.request(method, path, query, body, limit_s)
            except AriUnavailableError:
                # Whether it was carried out is not known.
                if method != "GET" and not path.endswith(REPEATABLE):
                    raise
            else:
                if response is not None:
                    return outcome(method, path, response.status, response.body)
        if self._state == "closed":
            raise AriUnavailableError(f"{method} {path}: the connection to {self._settings.name} is closed")
        if not self._authorization:
            self._read_password()
        return await self._http.request(
            method, path, query, body, authorization=self._authorization, timeout_s=limit_s
        )

    def _read_password(self) -> None:
        try:
            password = self._settings.password(self._environ)
        except PasswordError as error:
            raise AriUnauthorizedError(str(error)) from None
        self._authorization = authorization(self._settings.username, password)

    # -- the connection -------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            pause_s: float | None
            try:
                settings = self._settings
                opened, self._next = self._next or await self._open(), None
                if connection_of(settings) != connection_of(self._settings):
                    await opened.close("its settings have changed")
                    continue
            except AriUnauthorizedError as error:
                self._down("unauthorized", str(error))
                self._attempted.set()
                pause_s = self._settings.reconnect_s
            except AriUnavailableError as error:
                self._down("down", str(error))
                self._attempted.set()
                pause_s = self._backoff.next_s(random.random())
                if isinstance(error, AriUntrustedError):
                    # Each attempt is three lines in Asterisk's log.
                    pause_s = self._settings.reconnect_s
            else:
                self._wanted.clear()
                since = time.monotonic()
                await self._serve(opened)
                async with self._changing:
                    # Where it is handed on the next one is open by then.
                    self._handed_on.clear()
                pause_s = self._backoff.next_s(random.random(), time.monotonic() - since)
                if self._state == "replaced":
                    pause_s = None
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._wanted.wait()
            self._wanted.clear()

    async def _open(self) -> EventSocket:
        """Raises AriUnauthorizedError, AriUnavailableError."""
        # Read anew: it may have been put right meanwhile.
        self._read_password()
        return await open_event_socket(
            socket_url(self._settings.url, self.app),
            authorization=self._authorization,
            connect_s=self._settings.request_s,
            heartbeat_s=self._settings.heartbeat_s,
            trust=self._settings.trust,
        )

    async def _serve(self, opened: EventSocket) -> None:
        """Take what the socket brings, until it is over; then it is closed."""
        self._up(opened)
        probe = asyncio.create_task(self._probe(opened), name=f"ari {self._settings.name} probe")
        try:
            slice_ends = time.monotonic() + SLICE_S
            async for message in opened.messages():
                self._take(opened, message)
                if self._state == "replaced":
                    break
                if self._handed_on.is_set():
                    # The next one is asked. By this one nothing but answers come any more.
                    probe.cancel()
                if time.monotonic() > slice_ends:
                    # Messages that have come already are given out without letting anybody else run.
                    await asyncio.sleep(0)
                    slice_ends = time.monotonic() + SLICE_S
        finally:
            self._socket = None
            self.rest_over_socket = False
            self.connected_at = None
            probe.cancel()
            await opened.close()
            await asyncio.wait([probe])
        if self._state == "replaced":
            self._deliver(Disconnected(self.last_error))
        elif not self._handed_on.is_set():
            self._down("down", opened.reason)
            self._deliver(Disconnected(opened.reason))

    def _up(self, opened: EventSocket) -> None:
        self._socket = opened
        self._local_address = opened.local_address
        self._counters["connects"] += 1
        self._enter("up")
        self.connected_at = time.monotonic()
        self._told = ""
        self._attempted.set()
        self._log.info("connected to Asterisk", url=self._settings.url, app=self.app)
        first = self._counters["connects"] == 1
        self._deliver(Connected(first))

    def _down(self, state: AriState, reason: str) -> None:
        self._enter(state)
        self.last_error, self.last_error_at = reason, time.time()
        if self._told == reason:
            # Once for each reason: it is tried again and again.
            return
        self._told = reason
        if state == "unauthorized":
            self._log.error("no login at Asterisk's ARI, trying again now and then", reason=reason)
        else:
            self._log.warning("no connection to Asterisk, trying again", url=self._settings.url, reason=reason)

    def _enter(self, state: AriState) -> None:
        if self._state == "closed":
            return
        if state != self._state or self.state_since is None:
            self.state_since = time.time()
        self._state = state

    async def _probe(self, opened: EventSocket) -> None:
        """Which version it is, and whether it takes requests over the event socket."""
        path, query = "asterisk/info", {"only": "system"}
        for limit_s in PROBES_S:
            try:
                response = await opened.request("GET", path, query, None, limit_s)
                if response is not None:
                    self._learn(outcome("GET", path, response.status, response.body))
                    self.rest_over_socket = True
                return
            except TimeoutError:
                pass
            except AriError as error:
                self._log.warning("Asterisk does not tell its version", reason=str(error))
                return
            if not self.version:
                with suppress(AriError):
                    self._learn(await self.request("GET", path, query=query))

    def _learn(self, info: Any) -> None:
        system = info.get("system") if isinstance(info, dict) else None
        if isinstance(system, dict):
            # Debian's goes on behind a plus: 22.10.1+dfsg+...
            self.version = str(system.get("version", "")).partition("+")[0]

    # -- events ---------------------------------------------------------------------------------------------------

    def _take(self, opened: EventSocket, data: bytes) -> None:
        try:
            message = read_message(data)
        except MalformedError as error:
            self._counters["malformed"] += 1
            if self._counters["malformed"] == 1:
                # The first tells what there is to know; many would drown the log.
                self._log.warning("a message of Asterisk is malformed", reason=str(error), length=len(data))
            return
        if isinstance(message, RestResponse):
            opened.answered(message)
            return
        self._counters["events"] += 1
        if message is None:
            self._counters["unknown_events"] += 1
        elif isinstance(message, ApplicationReplaced):
            self._replaced(message)
        elif not self._entering.take(message):
            self._deliver(message)

    def _replaced(self, event: ApplicationReplaced) -> None:
        if event.app != self.app:
            return
        if self._is_changing:
            # By ourselves. Answers still come on it, requests go elsewhere.
            self._handed_on.set()
            self.rest_over_socket = False
            return
        self._enter("replaced")
        self.last_error_at = time.time()
        self.last_error = f"another has connected as the application {self.app!r}: each needs one of its own"
        self._log.error("the Stasis application was taken by another, its calls go there", app=self.app)
        self._deliver(event)

    def _deliver(self, event: AriEvent) -> None:
        began = time.perf_counter()
        try:
            self._on_event(event)
        except Exception:  # noqa: BLE001 - the edge of the connection: one event must not cost the others
            self._counters["failed_handlers"] += 1
            self._log.exception("an event of Asterisk could not be handled", type=type(event).__name__)
        took_ms = (time.perf_counter() - began) * 1000.0
        self.slowest_handler_ms = max(self.slowest_handler_ms, took_ms)
        if took_ms > SLOW_MS:
            self._counters["slow_handlers"] += 1
