"""What every request passes on its way in and out: size limit, headers, counting, and the answer to a crash."""

import time
from collections.abc import Callable
from typing import Any

import structlog
from fastapi import HTTPException
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bridge.api.errors import error_response

MAX_BODY = 64 * 1024
"""Bytes; the largest request there is dials a call."""

Counted = Callable[[str, str, int, float], None]
"""(method, route, status, seconds until the answer began)"""

log = structlog.stdlib.get_logger(__name__)


_TOO_LARGE = f"a request's body is at most {MAX_BODY} bytes"


class Edge:
    """ASGI middleware around everything else, the guard included."""

    def __init__(self, app: ASGIApp, *, counted: Counted) -> None:
        self._app = app
        self._counted = counted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        started = False
        size = 0

        async def limited_receive() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > MAX_BODY:
                # FastAPI lets this kind pass from inside its reading of the body.
                raise HTTPException(413, _TOO_LARGE)
            return message

        async def watched_send(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                # Names, numbers and what was said: not for a cache, not to be taken for another type.
                headers.setdefault("Cache-Control", "no-store")
                headers["X-Content-Type-Options"] = "nosniff"
                self._counted(scope["method"], _route(scope), message["status"], time.perf_counter() - began)
            await send(message)

        try:
            await self._app(scope, limited_receive, watched_send)
        except Exception:
            # The request's outermost edge.
            log.exception("request crashed", method=scope["method"], path=scope["path"][:200])
            if started:
                raise
            message = "the bridge failed to answer; its log says why"
            await error_response(500, "internal-error", message)(scope, receive, watched_send)


def _route(scope: Scope) -> str:
    """The route's pattern: of bounded number, where paths are not."""
    route: Any = scope.get("route")
    return str(getattr(route, "path", "unmatched"))
