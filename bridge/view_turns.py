"""`offhook turns`: the turns of a call, and where the time of each reply went."""

from collections.abc import Sequence
from typing import Any

from bridge.view import Api, Say, find_call, printable, table

_PARTS = ("endpoint", "stt", "llm", "tools", "clause", "tts", "playout")
_ROLES = ("stt", "llm", "tts")
MAX_WORDS = 48
"""Characters shown of what was said."""


def show_turns(api: Api, call: str, say: Say) -> int:
    """A line a turn: when, who, and of a reply what the caller waited for. `call`: see `find_call`. Returns the exit
    code: 1 where there is no such call. Raises ViewError."""
    found = find_call(api, call)
    if found is None:
        say(f"there is no call {call!r} on the record")
        return 1
    turns: list[dict[str, Any]] = found["turns"]
    if not turns:
        say("nobody has said anything in this call")
        return 0
    rows = [("AT", "WHO", "REPLY", *(part.upper() for part in _PARTS), "REST", "AHEAD", "SAID")]
    rows += [_row(turn) for turn in turns]
    for line in table(_without_empty(rows)):
        say(line)
    say("")
    for line in _summary(turns):
        say(line)
    return 0


def _row(turn: dict[str, Any]) -> tuple[str, ...]:
    delays = turn["delays"]
    parts = [delays[f"{part}_ms"] for part in _PARTS]
    reply = delays["reply_ms"]
    rest = None if reply is None else reply - sum(part for part in parts if part is not None)
    cut = " [cut off]" if turn["interrupted"] else ""
    why = f"  ({printable(turn['why'])})" if turn["why"] else ""
    text = printable(turn["heard_text"] if turn["interrupted"] else turn["text"])
    shown = text if len(text) <= MAX_WORDS else f"{text[: MAX_WORDS - 1]}…"
    return (
        f"{turn['started_ms'] / 1000:.1f} s",
        turn["speaker"],
        *(_number(value) for value in (reply, *parts, rest, delays["ahead_ms"])),
        f"{shown}{cut}{why}",
    )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}"


def _without_empty(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    """Columns of steps that never happened are left out."""
    kept = [column for column in range(len(rows[0])) if any(row[column] for row in rows[1:])]
    return [[row[column] for column in kept] for row in rows]


def _summary(turns: Sequence[dict[str, Any]]) -> list[str]:
    """Who took part, and what the slowest reply waited for most."""
    lines = []
    for role in _ROLES:
        names = dict.fromkeys(turn["delays"][role] for turn in turns if turn["delays"][role])
        if names:
            lines.append(f"{role}: {', '.join(names)}")
    replies = [turn for turn in turns if turn["delays"]["reply_ms"] is not None]
    if replies:
        slowest = max(replies, key=lambda turn: turn["delays"]["reply_ms"])
        delays = slowest["delays"]
        known = {part: delays[f"{part}_ms"] for part in _PARTS if delays[f"{part}_ms"] is not None}
        line = f"slowest reply: {delays['reply_ms']:.0f} ms, at {slowest['started_ms'] / 1000:.1f} s"
        if known:
            most = max(known, key=lambda part: known[part])
            line += f"; most of it {most} ({known[most]:.0f} ms)"
        lines.append(line)
    return [*lines, "all delays in ms; docs/tracing.md says what each is"]
