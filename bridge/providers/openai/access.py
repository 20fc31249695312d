"""Where OpenAI's key comes from, and which servers are its own."""

import os
from collections.abc import Mapping
from urllib.parse import urlsplit

from bridge.providers.openai.settings import OpenAiSettings
from bridge.providers.registry import KINDS


def api_key(name: str, settings: OpenAiSettings, environ: Mapping[str, str] = os.environ) -> tuple[str, str]:
    """The key of the entry `name` and where it is from; both empty for a server of one's own that no key is named
    for: OpenAI's own is not sent there. Raises ProviderUnavailableError."""
    kind = settings.kind or name
    usual = KINDS[kind].key_env if kind in KINDS else ""
    if kind == "openai" and settings.base_url and not is_openai(settings.base_url):
        usual = ""
    if not (usual or settings.api_key_env or settings.api_key_file):
        return "", ""
    return settings.key(name, usual, environ).get_secret_value(), settings.key_from(usual)


def is_openai(base_url: str) -> bool:
    return f".{urlsplit(base_url).hostname or ''}".endswith(".openai.com")
