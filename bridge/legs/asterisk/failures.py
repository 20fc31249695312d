"""What a failed request to Asterisk means to whoever asked something of a leg."""

from bridge.asterisk.ari_errors import AriError, AriRefusedError, AriTimeoutError
from bridge.legs.base import LegError, PeerDownError, PeerRefusedError, PeerTimeoutError


def leg_error(error: AriError, what: str = "") -> LegError:
    """The error to raise in its place; `what` says what came to nothing."""
    message = f"{what}: {error}" if what else str(error)
    match error:
        case AriRefusedError():
            return PeerRefusedError(message)
        case AriTimeoutError():
            return PeerTimeoutError(message)
        case _:
            return PeerDownError(message)
