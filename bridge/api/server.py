"""Serves the HTTP application inside the bridge's event loop."""

import asyncio
import contextlib
import errno
import socket
from collections.abc import Callable, Generator

import structlog
import uvicorn
from starlette.types import ASGIApp

MAX_CONNECTIONS = 256
"""Beyond, uvicorn answers 503: the API must not eat the files and the time that calls need."""

ABORT_AFTER_S = 1.0
"""At the stop requests under way may finish for this long; then connections are cut, which handlers notice."""
CANCEL_AFTER_S = 2
"""Handlers that still run then are cancelled."""

log = structlog.stdlib.get_logger(__name__)


class HttpError(Exception):
    """The HTTP server can't listen; the message says what to do."""


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        # Signals are the bridge's: it drains calls first.
        yield


class HttpServer:
    """One listening address. `start`, then `aclose`; no signal handlers, no access log."""

    def __init__(self, app: ASGIApp, host: str, port: int, *, closing: Callable[[], None] | None = None) -> None:
        """Port 0 takes a free one. `closing` is called as the stop begins: it ends what would last for ever
        (`LiveEvents.close`)."""
        self._app = app
        self._host = host
        self._port = port
        self._closing = closing
        self._server: _Server | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """The port it listens on, once started."""
        return self._port

    async def start(self) -> None:
        """Returns when requests are taken. Raises HttpError."""
        listener = _bind(self._host, self._port)
        self._port = listener.getsockname()[1]
        config = uvicorn.Config(
            self._app,
            # Named, so that an accelerator that happens to be installed does not change what was tested.
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            # Nobody may choose the address that failed keys are counted under.
            proxy_headers=False,
            limit_concurrency=MAX_CONNECTIONS,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=CANCEL_AFTER_S,
        )
        self._server = _Server(config)
        self._task = asyncio.create_task(self._server.serve(sockets=[listener]), name="http server")
        listening = asyncio.create_task(self._server.listening.wait())
        await asyncio.wait({self._task, listening}, return_when=asyncio.FIRST_COMPLETED)
        listening.cancel()
        if self._task.done():
            listener.close()
            error = self._task.exception()
            raise HttpError(f"the HTTP server did not start: {error}") from error

    async def aclose(self, deadline_s: float = 4.0) -> None:
        """Stop taking requests, let those under way finish within a second, and be gone by `deadline_s`."""
        if self._server is None or self._task is None:
            return
        if self._closing is not None:
            self._closing()
        self._server.should_exit = True
        done, _ = await asyncio.wait({self._task}, timeout=min(ABORT_AFTER_S, deadline_s))
        if not done:
            self._cut_connections(self._server)
            done, _ = await asyncio.wait({self._task}, timeout=max(0.0, deadline_s - ABORT_AFTER_S))
        if not done:
            log.warning("http server stopped the hard way", requests=len(self._server.server_state.tasks))
            self._task.cancel()
            await asyncio.wait({self._task})
        elif (error := self._task.exception()) is not None:
            log.error("http server failed", exc_info=error)
        self._server = None

    @staticmethod
    def _cut_connections(server: _Server) -> None:
        """End those that neither read nor close."""
        for connection in list(server.server_state.connections):
            transport = getattr(connection, "transport", None)
            if isinstance(transport, asyncio.Transport):
                transport.abort()


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named, for asyncio turns Nagle's delay off (40 ms an answer) only where it is.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((host, port))
        listener.listen(128)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        where = f"http {host}:{port}"
        if error.errno == errno.EADDRINUSE:
            raise HttpError(
                f"{where} is taken by another program: stop it, or choose another port (http.port, OFFHOOK_HTTP_PORT)"
            ) from error
        if error.errno == errno.EACCES:
            raise HttpError(f"{where} may not be used by this user: choose a port above 1023 (http.port)") from error
        if error.errno == errno.EADDRNOTAVAIL:
            raise HttpError(f"{where} is no address of this machine: correct http.listen") from error
        raise HttpError(f"{where} can't be listened on: {error.strerror}") from error
    return listener
