"""The event socket of one Asterisk: opened within a deadline, pinged, requests and answers told apart by id."""

import asyncio
import ipaddress
import logging
import socket
from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage, InvalidStatus, InvalidURI

from bridge.asterisk.ari_errors import AriError, AriUnauthorizedError, AriUnavailableError, AriUntrustedError
from bridge.asterisk.ari_wire import LARGEST_REQUEST, RestResponse, error_message, rest_request
from bridge.asterisk.tls import MAYBE_TLS, Trust, what_failed

CLOSE_S = 1.0
"""A far end that does not answer our goodbye in this time is cut off."""

LONGEST_TURNS = 6
"""A request that waits for its turn is given up after so many times its limit all the same."""

LARGEST_MESSAGE = 16 * 1024 * 1024
"""Bytes; the list of a thousand channels has some 700 kB. A larger message costs the connection."""

UNREAD_MESSAGES = 1024
"""Messages held while a handler is slow: Asterisk cuts a client off that does not read for a tenth of a second."""

_LOGGER = logging.getLogger("bridge.asterisk.ari_socket")
"""The library's own would write the headers of the handshake, the password too, to a log open for debugging."""
_LOGGER.setLevel(logging.WARNING)


class EventSocket:
    """One open connection."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._waiting: dict[str, asyncio.Future[RestResponse | None]] = {}
        self._requests = 0
        self._answers = 0
        self._answered_at = 0.0
        """When the last of them came (s, the loop's time)."""
        self.local_address: str = connection.local_address[0]
        """Ours, by which we reach this Asterisk."""
        self.reason = ""
        """Why it is over; empty: it is open."""

    @property
    def round_trip_s(self) -> float:
        """Of the last ping; 0: none was answered yet."""
        return self._connection.latency

    async def all_answered(self) -> None:
        """Returns when no request waits for its answer."""
        if self._waiting:
            await asyncio.wait(list(self._waiting.values()))

    async def messages(self) -> AsyncIterator[bytes]:
        """Until the connection is over."""
        while True:
            try:
                # As bytes: text that is no UTF-8 would cost the connection, and is only a message that says nothing.
                message = await self._connection.recv(decode=False)
            except ConnectionClosed as closed:
                self.lose(_why(closed))
                return
            yield message

    async def request(
        self, method: str, path: str, query: Mapping[str, str], body: object, timeout_s: float
    ) -> RestResponse | None:
        """Any number at once. Asterisk carries them out one by one: `timeout_s` counts from the answer to the one
        before, so that of many at once none is given up while it waits for its turn.

        None: it is too large for Asterisk, nothing was sent. Raises AriUnavailableError where the socket is lost;
        TimeoutError."""
        response: RestResponse | None = None
        if not self.reason:
            self._requests += 1
            number = self._requests
            request_id = str(number)
            message = rest_request(request_id, method, path, query, body)
            if len(message) > LARGEST_REQUEST:
                return None
            future: asyncio.Future[RestResponse | None] = asyncio.get_running_loop().create_future()
            self._waiting[request_id] = future
            try:
                async with asyncio.timeout(timeout_s):
                    await self._connection.send(message)
                response = await self._answer(number, future, timeout_s)
            except ConnectionClosed as closed:
                self.lose(_why(closed))
            finally:
                del self._waiting[request_id]
        if response is None:
            raise AriUnavailableError(f"{method} {path}: the event socket is lost: {self.reason}")
        return response

    async def _answer(
        self, number: int, future: "asyncio.Future[RestResponse | None]", timeout_s: float
    ) -> RestResponse | None:
        """Of the request with this number, counted from 1. Raises TimeoutError."""
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout_s
        longest = loop.time() + LONGEST_TURNS * timeout_s
        while not future.done():
            await asyncio.wait({future}, timeout=until - loop.time())
            if not future.done() and loop.time() >= until:
                # Are those before it still being answered?
                until = min(self._answered_at + timeout_s, longest)
                if self._answers >= number or until <= loop.time():
                    raise TimeoutError
        return future.result()

    def answered(self, response: RestResponse) -> None:
        """To nobody, where the one who waited has given up."""
        self._answers += 1
        self._answered_at = asyncio.get_running_loop().time()
        future = self._waiting.get(response.request_id)
        if future is not None and not future.done():
            future.set_result(response)

    def lose(self, reason: str) -> None:
        """Requests that wait end now: their answers can't come any more."""
        self.reason = self.reason or reason
        for future in self._waiting.values():
            if not future.done():
                future.set_result(None)

    async def close(self, reason: str = "it was closed here") -> None:
        """Say goodbye, and cut the connection off if that is not answered. Never raises."""
        self.lose(reason)
        try:
            # The library's own deadline does not cover a close frame that can't even be written.
            async with asyncio.timeout(CLOSE_S):
                await self._connection.close()
        except TimeoutError:
            pass
        finally:
            self._connection.transport.abort()


async def open_event_socket(
    url: str, *, authorization: str, connect_s: float, heartbeat_s: float, trust: Trust
) -> EventSocket:
    """Connect within `connect_s`. Raises AriUnauthorizedError, AriUntrustedError, AriUnavailableError."""
    encrypted = url.startswith("wss:")
    try:
        options: dict[str, Any] = {"ssl": trust.context()} if encrypted else {}
        connection = await _Connect(
            url,
            additional_headers={"Authorization": authorization},
            compression=None,
            open_timeout=connect_s,
            close_timeout=CLOSE_S,
            ping_interval=heartbeat_s,
            ping_timeout=heartbeat_s,
            max_size=LARGEST_MESSAGE,
            max_queue=UNREAD_MESSAGES,
            logger=_LOGGER,
            proxy=None,
            **options,
        )
    except TimeoutError:
        raise AriUnavailableError(f"no connection within {connect_s:g} s") from None
    except InvalidStatus as error:
        raise _refusal(error) from None
    except (OSError, InvalidHandshake, InvalidURI, EOFError, UnicodeError) as error:
        said = what_failed(error, urlsplit(url).hostname or "") if encrypted else ""
        if said:
            raise AriUntrustedError(f"can't be reached: {said}") from None
        said = str(error) or type(error).__name__
        if isinstance(error, InvalidMessage) and not encrypted:
            said = f"{said}: {MAYBE_TLS}"
        raise AriUnavailableError(f"can't be reached: {said}") from None
    return EventSocket(connection)


def address_towards(host: str) -> str | None:
    """The address of ours that packets to `host` carry; None: it has none, or `host` is a name (to look it up would
    block)."""
    try:
        address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
        with socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.connect((str(address), 9))
            return str(probe.getsockname()[0])
    except (ValueError, OSError):
        return None


class _Connect(connect):
    def process_redirect(self, exc: Exception) -> Exception:
        # Followed, it would carry the password to wherever the answer says.
        return exc


def _refusal(error: InvalidStatus) -> AriError:
    status = error.response.status_code
    said = error_message(bytes(error.response.body or b""))
    text = f"GET /ari/events: {status}{f' {said}' if said else ''}"
    return AriUnauthorizedError(text) if status in (401, 403) else AriUnavailableError(text)


def _why(closed: ConnectionClosed) -> str:
    if closed.sent is not None and closed.sent.code != 1000 and not closed.rcvd_then_sent:
        # We ended it: no pong in time, or a message that no Asterisk sends.
        return f"closed here: {closed.sent.reason or closed.sent.code}"
    if closed.rcvd is not None:
        return f"closed by Asterisk: {closed.rcvd.code}{f' {closed.rcvd.reason}' if closed.rcvd.reason else ''}"
    return "the connection was lost"
