"""WebSockets to providers: opened and closed within a deadline; errors name the provider and hide its key."""

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Mapping
from functools import lru_cache
from types import TracebackType
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI

from bridge.providers.base import (
    ProviderBusyError,
    ProviderError,
    ProviderTimeoutError,
    ProviderUnavailableError,
)
from bridge.providers.scrub import scrubbed

CLOSE_S = 1.0
"""A far end that does not answer our goodbye in this time is cut off."""

LARGEST_MESSAGE = 4 * 1024 * 1024
"""Bytes; a provider's largest message (audio as base64) has some 100 kB."""

UNREAD_MESSAGES = 64
"""Messages held for a slow reader before the network has to wait."""

PING_S = 20.0

_LOGGER = logging.getLogger("bridge.providers.sockets")
"""The library's own would write each header of a handshake, keys too, to a log that is open for debugging."""
_LOGGER.setLevel(logging.WARNING)


class ProviderSocket:
    """One open connection. It has `send`, `recv`, `close` and iteration, as vendors' SDKs want them of a socket; all
    raise ProviderError, iteration also when the far end closes with another code than 1000 or 1001."""

    def __init__(self, provider: str, connection: ClientConnection, secrets: tuple[str, ...]) -> None:
        self._provider = provider
        self._connection = connection
        self._secrets = secrets
        self._closing = False

    async def send(self, message: str | bytes) -> None:
        try:
            await self._connection.send(message)
        except ConnectionClosed as closed:
            raise self._error(closed) from None

    async def recv(self) -> str | bytes:
        try:
            message: str | bytes = await self._connection.recv()
        except ConnectionClosed as closed:
            raise self._error(closed) from None
        return message

    async def __aiter__(self) -> AsyncIterator[str | bytes]:
        while True:
            try:
                message = await self._connection.recv()
            except ConnectionClosed as closed:
                if self._closing or (closed.rcvd is not None and closed.rcvd.code in (1000, 1001)):
                    return
                raise self._error(closed) from None
            yield message

    @property
    def close_code(self) -> int | None:
        """With which the far end closed; 1006: it did not say; None: open."""
        return self._connection.close_code

    async def close(self) -> None:
        """Say goodbye, and cut the connection off if that is not answered. Never raises."""
        self._closing = True
        try:
            # The library's own deadline does not cover a close frame that can't even be written.
            async with asyncio.timeout(CLOSE_S):
                await self._connection.close()
        except TimeoutError:
            pass
        finally:
            self._connection.transport.abort()

    async def __aenter__(self) -> "ProviderSocket":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _error(self, closed: ConnectionClosed) -> ProviderError:
        frame = closed.rcvd
        if frame is None:
            return ProviderError(self._provider, "the connection was lost")
        said = f" {scrubbed(frame.reason, *self._secrets)}" if frame.reason else ""
        return ProviderError(self._provider, f"closed the connection: {frame.code}{said}")


async def open_socket(
    provider: str,
    url: str,
    *,
    headers: Mapping[str, str],
    connect_s: float,
    secrets: tuple[str, ...] = (),
    key_from: str = "",
    subprotocols: tuple[str, ...] = (),
) -> ProviderSocket:
    """Connect to `url` within `connect_s`; `key_from` is where an operator finds the key.

    Raises ProviderTimeoutError, ProviderBusyError (429, 503), else ProviderUnavailableError with what the far end
    said and, where that is known, how to mend it."""
    options: dict[str, Any] = {"subprotocols": list(subprotocols)} if subprotocols else {}
    try:
        connection = await connect(
            url,
            additional_headers=dict(headers),
            compression=None,
            open_timeout=connect_s,
            close_timeout=CLOSE_S,
            ping_interval=PING_S,
            ping_timeout=PING_S,
            max_size=LARGEST_MESSAGE,
            max_queue=UNREAD_MESSAGES,
            logger=_LOGGER,
            **tls(url),
            **options,
        )
    except TimeoutError:
        raise ProviderTimeoutError(provider, f"no connection within {connect_s:g} s") from None
    except InvalidStatus as error:
        response = error.response
        body = response.body.decode("utf-8", "replace") if response.body else ""
        raise refusal(provider, response.status_code, scrubbed(body, *secrets), key_from) from None
    except (OSError, InvalidHandshake, InvalidURI, EOFError, UnicodeError) as error:
        said = scrubbed(error, *secrets) or type(error).__name__
        raise ProviderUnavailableError(provider, f"can't be reached: {said}") from None
    return ProviderSocket(provider, connection, secrets)


def tls(url: str) -> dict[str, Any]:
    """The `ssl` of a connection to `url`; nothing for ws://."""
    return {"ssl": _tls_context()} if url.startswith("wss:") else {}


@lru_cache(maxsize=1)
def _tls_context() -> ssl.SSLContext:
    # One for all: to load the system's certificates takes 20 ms, in which no call would be heard.
    return ssl.create_default_context()


def refusal(provider: str, status: int, said: str, key_from: str = "") -> ProviderError:
    """The error for an HTTP status that a provider answered with; `said` is scrubbed."""
    tail = f": {said}" if said else ""
    if status in (401, 403):
        check = f", check {key_from}" if key_from else ""
        return ProviderUnavailableError(provider, f"the key is refused ({status}){check}{tail}")
    if status in (429, 503):
        return ProviderBusyError(provider, f"takes no more at present ({status}){tail}")
    return ProviderUnavailableError(provider, f"answered {status}{tail}")
