"""REFER within a call, as the one who asks and as the one who is asked (RFC 3515)."""

from typing import TYPE_CHECKING

from bridge.sip.body import parse_sipfrag
from bridge.sip.errors import CallStateError, SipSyntaxError
from bridge.sip.events import ReferAccepted, Referred, ReferRejected, ReferResult
from bridge.sip.exchange import Exchange
from bridge.sip.grammar import get_param, parse_params
from bridge.sip.message import REASONS, Request, Response
from bridge.sip.timers import Timers
from bridge.sip.transaction import NonInviteServer
from bridge.sip.uri import NameAddr

if TYPE_CHECKING:
    from bridge.sip.call import Call

_DECISION_LIMIT_S = 25.0
"""A REFER that the owner has not answered by then is refused, before the peer's own timer (32 s) runs out."""

_SUBSCRIPTION_S = 180.0
"""What our NOTIFYs promise; mostly a transfer's outcome is known before. The peer is given what it promises, or this
where it promises nothing."""

_GRACE_S = 5.0
"""How much later than promised a NOTIFY may come."""


class Referrals:
    """The transfers of one call: at most one that we asked for, and one that we were asked for, at a time. The
    subscription that a REFER makes ends with its final NOTIFY, when its time is up, or with the call."""

    def __init__(self, call: "Call") -> None:
        self._call = call
        self._asked: Exchange | None = None
        """Our REFER: its last CSeq number is the id of the subscription that it made."""
        self._heard = (100, "Trying")
        """The last status that the peer reported."""
        self._request: Request | None = None
        self._transaction: NonInviteServer | None = None
        self._event = ""
        """Event header of our NOTIFYs while we report on a transfer."""
        self._silent = False
        """We act on a REFER whose sender wants no NOTIFYs, or has no subscription any more."""
        self._said = 100
        """The last status that we reported, or would have."""
        self._ends_at = 0.0
        self.timers = Timers(call.layer.queue, self._fire)

    # -- asking ---------------------------------------------------------------------------------------------

    def refer(self, target: str, headers: tuple[tuple[str, str], ...], now: float) -> None:
        request = self._call.new_request("REFER")
        request.headers.add("Refer-To", target if target.startswith("<") else f"<{target}>")
        request.headers.extend(headers)
        if "Referred-By" not in request.headers:
            # Who is called should know at whose wish (RFC 3892): us, as the peer knows us.
            request.headers.add("Referred-By", f"<{self._call.local_uri}>")
        self._heard = (100, REASONS[100])
        self.timers.stop("subscription")
        self._asked = self._call.send_request(request, self._refer_answered, now)

    def _refer_answered(self, response: Response | None, now: float) -> None:
        if response is not None and response.status < 200:
            return
        if response is not None and response.status < 300:
            subscribed = (response.headers.get("Refer-Sub") or "").strip().lower() != "false"
            if not subscribed:
                self._asked = None
            elif self._asked is not None and "subscription" not in self.timers.snapshot():
                self.timers.set("subscription", now + _SUBSCRIPTION_S)
            self._call.emit(ReferAccepted(self._call.key, response.status, subscribed))
            return
        self._asked = None
        status = 408 if response is None else response.status
        reason = REASONS[408] if response is None else response.reason
        self._call.emit(ReferRejected(self._call.key, status, reason))
        if status == 481:
            self._call.ending.gone("REFER", now)

    def notified(self, request: Request, transaction: NonInviteServer, now: float) -> None:
        """A NOTIFY came, maybe before the answer to our REFER."""
        call = self._call
        event, semicolon, params = (request.headers.get("Event") or "").partition(";")
        state, state_semicolon, state_params = (request.headers.get("Subscription-State") or "").partition(";")
        expires: str | None = None
        try:
            expires = get_param(parse_params(state_semicolon + state_params), "expires")
            subscription = get_param(parse_params(semicolon + params), "id")
        except SipSyntaxError:
            subscription = None
        if event.strip().lower() != "refer":
            transaction.respond(call.response(request, 489), now)
            return
        if self._asked is None or subscription not in (None, "", str(self._asked.request.cseq.number)):
            transaction.respond(call.response(request, 481), now)
            return
        fragment = parse_sipfrag(request.body)
        if fragment is None:
            transaction.respond(call.response(request, 400, "Missing Status Line In Body"), now)
            return
        transaction.respond(call.response(request, 200), now)
        final = fragment[0] >= 200 or state.strip().lower() == "terminated"
        self._heard = fragment
        if final:
            self._asked = None
            self.timers.stop("subscription")
        else:
            promised = float(expires) if expires and expires.isascii() and expires.isdigit() else _SUBSCRIPTION_S
            self.timers.set("subscription", now + min(promised, 86_400.0) + _GRACE_S)
        call.emit(ReferResult(call.key, fragment[0], fragment[1], final))

    # -- being asked ----------------------------------------------------------------------------------------

    def referred(self, request: Request, transaction: NonInviteServer, now: float) -> None:
        """A REFER came."""
        call = self._call
        try:
            targets = request.headers.items_of("Refer-To")
            target = str(NameAddr.parse(targets[0]).uri) if len(targets) == 1 else ""
        except SipSyntaxError:
            target = ""
        if not target:
            transaction.respond(call.response(request, 400, "Malformed Refer-To"), now)
        elif self._transaction is not None or self._event:
            transaction.respond(call.response(request, 491), now)
        else:
            self._request, self._transaction = request, transaction
            self.timers.set("decision", now + _DECISION_LIMIT_S)
            call.emit(Referred(call.key, target, request, request.headers.get("Referred-By") or ""))

    def accept(self, now: float) -> None:
        request, transaction = self._open()
        response = self._call.response(request, 202)
        response.headers.add("Contact", self._call.contact)
        wanted = (request.headers.get("Refer-Sub") or "").partition(";")[0].strip().lower() != "false"
        self._silent = not wanted and "norefersub" in self._call.layer.config.supported
        self._said = 100
        if self._silent:
            response.headers.add("Refer-Sub", "false")
            transaction.respond(response, now)
            return
        transaction.respond(response, now)
        self._event = f"refer;id={request.cseq.number}"
        self._ends_at = now + _SUBSCRIPTION_S
        self.timers.set("reports", self._ends_at)
        self._report(100, "", now)

    def reject(self, status: int, now: float) -> None:
        request, transaction = self._open()
        transaction.respond(self._call.response(request, status), now)

    def notify(self, status: int, reason: str, now: float) -> None:
        """Report how the call to the Refer-To goes; a final status ends the matter."""
        if self._silent:
            self._said = status
            self._silent = status < 200
        elif self._event:
            self._report(status, reason, now)
        else:
            raise CallStateError("no transfer to report on")

    def _report(self, status: int, reason: str, now: float, ended: str = "noresource") -> None:
        """Send a NOTIFY; an `ended` other than `noresource` ends the subscription whatever the status."""
        final = status >= 200 or ended != "noresource"
        self._said = status
        request = self._call.new_request("NOTIFY")
        request.headers.add("Event", self._event)
        left = max(round(self._ends_at - now), 0)
        request.headers.add("Subscription-State", f"terminated;reason={ended}" if final else f"active;expires={left}")
        request.headers.add("Content-Type", "message/sipfrag;version=2.0")
        request.body = f"SIP/2.0 {status} {reason or REASONS.get(status, 'Unknown')}\r\n".encode()
        if final:
            self._event = ""
            self.timers.stop("reports")
        self._call.send_request(request, self._notify_answered, now)

    def abandon(self, now: float) -> None:
        """The call ended."""
        if self._transaction is not None:
            self.reject(487, now)
        self.timers.stop_all()

    def _notify_answered(self, response: Response | None, now: float) -> None:
        if self._event and (response is None or response.status == 481):
            # The peer does not want to hear more; the owner goes on, and need not know.
            self._event = ""
            self._silent = True
            self.timers.stop("reports")

    def _open(self) -> tuple[Request, NonInviteServer]:
        request, transaction = self._request, self._transaction
        if request is None or transaction is None:
            raise CallStateError("no REFER to answer")
        self._request = self._transaction = None
        self.timers.stop("decision")
        return request, transaction

    def _fire(self, name: str, now: float) -> None:
        if name == "decision":
            self.reject(480, now)
        elif name == "reports":
            self._report(self._said, "", now, "timeout")
            self._silent = True
        elif self._asked is not None:
            self._asked = None
            self._call.emit(ReferResult(self._call.key, *self._heard, True))
