"""`offhook turns`: the turns of a call, where the time of each reply went, and how the call sounded."""

from collections.abc import Mapping, Sequence
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
    sound = _sound(found)
    if not turns:
        for line in ("nobody has said anything in this call", *sound):
            say(line)
        return 0
    rows = [("AT", "WHO", "REPLY", *(part.upper() for part in _PARTS), "REST", "AHEAD", "SAID")]
    rows += [_row(turn) for turn in turns]
    for line in table(_without_empty(rows)):
        say(line)
    say("")
    for line in (*sound, *_summary(turns)):
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


def _sound(call: Mapping[str, Any]) -> list[str]:
    """A line for each stretch of the call's audio of which something was measured."""
    quality: Mapping[str, float] = call.get("quality") or {}
    beyond = any(name.startswith("caller_") for name in quality)
    stretches = [("caller's line, to Asterisk", "caller_")] if beyond else []
    stretches.append(("Asterisk to here" if call["leg_kind"] in ("asterisk", "audiosocket") else "caller's line", ""))
    known = ((name, _measured(quality, prefix)) for name, prefix in stretches)
    return [f"{name}: {said}" for name, said in known if said]


def _measured(quality: Mapping[str, float], prefix: str) -> str:
    """`MOS 4.2 (4.4 at the far end), 1.3 % lost, jitter 2.1 ms, round trip 40 ms`, as far as it is known."""

    def of(name: str) -> float | None:
        return quality.get(prefix + name)

    parts = []
    # 0 stands for a call too short to be rated.
    if (heard := of("mos")) and (remote := of("mos_remote")):
        parts.append(f"MOS {heard:.1f} ({remote:.1f} at the far end)")
    elif heard:
        parts.append(f"MOS {heard:.1f}")
    if of("packets_received") == 0:
        parts.append("nothing received")
    elif (loss := of("loss_percent")) is not None:
        parts.append(f"{loss:.1f} % lost")
    if (jitter := of("jitter_ms")) is not None and of("packets_received"):
        parts.append(f"jitter {jitter:.1f} ms")
    if (trip := of("round_trip_ms")) is not None:
        parts.append(f"round trip {trip:.0f} ms")
    return ", ".join(parts)


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
