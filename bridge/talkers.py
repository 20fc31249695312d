"""The agents that are ready to take calls, with the engines they talk by."""

import contextlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bridge.agents.base import Agent
from bridge.agents.conversation import ConversationAgent
from bridge.agents.echo import EchoAgent
from bridge.agents.remote import RemoteCalls, make_remote
from bridge.agents.tools_agent import ToolError
from bridge.config import AgentSettings, Config, ConversationAgentSettings, RemoteAgentSettings
from bridge.providers.base import Llm, ProviderError
from bridge.providers.local.brain import LocalBrain
from bridge.providers.local.engines import LocalEngines
from bridge.providers.registry import LOCAL, make

Progress = Callable[[str], None]


class AgentError(Exception):
    """An agent can't be made ready; the message names it, and says why."""


@dataclass(frozen=True, slots=True)
class Talker:
    """An agent that is ready to take calls."""

    agent: Agent
    settings: AgentSettings
    record: bool
    embedded: bool
    """It needs the embedded engines."""


class Talkers:
    """All agents by name. What they opened is closed by `aclose`, that of replaced ones too: calls may be left."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._stack = contextlib.AsyncExitStack()
        self._engines: LocalEngines | None = None
        self._talkers: dict[str, Talker] = {}
        self._config: Config | None = None
        self.remote_calls = RemoteCalls()

    async def start(self, config: Config, progress: Progress) -> None:
        """Load the engines that are needed, and make every agent ready. Raises AgentError."""
        if any(isinstance(a, ConversationAgentSettings) and a.embedded for a in config.agents.values()):
            self._engines = LocalEngines(config.engines, self._data_dir)
            self._stack.push_async_callback(self._engines.aclose)
            try:
                await self._engines.start(progress)
            except ProviderError as error:
                raise AgentError(str(error)) from error
        self.apply(config, await self.prepare(config, progress))

    async def aclose(self) -> None:
        await self._stack.aclose()

    def get(self, name: str) -> Talker | None:
        return self._talkers.get(name)

    def __getitem__(self, name: str) -> Talker:
        return self._talkers[name]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._talkers)

    def overloaded(self) -> str | None:
        """Why the embedded engines can't take one more conversation; None: they can."""
        return None if self._engines is None else self._engines.pool.overloaded()

    def readings(self) -> Mapping[str, float]:
        """For the metrics."""
        return {} if self._engines is None else self._engines.pool.readings()

    async def prepare(self, config: Config, progress: Progress) -> Mapping[str, Talker]:
        """The agents of `config`, those that are unchanged as they are. Calls go on meanwhile. Raises AgentError."""
        same_llm = self._config is not None and self._config.providers == config.providers
        ready: dict[str, Talker] = {}
        for name, settings in config.agents.items():
            present = self._talkers.get(name)
            if present is not None and present.settings == settings and (same_llm or not _uses_cloud(settings)):
                ready[name] = present
            elif isinstance(settings, RemoteAgentSettings):
                try:
                    remote = make_remote(name, settings, self.remote_calls)
                except ValueError as error:
                    raise AgentError(f"agent {name!r}: {error}") from error
                ready[name] = Talker(remote, settings, settings.record, embedded=False)
            elif not isinstance(settings, ConversationAgentSettings):
                ready[name] = Talker(EchoAgent(name, settings), settings, settings.record, embedded=False)
            else:
                progress(f"preparing agent {name!r}: its greeting and fixed phrases")
                try:
                    agent = await self._conversation(name, settings, config)
                    self._stack.push_async_callback(agent.tools.aclose)
                    await agent.tools.start()
                except (ProviderError, ToolError) as error:
                    raise AgentError(f"agent {name!r}: {error}") from error
                ready[name] = Talker(agent, settings, settings.record, settings.embedded)
        return ready

    def apply(self, config: Config, ready: Mapping[str, Talker]) -> None:
        """Give new calls to these agents; calls that are up keep theirs."""
        self._config = config
        self._talkers = dict(ready)

    async def _conversation(
        self, name: str, settings: ConversationAgentSettings, config: Config
    ) -> ConversationAgent:
        """An agent with its engines, everything it says by rote synthesised. Raises ProviderError, AgentError."""
        engines = self._engines
        if engines is None:
            raise AgentError(
                f"agent {name!r} needs the embedded engines, which were not loaded at the start: restart"
            )
        llm: Llm
        first = settings.llm[0]
        if first != LOCAL:
            llm = make("llm", first, config.provider(first), os.environ)
            self._stack.push_async_callback(llm.aclose)
            await llm.start()
        else:
            llm = brain = LocalBrain(engines.embedder)
            self._stack.push_async_callback(llm.aclose)
            await brain.prepare(settings.brief)
        # Most calls are of 8 kHz; of the others' phrases the greeting is the one that nothing was said before.
        for phrases, rate in ((settings.fixed_phrases(), 8000), ((settings.greeting,), 16000)):
            await engines.tts.prepare(phrases, voice=settings.voice, sample_rate=rate, language=settings.language)
        return ConversationAgent(name, settings, stt=engines.stt, llm=llm, tts=engines.tts)


def _uses_cloud(settings: AgentSettings) -> bool:
    return isinstance(settings, ConversationAgentSettings) and settings.llm != (LOCAL,)
