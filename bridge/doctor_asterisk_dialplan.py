"""What `offhook doctor` says of an Asterisk's dialplan: the contexts that the configuration names."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from bridge.asterisk.needs import context_needs, missing
from bridge.asterisk.settings import AsteriskSettings
from bridge.doctor_agents import Finding

_CONTEXTS: Mapping[str, str] = {
    "transfer_context": "callers can't be transferred to numbers",
    "outbound_context": "numbers can't be called without naming an endpoint",
    "queue_context": "callers can't be handed to queues",
    "amd_context": "machines can't be told from people on calls out",
}
"""The settings that name a context, and what does not work without."""


@dataclass
class Seen:
    """What one part of an examination leaves for the others."""

    running: set[str] = field(default_factory=set)
    """Modules; empty: they could not be listed."""
    contexts: dict[str, bool] = field(default_factory=dict)
    """Of those that the configuration names, whether the dialplan has them; empty: it could not be asked."""
    channels: int = 0
    """Made by the trials of the media."""
    left: list[str] = field(default_factory=list)
    """What the trials made there and could not take away again."""


def contexts_of(settings: AsteriskSettings) -> list[str]:
    return [getattr(settings, name) for name in _CONTEXTS]


def contexts(settings: AsteriskSettings, seen: Seen) -> list[Finding]:
    what = f"Asterisk {settings.name}, dialplan"
    if not seen.contexts:
        return [Finding("note", what, "whether its contexts are there can't be asked: that takes a channel, or AMI")]
    findings = []
    for name, why in _CONTEXTS.items():
        context = getattr(settings, name)
        if not seen.contexts.get(context, False):
            # One that nobody chose may be missing because nobody needs it.
            chosen = name in settings.model_fields_set
            findings.append(
                Finding(
                    "wrong" if chosen else "note",
                    what,
                    f"there is no context {context!r} ({name}): {why}. Include offhook/extensions.conf and "
                    "offhook/settings.conf in extensions.conf, then `asterisk -rx 'dialplan reload'`",
                )
            )
    wanted = context_needs(
        seen.contexts.get(settings.queue_context, False), seen.contexts.get(settings.amd_context, False)
    )
    findings += [
        Finding("wrong", what, f"{need.shown} is not running, for {need.why}: `load = {need.shown}` in modules.conf")
        for need in (missing(wanted, seen.running) if seen.running else ())
    ]
    if not findings:
        findings.append(Finding("ok", what, f"the contexts {', '.join(contexts_of(settings))} are there"))
    return findings
