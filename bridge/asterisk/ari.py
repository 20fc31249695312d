"""The client of one Asterisk's REST interface (ARI): its events, its verbs, connected for as long as it lives."""

import asyncio
import os
import random
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from types import MappingProxyType
from typing import Any, Literal

import httpx
import structlog

from bridge.asterisk.ari_entering import Entering, EnteringChannels, ended
from bridge.asterisk.ari_errors import (
    AriError,
    AriNotFoundError,
    AriRefusedError,
    AriUnauthorizedError,
    AriUnavailableError,
)
from bridge.asterisk.ari_events import (
    ApplicationReplaced,
    AriEvent,
    Bridge,
    Channel,
    Connected,
    Disconnected,
    MalformedError,
    parse_event,
)
from bridge.asterisk.ari_socket import EventSocket, open_event_socket, tls_context
from bridge.asterisk.ari_verbs import AriVerbs
from bridge.asterisk.ari_wire import (
    Backoff,
    authorization,
    outcome,
    parse_message,
    parse_response,
    rest_url,
    socket_url,
)
from bridge.asterisk.settings import AsteriskSettings
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

AriState = Literal["connecting", "up", "down", "unauthorized", "replaced", "closed"]

HTTP_CONNECTIONS = 100
"""At once; a hundred calls are set up at the same time, and further requests wait for a free connection."""
IDLE_CONNECTIONS = 20
IDLE_S = 10.0
"""Asterisk itself closes an idle connection after 15 s (`session_keep_alive`): we do it first."""

PROBE_S = 1.0
"""Longest wait for the answer to a request over the event socket, at connect; Asterisks before 20.14, 21.9 and 22.4
know none and don't answer."""

