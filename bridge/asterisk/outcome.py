"""What a dialplan is told of a call that it gets back, whatever way it is told."""

from typing import Literal

from bridge.events import Cause

Status = Literal["ANSWERED", "TRANSFER", "REFUSED", "FAILED"]
"""OFFHOOK_STATUS: an agent talked; the caller goes where the agent sends it; no agent took the call; it broke."""

_FAILURES = frozenset(
    (Cause.INTERNAL_ERROR, Cause.ENGINE_FAILED, Cause.MEDIA_TIMEOUT, Cause.SIGNALLING_LOST, Cause.DRAINED)
)


def status_of(cause: Cause, *, was_up: bool) -> Status:
    """Of a call that was sent nowhere. `was_up`: an agent took it."""
    if cause in _FAILURES:
        return "FAILED"
    return "ANSWERED" if was_up else "REFUSED"
