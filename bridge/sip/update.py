"""UPDATE (RFC 3311): an offer within a call without an INVITE, also before the call is answered. An offer in a PRACK
(RFC 3262 5) is answered here, too: for its taker it is the same."""

from typing import TYPE_CHECKING

from bridge.sip.body import sdp_of
from bridge.sip.errors import CallStateError
from bridge.sip.events import ReofferAnswered, ReofferCancelled, ReofferConfirmed, Reoffered, ReofferRejected
from bridge.sip.message import REASONS, Request, Response
from bridge.sip.timers import Timers
from bridge.sip.transaction import NonInviteServer

if TYPE_CHECKING:
    from bridge.sip.call import Call

_DECISION_LIMIT_S = 25.0
"""An offer that the owner has not answered by then gets 504, before the peer's own timer (32 s) runs out."""

_GLARE_RETRIES = 4


class Updates:
    """The UPDATEs of one call: at most one of ours, and one of the peer's, at a time."""

    def __init__(self, call: "Call") -> None:
        self._call = call
        self._sent: bytes | None = None
        self._retry: bytes | None = None
        self._retries = 0
        self._open: tuple[Request, NonInviteServer] | None = None
        self.timers = Timers(call.layer.queue, self._fire)

    @property
    def offering(self) -> bool:
        """An offer of ours is under way."""
        return self._sent is not None

    @property
    def offered(self) -> bool:
        """An offer of the peer's waits for our answer."""
        return self._open is not None

    @property
    def waiting(self) -> bool:
        """An offer of ours met one of the peer's, and is sent again a little later."""
        return self._retry is not None

    # -- ours -----------------------------------------------------------------------------------------------

    def send(self, sdp: bytes, now: float) -> None:
        """Offer `sdp`."""
        self._retries = 0
        self._send(sdp, now)

    def _send(self, sdp: bytes, now: float) -> None:
        call = self._call
        request = call.new_request("UPDATE")
        request.headers.extend(call.capabilities)
        if call.established:
            request.headers.extend(call.session.fields())
        request.headers.add("Content-Type", "application/sdp")
        self._sent = request.body = call.offers.following(sdp)
        call.send_request(request, self._answered, now)

    def _answered(self, response: Response | None, now: float) -> None:
        if (response is not None and response.status < 200) or self._sent is None:
            return
        call = self._call
        sdp, self._sent = self._sent, None
        if call.closing:
            return
        status = 408 if response is None else response.status
        if response is not None and status < 300:
            call.refresh_target(response)
            if call.established:
                call.session.accepted(response, now)
            answer = sdp_of(response)
            call.offers.agreed_on(sdp, answer)
            call.emit(ReofferAnswered(call.key, answer, False))
        elif status == 481:
            call.ending.gone("UPDATE", now)
        elif status == 408 and call.established:
            call.ending.unreachable("no answer to our UPDATE", now)
        elif status == 491 and self._retries < _GLARE_RETRIES:
            self._again(sdp, call.offers.glare_delay_s(), now)
        elif response is not None and status == 422 and call.session.too_small(response):
            self._again(sdp, 0.0, now)
        else:
            call.emit(ReofferRejected(call.key, status, REASONS[408] if response is None else response.reason))

    def _again(self, sdp: bytes, delay_s: float, now: float) -> None:
        self._retries += 1
        self._retry = sdp
        self.timers.set("retry", now + delay_s)

    # -- the peer's -----------------------------------------------------------------------------------------

    def receive(self, request: Request, transaction: NonInviteServer, now: float) -> None:
        """An UPDATE came (RFC 3311 5.2)."""
        call = self._call
        sdp = sdp_of(request)
        if self._open is not None or (sdp is not None and call.offers.theirs_open):
            response = call.response(request, 500)
            response.headers.add("Retry-After", str(call.random_retry_s()))
            transaction.respond(response, now)
        elif sdp is None:
            self._accept(request, transaction, None, now)
        elif call.offers.ours_open:
            transaction.respond(call.response(request, 491), now)
        else:
            self.take_offer(request, transaction, sdp, now)

    def take_offer(self, request: Request, transaction: NonInviteServer, sdp: bytes, now: float) -> None:
        """Ask the owner about the offer in an UPDATE or PRACK."""
        self._open = request, transaction
        self.timers.set("decision", now + _DECISION_LIMIT_S)
        self._call.emit(Reoffered(self._call.key, sdp))

    def answer(self, sdp: bytes, now: float) -> None:
        """Accept the open offer."""
        request, transaction = self._take()
        sdp = self._call.offers.following(sdp)
        self._accept(request, transaction, sdp, now)
        self._call.offers.agreed_on(sdp, sdp_of(request))
        self._call.emit(ReofferConfirmed(self._call.key, None))
        self._call.release(now)

    def reject(self, status: int, reason: str, now: float) -> None:
        """Refuse the open offer; the session stays as it was."""
        request, transaction = self._take()
        transaction.respond(self._call.response(request, status, reason), now)
        self._call.release(now)

    def abandon(self, now: float) -> None:
        """The call ends."""
        if self._open is not None:
            request, transaction = self._take()
            transaction.respond(self._call.response(request, 487), now)
        self._sent = self._retry = None
        self.timers.stop_all()

    def _accept(self, request: Request, transaction: NonInviteServer, sdp: bytes | None, now: float) -> None:
        call = self._call
        response = call.response(request, 200)
        if request.method == "UPDATE":
            call.refresh_target(request)
            response.headers.add("Contact", call.contact)
            response.headers.extend(call.capabilities)
            if call.established:
                response.headers.extend(call.session.accept(request, now))
        if sdp is not None:
            response.headers.add("Content-Type", "application/sdp")
            response.body = sdp
        transaction.respond(response, now)

    def _take(self) -> tuple[Request, NonInviteServer]:
        if self._open is None:
            raise CallStateError("no offer to answer")
        taken, self._open = self._open, None
        self.timers.stop("decision")
        return taken

    def _fire(self, name: str, now: float) -> None:
        if name == "decision":
            self.reject(504, "", now)
            self._call.emit(ReofferCancelled(self._call.key))
            return
        sdp, self._retry = self._retry, None
        if sdp is not None and (self._call.offers.ours_open or self._call.offers.theirs_open):
            # The peer was faster: its offer comes first, ours a little later.
            self._retry = sdp
            self.timers.set(name, now + 1.0)
        elif sdp is not None:
            self._send(sdp, now)
