"""Lets in who has the API key. Nothing is exempt, loopback neither; without a key the two probes say one word."""

import base64
import binascii
import hashlib
import hmac
import time
from collections.abc import Callable

import structlog
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from bridge.api.errors import error_response
from bridge.log import RateLimited

PROBES = ("/healthz", "/readyz")
"""Answered without a key, with a status code and one word: load balancers have no keys, and these hold no data."""

MAX_FAILURES = 10
"""Wrong keys that one address may send in FAILURE_WINDOW_S; then it gets 429. The right key always gets in, so that
nobody on the same address can lock the operator out."""
FAILURE_WINDOW_S = 60.0
_MAX_ADDRESSES = 1000

_CHALLENGE = {"WWW-Authenticate": 'Basic realm="offhook", charset="UTF-8"'}

log = structlog.stdlib.get_logger(__name__)


def presented_key(headers: Headers, method: str) -> str | None:
    """The key a request brings: `Authorization: Bearer KEY`, `X-API-Key: KEY`, or, to read only, the password of
    Basic authentication, which a browser can ask for. A browser sends Basic by itself to any page's requests, so it
    must not be able to change anything."""
    scheme, _, value = headers.get("authorization", "").partition(" ")
    value = value.strip()
    if scheme.lower() == "bearer" and value:
        return value
    if scheme.lower() == "basic" and method in ("GET", "HEAD"):
        try:
            return base64.b64decode(value, validate=True).decode("utf-8").partition(":")[2] or None
        except (binascii.Error, UnicodeDecodeError):
            return None
    return headers.get("x-api-key") or None


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


class Guard:
    """ASGI middleware in front of every route, the ones that do not exist included."""

    def __init__(self, app: ASGIApp, *, api_key: str, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` gives monotonic time (s)."""
        self._app = app
        # Digests are compared, in constant time: neither the key's length nor its start can be found by timing.
        self._expected = _digest(api_key)
        self._clock = clock
        self._failures: dict[str, tuple[float, int]] = {}
        self._log = RateLimited(log, clock=clock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            # No WebSocket is served yet.
            await send({"type": "websocket.close", "code": 1008, "reason": "not served"})
            return
        key = presented_key(Headers(scope=scope), scope["method"])
        allowed = key is not None and hmac.compare_digest(_digest(key), self._expected)
        scope.setdefault("state", {})["authenticated"] = allowed
        if allowed or (key is None and scope["path"] in PROBES and scope["method"] in ("GET", "HEAD")):
            await self._app(scope, receive, send)
            return
        peer = scope["client"][0] if scope.get("client") else "unknown"
        if key is None:
            self._log.info("request without API key", peer=peer, path=scope["path"][:200])
            message = "this needs the API key: send Authorization: Bearer KEY (or X-API-Key: KEY); the key lies in "
            message += "the data directory's file api-key"
            response = error_response(401, "unauthorized", message, _CHALLENGE)
        elif self._too_many(peer):
            self._log.warning("many wrong API keys", peer=peer)
            retry = {"Retry-After": str(int(FAILURE_WINDOW_S))}
            response = error_response(429, "too-many-requests", "too many wrong keys from this address", retry)
        else:
            self._log.warning(
                "wrong API key",
                peer=peer,
                path=scope["path"][:200],
                detail="the right one lies in the data directory's file api-key",
            )
            message = "this is not the API key: it lies in the data directory's file api-key"
            response = error_response(401, "unauthorized", message, _CHALLENGE)
        await response(scope, receive, send)

    def _too_many(self, peer: str) -> bool:
        """Count one failure of `peer`; True once it had too many in the present window."""
        now = self._clock()
        began, count = self._failures.get(peer, (now, 0))
        if now - began >= FAILURE_WINDOW_S:
            began, count = now, 0
        if len(self._failures) >= _MAX_ADDRESSES and peer not in self._failures:
            self._failures.clear()
        self._failures[peer] = (began, count + 1)
        return count >= MAX_FAILURES
