"""An MCP server to test against: as a program of its own (stdio), or its tools for a server in the test."""

import asyncio
import json
import os
import sys
from pathlib import Path

from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import ImageContent, TextContent


def build(journal: Path | None = None, *, extra: bool = False) -> MCPServer:
    """`journal` gets a line for each call that began, ended, or was cancelled."""

    def note(line: str) -> None:
        if journal is not None:
            with journal.open("a", encoding="utf-8") as file:
                file.write(line + "\n")

    server: MCPServer = MCPServer("notes")

    @server.tool(description="Add two numbers")
    def add(a: int, b: int) -> str:
        return str(a + b)

    @server.tool(description="Say what the environment holds")
    def environment(name: str) -> str:
        return os.environ.get(name, "(nothing)")

    @server.tool(description="Say which telephone call this is for")
    def whose(context: Context) -> str:
        meta = context.request_context.meta or {}
        return json.dumps(dict(meta).get("offhook/call"))

    @server.tool(description="Takes its time")
    async def slow(seconds: float) -> str:
        note("began")
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            note("cancelled")
            raise
        note("ended")
        return "at last"

    @server.tool(description="Does not work")
    def broken() -> str:
        raise ToolError("the database is on fire")

    @server.tool(description="Tells a lot")
    def long(size: int) -> str:
        return "x" * size

    @server.tool(description="Shows a picture", structured_output=False)
    def picture() -> list[TextContent | ImageContent]:
        return [
            TextContent(type="text", text="a cat"),
            ImageContent(type="image", data="AAAA", mime_type="image/png"),
        ]

    @server.tool(description="Dies")
    def die() -> str:
        print("last words", file=sys.stderr, flush=True)
        os._exit(3)

    if extra:

        @server.tool(description="Is new")
        def extra_tool() -> str:
            return "new"

    return server


if __name__ == "__main__":
    started = Path(sys.argv[1])
    with started.open("a", encoding="utf-8") as file:
        file.write(f"{os.getpid()}\n")
    if "refuse" in sys.argv:
        print("I need a licence", file=sys.stderr, flush=True)
        sys.exit(2)
    if "once" in sys.argv and len(started.read_text(encoding="utf-8").split()) < 2:
        sys.exit(2)
    build(started.with_suffix(".journal")).run("stdio")
