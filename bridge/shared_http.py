"""HTTP connections that many calls share, none of them left open by a request that was given up.

httpx (0.28, on httpcore 1.0) keeps the connection of a cancelled request for ever, neither closed nor used again,
where the cancellation comes between two of its steps, or a second one while it closes the connection after the first:
each takes a file and one of the pool's hundred places, until no request gets one. A call that ends cancels what it
asked for.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
import structlog

log = structlog.get_logger(__name__)

DEFAULT_LIMITS = httpx.Limits(max_connections=100, max_keepalive_connections=20)
"""httpx's own."""


@dataclass(eq=False, slots=True)
class _Client:
    http: httpx.AsyncClient
    users: int = 0
    retired: bool = False
    """A request on it was cancelled: it takes no more, and is closed with its last."""


class SharedHttp:
    """One client of httpx at a time: that on which a request was cancelled is replaced, and closed once the other
    requests on it are over. Redirects are not followed."""

    def __init__(
        self,
        *,
        trust_env: bool,
        tls: ssl.SSLContext | None = None,
        limits: httpx.Limits = DEFAULT_LIMITS,
        idle_s: float | None = None,
    ) -> None:
        """`trust_env`: the environment's proxies and certificates are used. `tls`: whom to trust instead. `idle_s`:
        without a request for so long all connections are closed; None: those that are idle wait for the next."""
        self._trust_env = trust_env
        self._tls = tls
        self._limits = limits
        self._idle_s = idle_s
        self._idle: asyncio.TimerHandle | None = None
        self._present: _Client | None = None
        self._lent: set[_Client] = set()
        self._closing: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def lend(self) -> AsyncIterator[httpx.AsyncClient]:
        """The client for one request, whose response has to be closed within."""
        client = self._client()
        if self._idle is not None:
            self._idle.cancel()
        client.users += 1
        self._lent.add(client)
        try:
            yield client.http
        except asyncio.CancelledError:
            client.retired = True
            if self._present is client:
                self._present = None
            raise
        finally:
            client.users -= 1
            if client.users == 0:
                self._lent.discard(client)
                if client.retired:
                    self._close(client)
                elif self._idle_s is not None and client is self._present:
                    self._idle = asyncio.get_running_loop().call_later(self._idle_s, self.retire)

    def retire(self) -> None:
        """Another client for requests from now on; the present one's connections are closed when it has answered."""
        client, self._present = self._present, None
        if client is None:
            return
        client.retired = True
        if not client.users:
            self._close(client)

    def _client(self) -> _Client:
        if self._present is None:
            if self._tls is None:
                # Reading the certificates takes longer than all the rest.
                self._tls = httpx.create_ssl_context(trust_env=self._trust_env)
            http = httpx.AsyncClient(
                trust_env=self._trust_env, verify=self._tls, limits=self._limits, follow_redirects=False
            )
            self._present = _Client(http)
        return self._present

    def _close(self, client: _Client) -> None:
        """In a task of its own, which whoever ends the call does not cancel."""
        task = asyncio.get_running_loop().create_task(client.http.aclose(), name="closing of HTTP connections")
        self._closing.add(task)
        task.add_done_callback(self._closed)

    def _closed(self, task: "asyncio.Task[None]") -> None:
        self._closing.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("HTTP connections could not be closed", error=repr(error))

    async def aclose(self) -> None:
        """Close all of it. Requests under way fail, some of them not before their timeout: end them first."""
        if self._idle is not None:
            self._idle.cancel()
        client, self._present = self._present, None
        for one in {*self._lent, *([] if client is None else [client])}:
            one.retired = False
            self._close(one)
        self._lent.clear()
        if self._closing:
            await asyncio.wait(set(self._closing))
