"""What can go wrong in the SIP stack, as one tree.

- `SipError`: the root.
  - `SipSyntaxError`: a URI, header field or start line does not follow its grammar.
  - `MalformedMessage`: a whole message can't be used; it says how to answer it, if it can be answered at all.
  - `CallGoneError`: the call of that key has ended, or never was.
  - `CallStateError`: the request does not fit the call's state, e.g. answering a call twice.
  - `LocateError`: there is no way to a URI: its name can't be resolved, or no transport of ours leads there.
  - `TlsError`: a certificate, key or list of authorities can't be used.
  - `SdpError`: a session description can't be read, or can't be agreed on.
    - `NoAudioError`: it has no audio stream that we could take (488).
    - `NoCommonCodecError`: it has audio, in no codec of ours (488).
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bridge.sip.message import Request


class SipError(Exception):
    """Root of this package's errors."""


class SipSyntaxError(SipError, ValueError):
    """Text that does not follow SIP's grammar; the message quotes it, shortened."""

    def __init__(self, what: str, text: str) -> None:
        shown = text if len(text) <= 80 else text[:77] + "..."
        super().__init__(f"{what}: {shown!r}")


class MalformedMessage(SipError):
    """A message that can't be used. `request` is what could be read of it, when it was a request at all:
    then `status` and `reason` are how to answer it."""

    def __init__(self, reason: str, *, status: int = 400, request: "Request | None" = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status
        self.request = request


class CallGoneError(SipError):
    """No such call: it has ended, and its last event is on its way or was delivered."""


class CallStateError(SipError):
    """The call is not in a state that allows this."""


class LocateError(SipError):
    """No way to a URI; the message says what was looked for and what came of it."""


class TlsError(SipError):
    """Files for TLS that can't be used; the message names the file."""


class SdpError(SipError, ValueError):
    """A session description that can't be read or used."""


class NoAudioError(SdpError):
    """No audio stream on offer that could be taken: none at all, port 0, or a transport we don't speak."""


class NoCommonCodecError(SdpError):
    """There is audio, but in no codec of ours."""
