"""`offhook check`: what the configuration alone can't say, asked of the machine."""

import asyncio
import os
import stat
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime

from bridge.agents.tool_settings import AgentToolSettings
from bridge.agents.transfer_settings import target_of
from bridge.asterisk.permits import permits
from bridge.check_asterisk import check_asterisks, doubtful
from bridge.config import Config, RealtimeAgentSettings, RemoteAgentSettings
from bridge.providers.base import ProviderError, Role
from bridge.providers.models_table import default_model, ending
from bridge.providers.registry import LOCAL, make
from bridge.settings import PasswordError
from bridge.sip.errors import TlsError
from bridge.sip.tls import TlsContexts
from bridge.startup import endpoint_settings
from bridge.trunks.trunks import TrunkError, prepare

ROLES: tuple[Role, ...] = ("stt", "llm", "tts", "realtime")


def check(config: Config, today: date | None = None) -> list[str]:
    """Everything that would keep a bridge of `config` from starting or from answering, one line each. Providers are
    started in a loop of its own, without the network: where a loop runs, call it in a thread."""
    return [
        *_check_agents(config),
        *_endings(config, today, past=True),
        *_check_trunks(config),
        *check_asterisks(config),
        *_check_tls(config),
        *_check_tracing(config),
        *_check_data_dir(config),
    ]


def warnings(config: Config, today: date | None = None) -> list[str]:
    """What will be wrong soon, one line each."""
    return list(_endings(config, today, past=False))


def doubts(config: Config) -> list[str]:
    """What works, but may be meant otherwise, one line each."""
    return [*doubtful(config), *_unannounced(config), *_not_permitted(config)]


def _not_permitted(config: Config) -> Iterator[str]:
    """Agents that are to send callers where no Asterisk may."""
    if not config.asterisk:
        return
    for name, agent in config.agents.items():
        if not isinstance(agent, AgentToolSettings):
            continue
        for key, one in agent.transfer.targets.items():
            target = target_of(one.to)
            if target is not None and not any(permits(asterisk.dial, target) for asterisk in config.asterisk):
                yield f"agent {name!r}: transfer.targets.{key}: no `dial` of an asterisk permits {one.to}"


def _unannounced(config: Config) -> Iterator[str]:
    """Agents that are to announce callers, and have no voice for it."""
    for name, agent in config.agents.items():
        if isinstance(agent, RealtimeAgentSettings) and not agent.tts:
            targets = [key for key, target in agent.transfer.targets.items() if target.announce.enabled]
            if targets:
                yield (
                    f"agent {name!r}: it has no tts, so callers are put through to {', '.join(targets)} unannounced"
                )


def providers_in_use(config: Config) -> list[tuple[Role, str]]:
    """What the agents' chains name, the embedded engines too."""
    chains = {
        (role, name)
        for agent in config.agents.values()
        for role in ROLES
        for name in _chain(getattr(agent, role, ()))
    }
    return sorted(chains)


def _chain(value: object) -> tuple[str, ...]:
    return tuple(value) if isinstance(value, tuple) else (value,) if isinstance(value, str) and value else ()


def _endings(config: Config, today: date | None, *, past: bool) -> Iterator[str]:
    """Models in use whose announced end is past, or near."""
    for role, name in providers_in_use(config):
        if name == LOCAL:
            continue
        settings = config.provider(name)
        kind = settings.kind or name
        model = getattr(getattr(settings, role, None), "model", "") or default_model(kind, role)
        end = ending(name, kind, role, model, today or datetime.now(UTC).date())
        if end is not None and end.past is past:
            yield end.says


def describe_trunks(config: Config) -> Iterator[str]:
    """A line for each trunk: how it is reached, and how its calls are told."""
    for trunk in config.trunks:
        parts = []
        if trunk.host:
            transport = f" over {trunk.transport.upper()}" if trunk.transport else ""
            parts.append(f"calls to {trunk.host}{trunk.port_text}{transport}")
        if trunk.registers:
            parts.append(f"registers {trunk.aor}")
        told = list(trunk.networks)
        if trunk.host and trunk.trust_host:
            told.append(f"the addresses of {trunk.host}")
        told += [f"certificate {name}" for name in trunk.certificate_names]
        told += [f"digest user {user.username}" for user in trunk.users]
        parts.append(f"calls from {', '.join(told)}" if told else "no calls from it")
        if trunk.srtp != "off":
            parts.append(f"SRTP {trunk.srtp}")
        yield f"trunk {trunk.name}: {'; '.join(parts)}"


