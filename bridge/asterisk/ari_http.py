"""Requests to ARI over HTTP: before the event socket is up, while it is down, and what would hold it up."""

import asyncio
from collections.abc import Mapping
from typing import Any

import httpx

from bridge.asterisk.ari_errors import AriUnavailableError
from bridge.asterisk.ari_socket import tls_context
from bridge.asterisk.ari_wire import outcome, rest_url

CONNECTIONS = 32
"""At once; further requests wait for a free one. Asterisk's own limit for all its clients is 100 as it comes
(`sessionlimit` of http.conf)."""

IDLE_S = 10.0
"""Asterisk closes an idle connection after 15 s as it comes (`session_keep_alive`): this comes first."""


class AriHttp:
    """Connections to one Asterisk."""

    def __init__(self, base: str, *, verify: bool) -> None:
        self._base = base
        self._verify = verify
        self._client: httpx.AsyncClient | None = None

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
        except (httpx.TransportError, httpx.DecodingError, httpx.InvalidURL) as error:
            raise AriUnavailableError(f"{method} {path}: {error or type(error).__name__}") from None
        return outcome(method, path, response.status_code, response.content)

    async def aclose(self) -> None:
        if self._client is not None:
            await self._client.aclose()

    def _connections(self) -> httpx.AsyncClient:
        if self._client is None:
            self._client = httpx.AsyncClient(
                # Without TLS the cheap context will do: the other takes 20 ms to build.
                verify=tls_context(self._verify and self._base.startswith("https:")),
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
