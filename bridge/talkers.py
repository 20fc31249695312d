"""The agents that are ready to take calls, with the engines they talk by."""

import asyncio
import hashlib
import itertools
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import structlog

from bridge.agents.base import Agent, AgentDone, CallSession
from bridge.agents.conversation import ConversationAgent
from bridge.agents.echo import EchoAgent
from bridge.agents.realtime import RealtimeAgent
from bridge.agents.remote import RemoteCalls, make_remote
from bridge.agents.tool_settings import AgentToolSettings
from bridge.agents.tools_agent import AgentTools, ToolError
from bridge.config import (
    AgentSettings,
    Config,
    ConversationAgentSettings,
    RealtimeAgentSettings,
    RemoteAgentSettings,
)
from bridge.provider_pool import Lease, ProviderPool
from bridge.providers.base import Llm, ProviderError, Role, Stt, Tts
from bridge.providers.chain import Member
from bridge.providers.chain_llm import ChainLlm
from bridge.providers.chain_stt import ChainStt
from bridge.providers.chain_tts import ChainTts
from bridge.providers.health import Observe
from bridge.providers.local.brain import LocalBrain
from bridge.providers.local.tts import LocalTts
from bridge.providers.phrases import Phrases, PhraseTts
from bridge.providers.realtime import Realtime
from bridge.providers.registry import LOCAL
from bridge.settings import PasswordError

log = structlog.get_logger(__name__)

Conversing = ConversationAgentSettings | RealtimeAgentSettings

Progress = Callable[[str], None]

ROLES: tuple[Role, ...] = ("stt", "llm", "tts", "realtime")

PHRASES_S = 4.0
"""How long a start waits for voices over the network to prepare what an agent says by rote; they go on meanwhile."""


class AgentError(Exception):
    """An agent can't be made ready; the message names it, and says why."""


@dataclass(frozen=True, slots=True)
class Talker:
    """An agent that is ready to take calls."""

    agent: Agent
    settings: AgentSettings
    record: bool
    embedded: bool
    """Every call of it works the embedded engines."""
    lease: Lease
    """What it uses."""
    secrets: str = ""
    """A digest of its keys and secrets as they were when it was made: rotated ones make another agent."""


