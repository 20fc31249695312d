"""`offhook trunks`, `bans` and `trace`: what the running bridge says of them, for people."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from bridge.api.key import KeyFileError, read_key

Say = Callable[[str], None]

_CALL_ID = re.compile(r"[\w-]{1,64}")
_LABEL = re.compile(r"(?:call-id|i|uniqueid|channel|name)\s*:\s+", re.IGNORECASE)


class ViewError(Exception):
    """The bridge can't be asked; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Api:
    url: str
    data_dir: Path
    """Where the key is."""


def show_trunks(api: Api, say: Say, now: datetime | None = None) -> int:
    """A line a trunk. Returns the exit code: 1 while a trunk that is watched does not work. Raises ViewError."""
    trunks = trunk_states(api)
    if not trunks:
        say("no trunks are configured (trunks: in the configuration)")
        return 0
    at = now or datetime.now(UTC)
    rows: list[tuple[str, ...]] = [
        ("TRUNK", "STATE", "REGISTERED", "ROUND TRIP", "CALLS", "TRIED", "REFUSED", "LAST ERROR")
    ]
    rows += [_trunk_row(trunk, at) for trunk in trunks]
    for line in table(rows):
        say(line)
    return 0 if all(trunk["state"] in ("up", "unwatched", "unknown") for trunk in trunks) else 1


def trunk_states(api: Api) -> list[dict[str, Any]]:
    """What `GET /api/trunks` says of each trunk. Raises ViewError."""
    trunks: list[dict[str, Any]] = ask(api, "GET", "/api/trunks").json()["trunks"]
    return trunks


def show_bans(api: Api, say: Say, now: datetime | None = None) -> int:
    """A line a ban. Raises ViewError."""
    bans = ask(api, "GET", "/api/bans").json()["bans"]
    if not bans:
        say("nobody is banned")
        return 0
    at = now or datetime.now(UTC)
    rows = [("SOURCE", "FOR ANOTHER", "DROPPED", "WHY")]
    rows += [(ban["source"], span(ban["until"], at), str(ban["dropped"]), ban["why"]) for ban in bans]
    for line in table(rows):
        say(line)
    return 0


def lift_ban(api: Api, source: str, say: Say) -> int:
    """Returns the exit code: 1 where there was no such ban. Raises ViewError."""
    answer = ask(api, "DELETE", f"/api/bans/{quote(source, safe='')}", expected=(204, 400, 404))
    if answer.status_code != 204:
        say(answer.json()["error"]["message"])
        return 1
    say(f"{source} may call again")
    return 0


def find_call(api: Api, call: str) -> dict[str, Any] | None:
    """What `GET /api/calls/ID` says of a call; None: there is none. `call` is its id, or what others call it, copied
    from a trace or a console: a SIP Call-ID, the id or the name of its channel on an Asterisk. Of several the newest.
    Raises ViewError."""
    call = copied(call)
    if _CALL_ID.fullmatch(call):
        answer = ask(api, "GET", f"/api/calls/{call}", expected=(200, 404))
        if answer.status_code == 200:
            found: dict[str, Any] = answer.json()
            return found
    calls = ask(api, "GET", "/api/calls", query={"leg_id": call, "limit": "1"}).json()["calls"]
    return None if not calls else ask(api, "GET", f"/api/calls/{calls[0]['id']}").json()


def copied(text: str) -> str:
    """An id without what stands around it where it was copied: `Call-ID: 3f0c@host`, `UniqueID: 1763745600.12`."""
    return _LABEL.sub("", text.strip()).strip("<>\"' ")


def show_trace(api: Api, call: str, say: Say, *, whole: bool = False) -> int:
    """The SIP ladder of a call (`find_call`), or of any SIP Call-ID; with `whole` each message in full. Returns the
    exit code: 1 where nothing is kept of it. Raises ViewError."""
    form = "json" if whole else "ladder"
    found = find_call(api, call)
    if found is not None:
        text = _shown(ask(api, "GET", f"/api/calls/{found['id']}/trace?as={form}"), whole)
    else:
        text = _shown(ask(api, "GET", "/api/sip/trace", query={"as": form, "call_id": copied(call)}), whole)
    if text:
        say(text.rstrip("\n"))
        return 0
    if found is not None and found["leg_kind"] != "sip":
        for line in _elsewhere(found):
            say(printable(line))
    else:
        say(f"no messages of {call!r} are kept: no such call, or too long ago (sip.trace_mb)")
    return 1


def _shown(answer: httpx.Response, whole: bool) -> str:
    return "\n".join(_message(message) for message in answer.json()["messages"]) if whole else answer.text


