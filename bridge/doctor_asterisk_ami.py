"""What `offhook doctor` tries of an Asterisk's manager interface: the login, and what its user may do."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping

from bridge.asterisk.ami import Ami, AmiError
from bridge.asterisk.ami_events import AmiEvent, OtherEvent
from bridge.asterisk.settings import AsteriskSettings
from bridge.doctor_agents import Finding
from bridge.doctor_asterisk_dialplan import Seen, contexts_of

LOGIN_S = 8.0
"""Longest wait: Asterisk itself takes a second to refuse a password."""

ACTIONS: Mapping[str, str] = {
    "QueueStatus": "queues",
    "Getvar": "device states",
    "Originate": "calls by AMI",
    "Redirect": "transfers by AMI",
}
"""What the manager interface is used for."""


async def logged_in(settings: AsteriskSettings, ami: Ami) -> Finding:
    assert settings.ami is not None
    what = f"Asterisk {settings.name}, AMI"
    ami.start()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LOGIN_S):
            while ami.state == "connecting":  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    if ami.state == "up":
        unchecked = settings.ami.tls and not settings.ami.verify
        return Finding(
            "note" if unchecked else "ok",
            what,
            f"user {settings.ami.username!r} is logged in"
            f"{', at whoever has this address: its certificate is not checked (verify: false)' if unchecked else ''}",
        )
    if ami.state == "unauthorized":
        return Finding("wrong", what, ami.last_error)
    lines = "tlsenable = yes, tlsbindaddr, tlscertfile and tlsprivatekey" if settings.ami.tls else "bindaddr and port"
    return Finding(
        "wrong",
        what,
        f"{ami.last_error or 'no answer'}. In manager.conf set enabled = yes, {lines}; "
        "`asterisk -rx 'manager show settings'` tells",
    )


async def permissions(settings: AsteriskSettings, ami: Ami, seen: Seen, events: set[str]) -> AsyncIterator[Finding]:
    """What its user may do; and the contexts, where no channel was there to ask for them."""
    assert settings.ami is not None
    what = f"Asterisk {settings.name}, AMI permissions"
    user = settings.ami.username
    try:
        # Lists only what this user may do.
        (commands,) = await ami.action("ListCommands")
        denied = sorted({use for action, use in ACTIONS.items() if action not in commands})
        if not seen.contexts and "Getvar" in commands:
            said = {name: await ami.variable(f"DIALPLAN_EXISTS({name})") for name in contexts_of(settings)}
            if all(value in ("0", "1") for value in said.values()):
                seen.contexts = {name: value == "1" for name, value in said.items()}
    except AmiError as error:
        yield Finding("wrong", what, f"{error}")
        return
    if denied:
        yield Finding(
            "wrong",
            what,
            f"user {user!r} has no actions for {', '.join(denied)}: set write = call,agent,reporting,originate in "
            f"[{user}] of manager.conf, and load app_queue.so for queues",
        )
    if seen.channels and "Newchannel" not in events:
        # Who may read of calls was told of them.
        yield Finding(
            "note",
            what,
            f"user {user!r} gets no events of calls: set read = system,call,agent in [{user}] of manager.conf",
        )
    elif not denied:
        yield Finding("ok", what, f"user {user!r} may do what is needed")


def note_event(event: AmiEvent, events: set[str]) -> None:
    if isinstance(event, OtherEvent):
        events.add(event.name)
