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
from bridge.shared_http import SharedHttp

CONNECTIONS = 32
"""At once; further requests wait for a free one. Asterisk's own limit for all its clients is 100 as it comes
(`sessionlimit` of http.conf)."""

IDLE_S = 10.0
"""Asterisk closes an idle connection after 15 s as it comes (`session_keep_alive`): this comes first."""


class AriHttp:
    """Connections to one Asterisk."""

    def __init__(self, base: str, trust: Trust, *, idle_s: float = IDLE_S) -> None:
        """`idle_s`: see `IDLE_S`."""
        self._base = base
        self._trust = _cheapest(base, trust)
        self._idle_s = idle_s
        self._http: SharedHttp | None = None
        self._context: ssl.SSLContext | None = None
        """Of those connections."""
        self._former: list[SharedHttp] = []
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
            async with asyncio.timeout(timeout_s), self._connections().lend() as client:
                response = await client.request(
                    method,
                    rest_url(self._base, path, query),
                    headers={"Authorization": authorization},
                    json=body,
                    # Ours is one for the whole request.
                    timeout=None,
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
        if self._http is not None:
            self._former.append(self._http)
            self._http.retire()
            self._http = None

    async def aclose(self) -> None:
        for http in (*self._former, self._http):
            if http is not None:
                await http.aclose()

    def _connections(self) -> SharedHttp:
        context = self._trust.context()
        if context is not self._context:
            # Whom we trust has changed.
            self._leave()
        if self._http is None:
            self._context = context
            self._http = SharedHttp(
                trust_env=False,
                tls=context,
                limits=httpx.Limits(
                    max_connections=CONNECTIONS,
                    max_keepalive_connections=CONNECTIONS,
                    keepalive_expiry=self._idle_s,
                ),
                idle_s=self._idle_s,
            )
        return self._http


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
