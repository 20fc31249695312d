"""Changed settings of an Asterisk that stays: which of them hold at once, and which need another connection."""

from typing import Any

from bridge.asterisk.settings import AsteriskSettings

AT_ONCE = frozenset(
    {
        "agent",
        "media",
        "rtp",
        "websocket",
        "audiosocket",
        "media_address",
        "variables",
        "after",
        "transfer_context",
        "outbound_context",
        "queue_context",
        "amd_context",
        "amd_s",
        "music",
        "dial",
        "recording",
        "calls",
        "dead_man_s",
        "dead_man_refresh_s",
        "request_s",
        "ami",
    }
)
"""Those that the connection does not depend on; the manager interface has one of its own."""


def changed(present: AsteriskSettings, wanted: AsteriskSettings) -> frozenset[str]:
    """Names of the settings that differ."""
    names = AsteriskSettings.model_fields
    return frozenset(name for name in names if getattr(present, name) != getattr(wanted, name))


def connection_of(settings: AsteriskSettings) -> tuple[Any, ...]:
    """What the connection depends on: the same for settings that can do with the same one."""
    return tuple(getattr(settings, name) for name in AsteriskSettings.model_fields if name not in AT_ONCE)
