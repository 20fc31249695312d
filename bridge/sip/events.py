"""What a user agent tells its owner. Every call ends with exactly one terminal event, which is its last:
`Cancelled`, `Rejected`, `ByeReceived`, `ByeAnswered` or `Lost`; a call that the owner rejects has none."""

from dataclasses import dataclass
from enum import StrEnum
from typing import NewType

from bridge.sip.flow import Flow
from bridge.sip.message import Request, Response

CallKey = NewType("CallKey", str)
"""Names one call of one user agent: our tag in its dialog."""

RequestKey = NewType("RequestKey", str)
"""Names one request of ours outside any call."""


class LostReason(StrEnum):
    NO_ACK = "no-ack"
    """Our 200 was never acknowledged within 64*T1; we sent BYE."""
    TIMEOUT = "timeout"
    """The peer never answered a request."""
    GONE = "gone"
    """The peer does not know the call any more (481)."""
    UNUSABLE = "unusable"
    """The answer could not be used (no way to address the peer)."""
    SESSION_EXPIRED = "session-expired"
    """Nobody refreshed the session in time (RFC 4028); we sent BYE."""


@dataclass(frozen=True, slots=True)
class InviteReceived:
    """A new call; 100 Trying was sent. The owner calls `ring`, `answer` or `reject`."""

    key: CallKey
    request: Request
    sdp: bytes | None
    """The offer; None when we are to make one (late offer)."""
    flow: Flow
    replaces: CallKey | None = None
    """The call that this one takes the place of (RFC 3891): answer this one, then hang that one up."""


@dataclass(frozen=True, slots=True)
class Cancelled:
    """Terminal: an inbound call ended before we answered. The INVITE was answered 487, or 480 on `expired`, or 504
    on `no-prack`: the caller did not acknowledge a reliable provisional response (RFC 3262 3)."""

    key: CallKey
    reason: str
    """`cancel`, `bye`, `expired` or `no-prack`, with the Reason header if there was one after a colon."""


@dataclass(frozen=True, slots=True)
class Confirmed:
    """The ACK of our answer came."""

    key: CallKey
    sdp: bytes | None
    """The answer to our late offer; None when the ACK had no body."""


@dataclass(frozen=True, slots=True)
class EarlyAnswer:
    """The PRACK of our reliable provisional response brought the answer to the offer in it (late offer)."""

    key: CallKey
    sdp: bytes


@dataclass(frozen=True, slots=True)
class Progress:
    """An outbound call rings or has early media."""

    key: CallKey
    status: int
    reason: str
    sdp: bytes | None


@dataclass(frozen=True, slots=True)
class Redirected:
    """An outbound call was sent elsewhere (3xx), or the place it was sent to failed and the 3xx named others: the
    owner calls `retarget` with one of `targets`, or `cancel`."""

    key: CallKey
    targets: tuple[str, ...]
    """URIs that were not yet tried, the preferred first."""
    response: Response
    """The 3xx."""


@dataclass(frozen=True, slots=True)
class Answered:
    """An outbound call was answered. With `late_offer` the owner must call `acknowledge` with its answer;
    otherwise the ACK was sent."""

    key: CallKey
    sdp: bytes | None
    late_offer: bool
    response: Response


@dataclass(frozen=True, slots=True)
class Rejected:
    """Terminal: an outbound call got a final answer of 300 or more (487 after `cancel`)."""

    key: CallKey
    status: int
    reason: str
    response: Response | None
    """With its headers (challenges, Contact, Retry-After); None where a cancelled call was answered."""


@dataclass(frozen=True, slots=True)
class Reoffered:
    """A re-INVITE, or an UPDATE or PRACK with an offer: the owner calls `answer_reinvite` or `reject_reinvite`.
    UPDATE and PRACK come before the call is answered, too (RFC 3311)."""

    key: CallKey
    sdp: bytes | None
    """None when we are to make the offer."""


