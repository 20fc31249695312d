"""Why a call ended, in everybody's words: our `Cause`, SIP's status, ISDN's Q.850 cause, the Reason header.

Between SIP and Q.850 the tables of RFC 3398 hold (7.2.4.1 and 8.2.6.1), with what carriers do where it is silent.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from bridge.events import Cause

NORMAL_CLEARING = 16
"""Q.850: somebody hung up."""
NORMAL_UNSPECIFIED = 31
TEMPORARY_FAILURE = 41

MAX_TEXT = 120
"""Characters of a Reason's text that we send or keep."""

Q850_OF_STATUS: Mapping[int, int] = {
    400: 41, 401: 21, 402: 21, 403: 21, 404: 1, 405: 63, 406: 79, 407: 21, 408: 102, 410: 22, 413: 127, 414: 127,
    415: 79, 416: 127, 420: 127, 421: 127, 423: 127, 480: 18, 481: 41, 482: 25, 483: 25, 484: 28, 485: 1, 486: 17,
    487: 31, 488: 88, 491: 41, 500: 41, 501: 79, 502: 38, 503: 41, 504: 102, 505: 127, 513: 127, 600: 17, 603: 21,
    604: 1, 606: 58,
}  # fmt: skip

STATUS_OF_Q850: Mapping[int, int] = {
    1: 404, 2: 404, 3: 404, 16: 480, 17: 486, 18: 408, 19: 480, 20: 480, 21: 403, 22: 410, 23: 410, 25: 483, 26: 404,
    27: 502, 28: 484, 29: 501, 31: 480, 34: 503, 38: 503, 41: 503, 42: 503, 47: 503, 55: 403, 57: 403, 58: 503,
    65: 488, 69: 501, 70: 488, 79: 501, 87: 403, 88: 488, 102: 504, 111: 500, 127: 500,
}  # fmt: skip

_CALLED_BUSY = frozenset({17})
_CALLED_ABSENT = frozenset({18, 19, 20})
_BROKEN = frozenset({38, 41, 42, 102})
"""Q.850 causes of a BYE that say: not a person, the network ended it."""

_REFUSALS: Mapping[Cause, tuple[int, int]] = {
    Cause.REFUSED_BUSY: (503, 34),
    Cause.REFUSED_DRAINING: (503, 41),
    Cause.REFUSED_FORBIDDEN: (403, 21),
    Cause.REFUSED_NO_ROUTE: (404, 1),
    Cause.REFUSED_MEDIA: (488, 88),
    Cause.INTERNAL_ERROR: (500, 41),
    Cause.ENGINE_FAILED: (503, 41),
    Cause.DRAINED: (503, 41),
    Cause.API_HUNG_UP: (603, 21),
    Cause.BUSY: (486, 17),
    Cause.NO_ANSWER: (480, 19),
}
"""What a caller is told, whose call ends before the answer: status and Q.850 cause."""

_CLEARINGS: Mapping[Cause, tuple[int, str]] = {
    Cause.MEDIA_TIMEOUT: (TEMPORARY_FAILURE, "No RTP"),
    Cause.INTERNAL_ERROR: (TEMPORARY_FAILURE, "Internal error"),
    Cause.ENGINE_FAILED: (TEMPORARY_FAILURE, "Engine failed"),
    Cause.DRAINED: (TEMPORARY_FAILURE, "Out of service"),
    Cause.REFUSED_MEDIA: (88, "Incompatible destination"),
    Cause.MAX_LENGTH: (NORMAL_UNSPECIFIED, "Longest duration reached"),
    Cause.CANCELLED: (NORMAL_UNSPECIFIED, "Request cancelled"),
    Cause.NO_ANSWER: (19, "No answer from user"),
}
"""What our BYE or CANCEL gives as its Q.850 cause; else normal clearing."""


