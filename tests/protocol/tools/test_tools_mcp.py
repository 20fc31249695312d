"""MCP servers as tools: a program over stdio and a server over streamable HTTP, both written with the protocol's own
SDK, when they work, when they die, and when they come back."""

import asyncio
import json
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from mcp_program import build
from standin import Exchange, Reply, Standin

from bridge.agents.tool_settings import AgentToolSettings, McpServerSettings
from bridge.agents.tools_agent import AgentTools, ToolError
from bridge.agents.tools_mcp import McpServer
from bridge.agents.tools_result import ToolResult

PROGRAM = str(Path(__file__).with_name("mcp_program.py"))
SECRET = "hush-hush-4711"


async def until(condition: Callable[[], object], within_s: float = 20.0) -> None:
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A child that nobody has waited for yet is dead all the same.
    return "Z" not in Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]


class Programs:
    """Agents' tools with one program as MCP server."""

    def __init__(self, folder: Path) -> None:
        self.started = folder / "pids"
        self.tools: AgentTools | None = None

    @property
    def pids(self) -> list[int]:
        return [int(pid) for pid in self.started.read_text(encoding="utf-8").split()]

    @property
    def journal(self) -> list[str]:
        path = self.started.with_suffix(".journal")
        return path.read_text(encoding="utf-8").split() if path.exists() else []

    async def start(self, *args: str, **settings: Any) -> AgentTools:
        server = McpServerSettings(
            **{
                "name": "notes",
                "command": sys.executable,
                "args": (PROGRAM, str(self.started), *args),
                "retry_s": 0.05,
                **settings,
            }
        )
        self.tools = AgentTools(AgentToolSettings(mcp=(server,)), environ={"NOTES_TOKEN": SECRET})
        await self.tools.start()
        return self.tools


@pytest.fixture
async def programs(tmp_path: Path) -> AsyncIterator[Programs]:
    made = Programs(tmp_path)
    yield made
    if made.tools is not None:
        await made.tools.aclose()
    await until(lambda: not any(alive(pid) for pid in made.pids))


def server_of(tools: AgentTools) -> McpServer:
    return tools._servers[0]


def names(tools: AgentTools, taken: set[str] | None = None) -> list[str]:
    return [one.tool.name for one in tools.mcp_tools(taken or set())]


# -- a program ----------------------------------------------------------------------------------------------


async def test_program_offers_its_tools_and_answers(programs: Programs) -> None:
    tools = await programs.start(env={"TOKEN": "${env:NOTES_TOKEN}"})
    assert tools.down == {}
    assert {"add", "slow", "broken"} <= set(names(tools))
    (add,) = (one for one in tools.mcp_tools(set()) if one.name == "add")
    assert add.tool.description == "Add two numbers"
    assert set(add.tool.parameters["properties"]) == {"a", "b"}
    server = server_of(tools)
    assert await server.call("add", {"a": 2, "b": 40}) == ToolResult(True, value="42")
    assert (await server.call("environment", {"name": "NOTES_TOKEN"})).value == "(nothing)"
    assert (await server.call("environment", {"name": "TOKEN"})).value == "***"
    assert await server.call("picture", {}) == ToolResult(True, value="a cat\n[image left out]")
    failed = await server.call("broken", {})
    assert not failed.ok and "on fire" in failed.error
    assert not (await server.call("no_such", {})).ok


async def test_server_is_told_whose_call_it_is_where_it_is_asked_to_be(programs: Programs) -> None:
    server = server_of(await programs.start())
    facts = {"id": "call-1", "from": "+4930", "campaign": "spring"}
    assert json.loads((await server.call("whose", {}, facts)).value) == facts
    assert (await server.call("whose", {})).value == "null"


async def test_only_allowed_tools_are_offered_and_clashing_names_get_the_servers(programs: Programs) -> None:
    tools = await programs.start(tools=("add", "long"))
    assert names(tools) == ["add", "long"]
    assert names(tools, {"add"}) == ["notes_add", "long"]
    assert names(tools, {"add", "notes_add"}) == ["long"]
    assert [one.name for one in tools.mcp_tools({"add"})] == ["add", "long"]


async def test_cancelled_call_is_cancelled_at_the_server(programs: Programs) -> None:
    tools = await programs.start()
    call = asyncio.create_task(server_of(tools).call("slow", {"seconds": 30}))
    await until(lambda: programs.journal == ["began"])
    call.cancel()
    with suppress(asyncio.CancelledError):
        await call
    await until(lambda: programs.journal == ["began", "cancelled"])
    assert (await server_of(tools).call("add", {"a": 1, "b": 1})).value == "2"


async def test_calls_share_the_session_side_by_side(programs: Programs) -> None:
    tools = await programs.start()
    server = server_of(tools)
    slow = asyncio.create_task(server.call("slow", {"seconds": 0.3}))
    results = await asyncio.gather(*(server.call("add", {"a": n, "b": 0}) for n in range(20)))
    assert [result.value for result in results] == [str(n) for n in range(20)]
    assert not slow.done()
    assert (await slow).value == "at last"
    assert len(programs.pids) == 1


async def test_program_that_dies_in_a_call_is_started_again(programs: Programs) -> None:
    tools = await programs.start()
    server = server_of(tools)
    result = await server.call("die", {})
    assert not result.ok and "broke" in result.error
    await until(lambda: len(programs.pids) == 2 and not tools.down)
    assert (await server.call("add", {"a": 1, "b": 2})).value == "3"


