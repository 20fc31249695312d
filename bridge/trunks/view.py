"""`offhook trunks` and `offhook bans`: what the running bridge says of them, as tables for people."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from bridge.api.key import KeyFileError, read_key

Say = Callable[[str], None]


class ViewError(Exception):
    """The bridge can't be asked; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Api:
    url: str
    data_dir: Path
    """Where the key is."""


def show_trunks(api: Api, say: Say, now: datetime | None = None) -> int:
    """A line a trunk. Returns the exit code: 1 while a trunk that is watched does not work. Raises ViewError."""
    trunks = _ask(api, "GET", "/api/trunks").json()["trunks"]
    if not trunks:
        say("no trunks are configured (trunks: in the configuration)")
        return 0
    at = now or datetime.now(UTC)
    rows: list[tuple[str, ...]] = [
        ("TRUNK", "STATE", "REGISTERED", "ROUND TRIP", "CALLS", "TRIED", "REFUSED", "LAST ERROR")
    ]
    rows += [_trunk_row(trunk, at) for trunk in trunks]
    for line in _table(rows):
        say(line)
    return 0 if all(trunk["state"] in ("up", "unwatched", "unknown") for trunk in trunks) else 1


def show_bans(api: Api, say: Say, now: datetime | None = None) -> int:
    """A line a ban. Raises ViewError."""
    bans = _ask(api, "GET", "/api/bans").json()["bans"]
    if not bans:
        say("nobody is banned")
        return 0
    at = now or datetime.now(UTC)
    rows = [("SOURCE", "FOR ANOTHER", "DROPPED", "WHY")]
    rows += [(ban["source"], _span(ban["until"], at), str(ban["dropped"]), ban["why"]) for ban in bans]
    for line in _table(rows):
        say(line)
    return 0


def lift_ban(api: Api, source: str, say: Say) -> int:
    """Returns the exit code: 1 where there was no such ban. Raises ViewError."""
    answer = _ask(api, "DELETE", f"/api/bans/{quote(source, safe='')}", expected=(204, 400, 404))
    if answer.status_code != 204:
        say(answer.json()["error"]["message"])
        return 1
    say(f"{source} may call again")
    return 0


def _ask(api: Api, method: str, path: str, expected: Sequence[int] = (200,)) -> httpx.Response:
    try:
        key = read_key(api.data_dir)
        answer = httpx.request(
            method, api.url + path, headers={"Authorization": f"Bearer {key}"}, timeout=10, trust_env=False
        )
    except KeyFileError as error:
        raise ViewError(str(error)) from error
    except httpx.HTTPError as error:
        raise ViewError(
            f"no bridge answers at {api.url} ({error or type(error).__name__}): is it running? --api names another"
        ) from error
    if answer.status_code not in expected:
        raise ViewError(f"{api.url}{path}: {answer.status_code} {answer.text[:200]}")
    return answer


def _trunk_row(trunk: dict[str, Any], now: datetime) -> tuple[str, ...]:
    registration, liveness = trunk["registration"], trunk["liveness"]
    registered = "-"
    if registration is not None:
        registered = registration["state"]
        if registration["state"] == "registered":
            registered = f"for {_span(registration['until'], now)}"
        elif registration["next_at"] is not None:
            registered += f", again in {_span(registration['next_at'], now)}"
    round_trip = next(
        (part["round_trip_ms"] for part in (liveness, registration) if part and part["round_trip_ms"] is not None),
        None,
    )
    most = f"/{trunk['max_calls']}" if trunk["max_calls"] else ""
    error = trunk["last_error"]
    if error:
        error += f" ({_span(trunk['last_error_at'], now)} ago)"
    return (
        trunk["name"],
        trunk["state"],
        registered,
        "-" if round_trip is None else f"{round_trip:.0f} ms",
        f"{trunk['calls']}{most}",
        str(trunk["attempts"]),
        str(trunk["refused"]),
        error or "-",
    )


def _span(at: str, now: datetime) -> str:
    """How far off a time is: `45 s`, `12 min`, `3 h`."""
    seconds = abs((datetime.fromisoformat(at) - now).total_seconds())
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.0f} h"


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
