"""`offhook check`: what the configuration alone can't say, asked of the machine."""

import os
from collections.abc import Iterator

from bridge.config import Config, ConversationAgentSettings
from bridge.providers.base import ProviderUnavailableError


def check(config: Config) -> list[str]:
    """Everything that would keep a bridge of `config` from starting or from answering, one line each."""
    return [*_check_agents(config), *_check_data_dir(config)]


def _check_agents(config: Config) -> Iterator[str]:
    if not config.agents:
        yield "agents: there is none, so nobody answers a call"
    elif not config.routes:
        yield "routes: there is none, so every call gets 404"
    conversations = [agent for agent in config.agents.values() if isinstance(agent, ConversationAgentSettings)]
    if any(agent.llm == "openai" for agent in conversations):
        try:
            config.openai.key(os.environ)
        except ProviderUnavailableError as error:
            yield str(error)
    if any(agent.embedded for agent in conversations):
        # Imported here: a server without the embedded engines needs none of it.
        from bridge.providers.local.models import check_models

        yield from check_models(config.engines)


def _check_data_dir(config: Config) -> Iterator[str]:
    path = config.data_dir
    while not path.exists() and path != path.parent:
        path = path.parent
    if not path.is_dir():
        yield f"data_dir: {path} is no directory"
    elif not os.access(path, os.W_OK | os.X_OK):
        yield f"data_dir: {path} is not writable for this user"
