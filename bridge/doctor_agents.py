"""What `offhook doctor` tries of agents besides their providers: bots behind WebSockets, and MCP servers."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from bridge.agents.tool_settings import AgentToolSettings
from bridge.config import Config, RemoteAgentSettings
from bridge.settings import PasswordError

CLOSE_S = 3.0


@dataclass(frozen=True, slots=True)
class Finding:
    """What was seen of one thing."""

    state: Literal["ok", "wrong", "note"]
    what: str
    says: str

    def line(self) -> str:
        return f"{self.state:5}  {self.what}: {self.says}"


async def tried_agents(config: Config) -> AsyncIterator[Finding]:
    """Dial each bot as a call would, and close at once; start each MCP server, and ask it for its tools. Where a
    secret is missing nothing is tried: the configuration's check said so."""
    for name, agent in config.agents.items():
        if isinstance(agent, RemoteAgentSettings):
            for finding in await asyncio.gather(*(_bot(name, agent, url) for url in agent.url)):
                if finding is not None:
                    yield finding
        elif isinstance(agent, AgentToolSettings) and agent.mcp:
            for finding in await _mcp_servers(name, agent):
                yield finding


async def _bot(name: str, settings: RemoteAgentSettings, url: str) -> Finding | None:
    # Imported here: most configurations have no bot.
    from bridge.agents.remote import BotUnreachableError, dial

    what = f"bot of {name} at {url}"
    try:
        secret = settings.password() if settings.has_password else ""
    except PasswordError:
        return None
    begun = time.monotonic()
    try:
        socket = await dial(url, settings, secret)
    except BotUnreachableError as error:
        return Finding("wrong", what, f"{error}. Check that the bot runs, its url, and the secret it shares with us")
    took_ms = (time.monotonic() - begun) * 1000
    with suppress(TimeoutError):
        async with asyncio.timeout(CLOSE_S):
            await socket.close()
    return Finding("ok", what, f"it takes a stream ({took_ms:.0f} ms)")


async def _mcp_servers(name: str, settings: AgentToolSettings) -> list[Finding]:
    # Imported here: they take a second, and most configurations have no tools.
    from bridge.agents.tools_agent import AgentTools, ToolError

    tools = AgentTools(settings)
    try:
        await tools.start()
        return [_of_server(name, server, why, settings) for server, why in tools.states.items()]
    except ToolError:
        return []
    finally:
        await tools.aclose()


def _of_server(name: str, server: str, state: tuple[str, tuple[str, ...]], settings: AgentToolSettings) -> Finding:
    what, (down, offered) = f"MCP server {server} of {name}", state
    if down:
        return Finding("wrong", what, f"{down}. Check its command or url, and that it runs for this user")
    wanted: Mapping[str, tuple[str, ...] | None] = {one.name: one.tools for one in settings.mcp}
    if missing := sorted(set(wanted[server] or ()) - set(offered)):
        return Finding("wrong", what, f"it does not have {', '.join(missing)}, which `tools` names")
    return Finding("ok", what, f"it is up and has {', '.join(offered) or 'no tools'}")
