"""What was measured on the wire, as a table: set `OFFHOOK_CONVERSATIONS_TABLE` to the file that it goes to."""

from collections.abc import Sequence
from statistics import median

from call import Outcome
from verdict import failures, memory

TABLE_ENV = "OFFHOOK_CONVERSATIONS_TABLE"
SPEAKING_S = 0.8
"""A voice that was heard so lately is in the middle of speaking: between two sentences it is silent for less."""
GAP_S = 0.3
"""Silence of the agent after which it has stopped."""


def reply_ms(outcome: Outcome) -> list[float]:
    """The caller's last packet with voice to the agent's next, each time the agent was silent before."""
    found = []
    for number, said in enumerate(outcome.said):
        until = outcome.said[number + 1].began if number + 1 < len(outcome.said) else float("inf")
        if any(packet.loud for packet in outcome.packets if said.ended - 0.5 < packet.at <= said.ended):
            continue
        after = next((p.at for p in outcome.packets if p.loud and said.ended < p.at < until), None)
        if after is not None:
            found.append((after - said.ended) * 1000)
    return found


def stop_ms(outcome: Outcome) -> list[float]:
    """The onset of the caller's voice over the agent's to the agent's last packet before it was silent."""
    found = []
    for said in outcome.said:
        loud = [packet.at for packet in outcome.packets if packet.loud]
        if not any(said.began - SPEAKING_S < at <= said.began for at in loud):
            continue
        last = said.began
        for at in (at for at in loud if at > said.began):
            if at - last > GAP_S:
                break
            last = at
        found.append((last - said.began) * 1000)
    return found


def row(outcome: Outcome) -> tuple[str, ...]:
    barge_ins = outcome.events("barge_in")
    expected = outcome.situation.expected(outcome.engines)
    stops = sum(event["confirmed"] for event in barge_ins)
    wanted = expected.stops_at_best if expected.stops is None else expected.stops
    false_stops = "" if wanted is None else str(max(0, stops - wanted))
    off = [abs(told.off_ms) for told in memory(outcome)] if outcome.engines == "standins" else []
    return (
        outcome.situation.name,
        outcome.engines,
        "as expected" if not failures(outcome) else "NOT as expected",
        " ".join(f"{value:.0f}" for value in reply_ms(outcome)),
        " ".join(f"{value:.0f}" for value in stop_ms(outcome)) if stops else "",
        f"{stops}/{len(barge_ins)}",
        false_stops,
        f"{max(off):.0f}" if off else "",
        outcome.record.get("cause", "") or "",
    )


HEAD = (
    "situation",
    "engines",
    "outcome",
    "reply delays, ms",
    "stop delays, ms",
    "stops/pauses",
    "false stops",
    "memory off by, ms",
    "cause of the end",
)


def table(outcomes: Sequence[Outcome]) -> str:
    """For people; the last lines are medians."""
    rows = [HEAD, *(row(outcome) for outcome in outcomes)]
    widths = [max(len(line[column]) for line in rows) for column in range(len(HEAD))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in rows]
    for engines in ("local", "standins"):
        of_kind = [outcome for outcome in outcomes if outcome.engines == engines]
        replies = [value for outcome in of_kind for value in reply_ms(outcome)]
        stops = [v for o in of_kind if any(e["confirmed"] for e in o.events("barge_in")) for v in stop_ms(o)]
        if replies:
            stopped = f", stop delay {median(stops):.0f} ms" if stops else ""
            lines.append(f"{engines}: {len(of_kind)} calls; medians: reply delay {median(replies):.0f} ms{stopped}")
    return "\n".join(lines) + "\n"


def transcript(outcome: Outcome) -> str:
    """The call for people: its turns, and what else happened."""
    lines = [f"{outcome.situation.name} ({outcome.engines}): {outcome.situation.about}"]
    for turn in outcome.turns:
        heard = "" if turn["heard_text"] == turn["text"] else f"  [heard: {turn['heard_text']!r}]"
        lines.append(f"  {turn['started_ms'] / 1000:6.1f} s  {turn['speaker']:>6}: {turn['text']}{heard}")
    for name in ("barge_in", "tool_called", "form_completed", "provider_failed", "note"):
        lines += [f"  {name}: {event}" for event in outcome.events(name)]
    if outcome.heard:
        lines.append(f"  off the wire: {outcome.heard}")
    lines.append(f"  cause: {outcome.record.get('cause')}; the voice left up to {outcome.late_ms:.0f} ms late")
    return "\n".join(lines)
