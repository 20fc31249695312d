"""HTTP requests as tools: what the model gave is put into its place of a fixed request, the answer is read within
limits."""

import asyncio
import json
import ssl
import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

import httpx
import structlog

from bridge.agents.tool_settings import IDEMPOTENT, HttpTool
from bridge.agents.tools_result import ToolResult, at_pointer, only_fields
from bridge.agents.tools_template import (
    Secrets,
    TemplateError,
    as_text,
    fill,
    fill_query,
    fill_value,
    header_value,
    parameters_in,
    path_segment,
    query_value,
)
from bridge.shared_http import SharedHttp

log = structlog.get_logger(__name__)

FIRST_RETRY_S = 0.2
MAX_RETRY_AFTER_S = 5.0
"""A server that asks for more patience is not asked again: the caller waits."""

PASSING = frozenset({429, 502, 503, 504})
"""Statuses of failures that may have passed with the next try."""

USER_AGENT = "Offhook"

ERROR_BYTES = 500
"""Of a refusal's text, for the model."""

MAX_DEPTH = 50
"""Levels of JSON; what is deeper is an attack on whoever walks through it."""

_TEXT_TYPES = ("application/xml", "application/javascript", "application/x-www-form-urlencoded")


class AnswerError(Exception):
    """The answer can't be used; the message says why."""


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    kind: str
    """Media type, in small letters."""
    body: bytes
    encoding: str
    retry_after_s: float | None


@dataclass(frozen=True, slots=True)
class Prepared:
    """A tool's request with its secrets in."""

    path: str
    """URL up to its query, a template."""
    url_query: str
    """The query written into the URL, a template."""
    headers: Mapping[str, str]
    query: Mapping[str, str]
    body: Any


class HttpTools:
    """The HTTP tools of one agent, for all its calls: they share connections."""

    def __init__(self, tools: tuple[HttpTool, ...], secrets: Secrets) -> None:
        self.tools = {tool.name: tool for tool in tools}
        self._secrets = secrets
        self._prepared: dict[str, Prepared] = {}
        self._http = {by_proxy: SharedHttp(trust_env=by_proxy) for by_proxy in (False, True)}

    def start(self) -> None:
        """Read the secrets. Raises SecretError with the tool's name."""
        for name, tool in self.tools.items():
            self._prepared[name] = prepare(tool, self._secrets)

    async def aclose(self) -> None:
        for http in self._http.values():
            await http.aclose()

    async def call(self, name: str, arguments: Mapping[str, Any], facts: Mapping[str, str]) -> ToolResult:
        """Send the request; the caller of this keeps the deadline. `facts` are the call's (`CALL_FACTS`)."""
        tool = self.tools[name]
        if name not in self._prepared:
            self._prepared[name] = prepare(tool, self._secrets)
        try:
            request = request_of(tool, self._prepared[name], {**arguments, **facts})
        except TemplateError as error:
            return ToolResult(False, str(error))
        except httpx.InvalidURL:
            return ToolResult(False, "the arguments make no valid address")
        try:
            answer = await self._exchange(tool, request)
        except (httpx.HTTPError, httpx.InvalidURL, AnswerError, ssl.SSLError) as error:
            said = self._secrets.hide(str(error))
            log.warning("tool failed", tool=name, error=f"{type(error).__name__}: {said}")
            return ToolResult(False, said if isinstance(error, AnswerError) else _in_words(error))
        return self._result(tool, answer)

    async def _exchange(self, tool: HttpTool, request: httpx.Request) -> _Answer:
        """The answer, asked for again where that may help and can't harm. Raises httpx.HTTPError, AnswerError."""
        may_repeat = tool.method in IDEMPOTENT or tool.idempotency_key
        http = self._http[tool.use_environment_proxy]
        for attempt in range(tool.retries + 1):
            last = attempt == tool.retries
            wait_s = FIRST_RETRY_S * 2**attempt
            try:
                async with http.lend() as client:
                    answer = await _once(client, tool, request)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                # Nothing was sent: this may be tried again whatever it does.
                if last:
                    raise
            except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
                if last or not may_repeat:
                    raise
            else:
                wait_s = wait_s if answer.retry_after_s is None else answer.retry_after_s
                if last or not may_repeat or answer.status not in PASSING or wait_s > MAX_RETRY_AFTER_S:
                    return answer
            await asyncio.sleep(wait_s)
        raise AssertionError("unreachable")

    def _result(self, tool: HttpTool, answer: _Answer) -> ToolResult:
        try:
            value = _content(answer, self._secrets)
        except AnswerError as error:
            if 200 <= answer.status < 300:
                return ToolResult(False, str(error))
            value = None
        if 300 <= answer.status < 400:
            return ToolResult(False, f"the server answered {answer.status}: it is elsewhere, which is not followed")
        if not 200 <= answer.status < 300:
            said = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) if value else ""
            said = " ".join(said.split())
            said = said.encode()[:ERROR_BYTES].decode(errors="ignore")
            return ToolResult(False, f"the server answered {answer.status}" + (f": {said}" if said else ""))
        if tool.result and value is not None:
            try:
                value = at_pointer(value, tool.result)
            except KeyError:
                return ToolResult(False, "the server's answer does not hold what was looked for")
        if tool.fields:
            value = only_fields(value, tool.fields)
        return ToolResult(True, value=value)


