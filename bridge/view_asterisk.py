"""`offhook asterisk`: the Asterisks of the running bridge, one of them whole, and its queues."""

from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from bridge.view import Api, Say, ask, span, table

RECENT_S = 3600.0
"""What went wrong earlier than that matters no more, once all is well again."""

STARTING = "the bridge is still starting, and connects when it is ready for calls"


def show_asterisks(api: Api, say: Say, now: datetime | None = None) -> int:
    """A line an Asterisk. Returns the exit code: 1 while one is not connected. Raises ViewError."""
    found = asterisk_states(api)
    if not found:
        say("no Asterisk is configured (asterisk: in the configuration)")
        return 0
    at = now or datetime.now(UTC)
    rows: list[tuple[str, ...]] = [
        ("ASTERISK", "STATE", "SINCE", "VERSION", "APP", "MEDIA", "CALLS", "CLEANED", "AMI", "LAST ERROR")
    ]
    rows += [_row(one, at) for one in found]
    for line in table(rows):
        say(line)
    if any(_is_before_the_start(one) for one in found):
        say(STARTING)
    return _code(found)


def show_asterisk(api: Api, name: str, say: Say, *, queues: bool = False, now: datetime | None = None) -> int:
    """One Asterisk in full; with `queues` its queues instead. Returns the exit code: 1 while it is not connected, or
    where there is no such. Raises ViewError."""
    if queues:
        return _show_queues(api, name, say, now or datetime.now(UTC))
    one = next((state for state in asterisk_states(api) if state["name"] == name), None)
    if one is None:
        say(f"there is no Asterisk {name!r} in the configuration of the running bridge")
        return 1
    at = now or datetime.now(UTC)
    most = f" of {one['max_calls']}" if one["max_calls"] else ""
    lines = [
        ("state", one["state"] + (f", since {span(one['since'], at)}" if one["since"] else "")),
        ("url", one["url"]),
        ("application", one["app"]),
        ("version", one["version"] or "-"),
        ("requests", "over the event socket" if one["rest_over_socket"] else "over HTTP"),
        ("media", ", ".join(one["media_kinds"])),
        ("calls", f"{one['calls']}{most}"),
        ("joined pairs", str(one["joined"])),
        ("orphans cleaned", str(one["orphans_cleaned"])),
        ("last error", _last_error(one, at) or "-"),
        ("AMI", one["ami_state"]),
    ]
    if ami_error := _ami_error(one, at):
        lines.append(("AMI error", ami_error))
    for line in table([(f"{what}:", value) for what, value in lines]):
        say(line)
    if _is_before_the_start(one):
        say(STARTING)
    if one["state"] == "replaced":
        say(f"another process has taken the application: `offhook asterisk {name} --reconnect` takes it back")
    return _code([one])


def reconnect(api: Api, name: str, say: Say) -> int:
    """Have the bridge connect now. Returns the exit code: 1 where there is no such Asterisk. Raises ViewError."""
    answer = ask(api, "POST", f"/api/asterisk/{quote(name, safe='')}/reconnect", expected=(202, 404))
    if answer.status_code == 404:
        say(answer.json()["error"]["message"])
        return 1
    return show_asterisk(api, name, say)


def asterisk_states(api: Api) -> list[dict[str, Any]]:
    """What `GET /api/asterisk` says of each. Raises ViewError."""
    found: list[dict[str, Any]] = ask(api, "GET", "/api/asterisk").json()["asterisks"]
    return found


def _show_queues(api: Api, name: str, say: Say, now: datetime) -> int:
    path = f"/api/asterisk/{quote(name, safe='')}/queues"
    answer = ask(api, "GET", path, expected=(200, 404, 409, 502, 503))
    if answer.status_code != 200:
        say(answer.json()["error"]["message"])
        return 1
    queues: list[dict[str, Any]] = answer.json()["queues"]
    if not queues:
        say(f"{name} has no queues (queues.conf)")
    for index, queue in enumerate(queues):
        if index:
            say("")
        say(
            f"{queue['name']} ({queue['strategy']}): {queue['waiting']} waiting, {queue['available']} of "
            f"{len(queue['members'])} members free; {queue['completed']} answered after {queue['hold_s']:.0f} s on "
            f"average, {queue['abandoned']} gave up"
        )
        rows: list[tuple[str, ...]] = [("  MEMBER", "INTERFACE", "STATE", "PAUSED", "TAKEN", "LAST CALL")]
        rows += [_member_row(member, now) for member in queue["members"]]
        waiting = [
            (
                f"  {caller['position']}. {caller['caller_number'] or caller['channel']}",
                caller["caller_name"],
                "-" if caller["waited_s"] is None else f"{caller['waited_s']:.0f} s",
            )
            for caller in queue["callers"]
        ]
        for line in (*(table(rows) if queue["members"] else ()), *(table(waiting) if waiting else ())):
            say(line)
    return 0


def _member_row(member: dict[str, Any], now: datetime) -> tuple[str, ...]:
    paused = "no"
    if member["paused"]:
        paused = member["paused_reason"] or "yes"
    return (
        f"  {member['name']}",
        member["interface"],
        "on a call" if member["in_call"] else member["state"].lower().replace("_", " "),
        paused,
        str(member["calls_taken"]),
        "-" if member["last_call_at"] is None else f"{span(member['last_call_at'], now)} ago",
    )


def _row(one: dict[str, Any], now: datetime) -> tuple[str, ...]:
    most = f"/{one['max_calls']}" if one["max_calls"] else ""
    ami_error = _ami_error(one, now)
    error = _last_error(one, now) or (f"AMI: {ami_error}" if ami_error else "")
    return (
        one["name"],
        one["state"],
        span(one["since"], now) if one["since"] else "-",
        one["version"] or "-",
        one["app"],
        ",".join(one["media_kinds"]),
        f"{one['calls']}{most}",
        str(one["orphans_cleaned"]),
        one["ami_state"],
        error or "-",
    )


def _is_before_the_start(one: dict[str, Any]) -> bool:
    return bool(one["state"] == "connecting" and one["since"] is None)


def _last_error(one: dict[str, Any], now: datetime) -> str:
    return _error(one["last_error"], one["last_error_at"], now, well=one["state"] == "up")


def _ami_error(one: dict[str, Any], now: datetime) -> str:
    return _error(one["ami_error"], one["ami_error_at"], now, well=one["ami_state"] == "up")


def _error(text: str, at: str | None, now: datetime, *, well: bool) -> str:
    """With its age; nothing, once it does not matter any more."""
    if not text or at is None:
        return text
    if well and (now - datetime.fromisoformat(at)).total_seconds() > RECENT_S:
        return ""
    return f"{text} ({span(at, now)} ago)"


def _code(found: list[dict[str, Any]]) -> int:
    return 0 if all(one["state"] == "up" and one["ami_state"] in ("up", "off") for one in found) else 1
