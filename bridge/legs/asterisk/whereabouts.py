"""Where a channel is that has left our application, not by our wish: how its leg ends."""

import asyncio
from collections.abc import Callable

import structlog

from bridge.asterisk.ari import Ari
from bridge.asterisk.ari_errors import AriError, AriNotFoundError
from bridge.events import Cause, LegEnded
from bridge.legs.asterisk.dead_man import DeadManLimit
from bridge.legs.asterisk.ends import end_unseen

log = structlog.get_logger(__name__)

GOING_S = 0.1
"""A channel that is through with its dialplan is gone within this."""

LIMIT_SLACK_S = 0.5
"""A channel that leaves no sooner than this before its limit of time left for that."""


async def whereabouts(
    ari: Ari, channel_id: str, limit: DeadManLimit, now: Callable[[], float], *, was_up: bool
) -> LegEnded:
    """It has hung up, its time was over, or it was sent elsewhere."""
    at = now()
    over = was_up and limit.own_until is not None and at > limit.own_until - LIMIT_SLACK_S
    await asyncio.sleep(GOING_S)
    try:
        await ari.channel(channel_id)
    except AriNotFoundError:
        if over:
            return LegEnded(Cause.MAX_LENGTH, "Asterisk ended the channel: its time was over", "far")
        return end_unseen(was_up=was_up)
    except AriError as error:
        log.info("where a channel went is not known", channel=channel_id, error=str(error))
        return LegEnded(Cause.SIGNALLING_LOST, "the channel has left the application", "network")
    if over:
        return LegEnded(Cause.MAX_LENGTH, "Asterisk took the channel on in its dialplan: its time was over", "far")
    if limit.ran_out(at + LIMIT_SLACK_S):
        detail = "its dead man's limit could not be put off in time: Asterisk took the channel on in its dialplan"
        return LegEnded(Cause.SIGNALLING_LOST, detail, "network")
    return LegEnded(Cause.TRANSFERRED, "Asterisk took the channel elsewhere", "far")