@dataclass(frozen=True, slots=True)
class ReofferCancelled:
    """The peer took its re-INVITE back, or ours was too slow to answer: there is nothing to answer any more."""

    key: CallKey


@dataclass(frozen=True, slots=True)
class ReofferConfirmed:
    """The ACK of our answer to a re-INVITE came, with the peer's answer if the offer was ours. After an UPDATE or
    PRACK, which have no ACK, it follows our answer at once."""

    key: CallKey
    sdp: bytes | None


@dataclass(frozen=True, slots=True)
class ReofferAnswered:
    """Our re-INVITE or UPDATE was accepted; the ACK was sent, unless `late_offer`: then call `acknowledge`."""

    key: CallKey
    sdp: bytes | None
    late_offer: bool


@dataclass(frozen=True, slots=True)
class ReofferRejected:
    """Our re-INVITE or UPDATE was refused: the session stays as it was."""

    key: CallKey
    status: int
    reason: str


@dataclass(frozen=True, slots=True)
class Refreshed:
    """A session refresh of our own (a re-INVITE with our last description, unchanged) was answered with another
    description than the peer's last: its media moved."""

    key: CallKey
    sdp: bytes


@dataclass(frozen=True, slots=True)
class ByeReceived:
    """Terminal: the peer hung up; 200 was sent."""

    key: CallKey
    reason: str
    """Its Reason header, "" if none."""


@dataclass(frozen=True, slots=True)
class ByeAnswered:
    """Terminal: our BYE was answered, or timed out (408)."""

    key: CallKey
    status: int


@dataclass(frozen=True, slots=True)
class Lost:
    """Terminal: the call broke down."""

    key: CallKey
    reason: LostReason
    detail: str


@dataclass(frozen=True, slots=True)
class Referred:
    """The peer asks us to call `target` (RFC 3515): the owner calls `accept_refer` or `reject_refer`."""

    key: CallKey
    target: str
    """URI of Refer-To, with its headers (Replaces, ...) as written."""
    request: Request
    referred_by: str = ""
    """Referred-By (RFC 3892) as written, "" if there was none."""


@dataclass(frozen=True, slots=True)
class ReferAccepted:
    """The peer took our REFER; `ReferResult` tells what comes of it."""

    key: CallKey
    status: int
    subscribed: bool = True
    """False: no `ReferResult` will come, as agreed with `Refer-Sub: false` (RFC 4488)."""


@dataclass(frozen=True, slots=True)
class ReferRejected:
    key: CallKey
    status: int
    reason: str


@dataclass(frozen=True, slots=True)
class ReferResult:
    """The peer reports how its call to our Refer-To goes (NOTIFY, message/sipfrag)."""

    key: CallKey
    status: int
    """The last that was heard, when the reports end without a final one: under 200 then."""
    reason: str
    final: bool
    """Nothing more will come: a final status, or the peer ended the subscription."""


@dataclass(frozen=True, slots=True)
class InfoReceived:
    """An INFO, answered 200."""

    key: CallKey
    content_type: str
    body: bytes


@dataclass(frozen=True, slots=True)
class InfoAnswered:
    """Our INFO was answered, or timed out (408)."""

    key: CallKey
    status: int


@dataclass(frozen=True, slots=True)
class RequestAnswered:
    """A request outside any call is over."""

    key: RequestKey
    request: Request
    """As last sent: with its last CSeq number, and our credentials if it was challenged."""
    response: Response | None
    """The final response; None when none came, or it could not be delivered."""
    flow: Flow
    """Where it was last sent."""


Event = (
    InviteReceived
    | Cancelled
    | Confirmed
    | EarlyAnswer
    | Progress
    | Redirected
    | Answered
    | Rejected
    | Reoffered
    | ReofferCancelled
    | ReofferConfirmed
    | ReofferAnswered
    | ReofferRejected
    | Refreshed
    | ByeReceived
    | ByeAnswered
    | Lost
    | Referred
    | ReferAccepted
    | ReferRejected
    | ReferResult
    | InfoReceived
    | InfoAnswered
    | RequestAnswered
)