SLOW_MS = 20.0
"""A handler that takes longer holds up every call of the process: one tick of media."""
SLICE_S = 0.005
"""Events are handled in a row for so long at most; then others get the loop."""


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
        self.state: AriState = "connecting"
        self.last_error = ""
        """Why it is not up, or last was not."""
        self.connected_at: float | None = None
        """Of the monotonic clock; None: not up."""
        self.version = ""
        """Asterisk's, e.g. 22.10.1; empty until it was up."""
        self.rest_over_socket = False
        """Whether requests go over the event socket at present."""
        self._counters = dict.fromkeys(
            ("connects", "requests", "failed", "timeouts", "events", "unknown_events", "garbage", "slow_handlers"), 0
        )
        self.slowest_handler_ms = 0.0
        self._log = log.bind(asterisk=settings.name)
        self._http: httpx.AsyncClient | None = None
        self._authorization = ""
        self._socket: EventSocket | None = None
        self._local_address = ""
        self._entering = EnteringChannels()
        self._backoff = Backoff(settings.reconnect_s)
        self._task: asyncio.Task[None] | None = None
        self._settling: set[asyncio.Task[None]] = set()
        self._wanted = asyncio.Event()
        self._attempted = asyncio.Event()
        self._told = ""
        """What the log was told last of why it is not up."""

    @property
    def counters(self) -> Mapping[str, int]:
        return MappingProxyType(self._counters)

    def start(self) -> None:
        """Begin to connect; for ever, in the background."""
        if self._task is None and self.state != "closed":
            self._task = asyncio.create_task(self._run(), name=f"ari {self._settings.name}")

    async def aclose(self) -> None:
        """Close the event socket, and end what waits. The dialplan gets new calls back from here on."""
        if self.state == "closed":
            return
        self.state = "closed"
        self.connected_at = None
        self._attempted.set()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        for task in list(self._settling):
            task.cancel()
        self._entering.fail(AriUnavailableError(f"the connection to {self._settings.name} is closed"))
        if self._http is not None:
            await self._http.aclose()

    async def reconnect(self) -> None:
        """Connect now, also where another has taken the application: it is taken back. Returns when the attempt is
        over, however it went; `state` tells."""
        if self.state == "closed":
            return
        self._attempted.clear()
        self._wanted.set()
        if self._socket is not None:
            await self._socket.close()
        self.start()
        await self._attempted.wait()

    def entering(self, channel_id: str) -> AbstractContextManager[Entering]:
        """For a channel that is about to be created; its StasisStart goes to the waiter, not to `on_event`."""
        return self._entering.entering(channel_id)

    def local_address(self) -> str:
        """The address of ours that reaches this Asterisk. Raises AriUnavailableError while that is not known."""
        if self._local_address:
            return self._local_address
        host = httpx.URL(self._settings.url).host
        # A name would have to be looked up, which blocks.
        for family in (socket.AF_INET, socket.AF_INET6):
            with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
                socket.inet_pton(family, "127.0.0.1" if host == "localhost" and family == socket.AF_INET else host)
                probe.connect((host, 9))
                return str(probe.getsockname()[0])
        raise AriUnavailableError(f"{self._settings.name} was not reached yet: by which address of ours is not known")

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
        takes requests there, unless `over_http`. JSON, or None where the answer is empty. Raises AriError."""
        path = path.lstrip("/")
        limit_s = self._settings.request_s if timeout_s is None else timeout_s
        until = time.monotonic() + limit_s
        self._counters["requests"] += 1
        try:
            if self.rest_over_socket and not over_http and self._socket is not None and self._socket.usable:
                try:
                    response = await self._socket.request(method, path, query or {}, body, limit_s)
                    return outcome(method, path, response.status, response.body)
                except AriUnavailableError:
                    # Whether it was carried out is not known; what changes nothing can be asked again.
                    if method != "GET" or self.state == "closed":
                        raise
            return await self._over_http(method, path, query or {}, body, until - time.monotonic())
        except TimeoutError:
            self._counters["timeouts"] += 1
            self._counters["failed"] += 1
            raise AriUnavailableError(f"{method} {path}: no answer within {limit_s:g} s") from None
        except AriError:
            self._counters["failed"] += 1
            raise

    async def _over_http(
        self, method: str, path: str, query: Mapping[str, str], body: object, timeout_s: float
    ) -> Any:
        if self.state == "closed":
            raise AriUnavailableError(f"{method} {path}: the connection to {self._settings.name} is closed")
        if not self._authorization:
            self._read_password()
        url = rest_url(self._settings.url, path, query)
        headers = {"Authorization": self._authorization}
        try:
            async with asyncio.timeout(timeout_s):
                response = await self._client().request(
                    method, url, headers=headers, json=body if body is not None else None
                )
        except (httpx.TransportError, httpx.InvalidURL, httpx.DecodingError) as error:
            raise AriUnavailableError(f"{method} {path}: {error or type(error).__name__}") from None
        return outcome(method, path, response.status_code, response.content)

    def _client(self) -> httpx.AsyncClient:
        if self._http is None:
            https = self._settings.url.startswith("https:")
            self._http = httpx.AsyncClient(
                # Without TLS no context is built: that alone takes 20 ms.
                verify=tls_context(self._settings.verify if https else False),
                timeout=None,
                trust_env=False,
                limits=httpx.Limits(
                    max_connections=HTTP_CONNECTIONS,
                    max_keepalive_connections=IDLE_CONNECTIONS,
                    keepalive_expiry=IDLE_S,
                ),
            )
        return self._http

    def _read_password(self) -> None:
        try:
            password = self._settings.password(self._environ)
        except PasswordError as error:
            raise AriUnauthorizedError(str(error)) from None
        self._authorization = authorization(self._settings.username, password)

    # -- the connection -------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            lasted_s = 0.0
            try:
                # Read anew: it may have been put right meanwhile.
                self._read_password()
                opened = await open_event_socket(
                    socket_url(self._settings.url, self.app),
                    authorization=self._authorization,
                    connect_s=self._settings.request_s,
                    heartbeat_s=self._settings.heartbeat_s,
                    verify=self._settings.verify,
                )
            except AriUnauthorizedError as error:
                self._down("unauthorized", str(error))
                self._attempted.set()
                pause_s: float | None = self._settings.reconnect_s
            except AriUnavailableError as error:
                self._down("down", str(error))
                self._attempted.set()
                pause_s = self._backoff.next_s(random.random())
            else:
                self._wanted.clear()
                since = time.monotonic()
                try:
                    await self._serve(opened)
                finally:
                    await opened.close()
                lasted_s = time.monotonic() - since
                pause_s = None if self.state == "replaced" else self._backoff.next_s(random.random(), lasted_s)
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._wanted.wait()
            self._wanted.clear()

    async def _serve(self, opened: EventSocket) -> None:
        """Take what the socket brings, until it is over."""
        self._up(opened)
        probe = asyncio.create_task(self._probe(opened))
        try:
            slice_ends = time.monotonic() + SLICE_S
            async for message in opened.messages():
                self._take(opened, message)
                if self.state == "replaced":
                    break
                if time.monotonic() > slice_ends:
                    # What waits in the socket's queue is read without letting anybody else run.
                    await asyncio.sleep(0)
                    slice_ends = time.monotonic() + SLICE_S
        finally:
            probe.cancel()
            self._socket = None
            self.rest_over_socket = False
            self.connected_at = None
        if self.state == "replaced":
            opened.lose("another has taken the application")
            self._deliver(Disconnected(self.last_error))
        elif self.state != "closed":
            self._down("down", opened.reason)
            self._deliver(Disconnected(opened.reason))

    def _up(self, opened: EventSocket) -> None:
        self._socket = opened
        self._local_address = opened.local_address
        self._counters["connects"] += 1
        self.state = "up"
        self.connected_at = time.monotonic()
        self._told = ""
        self._attempted.set()
        self._log.info("connected to Asterisk", url=self._settings.url, app=self.app)
        first = self._counters["connects"] == 1
        self._deliver(Connected(first))
        if not first:
            for entering in self._entering.unsettled():
                self._settle_later(entering)

    def _down(self, state: AriState, reason: str) -> None:
        self.state = state
        self.last_error = reason
        if self._told != reason:
            # Once for each reason: it is tried again and again.
            self._told = reason
            if state == "unauthorized":
                self._log.error("Asterisk refuses the user or the password of ari.conf", reason=reason)
            else:
                self._log.warning("no connection to Asterisk, trying again", url=self._settings.url, reason=reason)

    async def _probe(self, opened: EventSocket) -> None:
        """Which version it is, and whether it takes requests over the event socket."""
        path, query = "asterisk/info", {"only": "system"}
        try:
            answer: Any = None
            try:
                response = await opened.request("GET", path, query, None, min(PROBE_S, self._settings.request_s))
                answer = outcome("GET", path, response.status, response.body)
                self.rest_over_socket = True
            except TimeoutError:
                answer = await self.request("GET", path, query=query)
            system = answer.get("system") if isinstance(answer, dict) else None
            if isinstance(system, dict):
                self.version = str(system.get("version", "")).partition("+")[0]
        except AriError as error:
            self._log.warning("Asterisk does not tell its version", reason=str(error))

    def _settle_later(self, entering: Entering) -> None:
        """A channel's StasisStart may have been lost with the socket: ask."""

        async def ask() -> None:
            try:
                channel = await self.channel(entering.channel_id)
            except AriNotFoundError:
                entering.settle(ended(entering.channel_id, "it is gone", 0))
            except AriError:
                return
            else:
                if channel.app_name == "Stasis" and channel.app_data.split(",")[0] == self.app:
                    entering.settle(channel)

        task = asyncio.create_task(ask())
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)

    # -- events ---------------------------------------------------------------------------------------------------

    def _take(self, opened: EventSocket, data: str | bytes) -> None:
        message = parse_message(data)
        if message is None:
            self._counters["garbage"] += 1
            return
        if message.get("type") == "RESTResponse":
            response = parse_response(message)
            if response is None:
                self._counters["garbage"] += 1
            else:
                opened.answered(response)
            return
        try:
            event = parse_event(message)
        except MalformedError as error:
            self._counters["garbage"] += 1
            self._log.warning("an event of Asterisk is malformed", type=message.get("type"), reason=str(error))
            return
        self._counters["events"] += 1
        if event is None:
            self._counters["unknown_events"] += 1
            return
        if isinstance(event, ApplicationReplaced):
            self._replaced(event)
        elif not self._entering.take(event):
            self._deliver(event)

    def _replaced(self, event: ApplicationReplaced) -> None:
        if event.app != self.app:
            return
        self.state = "replaced"
        self.last_error = f"another has connected as application {self.app!r}: each needs one of its own"
        self._log.error("the application was taken by another, new calls go there", app=self.app)
        self._deliver(event)

    def _deliver(self, event: AriEvent) -> None:
        began = time.perf_counter()
        try:
            self._on_event(event)
        except Exception:  # noqa: BLE001 - the edge; it is logged
            # The edge of the connection: one event's failure must not cost the others.
            self._log.exception("an event of Asterisk could not be handled", type=type(event).__name__)
        took_ms = (time.perf_counter() - began) * 1000
        self.slowest_handler_ms = max(self.slowest_handler_ms, took_ms)
        if took_ms > SLOW_MS:
            self._counters["slow_handlers"] += 1
