"""The verbs of the carriers' REST interfaces that bots use on a live call: hang up, and transfer.

A bot written for Twilio or Telnyx ends its calls by its carrier's API. Given our address in its place (and the
agent's secret for Twilio's auth token, or Telnyx's API key) it ends ours:
`POST /2010-04-01/Accounts/{sid}/Calls/{sid}.json`
and `POST /v2/calls/{call_control_id}/actions/{hangup,transfer}`. Answers and errors are in the carriers' own form.
"""

import base64
import binascii
import hmac
import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Awaitable, Callable
from typing import Any, Protocol
from urllib.parse import parse_qs, unquote

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from bridge.events import TransferResult
from bridge.legs.base import LegError

TWILIO_PREFIX = "/2010-04-01/Accounts/"
TELNYX_PREFIX = "/v2/calls/"

MAX_BODY = 16_384


class BotCall(Protocol):
    """A live call that a bot has."""

    secret: str

    def hang_up(self) -> None: ...

    def may_transfer_to(self, target: str) -> bool: ...

    async def transfer(self, target: str) -> TransferResult: ...


FindCall = Callable[[str], BotCall | None]
"""By our call id."""


class CarrierRest:
    """ASGI middleware in front of the API's guard: what it answers is guarded by the agent's own secret."""

    def __init__(self, app: ASGIApp, *, find: FindCall) -> None:
        self._app = app
        self._find = find

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if scope["type"] != "http" or not path.startswith((TWILIO_PREFIX, TELNYX_PREFIX)):
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        answer: Callable[[Request], Awaitable[Response]]
        answer = self._twilio if path.startswith(TWILIO_PREFIX) else self._telnyx
        await (await answer(request))(scope, receive, send)

    # -- Twilio ---------------------------------------------------------------------------------------------

    async def _twilio(self, request: Request) -> Response:
        """POST a call's `Status=completed`, or `Twiml` with one of Hangup and Dial."""
        parts = request.url.path.removeprefix(TWILIO_PREFIX).split("/")
        sid = parts[2].removesuffix(".json") if len(parts) == 3 and parts[1] == "Calls" else ""
        call = self._find(sid.removeprefix("CA")) if sid.startswith("CA") else None
        # Who does not know the secret learns nothing of which calls there are.
        if not _knows(call, _basic_password(request)):
            return _twilio_error(401, 20003, "Authenticate")
        assert call is not None
        if request.method != "POST":
            return _twilio_error(405, 20004, "Method not allowed")
        fields = parse_qs((await _body(request)).decode("utf-8", "replace"))
        status = "in-progress"
        if fields.get("Status") == ["completed"]:
            call.hang_up()
            status = "completed"
        elif "Twiml" in fields:
            target = _twiml_target(fields["Twiml"][0])
            if target is None:
                return _twilio_error(400, 12100, "Twiml: only <Hangup/>, and <Dial> with a number or <Sip>, is known")
            if not target:
                call.hang_up()
                status = "completed"
            elif problem := await _transferred(call, target):
                return _twilio_error(400, 13224, problem)
        else:
            return _twilio_error(400, 21218, "only Status=completed and Twiml are known")
        return JSONResponse({"sid": sid, "account_sid": parts[0], "status": status})

    # -- Telnyx ---------------------------------------------------------------------------------------------

    async def _telnyx(self, request: Request) -> Response:
        """POST an action on a call: `hangup`, or `transfer` with `to`."""
        parts = request.url.path.removeprefix(TELNYX_PREFIX).split("/")
        control_id = unquote(parts[0])
        call = self._find(control_id.removeprefix("v3:")) if control_id.startswith("v3:") else None
        scheme, _, secret = request.headers.get("authorization", "").partition(" ")
        if not _knows(call, secret.strip() if scheme.lower() == "bearer" else ""):
            return _telnyx_error(401, "10009", "Authentication failed")
        assert call is not None
        action = parts[2] if len(parts) == 3 and parts[1] == "actions" and request.method == "POST" else ""
        if action == "hangup":
            call.hang_up()
        elif action == "transfer":
            try:
                body = json.loads(await _body(request))
            except (ValueError, RecursionError):
                return _telnyx_error(400, "10015", "the body is not JSON")
            target = body.get("to") if isinstance(body, dict) else None
            if not isinstance(target, str):
                return _telnyx_error(422, "10004", "`to` is missing")
            if problem := await _transferred(call, target):
                return _telnyx_error(422, "10015", problem)
        else:
            return _telnyx_error(404, "10005", "only the actions hangup and transfer are known")
        return JSONResponse({"data": {"result": "ok"}})


async def _transferred(call: BotCall, target: str) -> str:
    """Why the caller could not be handed over; empty: it was done."""
    if not call.may_transfer_to(target):
        return "this target is not among the agent's `transfer_to`"
    try:
        outcome = await call.transfer(target)
    except LegError as error:
        return str(error)
    return "" if 200 <= outcome.status < 300 else f"{outcome.status} {outcome.reason}".rstrip()


def _knows(call: BotCall | None, secret: str) -> bool:
    expected = call.secret if call is not None else ""
    same = hmac.compare_digest(secret.encode("utf-8", "surrogateescape"), expected.encode())
    return same and bool(expected)


def _basic_password(request: Request) -> str:
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return ""
    try:
        return base64.b64decode(value.strip(), validate=True).decode("utf-8").partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        return ""


async def _body(request: Request) -> bytes:
    """Up to MAX_BODY bytes; what comes after is not read."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            return body[:MAX_BODY]
    return body


def _twiml_target(twiml: str) -> str | None:
    """Whom a TwiML document dials; empty: it hangs up; None: it is another one."""
    if "<!" in twiml:
        # No document type, no entities: nothing that grows.
        return None
    try:
        root = ElementTree.fromstring(twiml)
    except ElementTree.ParseError:
        return None
    verbs = list(root)
    if root.tag != "Response" or not verbs:
        return None
    first = verbs[0]
    if first.tag == "Hangup":
        return ""
    if first.tag != "Dial":
        return None
    noun = next(iter(first), None)
    if noun is not None and noun.tag not in ("Number", "Sip"):
        return None
    target = ((noun.text if noun is not None else first.text) or "").strip()
    return target or None


def _twilio_error(status: int, code: int, message: str) -> Response:
    body: dict[str, Any] = {"code": code, "message": message, "status": status}
    return JSONResponse(body, status_code=status)


def _telnyx_error(status: int, code: str, detail: str) -> Response:
    return JSONResponse({"errors": [{"code": code, "title": detail, "detail": detail}]}, status_code=status)