def _elsewhere(call: dict[str, Any]) -> list[str]:
    """Where to look for the SIP of a call that somebody else speaks it for."""
    kinds = {"asterisk": f"Asterisk {call['trunk']!r}", "audiosocket": f"AudioSocket from {call['trunk']!r}"}
    by = kinds.get(call["leg_kind"], f"{call['trunk']!r} ({call['leg_kind']})")
    way = "came" if call["direction"] == "inbound" else "went"
    lines = [f"call {call['id']} {way} by {by}, which speaks SIP for it: no messages are here"]
    told = (event["data"].get("headers", {}) for event in call["events"] if event["name"] == "call_started")
    headers: dict[str, str] = next(told, {})
    if channel := headers.get("asterisk-channel"):
        unique_id = headers.get("asterisk-uniqueid") or call["leg_id"]
        lines.append(f"there it is the channel {channel} ({unique_id}): `core show channel {channel}`")
    if call_id := headers.get("call-id"):
        lines.append(f"with SIP Call-ID {call_id}: `pjsip set logger on`, `pjsip show history`")
    if (transport := _without_packets(call)) is not None:
        lines.append(f"its audio comes to us by {transport}, which has no packets to show")
    elif call["state"] != "ended":
        lines.append("its RTP between there and us can be had: --pcap FILE")
    return lines


def _without_packets(call: dict[str, Any]) -> str | None:
    """What brings a call's audio, where that has no packets of its own."""
    events = (event["data"]["transport"] for event in call["events"] if event["name"] == "media_set_up")
    transport: str = next(events, "rtp")
    return None if transport == "rtp" else transport


def save_packets(api: Api, call: str, file: Path, say: Say) -> int:
    """Write a live call's packets into a pcap file until it ends, or the user has seen enough. Raises ViewError."""
    found = find_call(api, call)
    if found is None:
        say(f"there is no call {call!r} on the record")
        return 1
    if (transport := _without_packets(found)) is not None:
        say(f"its audio comes by {transport}, which has no packets: only those of further legs are written")
    try:
        with httpx.stream(
            "GET",
            f"{api.url}/api/calls/{found['id']}/pcap",
            headers=_headers(api),
            timeout=httpx.Timeout(10, read=None),
            trust_env=False,
        ) as answer:
            if answer.status_code != 200:
                answer.read()
                say(answer.json()["error"]["message"])
                return 1
            with file.open("wb") as out:
                say(f"writing {file} until the call ends, or Ctrl-C")
                size = 0
                try:
                    for chunk in answer.iter_bytes():
                        size += out.write(chunk)
                        out.flush()
                except KeyboardInterrupt:
                    pass
    except httpx.HTTPError as error:
        raise _unreachable(api, error) from error
    except OSError as error:
        raise ViewError(f"{file} can't be written: {error.strerror}") from error
    say(f"{file}: {size} bytes")
    return 0


def _message(message: dict[str, Any]) -> str:
    arrow = f"{message['remote']} -> {message['local']}"
    if not message["received"]:
        arrow = f"{message['local']} -> {message['remote']}"
    return f"{message['at']}  {arrow}  {message['transport']}\n{message['text'].replace(chr(13), '')}"


def _headers(api: Api) -> dict[str, str]:
    try:
        return {"Authorization": f"Bearer {read_key(api.data_dir)}"}
    except KeyFileError as error:
        raise ViewError(str(error)) from error


def _unreachable(api: Api, error: httpx.HTTPError) -> ViewError:
    return ViewError(
        f"no bridge answers at {api.url} ({error or type(error).__name__}): is it running? --api names another"
    )


def ask(
    api: Api, method: str, path: str, expected: Sequence[int] = (200,), *, query: Mapping[str, str] | None = None
) -> httpx.Response:
    """What the bridge answers. Raises ViewError: nobody does, or with another status than the `expected` ones."""
    try:
        answer = httpx.request(
            method, api.url + path, params=query, headers=_headers(api), timeout=10, trust_env=False
        )
    except httpx.HTTPError as error:
        raise _unreachable(api, error) from error
    if answer.status_code not in expected:
        raise ViewError(f"{api.url}{path}: {answer.status_code} {answer.text[:200]}")
    return answer


def _trunk_row(trunk: dict[str, Any], now: datetime) -> tuple[str, ...]:
    registration, liveness = trunk["registration"], trunk["liveness"]
    registered = "-"
    if registration is not None:
        registered = registration["state"]
        if registration["state"] == "registered":
            registered = f"for {span(registration['until'], now)}"
        elif registration["next_at"] is not None:
            registered += f", again in {span(registration['next_at'], now)}"
    round_trip = next(
        (part["round_trip_ms"] for part in (liveness, registration) if part and part["round_trip_ms"] is not None),
        None,
    )
    most = f"/{trunk['max_calls']}" if trunk["max_calls"] else ""
    error = trunk["last_error"]
    if error:
        error += f" ({span(trunk['last_error_at'], now)} ago)"
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


def printable(text: str) -> str:
    """What others have written, in one line, unable to drive the terminal."""
    return "".join(character if character.isprintable() else " " for character in text)


def span(at: str, now: datetime) -> str:
    """How far off a time is: `45 s`, `12 min`, `3 h`."""
    seconds = abs((datetime.fromisoformat(at) - now).total_seconds())
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.0f} h"


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines with the cells of `rows` in columns."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
