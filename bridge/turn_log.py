"""A line of the log for each turn of the agent: where its time went, and who took part. Never what was said."""

import structlog

from bridge.events import BargeIn, TurnEnded
from bridge.store.records import Recorded

log = structlog.get_logger(__name__)


def log_turn(item: Recorded) -> None:
    """`CallLog.subscribe(log_turn)` feeds it; other events than turns and barge-ins are passed over."""
    match item.event:
        case TurnEnded(speaker="agent") as turn:
            log.info("turn", call=item.call_id, **turn_fields(turn))
        case BargeIn() as event:
            # What the caller said stands behind a colon.
            why = event.reason.partition(": ")[0]
            log.debug(
                "barge-in over",
                call=item.call_id,
                confirmed=event.confirmed,
                reason=why,
                pause_ms=round(event.pause_ms),
                at_ms=round(event.at_ms),
            )


def turn_fields(turn: TurnEnded) -> dict[str, object]:
    """What a line says of one turn; what is not known is left out."""
    delays = turn.delays
    times = {"reply": delays.reply_ms, **delays.parts(), "rest": delays.rest_ms, "ahead": delays.ahead_ms}
    fields: dict[str, object] = {"index": turn.index}
    fields |= {f"{name}_ms": round(value) for name, value in times.items() if value is not None}
    providers = {"stt": delays.stt, "llm": delays.llm, "tts": delays.tts}
    fields |= {role: name for role, name in providers.items() if name}
    fields["heard_ms"] = round(turn.heard_ms)
    if turn.interrupted:
        fields["interrupted"] = True
    return fields
