"""One INVITE that came in, first or re-INVITE: from its arrival to the ACK of its answer (RFC 3261 13.3, 14.2)."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from bridge.sip.errors import CallStateError
from bridge.sip.message import Request, Response
from bridge.sip.reliable import ReliableResponses
from bridge.sip.timers import Timers
from bridge.sip.transaction import InviteServer

if TYPE_CHECKING:
    from bridge.sip.call import Call

# Proxies give up after three silent minutes (timer C); a provisional response every minute keeps them waiting.
_REFRESH_S = 60.0

REINVITE_LIMIT_S = 30.0
"""How long the owner may think about a re-INVITE: just under what the peer's own patience is by default."""


class ServerInvite:
    """Waits for the owner's answer, then repeats a 2xx until its ACK comes."""

    def __init__(
        self, call: "Call", request: Request, transaction: InviteServer, *, initial: bool, now: float
    ) -> None:
        self.initial = initial
        self.late_offer = call.sdp_of(request) is None
        """We make the offer, in our 2xx; the ACK brings the answer."""
        self.cseq = request.cseq.number
        self.timers = Timers(call.layer.queue, self._fire)
        self._call = call
        self._request = request
        self._transaction = transaction
        self._provisional: tuple[int, str, Response | None] | None = None
        """The last one: its status and reason, and itself unless it was sent reliably."""
        self._reliable = ReliableResponses(call, request, transaction, self._response) if initial else None
        self._held: tuple[bytes | None, tuple[tuple[str, str], ...]] | None = None
        """SDP and headers of our 200, while it waits for a PRACK."""
        self.answered = False
        self.over = False
        """A final response was sent that needs no ACK of ours, or the ACK came."""
        self._interval = call.layer.config.timers.t1
        self.timers.set("expires", now + self._patience())
        transaction.local_tag = call.key
        transaction.on_cancel = self._cancelled

    @property
    def pending(self) -> bool:
        """No final response yet."""
        return not self.answered and not self.over

    @property
    def held(self) -> bool:
        """The owner has answered, and the 200 waits for a PRACK."""
        return self._held is not None

    @property
    def offered(self) -> bool:
        """The peer's offer, or its wish for ours, waits for our answer."""
        agreed = self._reliable is not None and (self._reliable.agreed or self._reliable.offering)
        return self.pending and not agreed

    @property
    def offering(self) -> bool:
        """Our offer waits for the peer's answer, in the ACK or a PRACK."""
        if self.pending:
            return self._reliable is not None and self._reliable.offering
        return self.late_offer and not self.over and not (self._reliable is not None and self._reliable.agreed)

    @property
    def reliable(self) -> ReliableResponses | None:
        """The reliable provisional responses; None for a re-INVITE."""
        return self._reliable

    def ring(self, status: int, reason: str, sdp: bytes | None, now: float) -> None:
        """Send a provisional response of 101 to 199, with early media if there is SDP."""
        if not self.pending or self.held:
            raise CallStateError(f"a provisional response ({status}) after the final one")
        if self._reliable is not None and self._reliable.serves(sdp):
            self._provisional = status, reason, None
            self._reliable.send(status, reason, sdp, now)
        else:
            response = self._response(status, reason, sdp, ())
            self._provisional = status, reason, response
            self._transaction.respond(response, now)
        self.timers.set("refresh", now + _REFRESH_S)

    def answer(self, sdp: bytes | None, headers: Iterable[tuple[str, str]], now: float) -> None:
        """Accept with 200, as soon as every reliable response with SDP is acknowledged. Where the session was agreed
        on in such a response, the 200 has no SDP (RFC 6337 3.1.1)."""
        if not self.pending or self.held:
            raise CallStateError("the INVITE was answered before")
        self._held = sdp, tuple(headers)
        self.release(now)

    def release(self, now: float) -> None:
        """Send the 200 that the owner gave, unless it still has to wait."""
        if self._held is None or self._call.updates.offered or (self._reliable is not None and self._reliable.holds):
            return
        (sdp, headers), self._held = self._held, None
        self.answered = True
        self.timers.stop_all()
        if self._reliable is not None:
            self._reliable.finish()
            if self._reliable.agreed:
                sdp = None
        if sdp is not None:
            self._call.offers.agreed_on(sdp, self._call.sdp_of(self._request))
        response = self._response(200, "", sdp, headers)
        response.headers.extend(self._call.session.accept(self._request, now))
        self._transaction.respond(response, now)
        # Over any transport: the ACK travels end to end, behind a proxy perhaps over UDP (RFC 3261 13.3.1.4).
        self.timers.set("repeat", now + self._interval)
        self.timers.set("no ACK", now + self._call.layer.config.timers.give_up)

    def reject(self, status: int, reason: str, headers: Iterable[tuple[str, str]], now: float) -> None:
        """Refuse with a status of 300 or more."""
        if not self.pending:
            raise CallStateError("the INVITE was answered before")
        self.over = True
        self._held = None
        self.timers.stop_all()
        if self._reliable is not None:
            self._reliable.finish()
        response = self._call.response(self._request, status, reason)
        response.headers.extend(headers)
        self._transaction.respond(response, now)

    def acknowledged(self) -> None:
        """The ACK of the 2xx came."""
        self.over = True
        self.timers.stop_all()
        self._transaction.settle()

    def abandon(self, now: float) -> None:
        """The call ended: answer 487 what is open, wait for no ACK."""
        if self.pending:
            self.reject(487, "", (), now)
        elif not self.over:
            self.acknowledged()

    def _cancelled(self, reason: str, now: float) -> None:
        if self.pending:
            self._call.invite_cancelled(self, reason, now)

    def _patience(self) -> float:
        if not self.initial:
            return REINVITE_LIMIT_S
        limit = self._call.layer.config.max_ring_s
        expires = self._request.headers.get("Expires") or ""
        if expires.isascii() and expires.isdigit() and 0 < int(expires[:9]) < limit:
            return float(expires)
        return limit

    def _response(self, status: int, reason: str, sdp: bytes | None, headers: Iterable[tuple[str, str]]) -> Response:
        response = self._call.response(self._request, status, reason)
        for route in self._request.headers.get_all("Record-Route"):
            response.headers.add("Record-Route", route)
        response.headers.add("Contact", self._call.contact)
        if status >= 200:
            response.headers.extend(self._call.capabilities)
        response.headers.extend(headers)
        if sdp is not None:
            response.headers.add("Content-Type", "application/sdp")
            response.body = sdp
        return response

    def _fire(self, name: str, now: float) -> None:
        if name == "refresh" and self._provisional is not None:
            status, reason, response = self._provisional
            if response is not None:
                self._transaction.respond(response, now)
            elif self._reliable is not None and not self._reliable.outstanding:
                self._reliable.send(status, reason, None, now)
            self.timers.set("refresh", now + _REFRESH_S)
        elif name == "repeat":
            self._transaction.resend()
            self._interval = min(2 * self._interval, self._call.layer.config.timers.t2)
            self.timers.set("repeat", now + self._interval)
        elif name == "no ACK":
            self.acknowledged()
            self._call.never_acknowledged(self, now)
        elif name == "expires":
            self._call.never_answered(self, now)
