"""Taking up a changed configuration while calls are up: what of it holds at once, and what needs a restart."""

from collections.abc import Iterable

from bridge.config import Config

RELOADED = ("agents", "fallback", "guard", "limits", "providers", "routes", "trunks")
"""Sections that hold at once, for new calls."""

RELOADED_OF_SIP = ("allow_from", "strangers")


class ReloadError(Exception):
    """The new configuration can't be used; the message says why. The old one stays."""


def running_with(present: Config, wanted: Config) -> tuple[Config, tuple[str, ...]]:
    """What `present` becomes by what of `wanted` holds at once, and the settings that wait for a restart."""
    sip = present.sip.model_copy(update={name: getattr(wanted.sip, name) for name in RELOADED_OF_SIP})
    # One that stays keeps its connection, and so its settings.
    known = {one.name: one for one in present.asterisk}
    asterisk = tuple(known.get(one.name, one) for one in wanted.asterisk)
    updates = {name: getattr(wanted, name) for name in RELOADED} | {"sip": sip, "asterisk": asterisk}
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