class Talkers:
    """All agents by name. What they opened is closed by `aclose`, that of replaced ones after their last call."""

    def __init__(self, data_dir: Path, *, observe: Observe = lambda role, provider, seconds: None) -> None:
        """`observe` is told how long providers took."""
        self._pool = ProviderPool(data_dir, now=time.monotonic, observe=observe)
        self._talkers: dict[str, Talker] = {}
        self._config: Config | None = None
        self._leaving: dict[asyncio.Task[None], Lease] = {}
        self.remote_calls = RemoteCalls()

    async def start(self, config: Config, progress: Progress) -> None:
        """Load the engines that are needed, and make every agent ready. Raises AgentError."""
        roles = frozenset(
            role for settings in config.agents.values() for role in ROLES if LOCAL in getattr(settings, role, ())
        )
        if roles:
            try:
                await self._pool.start_engines(config, roles, progress)
            except ProviderError as error:
                raise AgentError(str(error)) from error
        self.apply(config, await self.prepare(config, progress))

    async def aclose(self) -> None:
        """Close everything, whoever still uses it."""
        leaving = dict(self._leaving)
        for task in leaving:
            task.cancel()
        await asyncio.gather(*leaving, return_exceptions=True)
        for lease in (*leaving.values(), *(talker.lease for talker in self._talkers.values())):
            await lease.stack.aclose()
        await self._pool.aclose()

    def get(self, name: str) -> Talker | None:
        return self._talkers.get(name)

    def __getitem__(self, name: str) -> Talker:
        return self._talkers[name]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._talkers)

    def overloaded(self) -> str | None:
        """Why the embedded engines can't take one more conversation; None: they can."""
        return None if self._pool.engines is None else self._pool.engines.pool.overloaded()

    def readings(self) -> Mapping[str, float]:
        """For the metrics."""
        return self._pool.readings()

    async def prepare(self, config: Config, progress: Progress) -> Mapping[str, Talker]:
        """The agents of `config`, those that are unchanged as they are. Calls go on meanwhile. Raises AgentError."""
        ready: dict[str, Talker] = {}
        try:
            for name, settings in config.agents.items():
                present = self._talkers.get(name)
                secrets = self._secrets(settings, config)
                same = present is not None and (present.settings, present.secrets) == (settings, secrets)
                if present is not None and same and self._same_providers(settings, config):
                    ready[name] = present
                else:
                    lease = Lease()
                    try:
                        made = await self._talker(name, settings, config, lease, progress)
                        ready[name] = replace(made, secrets=secrets)
                    except (ProviderError, ToolError, ValueError) as error:
                        self._leave(lease)
                        raise AgentError(f"agent {name!r}: {error}") from error
        except AgentError:
            for talker in ready.values():
                if talker not in self._talkers.values():
                    self._leave(talker.lease)
            raise
        return ready

    def apply(self, config: Config, ready: Mapping[str, Talker]) -> None:
        """Give new calls to these agents; calls that are up keep theirs."""
        before, self._talkers = self._talkers, dict(ready)
        self._config = config
        for talker in before.values():
            if talker not in self._talkers.values():
                self._leave(talker.lease)
        self._pool.probe_new()

    def _leave(self, lease: Lease) -> None:
        task = asyncio.create_task(lease.give_back(), name="replaced agent")
        self._leaving[task] = lease
        task.add_done_callback(lambda done: self._leaving.pop(done, None))

    def _same_providers(self, settings: AgentSettings, config: Config) -> bool:
        """Whether what an agent's chains name is what it was."""
        if self._config is None:
            return True
        names = {name for role in ROLES for name in getattr(settings, role, ())} - {LOCAL}
        return self._config.fallback == config.fallback and all(
            self._config.provider(name) == config.provider(name) for name in names
        )

    def _secrets(self, settings: AgentSettings, config: Config) -> str:
        """A digest of an agent's keys and secrets: its providers', tools', bot's. Of a missing one its making
        complains."""
        names = sorted({name for role in ROLES for name in getattr(settings, role, ())} - {LOCAL})
        parts = [self._pool.key_digest(name, config.provider(name)) for name in names]
        with suppress(ToolError, PasswordError):
            if isinstance(settings, AgentToolSettings):
                parts.append(AgentTools(settings).read_secrets())
            if isinstance(settings, RemoteAgentSettings) and settings.has_password:
                parts.append(settings.password())
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    async def _talker(
        self, name: str, settings: AgentSettings, config: Config, lease: Lease, progress: Progress
    ) -> Talker:
        """Raises ProviderError, ToolError, ValueError."""
        match settings:
            case ConversationAgentSettings():
                progress(f"preparing agent {name!r}: its greeting and fixed phrases")
                agent = await self._conversation(name, settings, config, lease)
                leased = _Leased(agent, lease)
                return Talker(leased, settings, settings.record, settings.leans_on_embedded, lease)
            case RealtimeAgentSettings():
                progress(f"preparing agent {name!r}")
                speaking = await self._realtime(name, settings, config, lease)
                return Talker(_Leased(speaking, lease), settings, settings.record, embedded=False, lease=lease)
            case RemoteAgentSettings():
                remote = make_remote(name, settings, self.remote_calls)
                return Talker(remote, settings, settings.record, embedded=False, lease=lease)
            case _:
                return Talker(EchoAgent(name, settings), settings, settings.record, embedded=False, lease=lease)

    # -- conversations --------------------------------------------------------------------------------------

    async def _conversation(
        self, name: str, settings: ConversationAgentSettings, config: Config, lease: Lease
    ) -> ConversationAgent:
        """An agent with its engines, everything it says by rote synthesised. Raises ProviderError, ToolError."""
        limits, fallback, now = settings.limits, config.fallback, self._pool.now
        stt: list[Member[Stt]] = await self._members("stt", settings, config, lease)
        llm: list[Member[Llm]] = await self._members("llm", settings, config, lease)
        tts: list[Member[Tts]] = await self._members("tts", settings, config, lease)
        agent = ConversationAgent(
            name,
            settings,
            stt=ChainStt(stt, fallback, open_s=limits.stt_open_ms / 1000, now=now),
            llm=ChainLlm(llm, fallback, first_s=limits.llm_first_ms / 1000, now=now),
            tts=ChainTts(tts, fallback, chunk_s=limits.tts_chunk_ms / 1000, now=now),
        )
        lease.stack.push_async_callback(agent.tools.aclose)
        await agent.tools.start()
        await self._prepare_phrases(name, settings, tts)
        return agent

    async def _realtime(
        self, name: str, settings: RealtimeAgentSettings, config: Config, lease: Lease
    ) -> RealtimeAgent:
        """Raises ProviderError, ToolError."""
        members: list[Member[Realtime]] = await self._members("realtime", settings, config, lease)
        voices: list[Member[Tts]] = await self._members("tts", settings, config, lease)
        chunk_s = settings.limits.tts_chunk_ms / 1000
        tts = ChainTts(voices, config.fallback, chunk_s=chunk_s, now=self._pool.now) if voices else None
        agent = RealtimeAgent(name, settings, members=members, tts=tts)
        lease.stack.push_async_callback(agent.tools.aclose)
        await agent.tools.start()
        await self._prepare_phrases(name, settings, voices)
        return agent

    async def _members(self, role: Role, settings: Conversing, config: Config, lease: Lease) -> list[Any]:
        """The chain of one role, its providers started. Raises ProviderUnavailableError."""
        members = []
        chain: tuple[str, ...] = getattr(settings, role)
        for name in chain:
            if name == LOCAL:
                provider = await self._local(role, settings, lease)
            else:
                provider = await self._pool.take(role, name, config, lease)
            first = settings.realtime[0] if isinstance(settings, RealtimeAgentSettings) else chain[0]
            voice = settings.voices.get(name, settings.voice if name == first else "")
            voice_in = {
                language: given.voices.get(name, given.voice if name == first else "")
                for language, given in settings.languages.items()
            }
            members.append(Member(provider, self._pool.health(role, name, config), voice, voice_in))
        return members

    async def _local(self, role: Role, settings: Conversing, lease: Lease) -> Any:
        engines = self._pool.local(role)
        match role:
            case "stt":
                return engines.stt
            case "tts":
                return engines.tts
            case _:
                brain = LocalBrain(engines.embedder)
                lease.stack.push_async_callback(brain.aclose)
                await brain.prepare(settings.brief)
                return brain

    async def _prepare_phrases(self, name: str, settings: Conversing, members: list[Member[Tts]]) -> None:
        """Have what the agent says by rote ready in each voice of its chain. One over the network goes on trying in
        the background; for the embedded one, ProviderError is raised."""
        has_local = any(isinstance(member.provider, LocalTts) for member in members)
        waiting = []
        for spoken, member in itertools.product(settings.spoken(), members):
            scripted = isinstance(settings, ConversationAgentSettings) and LOCAL in settings.llm
            texts = spoken.fixed_phrases() if scripted else spoken.rote_phrases()
            language = spoken.language
            voice = member.voice_in.get(language) or member.voice
            # Most calls are of 8 kHz; of the others' phrases the greeting is the one that nothing was said before.
            greeting = spoken.fixed_greeting
            wanted = [(texts, 8000)] + ([((greeting,), 16000)] if greeting else [])
            for phrases, rate in wanted:
                if isinstance(member.provider, PhraseTts):
                    lot = Phrases(tuple(phrases), voice, rate, language)
                    waiting.append(_tried(name, member.provider, lot, has_local).wait())
                elif isinstance(member.provider, LocalTts):
                    await member.provider.prepare(phrases, voice=voice, sample_rate=rate, language=language)
        with suppress(TimeoutError):
            async with asyncio.timeout(PHRASES_S):
                await asyncio.gather(*waiting)


def _tried(agent: str, voice: PhraseTts, phrases: Phrases, has_local: bool) -> asyncio.Event:
    """Have them prepared in the background. What comes back is set once they are there, or it did not work."""
    tried = asyncio.Event()

    def trouble(error: ProviderError) -> None:
        tried.set()
        log.warning(
            "fixed phrases can't be synthesised, it is tried again",
            agent=agent,
            provider=voice.name,
            error=str(error),
            meanwhile="the embedded voice speaks" if has_local else "callers wait for the voice at each of them",
        )

    voice.keep_preparing(phrases, trouble).add_done_callback(lambda _: tried.set())
    return tried


class _Leased:
    """An agent whose calls keep what it uses."""

    def __init__(self, agent: Agent, lease: Lease) -> None:
        self._agent = agent
        self._lease = lease

    @property
    def name(self) -> str:
        return self._agent.name

    async def warm(self) -> None:
        with self._lease:
            await self._agent.warm()

    async def run(self, session: CallSession) -> AgentDone:
        with self._lease:
            return await self._agent.run(session)
