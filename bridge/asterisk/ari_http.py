"""Requests to ARI over HTTP: before the event socket is up, while it is down, and what would hold it up."""

import asyncio
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx

from bridge.asterisk.ari_errors import AriUnavailableError
from bridge.asterisk.ari_wire import outcome, rest_url
from bridge.asterisk.tls import MAYBE_TLS, CertificateFileError, Trust, what_failed

CONNECTIONS = 32
"""At once; further requests wait for a free one. Asterisk's own limit for all its clients is 100 as it comes
(`sessionlimit` of http.conf)."""

IDLE_S = 10.0
"""Asterisk closes an idle connection after 15 s as it comes (`session_keep_alive`): this comes first."""


class AriHttp:
    """Connections to one Asterisk."""

    def __init__(self, base: str, trust: Trust) -> None:
        self._base = base
        self._trust = _cheapest(base, trust)
        self._client: httpx.AsyncClient | None = None
        self._context: ssl.SSLContext | None = None
        """Of the client."""
        self._former: list[httpx.AsyncClient] = []
        """Requests may still be on their way by them."""

    async def request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: object,
        *,
        authorization: str,
        timeout_s: float,
    ) -> Any:
        """Raises AriError; TimeoutError where no answer came."""
        try:
            async with asyncio.timeout(timeout_s):
                response = await self._connections().request(
                    method, rest_url(self._base, path, query), headers={"Authorization": authorization}, json=body
                )
        except CertificateFileError as error:
            raise AriUnavailableError(f"{method} {path}: {error}") from None
        except (httpx.TransportError, httpx.DecodingError, httpx.InvalidURL) as error:
            raise AriUnavailableError(f"{method} {path}: {http_failure(error, self._base)}") from None
        return outcome(method, path, response.status_code, response.content)

    def change(self, base: str, trust: Trust) -> None:
        """For requests from now on; those on their way are answered."""
        self._leave()
        self._base, self._trust = base, _cheapest(base, trust)

    def _leave(self) -> None:
        if self._client is not None:
            self._former.append(self._client)
            self._client = None

    async def aclose(self) -> None:
        for client in (*self._former, self._client):
            if client is not None:
                await client.aclose()

    def _connections(self) -> httpx.AsyncClient:
        context = self._trust.context()
        if context is not self._context:
            # Whom we trust has changed.
            self._leave()
        if self._client is None:
            self._context = context
            self._client = httpx.AsyncClient(
                verify=context,
                # Ours is one for the whole request.
                timeout=None,
                trust_env=False,
                limits=httpx.Limits(
                    max_connections=CONNECTIONS,
                    max_keepalive_connections=CONNECTIONS,
                    keepalive_expiry=IDLE_S,
                ),
            )
        return self._client


def _cheapest(base: str, trust: Trust) -> Trust:
    """Without TLS the cheap context will do: the other takes 20 ms to build."""
    return trust if base.startswith("https:") else Trust(verify=False)


def http_failure(error: httpx.HTTPError | httpx.InvalidURL, base: str) -> str:
    """Why there was no answer from `base`, in words."""
    said = what_failed(error, urlsplit(base).hostname or "")
    if said:
        return said
    if isinstance(error, httpx.RemoteProtocolError) and base.startswith("http:"):
        return f"{error}: {MAYBE_TLS}"
    return str(error) or type(error).__name__
