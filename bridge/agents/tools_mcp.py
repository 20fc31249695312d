"""Sessions with MCP servers, one for all calls of an agent: started with it, and again when a server died."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any, TextIO, cast

import anyio
import httpx2
import structlog
from mcp import Client, MCPError, StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import CONNECTION_CLOSED, CallToolResult, Implementation, RequestParamsMeta, TextContent
from mcp_types import Tool as ServerTool
from pydantic import ValidationError

from bridge.agents.tool_settings import McpServerSettings, check_schema
from bridge.agents.tools_result import ToolResult
from bridge.agents.tools_template import Secrets
from bridge.providers.base import Tool
from bridge.providers.scrub import scrubbed

log = structlog.get_logger(__name__)

CLOSE_S = 10.0
"""A program gets 2 s to end by itself, then SIGTERM, then SIGKILL; beyond this it is left behind."""

MAX_PAGES = 20
MAX_TOOLS = 100
"""Of one server's list: a model that is given more finds nothing any more."""

STDERR_LINES = 3
"""Of a program's last words, told when it did not come up."""

STDERR_LINE_CHARS = 500

FACTS = "offhook/call"
"""What a server finds the facts of a telephone call under."""

_INFO = Implementation(name="offhook", version="1")

# It logs what it reads and cannot parse, with tracebacks; here that is one line of ours.
logging.getLogger("mcp").setLevel(logging.CRITICAL)
# It logs each request with its URL, in which there may be a secret.
logging.getLogger("httpx2").setLevel(logging.WARNING)


class McpServer:
    """One server. `call` may be used by any number of calls at once, and never raises."""

    def __init__(self, settings: McpServerSettings, secrets: Secrets) -> None:
        self.settings = settings
        self.name = settings.name
        self.tools: tuple[Tool, ...] = ()
        """What it offers now, as far as it is allowed; empty while it is down."""
        self.down = "not started"
        """Why its tools are missing; empty: they are there."""
        self._secrets = secrets
        self._env = {name: secrets.plain(text) for name, text in settings.env.items()}
        self._headers = {name: secrets.plain(text) for name, text in settings.headers.items()}
        self._url = secrets.plain(settings.url)
        self._client: Client | None = None
        self._task: asyncio.Task[None] | None = None
        self._tried = asyncio.Event()
        self._wake = asyncio.Event()
        """Look at once whether it lives."""
        self._closing = False
        self._last_words: list[str] = []

    async def start(self) -> None:
        """Begin to keep it up; returns when it is up, or the first try has failed."""
        self._task = asyncio.create_task(self._keep(), name=f"MCP server {self.name}")
        await self._tried.wait()

    async def aclose(self) -> None:
        """End its session, and its program."""
        self._closing = True
        self._wake.set()
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=CLOSE_S)
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=CLOSE_S)

    async def call(self, tool: str, arguments: dict[str, Any], facts: dict[str, str] | None = None) -> ToolResult:
        """Call a tool; the caller of this keeps the deadline. The server is told of a call that is cancelled, and
        `facts` of the telephone call, as the request's `_meta` under FACTS."""
        client = self._client
        if client is None:
            return ToolResult(False, "the server of this tool is down")
        try:
            meta = None if facts is None else cast("RequestParamsMeta", {FACTS: facts})
            result = await client.call_tool(tool, arguments, meta=meta)
        except MCPError as error:
            if error.code == CONNECTION_CLOSED:
                self._wake.set()
                return ToolResult(False, "the connection to the server of this tool broke")
            return ToolResult(False, f"the tool failed: {self._said(error)}")
        except (httpx2.HTTPError, anyio.ClosedResourceError, anyio.BrokenResourceError, RuntimeError) as error:
            self._wake.set()
            log.warning("MCP call failed", server=self.name, tool=tool, error=self._said(error))
            return ToolResult(False, "the server of this tool can't be reached")
        except ValidationError:
            return ToolResult(False, "the server of this tool gave no valid answer")
        return _in_words(result, self._secrets)

    # -- keeping it up --------------------------------------------------------------------------------------

    async def _keep(self) -> None:
        wait_s = self.settings.retry_s
        while not self._closing:
            try:
                await self._session()
                wait_s = self.settings.retry_s
            except Exception as error:  # noqa: BLE001
                # The outermost edge of this task: whatever the far side and the SDK come up with, we try again.
                self.down = self._why(error)
                log.warning("MCP server is down", server=self.name, error=self.down)
            self._tried.set()
            if not self._closing:
                self._wake.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(wait_s):
                        await self._closed()
                wait_s = min(wait_s * 2, self.settings.max_retry_s)

    async def _closed(self) -> None:
        while not self._closing:
            self._wake.clear()
            await self._wake.wait()

    async def _session(self) -> None:
        """One session from its start to its end. Raises whatever ended it; returns when it is to close."""
        settings = self.settings
        try:
            async with AsyncExitStack() as stack:
                async with asyncio.timeout(settings.start_s):
                    client = await stack.enter_async_context(self._connect())
                    self.tools = await self._list(client)
                self._client, self.down = client, ""
                log.info("MCP server is up", server=self.name, tools=[tool.name for tool in self.tools])
                self._tried.set()
                while not self._closing:
                    self._wake.clear()
                    with suppress(TimeoutError):
                        async with asyncio.timeout(settings.check_s):
                            await self._wake.wait()
                    if not self._closing:
                        async with asyncio.timeout(settings.start_s):
                            self.tools = await self._list(client)
        finally:
            self._client, self.tools = None, ()
            self.down = self.down or "the session ended"

    @asynccontextmanager
    async def _connect(self) -> AsyncIterator[Client]:
        settings = self.settings
        async with AsyncExitStack() as stack:
            if settings.command:
                errors = await stack.enter_async_context(self._errors())
                program = StdioServerParameters(
                    command=settings.command, args=list(settings.args), env=self._env, cwd=settings.cwd
                )
                transport = stdio_client(program, errlog=errors)
            else:
                limited = _LimitedTransport(settings.max_response_bytes)
                http = httpx2.AsyncClient(
                    headers={"Accept-Encoding": "identity", **self._headers},
                    timeout=httpx2.Timeout(settings.start_s, read=300.0),
                    trust_env=False,
                    transport=limited,
                )
                await stack.enter_async_context(http)
                transport = streamable_http_client(
                    self._url, http_client=http, max_sse_event_size=settings.max_response_bytes
                )
            yield await stack.enter_async_context(Client(transport, client_info=_INFO, cache=None))

    async def _list(self, client: Client) -> tuple[Tool, ...]:
        tools: list[Tool] = []
        cursor: str | None = None
        for _ in range(MAX_PAGES):
            page = await client.list_tools(cursor=cursor)
            tools += [_tool(tool) for tool in page.tools if self._allowed(tool)]
            cursor = page.next_cursor
            if cursor is None:
                break
        if missing := sorted(set(self.settings.tools or ()) - {tool.name for tool in tools}):
            log.warning("MCP server lacks tools", server=self.name, tools=missing)
        return tuple(tools[:MAX_TOOLS])

    def _allowed(self, tool: ServerTool) -> bool:
        if self.settings.tools is not None and tool.name not in self.settings.tools:
            return False
        wrong = check_schema(tool.input_schema)
        if wrong:
            log.warning("MCP tool is left out", server=self.name, tool=tool.name, error=wrong)
        return not wrong

    @asynccontextmanager
    async def _errors(self) -> AsyncIterator[TextIO]:
        """Where a program writes its errors: into our log, a line at a time."""
        self._last_words = []
        read, write = os.pipe()
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=64 * 1024)
        with os.fdopen(write, "w", encoding="utf-8") as sink:
            transport, _ = await loop.connect_read_pipe(
                lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(read, "rb", buffering=0)
            )
            reading = asyncio.create_task(self._log_errors(reader), name=f"errors of MCP server {self.name}")
            try:
                yield sink
            finally:
                reading.cancel()
                transport.close()

    async def _log_errors(self, reader: asyncio.StreamReader) -> None:
        rest = b""
        while chunk := await reader.read(4096):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in [*lines, rest] if len(rest) > STDERR_LINE_CHARS else lines:
                said = scrubbed(line.decode(errors="replace")[:STDERR_LINE_CHARS], *self._secrets.values)
                if said:
                    self._last_words = [*self._last_words, said][-STDERR_LINES:]
                    log.debug("MCP server says", server=self.name, line=said)
            rest = b"" if len(rest) > STDERR_LINE_CHARS else rest

    def _why(self, error: BaseException) -> str:
        """The innermost reason."""
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        if isinstance(error, TimeoutError):
            said = f"no answer within {self.settings.start_s:g} s"
        else:
            said = self._said(error) or type(error).__name__
        return "; ".join((said, *self._last_words))

    def _said(self, error: BaseException) -> str:
        return scrubbed(error, *self._secrets.values)


