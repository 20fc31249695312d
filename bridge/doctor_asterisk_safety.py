"""What `offhook doctor` says of an Asterisk's calls when something gives out: where callers go whose Offhook died,
and whether there are RTP ports for as many calls as are let in."""

import re
from collections.abc import AsyncIterator, Mapping, Sequence

from bridge.asterisk.ami import Ami, AmiError
from bridge.asterisk.settings import AsteriskSettings, MediaKind
from bridge.doctor_agents import Finding

MANY = 8
"""Contexts that are told by name."""

PORTS = {"rtp": 4, "websocket": 2, "audiosocket": 2}
"""UDP ports of Asterisk that a call takes: two a channel with RTP, the caller's and ours."""

DEFAULT_RANGE = (5000, 31000)
"""Of an rtp.conf that says nothing of it."""

_SHIPPED_APP = "${OFFHOOK_APP}"
_RTP_SETTINGS = re.compile(r"Port start:\s+(\d+)\s+Port end:\s+(\d+)")


# -- callers whose Offhook died -----------------------------------------------------------------------------


async def fallbacks(settings: AsteriskSettings, ami: Ami) -> AsyncIterator[Finding]:
    """Whether each context that hands calls over has a place where they go on. By AMI: ARI does not tell."""
    what = f"Asterisk {settings.name}, if Offhook dies"
    if not settings.dead_man_s:
        yield Finding(
            "note", what, "dead_man_s is 0: callers then hear silence, until Offhook is back or they hang up"
        )
        return
    try:
        (commands,) = await ami.action("ListCommands")
        if "ShowDialPlan" not in commands or "Getvar" not in commands:
            return
        rows = await ami.action("ShowDialPlan")
        handing_over = contexts_with_stasis(rows, settings)
        lacking = [context for context in handing_over if not await _has_fallback(ami, context)]
    except AmiError as error:
        yield Finding("note", what, f"the dialplan can't be read: {error}")
        return
    if lacking:
        more = f" and {len(lacking) - MANY} more" if len(lacking) > MANY else ""
        yield Finding(
            "note",
            what,
            f"callers are hung up on after {settings.dead_man_s:g} s: Stasis() is in "
            f"{', '.join(lacking[:MANY])}{more}, without an extension T. Add it there: "
            "exten => T,1,Goto(offhook-people,s,1), or wherever people are",
        )
    elif handing_over:
        yield Finding(
            "ok", what, f"callers go on at T of {', '.join(handing_over[:MANY])} within {settings.dead_man_s:g} s"
        )


def contexts_with_stasis(rows: Sequence[Mapping[str, str]], settings: AsteriskSettings) -> list[str]:
    """Those of `ShowDialPlan` that hand calls to our application. Calls that we make, and send through `amd_context`,
    have no caller to lose."""
    found = {
        row["Context"]: None
        for row in rows
        if row.get("Application") == "Stasis"
        and row.get("AppData", "").partition(",")[0] in (settings.app, _SHIPPED_APP)
        and row.get("Context") not in (None, settings.amd_context)
    }
    return list(found)


async def _has_fallback(ami: Ami, context: str) -> bool:
    said = [await ami.variable(f"DIALPLAN_EXISTS({context},{extension},1)") for extension in ("T", "e")]
    # Empty: without func_dialplan it can't be told.
    return "1" in said or "" in said


# -- RTP ports ----------------------------------------------------------------------------------------------


async def port_range(ami: Ami) -> tuple[int, int] | None:
    """The RTP ports of Asterisk; None: this user may not be told, as is the case for the shipped one where
    func_config.so is not loaded. Raises AmiError."""
    (commands,) = await ami.action("ListCommands")
    if "Command" in commands:
        rows = await ami.action("Command", Command="rtp show settings")
        if found := _RTP_SETTINGS.search("\n".join(row.get("Output", "") for row in rows)):
            return int(found[1]), int(found[2])
    if "Getvar" not in commands:
        return None
    said = [await ami.variable(f"AST_CONFIG(rtp.conf,general,{name})") for name in ("rtpstart", "rtpend")]
    if not any(said):
        return None
    first, last = (int(text) if text.isdigit() else usual for text, usual in zip(said, DEFAULT_RANGE, strict=True))
    return first, last


async def ports(settings: AsteriskSettings, ami: Ami, kinds: Sequence[MediaKind], box: int) -> Finding:
    """`box`: live calls that the configuration lets in altogether (`limits.calls`)."""
    what = f"Asterisk {settings.name}, RTP ports"
    try:
        given = await port_range(ami)
    except AmiError as error:
        return Finding("note", what, f"can't be asked for: {error}")
    each = max(PORTS[kind] for kind in kinds)
    if given is None:
        return Finding(
            "note",
            what,
            "how many there are can't be asked for: that takes func_config.so, or a user who may `command`. "
            f"`asterisk -rx 'rtp show settings'` tells. A call takes {each}; where none is free Asterisk 22 crashes",
        )
    return enough_ports(settings, given, each, box)


def enough_ports(settings: AsteriskSettings, given: tuple[int, int], each: int, box: int) -> Finding:
    what = f"Asterisk {settings.name}, RTP ports"
    first, last = given
    there = max(last - first + 1, 0)
    calls = min(box, settings.calls or box)
    shown = f"{first} to {last} are enough for {there // each} calls of {each} ports"
    if calls * each <= there:
        return Finding("ok", what, f"{shown}; {calls} are let in")
    limit = "calls" if settings.calls is not None and settings.calls <= box else "limits.calls"
    return Finding(
        # What nobody chose is not wrong before there are so many calls.
        "note" if settings.calls is None else "wrong",
        what,
        f"{shown}, and {limit} lets {calls} in: where none is free Asterisk 22 crashes with all its calls "
        f"(asterisk/asterisk#1757). Set calls: {max(there // each - 1, 1)} for it, or widen rtpstart and rtpend in "
        "rtp.conf",
    )