def _check_agents(config: Config) -> Iterator[str]:
    if not config.agents:
        yield "agents: there is none, so nobody answers a call"
    elif not config.routes and not config.asterisk and not config.audiosocket.trunk:
        yield "routes: there is none, so every call gets 404"
    for name, agent in config.agents.items():
        for problem in _check_secrets(agent):
            yield f"agent {name!r}: {problem}"
    used = providers_in_use(config)
    yield from asyncio.run(_check_providers(config, [(role, name) for role, name in used if name != LOCAL]))
    if LOCAL in {name for _, name in used}:
        # Imported here: a server without the embedded engines needs none of it.
        from bridge.providers.local.models import check_models

        yield from check_models(config.engines)


def _check_secrets(agent: object) -> Iterator[str]:
    """What its tools, or its bot, need and don't have."""
    if isinstance(agent, AgentToolSettings) and (agent.tools or agent.mcp):
        # Imported here: most configurations have no tools.
        from bridge.agents.tools_agent import AgentTools, ToolError

        try:
            AgentTools(agent).read_secrets()
        except ToolError as error:
            yield str(error)
    if isinstance(agent, RemoteAgentSettings) and agent.has_password:
        try:
            agent.password()
        except PasswordError as error:
            yield str(error)


async def _check_providers(config: Config, used: Iterable[tuple[Role, str]]) -> list[str]:
    """What their own start says; it asks nobody."""
    problems = []
    for role, name in used:
        try:
            provider = make(role, name, config.provider(name), os.environ)
            try:
                await provider.start()
            finally:
                await provider.aclose()
        except ProviderError as error:
            problems.append(str(error))
    return problems


def _check_trunks(config: Config) -> Iterator[str]:
    try:
        prepare(config.trunks)
    except TrunkError as error:
        yield from str(error).splitlines()
    named = {codec for trunk in config.trunks for codec in trunk.codecs}
    if named:
        # Imported here: a configuration that names none needs no audio libraries to be checked.
        from bridge.legs.codecs import CODECS

        for codec in sorted(codec for codec in named if codec.upper() not in CODECS):
            yield f"trunks: codec {codec} does not work on this machine: its library is missing"
    for trunk in config.trunks:
        if trunk.certificate_names and (config.tls.certificate is None or config.tls.client == "none"):
            yield (
                f"trunk {trunk.name!r}: certificate_names need tls.certificate, and tls.client: request or require: "
                f"no certificate is ever seen without"
            )
        if trunk.transport and trunk.transport != "tls" and not getattr(config.sip, trunk.transport):
            yield f"trunk {trunk.name!r}: transport: {trunk.transport}, which sip.{trunk.transport} switches off"
        file = trunk.password_file
        if file is not None and file.exists() and file.stat().st_mode & (stat.S_IRWXO | stat.S_IWGRP):
            yield f"trunk {trunk.name!r}: password_file {file} is open to other users of this machine: chmod 600 it"


def _check_tls(config: Config) -> Iterator[str]:
    try:
        TlsContexts(endpoint_settings(config).tls)
    except TlsError as error:
        yield f"tls: {error}"


def _check_tracing(config: Config) -> Iterator[str]:
    if config.tracing.otlp_endpoint:
        from bridge.span_export import TracingError, headers_of

        try:
            headers_of(config.tracing.headers_env, os.environ)
        except TracingError as error:
            yield str(error)


def _check_data_dir(config: Config) -> Iterator[str]:
    path = config.data_dir
    while not path.exists() and path != path.parent:
        path = path.parent
    if not path.is_dir():
        yield f"data_dir: {path} is no directory"
    elif not os.access(path, os.W_OK | os.X_OK):
        yield f"data_dir: {path} is not writable for this user"
