"""WebSockets opened by SDKs (OpenAI, Telnyx, Cartesia: clients of one generator): deadlines, errors without keys.

`sockets.py` is the same for those that we open ourselves.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from typing import Any, Protocol

from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from bridge.providers.base import ProviderError, ProviderTimeoutError, ProviderUnavailableError
from bridge.providers.scrub import scrubbed
from bridge.providers.sockets import CLOSE_S, LARGEST_MESSAGE, PING_S, UNREAD_MESSAGES, refusal, tls

_LOGGER = logging.getLogger("bridge.providers.sdk_sockets")
"""The library's own would write each header of a handshake, keys too, to a log that is open for debugging."""
_LOGGER.setLevel(logging.WARNING)


def connection_options(url: str) -> Any:
    """`websocket_connection_options` of the SDKs' `connect` to `url`; the deadline is that of `open_sdk_socket`."""
    options: Mapping[str, Any] = {
        "open_timeout": None,
        "close_timeout": CLOSE_S,
        "ping_interval": PING_S,
        "ping_timeout": PING_S,
        "max_size": LARGEST_MESSAGE,
        "max_queue": UNREAD_MESSAGES,
        "compression": None,
        "logger": _LOGGER,
        **tls(url),
    }
    return options


class SdkConnection(Protocol):
    """What the SDKs' connections have in common. They reconnect only where that is asked for."""

    async def send_raw(self, data: bytes | str) -> None: ...

    async def recv_bytes(self) -> bytes: ...

    async def close(self) -> None: ...


class SdkManager(Protocol):
    """What the SDKs' `connect` returns, before there is a connection."""

    async def enter(self) -> Any: ...


class SdkSocket:
    """One open connection. `send` and `receive` raise ProviderError."""

    def __init__(self, provider: str, connection: SdkConnection, secrets: tuple[str, ...]) -> None:
        self._provider = provider
        self._connection = connection
        self._secrets = secrets

    async def send(self, message: bytes | str) -> None:
        try:
            await self._connection.send_raw(message)
        except (WebSocketException, OSError) as error:
            raise self._lost(error) from None

    async def receive(self) -> bytes:
        """The next message. A far end that closes, with whatever code, is an error."""
        try:
            return await self._connection.recv_bytes()
        except (WebSocketException, OSError) as error:
            raise self._lost(error) from None

    async def objects(self) -> AsyncIterator[dict[str, Any]]:
        """The messages that are JSON objects; others mean nothing. Raises ProviderError in the end."""
        while True:
            message = await self.receive()
            with suppress(ValueError):
                content = json.loads(message)
                if isinstance(content, dict):
                    yield content

    async def close(self) -> None:
        """Say goodbye, and cut the connection off if that is not answered. Never raises."""
        connection: Any = self._connection
        try:
            # The library's own deadline does not cover a close frame that can't even be written.
            async with asyncio.timeout(CLOSE_S):
                await connection.close()
        except (TimeoutError, WebSocketException, OSError):
            pass
        finally:
            connection._connection.transport.abort()  # the SDKs offer no way to do it

    def _lost(self, error: BaseException) -> ProviderError:
        frame = error.rcvd if isinstance(error, ConnectionClosed) else None
        if frame is None:
            return ProviderError(self._provider, "the connection was lost")
        said = f" {scrubbed(frame.reason, *self._secrets)}" if frame.reason else ""
        return ProviderError(self._provider, f"closed the connection: {frame.code}{said}")


async def open_sdk_socket(
    provider: str,
    manager: SdkManager,
    *,
    connect_s: float,
    secrets: tuple[str, ...] = (),
    key_from: str = "",
    refused: Callable[[int, str], ProviderError] | None = None,
) -> SdkSocket:
    """Connect within `connect_s`. `refused` makes the error for an HTTP status and what was said with it (scrubbed);
    without, `sockets.refusal` does, which tells where the key is from. Raises ProviderTimeoutError, that, else
    ProviderUnavailableError with what the far end said."""
    try:
        async with asyncio.timeout(connect_s):
            connection: SdkConnection = await manager.enter()
    except TimeoutError:
        raise ProviderTimeoutError(provider, f"no connection within {connect_s:g} s") from None
    except InvalidStatus as error:
        response = error.response
        body = response.body.decode("utf-8", "replace") if response.body else ""
        said, status = scrubbed(body, *secrets), response.status_code
        raise (refused(status, said) if refused else refusal(provider, status, said, key_from)) from None
    except (OSError, WebSocketException, EOFError, UnicodeError) as error:
        said = scrubbed(error, *secrets) or type(error).__name__
        raise ProviderUnavailableError(provider, f"can't be reached: {said}") from None
    return SdkSocket(provider, connection, secrets)
