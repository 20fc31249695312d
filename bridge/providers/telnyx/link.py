"""The SDK's client, pointed where the settings say (`protocols/telnyx.md` 1)."""

from collections.abc import Mapping
from typing import Any

from telnyx import AsyncTelnyx

from bridge.providers.registry import KINDS
from bridge.providers.telnyx.settings import BASE_URL, TelnyxSettings


def client_and_key(name: str, settings: TelnyxSettings, environ: Mapping[str, str]) -> tuple[AsyncTelnyx, str]:
    """Raises ProviderUnavailableError when there is no key."""
    key = settings.key(name, KINDS["telnyx"].key_env, environ).get_secret_value()
    client = AsyncTelnyx(
        api_key=key,
        base_url=settings.base_url or BASE_URL,
        websocket_base_url=settings.websocket_url or None,
        max_retries=0,
        timeout=settings.connect_s,
    )
    return client, key


def query(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of a socket's URL: booleans as Telnyx writes them, what is empty left out."""
    given = {name: value for name, value in parameters.items() if value not in ("", None, (), [])}
    return {name: str(value).lower() if isinstance(value, bool) else value for name, value in given.items()}
