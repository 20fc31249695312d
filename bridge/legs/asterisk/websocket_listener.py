"""Where Asterisks connect by chan_websocket: one listener a process; a call's connection brings the call's secret.

A stranger costs a socket for some seconds and gets a 404.
"""

import asyncio
import secrets
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from urllib.parse import parse_qs, urlsplit

import structlog
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from bridge.asterisk.settings import WebsocketListenerSettings
from bridge.asterisk.tls import OwnCertificate
from bridge.legs.media_socket import LOGGER, MAX_MESSAGE_BYTES, MediaSocket, prepare
from bridge.legs.tls_handshake import TlsHandshake

HANDSHAKE_S = 5.0
MAX_WAITING = 200
"""Connections in their handshake; one more, and the oldest goes."""
BACKLOG = 200
ACCEPTS = 20
"""In a row; then the event loop gets its turn."""
RETRY_S = 0.5
"""Before connections are taken again when there is no file descriptor left."""

PARAMETER = "call"
"""Of the request's query: the secret."""
SUBPROTOCOL = "media"

log = structlog.get_logger(__name__)


class WebsocketListener:
    """`start` listens; whoever has a call set up expects its connection."""

    def __init__(self, settings: WebsocketListenerSettings) -> None:
        self._settings = settings
        self._sock: socket.socket | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._expected: dict[str, Callable[[MediaSocket], None]] = {}
        self._waiting: dict[MediaSocket | TlsHandshake, asyncio.TimerHandle] = {}
        """In their handshake, the oldest first."""
        self._certificate: OwnCertificate | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._accepted = self._refused = 0

    @property
    def port(self) -> int:
        """Where it listens; where it is to, before `start`."""
        return self._settings.port if self._sock is None else int(self._sock.getsockname()[1])

    @property
    def listening(self) -> bool:
        return self._sock is not None

    @property
    def scheme(self) -> str:
        """Of the address that is connected to."""
        return "ws" if self._settings.certificate is None else "wss"

    @property
    def wanted(self) -> str:
        """How it is to be connected to, in words."""
        if self._settings.certificate is None:
            return f"by ws to port {self.port}"
        # Asterisk compares a certificate's names with what uri has, and looks at none of its addresses.
        return (
            f"by wss to port {self.port} (tls_enabled = yes, a ca_list_file that vouches for our certificate, and in "
            "uri a name that it is for: an address will not do)"
        )

    def start(self) -> None:
        """Raises OSError; CertificateFileError, which is one."""
        if self._settings.certificate is not None:
            self._certificate = OwnCertificate(self._settings.certificate, self._settings.key)
        family = socket.AF_INET6 if ":" in self._settings.listen else socket.AF_INET
        sock = socket.create_server((self._settings.listen, self._settings.port), family=family, backlog=BACKLOG)
        sock.setblocking(False)
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(sock, self._accept)
        log.info("websocket: listening", address=self._settings.listen, port=self.port, scheme=self.scheme)

    async def aclose(self) -> None:
        """Take no more connections. Those of calls are their legs' to close."""
        if self._retry is not None:
            self._retry.cancel()
        if self._sock is not None and self._loop is not None:
            self._loop.remove_reader(self._sock)
            self._sock.close()
            self._sock = None
        for waiting in list(self._waiting):
            self._drop(waiting)

    @contextmanager
    def expecting(self, take: Callable[[MediaSocket], None]) -> Iterator[str]:
        """Gives the secret of a connection. When it comes, within the block, it is given to `take`, which sets its
        callbacks at once; it is open by then, and watched by the loop."""
        secret = secrets.token_urlsafe(18)
        self._expected[secret] = take
        try:
            yield secret
        finally:
            self._expected.pop(secret, None)

    def readings(self) -> Mapping[str, float]:
        """For the metrics."""
        return {
            "websocket_connections_total": float(self._accepted),
            "websocket_refused_total": float(self._refused),
        }

    # -- inside ---------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        for _ in range(ACCEPTS):
            if self._sock is None:
                return
            try:
                sock, _address = self._sock.accept()
            except BlockingIOError:
                return
            except OSError as error:
                self._pause(error)
                return
            self._begin(sock)

    def _pause(self, error: OSError) -> None:
        """Out of file descriptors, most likely: to ask again at once would only burn the processor."""
        if self._loop is None or self._sock is None:
            return
        log.warning("websocket: a connection can't be taken", error=str(error))
        self._loop.remove_reader(self._sock)
        self._retry = self._loop.call_later(RETRY_S, self._go_on)

    def _go_on(self) -> None:
        if self._loop is not None and self._sock is not None:
            self._loop.add_reader(self._sock, self._accept)

    def _begin(self, sock: socket.socket) -> None:
        assert self._loop is not None
        try:
            prepare(sock)
        except OSError:
            sock.close()
            return
        if len(self._waiting) >= MAX_WAITING:
            self._drop(next(iter(self._waiting)))
        if self._certificate is None:
            self._greet(sock)
            return
        try:
            encrypted = self._certificate.context().wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        except OSError:
            # It is gone already.
            sock.close()
            self._refused += 1
            return
        handshake = TlsHandshake(encrypted)
        handshake.on_done = lambda: self._encrypted(handshake)
        handshake.on_failed = lambda: self._drop(handshake)
        self._waiting[handshake] = self._loop.call_later(HANDSHAKE_S, self._drop, handshake)
        handshake.begin()

    def _encrypted(self, handshake: TlsHandshake) -> None:
        self._waiting.pop(handshake).cancel()
        self._greet(handshake.socket)

    def _greet(self, sock: socket.socket) -> None:
        assert self._loop is not None
        protocol = ServerProtocol(select_subprotocol=_subprotocol, max_size=MAX_MESSAGE_BYTES, logger=LOGGER)
        connection = MediaSocket(sock, protocol)
        connection.on_request = lambda request: self._on_request(connection, request)
        connection.on_lost = lambda reason: self._drop(connection)
        self._waiting[connection] = self._loop.call_later(HANDSHAKE_S, self._drop, connection)
        connection.watch(True, lambda error: self._crashed(connection, error))

    def _on_request(self, connection: MediaSocket, request: Request) -> None:
        timer = self._waiting.pop(connection, None)
        if timer is not None:
            timer.cancel()
        given = parse_qs(urlsplit(request.path).query).get(PARAMETER, [""])
        take = self._expected.pop(given[-1], None)
        if take is None:
            self._refused += 1
            connection.reject(404, "no call expects this connection\n")
            return

        def opened() -> None:
            self._accepted += 1
            take(connection)

        connection.on_lost = lambda reason: None
        connection.on_open = opened
        connection.accept(request)

    def _drop(self, connection: MediaSocket | TlsHandshake) -> None:
        """It says nothing, or nothing that is a request for a WebSocket."""
        timer = self._waiting.pop(connection, None)
        if timer is not None:
            timer.cancel()
            self._refused += 1
        connection.close()

    def _crashed(self, connection: MediaSocket, error: Exception) -> None:
        log.error("websocket: a connection failed", error=f"{type(error).__name__}: {error}")
        self._drop(connection)


def _subprotocol(protocol: ServerProtocol, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """Also for a client that names none."""
    return Subprotocol(SUBPROTOCOL) if SUBPROTOCOL in offered else None
