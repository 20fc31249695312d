"""The words of ARI on the wire, without I/O: addresses, REST requests over the event socket, answers, pauses."""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from bridge.asterisk.ari_errors import AriError, AriNotFoundError, AriRefusedError, AriUnauthorizedError
from bridge.asterisk.ari_events import AriEvent, MalformedError, parse_event

LONGEST_MESSAGE = 200
"""Characters kept of what Asterisk says to an error."""

LARGEST_REQUEST = 32_768
"""Characters, all of them ASCII, of a request over the event socket: Asterisk closes it at a message of more than
65,535. Over HTTP it refuses only the one request."""


@dataclass(frozen=True, slots=True)
class RestResponse:
    """The answer to a request that went over the event socket."""

    request_id: str
    status: int
    body: str


def segment(name: str) -> str:
    """`name` as one part of a path: ids hold slashes (`PJSIP/1001`)."""
    return quote(name, safe="")


def authorization(username: str, password: str) -> str:
    """The value of the header."""
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode("ascii")


def socket_url(base: str, app: str) -> str:
    """Of the events of `app`; `base` is http(s)://host[:port][/prefix]."""
    return f"ws{base.removeprefix('http')}/ari/events?app={quote(app, safe='')}"


def rest_url(base: str, path: str, query: Mapping[str, str]) -> str:
    return f"{base}/ari/{target(path, query)}"


def target(path: str, query: Mapping[str, str]) -> str:
    """A path below /ari/ with its query. All that is not plain is percent-encoded: Asterisk reads `+` as a space."""
    written = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in query.items())
    return f"{path}?{written}" if written else path


def rest_request(request_id: str, method: str, path: str, query: Mapping[str, str], body: object) -> str:
    """A request as a message of the event socket. Its uri has no slash in front: Asterisk would find nothing."""
    message: dict[str, object] = {
        "type": "RESTRequest",
        "request_id": request_id,
        "method": method,
        "uri": target(path, query),
    }
    if body is not None:
        message["content_type"] = "application/json"
        message["message_body"] = json.dumps(body)
    return json.dumps(message)


def read_message(data: str | bytes) -> RestResponse | AriEvent | None:
    """A message of the event socket; None: an event of a type that is not ours to know. Raises MalformedError."""
    try:
        message = json.loads(data)
    except (ValueError, RecursionError):
        raise MalformedError("no JSON") from None
    if not isinstance(message, dict):
        raise MalformedError("no JSON object")
    if message.get("type") != "RESTResponse":
        return parse_event(message)
    request_id, status, body = message.get("request_id"), message.get("status_code"), message.get("message_body", "")
    if isinstance(request_id, str) and type(status) is int and isinstance(body, str):
        return RestResponse(request_id, status, body)
    raise MalformedError("RESTResponse: a field is missing or of a wrong kind")


def outcome(method: str, path: str, status: int, body: str | bytes) -> Any:
    """What an answer holds: JSON, or None where it is empty. Raises AriError for every status but 2xx."""
    if 200 <= status < 300:
        if not body.strip():
            return None
        try:
            return json.loads(body)
        except (ValueError, RecursionError):
            raise AriError(
                f"{method} {path}: the answer ({status}) is no JSON; is this address Asterisk's?"
            ) from None
    said = error_message(body)
    text = f"{method} {path}: {status}{f' {said}' if said else ''}"
    if status in (401, 403):
        raise AriUnauthorizedError(text)
    if status == 404:
        raise AriNotFoundError(text, status)
    raise AriRefusedError(text, status)


def error_message(body: str | bytes) -> str:
    """What an answer's body says of the error, on one line."""
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        said = None
    if isinstance(said, dict):
        text = str(said.get("message") or said.get("error") or "")
    else:
        text = body.decode("utf-8", "replace") if isinstance(body, bytes) else body
    return " ".join(text.split())[:LONGEST_MESSAGE]


@dataclass(slots=True)
class Backoff:
    """Pauses between attempts: they double, up to the longest."""

    longest_s: float
    first_s: float = 0.1
    jitter: float = 0.25
    """Share of a pause that chance may take off, so that bridges don't come back in step."""
    stable_s: float = 5.0
    """A connection that lasted for less continues the row, so that a server that always hangs up is not hammered."""
    attempts: int = 0

    def next_s(self, chance: float, lasted_s: float = 0.0) -> float:
        """The next pause, seconds. `chance`: 0 to 1; `lasted_s`: how long the connection stood, 0 for none."""
        if lasted_s >= self.stable_s:
            self.attempts = 0
        pause = min(self.longest_s, self.first_s * 2.0 ** min(self.attempts, 30))
        self.attempts += 1
        # The first comes at once: most often only the socket was cut.
        return pause if self.attempts == 1 else pause * (1.0 - self.jitter * chance)