async def started(servers: Iterable[McpServer]) -> None:
    """Start them side by side."""
    async with asyncio.TaskGroup() as group:
        for server in servers:
            group.create_task(server.start())


def _tool(tool: ServerTool) -> Tool:
    return Tool(tool.name, tool.description or tool.title or tool.name, tool.input_schema)


def _in_words(result: CallToolResult, secrets: Secrets) -> ToolResult:
    texts = []
    for block in result.content:
        texts.append(block.text if isinstance(block, TextContent) else f"[{block.type} left out]")
    text = secrets.hide("\n".join(texts))
    if result.is_error:
        return ToolResult(False, text or "the tool failed")
    if result.structured_content is not None and not result.content:
        return ToolResult(True, value=result.structured_content)
    return ToolResult(True, value=text or None)


class _LimitedTransport(httpx2.AsyncHTTPTransport):
    """Answers that are no event streams end with an error beyond `max_bytes`; events have a limit of their own."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__(trust_env=False)
        self._max_bytes = max_bytes

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        response = await super().handle_async_request(request)
        if response.headers.get("content-encoding", "identity") != "identity":
            await response.aclose()
            raise httpx2.DecodingError("the answer is packed, which was not asked for", request=request)
        if response.headers.get("content-type", "").startswith("text/event-stream"):
            return response
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        return httpx2.Response(
            response.status_code,
            headers=response.headers,
            stream=_LimitedStream(response.stream, self._max_bytes),
            extensions=response.extensions,
        )


class _LimitedStream(httpx2.AsyncByteStream):
    def __init__(self, stream: httpx2.AsyncByteStream, max_bytes: int) -> None:
        self._stream = stream
        self._left = max_bytes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._stream:
            self._left -= len(chunk)
            if self._left < 0:
                raise httpx2.ReadError("the answer is too large")
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()