def prepare(tool: HttpTool, secrets: Secrets) -> Prepared:
    """Raises SecretError."""
    path, _, url_query = secrets.fill(tool.url).partition("?")
    properties = tool.parameters.get("properties", {})
    query = {key: secrets.fill(text) for key, text in (tool.query or {}).items()}
    body = _with_secrets(tool.body, secrets)
    if tool.query is None and tool.body is None:
        rest = {name: f"{{{name}}}" for name in properties if name not in parameters_in(tool.url)}
        if tool.method in ("GET", "HEAD", "DELETE"):
            query = rest
        elif rest:
            body = rest
    headers = {name: secrets.fill(text) for name, text in tool.headers.items()}
    return Prepared(path, url_query, headers, query, body)


def request_of(tool: HttpTool, prepared: Prepared, values: Mapping[str, Any]) -> httpx.Request:
    """With the model's arguments and the call's facts in their places. Raises TemplateError, httpx.InvalidURL."""
    url = fill(prepared.path, values, path_segment)
    # Two values in one segment may make together what neither is.
    if any(segment in (".", "..") for segment in url.split("/")):
        raise TemplateError("the arguments must not make a path of dots")
    query = [fill(prepared.url_query, values, query_value)] if prepared.url_query else []
    pairs: list[str] = []
    for key, template in prepared.query.items():
        named = parameters_in(template)
        # Left out with the argument that it is for.
        if not named or any(values.get(name) is not None for name in named):
            pairs.append(f"{quote(key, safe='')}={fill_query(template, values)}")
    query += pairs
    if query:
        url += "?" + "&".join(query)
    headers = httpx.Headers({name: fill(text, values, header_value) for name, text in prepared.headers.items()})
    # An answer that grows when it is unpacked could not be limited while it comes in.
    headers["Accept-Encoding"] = "identity"
    headers.setdefault("Accept", "application/json, text/*;q=0.5")
    headers.setdefault("User-Agent", USER_AGENT)
    if tool.idempotency_key:
        headers["Idempotency-Key"] = uuid.uuid4().hex
    content, kind = _body(tool, fill_value(prepared.body, values))
    if kind:
        headers.setdefault("Content-Type", kind)
    timeout = httpx.Timeout(tool.timeout_s or 60.0, connect=tool.connect_s)
    extensions = {"timeout": timeout.as_dict()}
    return httpx.Request(tool.method, url, headers=headers, content=content, extensions=extensions)


def _with_secrets(body: Any, secrets: Secrets) -> Any:
    match body:
        case str():
            return secrets.fill(body)
        case dict():
            return {key: _with_secrets(value, secrets) for key, value in body.items()}
        case list():
            return [_with_secrets(value, secrets) for value in body]
    return body


def _body(tool: HttpTool, body: Any) -> tuple[bytes | None, str]:
    """The request's body and its media type."""
    if body is None:
        return None, ""
    if tool.body_format == "form":
        pairs = [(key, as_text(value)) for key, value in body.items()]
        return urlencode(pairs, errors="replace").encode(), "application/x-www-form-urlencoded"
    return json.dumps(body, ensure_ascii=False).encode(errors="replace"), "application/json"


async def _once(client: httpx.AsyncClient, tool: HttpTool, request: httpx.Request) -> _Answer:
    response = await client.send(request, stream=True)
    try:
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if response.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
            raise AnswerError("the server's answer is packed, which was not asked for")
        body = await _read(response, tool.max_response_bytes)
        encoding = response.charset_encoding or "utf-8"
        return _Answer(response.status_code, kind, body, encoding, _retry_after(response))
    finally:
        await response.aclose()


async def _read(response: httpx.Response, max_bytes: int) -> bytes:
    """The body, as it was sent. Raises AnswerError as soon as it is too large."""
    length = response.headers.get("content-length", "")
    if length.isdigit() and int(length) > max_bytes:
        raise AnswerError(f"the server's answer is larger than {max_bytes} bytes")
    body = bytearray()
    chunks: AsyncIterator[bytes] = response.aiter_raw()
    async for chunk in chunks:
        body += chunk
        if len(body) > max_bytes:
            raise AnswerError(f"the server's answer is larger than {max_bytes} bytes")
    return bytes(body)


def _content(answer: _Answer, secrets: Secrets) -> Any:
    """The answer's JSON or text; None where there is none. Raises AnswerError."""
    if not answer.body.strip():
        return None
    try:
        text = answer.body.decode(answer.encoding, errors="replace")
    except LookupError:
        text = answer.body.decode(errors="replace")
    # A server may send back what it was sent.
    text = secrets.hide(text)
    if answer.kind == "application/json" or answer.kind.endswith("+json"):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise AnswerError("the server's answer is not the JSON that it says it is") from error
        if _is_deep(value):
            raise AnswerError(f"the server's answer is nested deeper than {MAX_DEPTH}")
        return value
    if answer.kind.startswith("text/") or answer.kind in _TEXT_TYPES:
        return "".join(char for char in text if char >= " " or char in "\n\t")
    raise AnswerError(f"the server's answer is neither JSON nor text but {answer.kind or 'of no type'}")


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
    return bool(level)


def _retry_after(response: httpx.Response) -> float | None:
    text = response.headers.get("retry-after", "").strip()
    return float(text) if text.isascii() and text.isdigit() else None


def _in_words(error: Exception) -> str:
    match error:
        case httpx.ConnectTimeout() | httpx.ConnectError() | httpx.ProxyError():
            return "the server can't be reached"
        case httpx.TimeoutException():
            return "the server did not answer in time"
    return "the connection to the server broke"
