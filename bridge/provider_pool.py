"""The providers in use: one for each role and name, shared by agents, closed when the last of them lets go of it."""

import asyncio
import hashlib
import os
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog

from bridge.config import Config
from bridge.providers.base import ProviderError, ProviderUnavailableError, Role
from bridge.providers.breaker import Breaker
from bridge.providers.health import Health, Observe
from bridge.providers.local.engines import LocalEngines
from bridge.providers.local.models import Role as EngineRole
from bridge.providers.models_table import default_model
from bridge.providers.phrases import PhraseTts
from bridge.providers.registry import KINDS, LOCAL, make
from bridge.providers.settings import ProviderSettings

log = structlog.get_logger(__name__)

PROBE_S = 15.0
"""Longest wait for a provider that is tried in the background."""

CLOSE_S = 5.0
"""A provider that does not close in this time is left to itself."""

ENGINES: Mapping[Role, EngineRole] = {"stt": "stt", "llm": "embed", "tts": "tts"}
"""Which of the embedded engines a role needs."""


@dataclass(eq=False)
class Held:
    """One provider in one role."""

    role: Role
    name: str
    settings: ProviderSettings
    key: str
    """A digest of its key, so that another one makes another provider."""
    provider: Any
    """An `Stt`, `Llm`, `Tts` or `Realtime`, by `role`."""
    holders: int = 0
    probing: "asyncio.Task[None] | None" = None


class Lease:
    """What one agent uses; given back when the agent was replaced and its last call is over."""

    def __init__(self) -> None:
        self.stack = AsyncExitStack()
        """Closed when it is given back."""
        self._calls = 0
        self._retired = False
        self._free = asyncio.Event()
        self._free.set()

    def __enter__(self) -> "Lease":
        """A call uses it."""
        self._calls += 1
        self._free.clear()
        return self

    def __exit__(self, *_: object) -> None:
        self._calls -= 1
        if not self._calls:
            self._free.set()

    async def give_back(self) -> None:
        """Wait for the calls that use it, and close what it holds. Once is enough; more does nothing."""
        await self._free.wait()
        await self.stack.aclose()


@dataclass(eq=False)
class ProviderPool:
    """Made with the bridge, closed with it."""

    data_dir: Path
    now: Callable[[], float]
    """The time (s, monotonic)."""
    observe: Observe
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    engines: LocalEngines | None = None
    loaded: frozenset[EngineRole] = frozenset()
    """What `engines` can do."""
    _held: list[Held] = field(default_factory=list)
    _health: dict[tuple[Role, str], Health] = field(default_factory=dict)

    async def start_engines(self, config: Config, roles: frozenset[Role], progress: Callable[[str], None]) -> None:
        """Load the embedded engines of `roles`. Raises ProviderError."""
        self.loaded = frozenset(ENGINES[role] for role in roles)
        self.engines = LocalEngines(config.engines, self.data_dir, sorted(self.loaded))
        await self.engines.start(progress)

    async def aclose(self) -> None:
        """Close everything, held or not."""
        held, self._held = self._held, []
        for one in held:
            await self._close(one)
        if self.engines is not None:
            await self.engines.aclose()

    def local(self, role: Role) -> LocalEngines:
        """The embedded engines, for `role`. Raises ProviderUnavailableError where they were not loaded for it."""
        if self.engines is None or ENGINES[role] not in self.loaded:
            raise ProviderUnavailableError(
                LOCAL, f"the embedded engines were not loaded for {role} at the start: restart"
            )
        return self.engines

    async def take(self, role: Role, name: str, config: Config, lease: Lease) -> Any:
        """The provider `name` in `role`, started, for as long as `lease` is held. Raises ProviderUnavailableError."""
        settings = config.provider(name)
        key = self.key_digest(name, settings)
        held = next(
            (
                one
                for one in self._held
                if (one.role, one.name, one.key) == (role, name, key) and one.settings == settings
            ),
            None,
        )
        if held is None:
            # An SDK takes seconds to import, and calls may be up: this may be a reload.
            provider = await asyncio.to_thread(make, role, name, settings, self.environ)
            try:
                await provider.start()
            except BaseException:
                await provider.aclose()
                raise
            if role == "tts":
                provider = PhraseTts(provider, self.data_dir / "phrases", sounds_by=_sound(name, settings))
            held = Held(role, name, settings, key, provider)
            self._held.append(held)
            self.health(role, name, config).breaker = Breaker(config.fallback.breaker)
        held.holders += 1
        lease.stack.push_async_callback(self._let_go, held)
        return held.provider

    def health(self, role: Role, name: str, config: Config) -> Health:
        """How `name` does in `role`: one for all agents, over reloads."""
        found = self._health.get((role, name))
        if found is None:
            found = Health(role, name, config.fallback.breaker, now=self.now, observe=self.observe)
            self._health[role, name] = found
        return found

    def probe_new(self) -> None:
        """Try, in the background, every provider that was not tried yet; what does not work is logged."""
        for held in self._held:
            if held.probing is None:
                held.probing = asyncio.create_task(_probe(held), name=f"probe of {held.name}")

    def readings(self) -> Mapping[str, float]:
        """For the metrics."""
        readings = {} if self.engines is None else dict(self.engines.pool.readings())
        for health in self._health.values():
            readings |= health.readings()
        return readings

    def key_digest(self, name: str, settings: ProviderSettings) -> str:
        """A digest of the key that `name` has now; empty: it has none."""
        kind = KINDS.get(settings.kind or name)
        try:
            key = settings.key(name, kind.key_env if kind else "", self.environ)
        except ProviderUnavailableError:
            # The provider says what that means when it is made: some need none.
            return ""
        return hashlib.sha256(key.get_secret_value().encode()).hexdigest()

    async def _let_go(self, held: Held) -> None:
        held.holders -= 1
        if not held.holders and held in self._held:
            self._held.remove(held)
            await self._close(held)

    async def _close(self, held: Held) -> None:
        if held.probing is not None:
            held.probing.cancel()
            await asyncio.wait([held.probing])
        try:
            async with asyncio.timeout(CLOSE_S):
                await held.provider.aclose()
        except (TimeoutError, ProviderError, OSError) as error:
            log.warning("provider did not close properly", role=held.role, provider=held.name, error=repr(error))


async def _probe(held: Held) -> None:
    try:
        async with asyncio.timeout(PROBE_S):
            await held.provider.probe()
    except ProviderError as error:
        log.warning(
            "provider does not work, calls use the next of the chain; `offhook doctor` tries it again",
            role=held.role,
            provider=held.name,
            error=str(error),
        )
    except TimeoutError:
        log.warning("provider did not answer", role=held.role, provider=held.name, seconds=PROBE_S)
    except Exception:
        # The task's outermost edge: nobody waits for it.
        log.exception("trying a provider crashed", role=held.role, provider=held.name)


def _sound(name: str, settings: ProviderSettings) -> str:
    """Everything in the settings that the sound of a text depends on."""
    kind = settings.kind or name
    tts = getattr(settings, "tts", None)
    told = tts.model_dump_json() if tts is not None else ""
    return f"{kind} {settings.base_url} {default_model(kind, 'tts')} {told}"