@dataclass(frozen=True, slots=True)
class Reason:
    """One value of a Reason header (RFC 3326)."""

    protocol: str
    """`Q.850`, `SIP` or another, as written."""
    cause: int | None
    text: str = ""

    def __str__(self) -> str:
        cause = "" if self.cause is None else f";cause={self.cause}"
        quoted = self.text.replace("\\", "\\\\").replace('"', '\\"')
        return f'{self.protocol}{cause};text="{quoted}"' if self.text else f"{self.protocol}{cause}"


_VALUE = re.compile(
    r'\s*+([^\s;,="]++)((?:\s*+;\s*+[^\s;,="]++(?:\s*+=\s*+(?:"(?:[^"\\]++|\\.)*+"|[^\s;,"]*+))?+)*+)\s*+(?:,|$)'
)
_PARAM = re.compile(r';\s*+([^\s;,="]++)(?:\s*+=\s*+(?:"((?:[^"\\]++|\\.)*+)"|([^\s;,"]*+)))?+')


def parse_reasons(header: str) -> tuple[Reason, ...]:
    """The values of a Reason header field; what is not understood ends the list, as it comes from anyone."""
    reasons = []
    at = 0
    while at < len(header) and (match := _VALUE.match(header, at)) is not None:
        cause: int | None = None
        text = ""
        for name, quoted, plain in _PARAM.findall(match[2]):
            if name.lower() == "cause" and plain.isascii() and plain.isdigit() and len(plain) <= 4:
                cause = int(plain)
            elif name.lower() == "text":
                text = re.sub(r"\\(.)", r"\1", quoted or plain)[:MAX_TEXT]
        reasons.append(Reason(match[1], cause, text))
        at = match.end()
    return tuple(reasons)


def q850_of(header: str) -> int | None:
    """The Q.850 cause in a Reason header, None without one."""
    named = (reason.cause for reason in parse_reasons(header) if reason.protocol.upper() == "Q.850")
    return next((cause for cause in named if cause is not None and cause < 128), None)


def refusal_of(cause: Cause) -> tuple[int, Reason]:
    """Status and Reason (RFC 6432) for a caller whose call ends with `cause` before the answer."""
    status, q850 = _REFUSALS.get(cause, (480, NORMAL_UNSPECIFIED))
    return status, Reason("Q.850", q850)


def clearing_of(cause: Cause) -> Reason:
    """The Reason of our BYE or CANCEL."""
    q850, text = _CLEARINGS.get(cause, (NORMAL_CLEARING, "Normal call clearing"))
    return Reason("Q.850", q850, text)


def cause_of_rejection(status: int, q850: int | None = None) -> Cause:
    """Why our outbound call was not taken: SIP's final status, and the Q.850 cause that came with it. The latter is
    the more exact: gateways say 503 or 480 for much."""
    if q850 in _CALLED_BUSY or (status in (486, 600) and q850 is None):
        return Cause.BUSY
    if q850 in _CALLED_ABSENT or (status in (408, 480) and q850 is None):
        return Cause.NO_ANSWER
    return Cause.CANCELLED if status == 487 else Cause.REJECTED


def cause_of_bye(q850: int | None) -> Cause:
    """Why the far side ended a call that was up."""
    return Cause.SIGNALLING_LOST if q850 in _BROKEN else Cause.CALLER_HUNG_UP


def q850_of_status(status: int) -> int:
    """The Q.850 cause that a SIP status of 300 or more means."""
    return Q850_OF_STATUS.get(status, 127 if status >= 300 else NORMAL_CLEARING)


def status_of_q850(q850: int) -> int:
    """The SIP status that a Q.850 cause means for a call that is not answered; an unknown one is read as its class's
    "unspecified" (Q.850 2.2.7.1: the last of each group of 16)."""
    return STATUS_OF_Q850.get(q850) or {0: 404, 1: 480, 2: 503, 3: 403, 4: 501, 5: 500, 6: 500}.get(q850 >> 4, 500)
