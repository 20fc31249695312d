"""What the tools of one agent share over all its calls: secrets, connections, sessions with MCP servers."""

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bridge.agents.tool_settings import AgentToolSettings, HttpTool
from bridge.agents.tools_http import HttpTools
from bridge.agents.tools_template import SecretError, Secrets
from bridge.providers.base import Tool

if TYPE_CHECKING:
    from bridge.agents.tools_mcp import McpServer


_OF_A_TOOL = {"url", "headers", "query", "body"}
_OF_A_SERVER = {"url", "headers", "env"}
"""Where secrets may stand."""

_OTHER = re.compile(r"[^A-Za-z0-9_-]")


class ToolError(Exception):
    """An agent's tools can't be made ready; the message says which and why."""


@dataclass(frozen=True, slots=True)
class McpTool:
    """A server's tool under the name that it has for the model."""

    tool: Tool
    server: "McpServer"
    name: str
    """What the server calls it."""


class AgentTools:
    """Started with the agent and closed with it. Without HTTP tools and MCP servers nothing is opened."""

    def __init__(self, settings: AgentToolSettings, *, environ: Mapping[str, str] = os.environ) -> None:
        self.settings = settings
        self._secrets = Secrets(environ)
        self._http = HttpTools(settings.tools, self._secrets)
        self._servers: list[McpServer] = []

    async def start(self) -> None:
        """Read the secrets, and start the MCP servers, one that does not come up being tried again later. Raises
        ToolError."""
        try:
            self._http.start()
            if self.settings.mcp:
                # Its import takes a second: only where it is used.
                from bridge.agents.tools_mcp import McpServer, started

                self._servers = [McpServer(one, self._secrets) for one in self.settings.mcp]
                await started(self._servers)
        except SecretError as error:
            await self.aclose()
            raise ToolError(str(error)) from error

    def read_secrets(self) -> str:
        """Read every secret, as the start does, and open nothing. Returns a digest of what they were put into, which
        is another one when one of them is. Raises ToolError."""
        texts = [
            *((f"tool {one.name!r}", one.model_dump_json(include=_OF_A_TOOL)) for one in self.settings.tools),
            *((f"MCP server {one.name!r}", one.model_dump_json(include=_OF_A_SERVER)) for one in self.settings.mcp),
        ]
        digest = hashlib.sha256()
        for what, text in texts:
            try:
                digest.update(self._secrets.plain(text).encode())
            except SecretError as error:
                raise ToolError(f"{what}: {error}") from error
        return digest.hexdigest()

    async def aclose(self) -> None:
        servers, self._servers = self._servers, []
        for server in servers:
            await server.aclose()
        await self._http.aclose()

    @property
    def http(self) -> HttpTools:
        return self._http

    @property
    def http_tools(self) -> tuple[tuple[HttpTool, Tool], ...]:
        return tuple((tool, Tool(tool.name, tool.description, tool.parameters)) for tool in self.settings.tools)

    def mcp_tools(self, taken: set[str]) -> tuple[McpTool, ...]:
        """The servers' tools as they are now, those whose names others have (`taken`) under their server's name."""
        found: list[McpTool] = []
        names = [_plain(tool.name) for server in self._servers for tool in server.tools]
        used = set(taken)
        for server in self._servers:
            for tool in server.tools:
                name = _plain(tool.name)
                if names.count(name) > 1 or name in taken:
                    name = _plain(f"{server.name}_{tool.name}")
                if name not in used:
                    used.add(name)
                    found.append(McpTool(Tool(name, tool.description, tool.parameters), server, tool.name))
        return tuple(found)

    @property
    def down(self) -> Mapping[str, str]:
        """MCP servers whose tools are missing now, with why."""
        return {server.name: server.down for server in self._servers if server.down}

    @property
    def states(self) -> Mapping[str, tuple[str, tuple[str, ...]]]:
        """Each MCP server by name: why it is down (empty: it is up), and the names of its tools."""
        return {one.name: (one.down, tuple(tool.name for tool in one.tools)) for one in self._servers}


def _plain(name: str) -> str:
    """A name as models take it."""
    return _OTHER.sub("_", name)[:64]
