"""Taking up a changed configuration while calls are up: what of it holds at once, and what needs a restart."""

from collections.abc import Iterable

from bridge.config import Config

RELOADED = ("agents", "asterisk", "fallback", "guard", "limits", "providers", "routes", "trunks")
"""Sections that hold at once, for new calls. A connection to an Asterisk is changed under the live ones."""

RELOADED_OF_SIP = ("allow_from", "strangers")


class ReloadError(Exception):
    """The new configuration can't be used; the message says why. The old one stays."""


def running_with(present: Config, wanted: Config) -> tuple[Config, tuple[str, ...]]:
    """What `present` becomes by what of `wanted` holds at once, and the settings that wait for a restart."""
    sip = present.sip.model_copy(update={name: getattr(wanted.sip, name) for name in RELOADED_OF_SIP})
    updates = {name: getattr(wanted, name) for name in RELOADED} | {"sip": sip}
    taken = present.model_copy(update=updates)
    return taken, tuple(_differences(taken, wanted))


def _differences(taken: Config, wanted: Config) -> Iterable[str]:
    for section in type(wanted).model_fields:
        ours, theirs = getattr(taken, section), getattr(wanted, section)
        if ours == theirs:
            continue
        names = getattr(type(theirs), "model_fields", None)
        if names is None:
            yield section
        else:
            yield from (f"{section}.{name}" for name in names if getattr(ours, name) != getattr(theirs, name))
