"""Re-INVITEs of one call, ours and the peer's (RFC 3261 14)."""

from typing import TYPE_CHECKING

from bridge.sip.body import sdp_of
from bridge.sip.errors import CallStateError
from bridge.sip.events import Refreshed, ReofferAnswered, ReofferCancelled, Reoffered, ReofferRejected
from bridge.sip.message import Request, Response
from bridge.sip.timers import Timers
from bridge.sip.transaction import InviteServer
from bridge.sip.uac import ClientInvite
from bridge.sip.uas import ServerInvite

if TYPE_CHECKING:
    from bridge.sip.call import Call

_GLARE_RETRIES = 4
"""Times that a re-INVITE is sent again after 491: a peer that still says so means something else."""

_MAX_UNACKNOWLEDGED = 4
"""Answered INVITEs of the peer that wait for their ACK: every answer is repeated until then, and this bounds it."""


class Reinvites:
    """At most one of ours at a time. The peer's are among the call's `invites`, as the first INVITE is."""

    def __init__(self, call: "Call") -> None:
        self._call = call
        self._retry: bytes | None = None
        self._retries = 0
        self.timers = Timers(call.layer.queue, self._fire)

    @property
    def waiting(self) -> bool:
        """One of ours met the peer's, and is sent again a little later."""
        return self._retry is not None

    # -- ours -----------------------------------------------------------------------------------------------

    def offer(self, sdp: bytes | None, now: float) -> None:
        """Offer `sdp`, or ask the peer for an offer."""
        if self._call.offers.changing:
            raise CallStateError("another INVITE is under way")
        self._retries = 0
        self.send(sdp, now)

    def send(self, sdp: bytes | None, now: float) -> ClientInvite:
        """Send a re-INVITE, without looking whether it fits."""
        call = self._call
        request = call.new_request("INVITE")
        request.headers.extend(call.layer.capabilities_of_invite(offers=bool(sdp)))
        request.headers.extend(call.session.fields())
        if sdp:
            request.headers.add("Content-Type", "application/sdp")
            request.body = call.offers.following(sdp)
        flow = call.named_dialog.next_flow(call.layer.config.resolve)
        call.sending = ClientInvite(call, request, flow, initial=False, now=now)
        return call.sending

    def accepted(self, invite: ClientInvite, sdp: bytes | None) -> None:
        """A 2xx came, with this description."""
        call = self._call
        moved = sdp is not None and sdp != call.offers.remote
        call.offers.agreed_on(invite.request.body, sdp)
        if invite is not call.session.invite:
            call.emit(ReofferAnswered(call.key, sdp, invite.late_offer))
            return
        call.session.invite = None
        if sdp is not None and moved:
            call.emit(Refreshed(call.key, sdp))

    def refused(self, invite: ClientInvite, response: Response, now: float) -> None:
        """A final response came that is no 2xx."""
        call, status = self._call, response.status
        if call.closing:
            return
        if invite is call.session.invite:
            call.session.refused(response, now)
        elif status == 481:
            call.ending.gone("INVITE", now)
        elif status == 408:
            call.ending.unreachable("the peer timed out on our re-INVITE", now)
        elif status == 491 and self._retries < _GLARE_RETRIES:
            self._retries += 1
            self._retry = invite.request.body
            self.timers.set("retry", now + call.offers.glare_delay_s())
        elif status == 422 and call.session.too_small(response):
            self.send(invite.request.body, now)
        else:
            call.emit(ReofferRejected(call.key, status, response.reason))

    def stop(self) -> None:
        """The call ends."""
        self._retry = None
        self.timers.stop_all()

    # -- the peer's -----------------------------------------------------------------------------------------

    def receive(self, request: Request, transaction: InviteServer, now: float) -> None:
        """One came, in its order."""
        call = self._call
        pending = any(invite.pending for invite in call.invites.values())
        if call.closing:
            call.refuse(request, transaction, 481, now)
        elif not call.established or pending or call.updates.offered or len(call.invites) >= _MAX_UNACKNOWLEDGED:
            call.refuse(request, transaction, 500, now)
        elif call.offers.ours_open:
            call.refuse(request, transaction, 491, now)
        else:
            call.refresh_target(request)
            call.invites[request.cseq.number] = ServerInvite(call, request, transaction, initial=False, now=now)
            call.emit(Reoffered(call.key, sdp_of(request)))

    def answer(self, sdp: bytes, now: float) -> None:
        """Accept the open one."""
        self._open().answer(self._call.offers.following(sdp), (), now)

    def reject(self, status: int, reason: str, now: float) -> None:
        """Refuse the open one; the session stays as it was."""
        invite = self._open()
        invite.reject(status, reason, (), now)
        del self._call.invites[invite.cseq]

    def cancelled(self, invite: ServerInvite, now: float) -> None:
        """The peer took one back, or the owner was too slow: answer it for him."""
        if invite.pending:
            invite.abandon(now)
        del self._call.invites[invite.cseq]
        self._call.emit(ReofferCancelled(self._call.key))

    def _open(self) -> ServerInvite:
        call = self._call
        invite = next((invite for invite in call.invites.values() if not invite.initial and invite.pending), None)
        if invite is None or call.closing:
            raise CallStateError("no re-INVITE to answer")
        return invite

    def _fire(self, name: str, now: float) -> None:
        sdp, self._retry = self._retry, None
        if self._call.offers.changing:
            # The peer was faster: its offer comes first, ours a little later.
            self._retry = sdp
            self.timers.set(name, now + 1.0)
        else:
            self.send(sdp, now)
