"""What can go wrong with a request to ARI. No message holds the password."""


class AriError(Exception):
    """Root of the tree. The message says which request, and what happened."""


class AriUnavailableError(AriError):
    """No connection, no answer in time, or an answer that is none: whether the request was carried out is unknown."""


class AriTimeoutError(AriUnavailableError):
    """No answer in time."""


class AriUntrustedError(AriUnavailableError):
    """No connection, and TLS is the reason: that is not put right by itself within a moment."""


class AriUnauthorizedError(AriError):
    """The user or the password is refused (401, 403), or the password can't be had here."""


class AriRefusedError(AriError):
    """Asterisk answered with an error, and did nothing."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status
        """Of HTTP, 300 to 599 without 401 and 403."""


class AriNotFoundError(AriRefusedError):
    """404: there is no such channel, bridge, module, ..."""