async def test_program_that_dies_between_calls_is_started_again(programs: Programs) -> None:
    tools = await programs.start(check_s=0.1)
    os.kill(programs.pids[0], 9)
    await until(lambda: len(programs.pids) == 2 and not tools.down)
    assert (await server_of(tools).call("add", {"a": 1, "b": 2})).value == "3"


async def test_server_that_is_down_has_no_tools_and_says_why_with_its_last_words(programs: Programs) -> None:
    tools = await programs.start("refuse")
    assert names(tools) == []
    assert "I need a licence" in tools.down["notes"]
    assert await server_of(tools).call("add", {}) == ToolResult(False, "the server of this tool is down")
    await until(lambda: len(programs.pids) >= 3)


async def test_server_that_fails_at_first_comes_up_later(programs: Programs) -> None:
    tools = await programs.start("once")
    await until(lambda: not tools.down)
    assert "add" in names(tools)


async def test_program_that_can_not_be_started_keeps_nobody_waiting(programs: Programs) -> None:
    programs.started.write_text("")
    tools = await programs.start(command="/no/such/program", args=())
    assert "/no/such/program" in tools.down["notes"]


async def test_secret_that_is_missing_stops_the_start(programs: Programs) -> None:
    programs.started.write_text("")
    with pytest.raises(ToolError, match="NO_SUCH_TOKEN is not set"):
        await programs.start(env={"TOKEN": "${env:NO_SUCH_TOKEN}"})


# -- over HTTP ----------------------------------------------------------------------------------------------


@asynccontextmanager
async def http_server(port: int = 0, *, extra: bool = False, json: bool = False) -> AsyncIterator[int]:
    """A streamable HTTP server on 127.0.0.1; gives its port."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    app = build(extra=extra).streamable_http_app(json_response=json)
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=0))
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        await until(lambda: server.started)
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        await task


@asynccontextmanager
async def http_tools(url: str, **settings: Any) -> AsyncIterator[AgentTools]:
    server = McpServerSettings(**{"name": "notes", "url": url, "retry_s": 0.05, **settings})
    tools = AgentTools(AgentToolSettings(mcp=(server,)), environ={"NOTES_TOKEN": SECRET})
    await tools.start()
    try:
        yield tools
    finally:
        await tools.aclose()


@pytest.mark.parametrize("json", [False, True])
async def test_http_server_offers_its_tools_and_answers(json: bool) -> None:
    async with http_server(json=json) as port, http_tools(f"http://127.0.0.1:{port}/mcp") as tools:
        assert tools.down == {}
        server = server_of(tools)
        assert (await server.call("add", {"a": 2, "b": 3})).value == "5"
        failed = await server.call("broken", {})
        assert not failed.ok and "on fire" in failed.error
        too_large = await server.call("long", {"size": 3_000_000})
        assert not too_large.ok


async def test_http_server_that_goes_away_is_missed_and_found_again() -> None:
    async with http_server() as port:
        url = f"http://127.0.0.1:{port}/mcp"
        async with http_tools(url, check_s=0.1) as tools:
            assert "add" in names(tools)
            assert "extra_tool" not in names(tools)
    async with http_tools(url, check_s=0.1) as tools:
        assert names(tools) == [] and "notes" in tools.down
        async with http_server(port, extra=True):
            await until(lambda: not tools.down)
            assert "extra_tool" in names(tools)
            assert (await server_of(tools).call("add", {"a": 2, "b": 3})).value == "5"
        await until(lambda: tools.down)
        assert not (await server_of(tools).call("add", {"a": 2, "b": 3})).ok


class Suspicious(Standin):
    """Something that is no MCP server."""

    def __init__(self, answer: Callable[[Reply], Any]) -> None:
        super().__init__()
        self._answer = answer
        self.route("POST", "/mcp", self._reply)
        self.route("GET", "/mcp", self._reply)

    async def _reply(self, _: Exchange, reply: Reply) -> None:
        await self._answer(reply)


@pytest.mark.parametrize("what", ["refuses", "redirects", "garbage", "endless", "stalls"])
async def test_what_is_no_mcp_server_is_down_and_gets_no_second_address(what: str) -> None:
    async with Suspicious(lambda reply: reply.send(b"{}", "application/json")) as elsewhere:

        async def answer(reply: Reply) -> None:
            match what:
                case "refuses":
                    await reply.json({"error": f"bad key {SECRET}"}, status=401)
                case "redirects":
                    await reply.send(b"", "text/plain", 307, {"location": f"{elsewhere.http_url}/mcp"})
                case "garbage":
                    await reply.send(b"\xff\xfe{", "application/json")
                case "endless":
                    await reply.begin("application/json")
                    while True:
                        await reply.piece(b" " * 4096)
                case "stalls":
                    await asyncio.sleep(60)

        async with (
            Suspicious(answer) as server,
            http_tools(
                f"{server.http_url}/mcp",
                headers={"Authorization": "Bearer ${env:NOTES_TOKEN}"},
                start_s=1.0,
                retry_s=60,
                max_response_bytes=100_000,
            ) as tools,
        ):
            assert "notes" in tools.down and SECRET not in tools.down["notes"]
            assert server.exchanges[0].headers["authorization"] == f"Bearer {SECRET}"
        assert elsewhere.exchanges == []
