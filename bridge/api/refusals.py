"""What the API answers where a leg could not do what was asked: the status, and a word for programs."""

from bridge.api.errors import ApiError
from bridge.legs.base import (
    BadTargetError,
    LegError,
    LegStateError,
    NotCapableError,
    NotPermittedError,
    PeerDownError,
    PeerRefusedError,
    PeerTimeoutError,
    UnknownTargetError,
)
from bridge.legs.media import MediaUnavailableError
from bridge.legs.supervision import NoSuchSupervisorError

RETRY_AFTER_S = 5
"""What is down now may be up by then: the longest pause between two attempts to connect is about as long."""

_ANSWERS: tuple[tuple[type[LegError], int, str], ...] = (
    (NoSuchSupervisorError, 404, "no-such-supervisor"),
    (BadTargetError, 400, "bad-target"),
    (UnknownTargetError, 404, "no-such-target"),
    (NotPermittedError, 403, "not-permitted"),
    (LegStateError, 409, "wrong-state"),
    (NotCapableError, 501, "not-supported"),
    (MediaUnavailableError, 503, "no-ports"),
    (PeerTimeoutError, 504, "trunk-timeout"),
    (PeerDownError, 503, "trunk-down"),
    (PeerRefusedError, 502, "trunk-refused"),
    (LegError, 409, "not-possible"),
)
"""The first that fits counts: what is more particular stands before what it is a kind of."""

STATUSES = (403, 404, 409, 501, 502, 503, 504)
"""Those of a request about a live call."""


def answer_to(error: LegError) -> tuple[int, str]:
    """Status and code."""
    return next((status, code) for kind, status, code in _ANSWERS if isinstance(error, kind))


def refused(error: LegError) -> ApiError:
    status, code = answer_to(error)
    return ApiError(status, code, str(error), retry_after(status))


def retry_after(status: int) -> dict[str, str] | None:
    """The headers of an answer with this status."""
    return {"Retry-After": str(RETRY_AFTER_S)} if status == 503 else None
