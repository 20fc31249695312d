"""One call of a user agent: its dialog, the INVITEs in it, and every other request within it."""

import random
from collections.abc import Callable, Iterable
from enum import Enum, auto

from bridge.sip.body import sdp_of
from bridge.sip.dialog import Dialog
from bridge.sip.errors import CallStateError
from bridge.sip.events import (
    Answered,
    ByeAnswered,
    ByeReceived,
    CallKey,
    Cancelled,
    Confirmed,
    Event,
    InfoAnswered,
    InfoReceived,
    Lost,
    LostReason,
    Progress,
    Rejected,
    ReofferAnswered,
    ReofferCancelled,
    ReofferConfirmed,
    Reoffered,
    ReofferRejected,
)
from bridge.sip.flow import Flow
from bridge.sip.layer import TransactionLayer
from bridge.sip.message import Request, Response, make_response
from bridge.sip.refer import Referrals
from bridge.sip.screening import screen
from bridge.sip.timers import Timers
from bridge.sip.transaction import InviteServer, ResponseUser, ServerTransaction, ignore_response
from bridge.sip.uac import ClientInvite
from bridge.sip.uas import ServerInvite

_GLARE_RETRIES = 4
"""Times that a re-INVITE is sent again after 491: a peer that still says so means something else."""


class CallState(Enum):
    SETUP = auto()
    """The first INVITE has no final answer yet."""
    UP = auto()
    """Answered with 2xx, acknowledged or not."""
    ENDED = auto()
    """Nothing more will come of it; the agent has forgotten it."""


class Call:
    """The agent makes it, hands it what arrives, and calls the verbs that its owner calls."""

    def __init__(
        self,
        key: CallKey,
        layer: TransactionLayer,
        tell: Callable[[Event], None],
        forget: Callable[["Call"], None],
        *,
        inbound: bool,
    ) -> None:
        self.key = key
        self.inbound = inbound
        self.layer = layer
        self.state = CallState.SETUP
        self.dialog: Dialog | None = None
        self.invites: dict[int, ServerInvite] = {}
        """By CSeq number: INVITEs that came and wait for our answer, or for the ACK of it."""
        self.sending: ClientInvite | None = None
        """Our latest INVITE."""
        self.referrals = Referrals(self)
        self.closing = False
        """We hang up, or the last event was told: from now on nothing is."""
        self._told = False
        self._tell = tell
        self._forget = forget
        self._bye_sent = False
        self._bye_reason = ""
        self._retry: bytes | None = None
        self._retries = 0
        self.timers = Timers(layer.queue, self._fire)

    # -- what the parts of a call need of it ----------------------------------------------------------------

    @staticmethod
    def sdp_of(message: Request | Response) -> bytes | None:
        return sdp_of(message)

    @staticmethod
    def random_retry_s() -> int:
        """Retry-After for a request that came too early (RFC 3261 14.2)."""
        return random.randint(0, 10)

    @property
    def contact(self) -> str:
        """Our Contact value, as the peer should see it."""
        return self.layer.contact(self._dialog.flow)

    @property
    def capabilities(self) -> list[tuple[str, str]]:
        return self.layer.capabilities

    @property
    def _dialog(self) -> Dialog:
        if self.dialog is None:
            raise CallStateError("the call has no dialog yet")
        return self.dialog

    def response(self, request: Request, status: int, reason: str = "") -> Response:
        response = make_response(request, status, reason, to_tag=self.key)
        if self.layer.config.user_agent:
            response.headers.add("Server", self.layer.config.user_agent)
        return response

    def new_request(self, method: str) -> Request:
        """A request within the dialog, to be sent with `send_request`."""
        request = self._dialog.request(method)
        if method in ("INVITE", "REFER", "NOTIFY"):
            request.headers.add("Contact", self.contact)
        if self.layer.config.user_agent:
            request.headers.add("User-Agent", self.layer.config.user_agent)
        return request

    def send_request(self, request: Request, user: ResponseUser, now: float) -> None:
        flow = self._dialog.next_flow(self.layer.config.resolve)
        self.layer.add_via(request, flow)
        self.layer.request(request, flow, user, now)

    def emit(self, event: Event) -> None:
        """Tell the owner, unless it has hung up or was told the end."""
        if not self.closing:
            self._tell(event)

    def finish(self, event: Event | None, now: float, *, forget: bool = True) -> None:
        """Tell the call's end, once; None where the owner knows it."""
        self.closing = True
        if not self._told:
            self._told = True
            if event is not None:
                self._tell(event)
        for invite in list(self.invites.values()):
            invite.abandon(now)
        self.invites.clear()
        self.referrals.abandon(now)
        self.timers.stop_all()
        if forget and self.state is not CallState.ENDED:
            self.state = CallState.ENDED
            self._forget(self)

    # -- the owner's verbs ----------------------------------------------------------------------------------

    def ring(self, status: int, reason: str, sdp: bytes | None, now: float) -> None:
        self._first_invite().ring(status, reason, sdp, now)

    def answer(self, sdp: bytes, headers: Iterable[tuple[str, str]], now: float) -> None:
        self._first_invite().answer(sdp, headers, now)
        self.state = CallState.UP

    def reject(self, status: int, reason: str, headers: Iterable[tuple[str, str]], now: float) -> None:
        self._first_invite().reject(status, reason, headers, now)
        self.finish(None, now)

    def cancel(self, now: float) -> None:
        if self.sending is None or self.state is not CallState.SETUP:
            raise CallStateError("only an outbound call without an answer can be cancelled")
        self.sending.cancel(now)

    def acknowledge(self, sdp: bytes, now: float) -> None:
        if self.sending is None or self.sending.answer is None or self.sending.over:
            raise CallStateError("no answered INVITE of ours waits for its ACK")
        self.sending.acknowledge(sdp)

    def bye(self, reason: str, now: float) -> None:
        if self.state is CallState.SETUP:
            raise CallStateError("a call that is not up is cancelled or rejected")
        if self.closing:
            return
        self.closing = True
        self._bye_reason = reason
        if self.sending is not None and not self.sending.over:
            self.sending.acknowledge(None)
        # The called side may not send BYE before it has the ACK (RFC 3261 15): else the BYE could come first.
        if not any(invite.initial for invite in self.invites.values()):
            self._send_bye(now)

    def hangup(self, status: int, reason: str, now: float) -> None:
        if self.state is CallState.UP:
            self.bye(reason, now)
        elif self.sending is not None:
            self.cancel(now)
        else:
            self.reject(status, "", [("Reason", reason)] if reason else (), now)

    def reinvite(self, sdp: bytes | None, now: float) -> None:
        if self.state is not CallState.UP or self.closing:
            raise CallStateError("the call is not up")
        if self._retry is not None or self.invites or (self.sending is not None and not self.sending.over):
            raise CallStateError("another INVITE is under way")
        self._retries = 0
        self._send_reinvite(sdp, now)

    def answer_reinvite(self, sdp: bytes, now: float) -> None:
        self._reinvite_to_answer().answer(sdp, (), now)

    def reject_reinvite(self, status: int, reason: str, now: float) -> None:
        invite = self._reinvite_to_answer()
        invite.reject(status, reason, (), now)
        del self.invites[invite.cseq]

    def info(self, content_type: str, body: bytes, now: float) -> None:
        if self.state is not CallState.UP or self.closing:
            raise CallStateError("the call is not up")
        request = self.new_request("INFO")
        request.headers.add("Content-Type", content_type)
        request.body = body
        self.send_request(request, self._info_answered, now)

    def refer(self, target: str, headers: tuple[tuple[str, str], ...], now: float) -> None:
        if self.state is not CallState.UP or self.closing:
            raise CallStateError("the call is not up")
        self.referrals.refer(target, headers, now)

    # -- requests of the peer -------------------------------------------------------------------------------

    def start_outbound(self, request: Request, flow: Flow, now: float) -> None:
        """Send the INVITE that makes this call; it has its Via."""
        self.sending = ClientInvite(self, request, flow, initial=True, now=now)

    def start_inbound(self, request: Request, transaction: InviteServer, dialog: Dialog, now: float) -> None:
        """The INVITE that makes this call."""
        self.dialog = dialog
        self.invites[request.cseq.number] = ServerInvite(self, request, transaction, initial=True, now=now)

    def receive(self, request: Request, flow: Flow, now: float) -> None:
        """A new request of the peer within this dialog."""
        if request.method == "ACK":
            self._acknowledged(request, now)
            return
        layer = self.layer
        if request.method == "INVITE":
            invite_transaction = layer.serve_invite(request, flow)
            if self._in_order(request, invite_transaction, flow, now):
                self._reinvited(request, invite_transaction, now)
            return
        transaction = layer.serve(request, flow)
        if not self._in_order(request, transaction, flow, now):
            return
        if request.method == "BYE":
            transaction.respond(self.response(request, 200), now)
            self._bye_received(request, now)
        elif self.closing:
            transaction.respond(self.response(request, 481), now)
        elif request.method == "OPTIONS":
            response = self.response(request, 200)
            response.headers.extend(self.capabilities)
            transaction.respond(response, now)
        elif request.method == "INFO":
            transaction.respond(self.response(request, 200), now)
            self.emit(InfoReceived(self.key, request.content_type, request.body))
        elif request.method == "NOTIFY":
            self.referrals.notified(request, transaction, now)
        elif request.method == "REFER":
            self.referrals.referred(request, transaction, now)
        else:
            transaction.respond(self.response(request, 501), now)

    def invite_cancelled(self, invite: ServerInvite, reason: str, now: float) -> None:
        """CANCEL of an INVITE that is not yet answered."""
        if invite.initial:
            self.finish(Cancelled(self.key, f"cancel: {reason}" if reason else "cancel"), now)
        else:
            invite.abandon(now)
            del self.invites[invite.cseq]
            self.emit(ReofferCancelled(self.key))

    def _in_order(self, request: Request, transaction: ServerTransaction, flow: Flow, now: float) -> bool:
        """Refuse what no dialog takes; note the number and the source of what is taken."""
        dialog = self.dialog
        number = request.cseq.number
        if dialog is None:
            self._refuse(request, transaction, 481 if request.method == "BYE" else 500, now)
            return False
        last = dialog.remote_cseq
        # A BYE with the number of the request before it is wrong, too, but ending is what both sides want.
        if last is not None and (number < last or (number == last and request.method != "BYE")):
            self.layer.counters["refused: out of order"] += 1
            self._refuse(request, transaction, 500, now)
            return False
        dialog.remote_cseq = number
        dialog.flow = flow
        refusal = screen(request, self.layer.config)
        if refusal is not None:
            response = self.response(request, refusal.status, refusal.reason)
            response.headers.extend(refusal.headers)
            transaction.respond(response, now)
            return False
        return True

    def _refuse(self, request: Request, transaction: ServerTransaction, status: int, now: float) -> None:
        response = self.response(request, status)
        if status == 500 and request.method == "INVITE":
            response.headers.add("Retry-After", str(self.random_retry_s()))
        transaction.respond(response, now)

    def _reinvited(self, request: Request, transaction: InviteServer, now: float) -> None:
        if self.closing:
            self._refuse(request, transaction, 481, now)
        elif self.state is CallState.SETUP or any(invite.pending for invite in self.invites.values()):
            self._refuse(request, transaction, 500, now)
        elif (self.sending is not None and not self.sending.over) or any(i.late_offer for i in self.invites.values()):
            self._refuse(request, transaction, 491, now)
        else:
            self._dialog.refresh_target(request)
            self.invites[request.cseq.number] = ServerInvite(self, request, transaction, initial=False, now=now)
            self.emit(Reoffered(self.key, sdp_of(request)))

    def _acknowledged(self, request: Request, now: float) -> None:
        invite = self.invites.get(request.cseq.number)
        if invite is None or not invite.answered:
            self.layer.counters["dropped: stray ACK"] += 1
            return
        del self.invites[invite.cseq]
        invite.acknowledged()
        if not invite.initial:
            self.emit(ReofferConfirmed(self.key, sdp_of(request)))
        elif self.closing:
            self._send_bye(now)
        else:
            self.emit(Confirmed(self.key, sdp_of(request)))

    def _bye_received(self, request: Request, now: float) -> None:
        reason = request.headers.get("Reason") or ""
        if self._bye_sent:
            return
        if self.closing:
            self.finish(ByeAnswered(self.key, 200), now)
        elif self.state is CallState.SETUP:
            self.finish(Cancelled(self.key, f"bye: {reason}" if reason else "bye"), now)
        else:
            self.finish(ByeReceived(self.key, reason), now)

    # -- what becomes of INVITEs ----------------------------------------------------------------------------

    def never_acknowledged(self, invite: ServerInvite, now: float) -> None:
        self.invites.pop(invite.cseq, None)
        if self.closing:
            self._send_bye(now)
        else:
            self._break_off(LostReason.NO_ACK, "no ACK came for our 200", now)

    def never_answered(self, invite: ServerInvite, now: float) -> None:
        if invite.initial:
            invite.reject(480, "", (), now)
            self.finish(Cancelled(self.key, "expired"), now)
        else:
            invite.reject(500, "", (), now)
            del self.invites[invite.cseq]
            self.emit(ReofferCancelled(self.key))

    def progress(self, response: Response, sdp: bytes | None) -> None:
        self.emit(Progress(self.key, response.status, response.reason, sdp))

    def invite_accepted(self, invite: ClientInvite, response: Response, sdp: bytes | None, now: float) -> None:
        if not invite.initial:
            self.emit(ReofferAnswered(self.key, sdp, invite.late_offer))
            return
        self.state = CallState.UP
        if invite.cancelled:
            # The CANCEL and the answer crossed.
            self.finish(Rejected(self.key, 487, "Request Terminated", None), now, forget=False)
            self._send_bye(now)
        else:
            self.emit(Answered(self.key, sdp, invite.late_offer, response))

    def invite_rejected(self, invite: ClientInvite, response: Response, now: float) -> None:
        status = response.status
        if invite.initial:
            self.finish(Rejected(self.key, status, response.reason, response), now)
        elif self.closing:
            return
        elif status == 481:
            self.gone("INVITE", now)
        elif status == 408:
            self._break_off(LostReason.TIMEOUT, "the peer timed out on our re-INVITE", now)
        elif status == 491 and self._retries < _GLARE_RETRIES:
            self._retries += 1
            self._retry = invite.request.body
            # The caller waits longer, so that the two don't meet again (RFC 3261 14.1).
            delay = random.uniform(0.0, 2.0) if self.inbound else random.uniform(2.1, 4.0)
            self.timers.set("retry", now + delay)
        else:
            self.emit(ReofferRejected(self.key, status, response.reason))

    def invite_timed_out(self, invite: ClientInvite, now: float) -> None:
        if invite.initial:
            self.finish(Lost(self.key, LostReason.TIMEOUT, "no answer to our INVITE"), now)
        elif not self.closing:
            self._break_off(LostReason.TIMEOUT, "no answer to our re-INVITE", now)

    def answer_unusable(self, detail: str, now: float) -> None:
        self.finish(Lost(self.key, LostReason.UNUSABLE, detail), now)

    def gone(self, method: str, now: float) -> None:
        """The peer said 481: it has no such call."""
        if not self.closing:
            self.finish(Lost(self.key, LostReason.GONE, f"the peer does not know the call ({method}: 481)"), now)

    def _break_off(self, reason: LostReason, detail: str, now: float) -> None:
        self.finish(Lost(self.key, reason, detail), now, forget=False)
        self._send_bye(now)

    def send_stray_bye(self, dialog: Dialog, now: float) -> None:
        """Hang up a second answer to our INVITE."""
        request = dialog.request("BYE")
        flow = dialog.next_flow(self.layer.config.resolve)
        self.layer.add_via(request, flow)
        self.layer.request(request, flow, ignore_response, now)

    # -- inside ---------------------------------------------------------------------------------------------

    def _first_invite(self) -> ServerInvite:
        invite = next((invite for invite in self.invites.values() if invite.initial and invite.pending), None)
        if invite is None:
            raise CallStateError("only an inbound call that is not yet answered can be answered or rejected")
        return invite

    def _reinvite_to_answer(self) -> ServerInvite:
        invite = next((invite for invite in self.invites.values() if not invite.initial and invite.pending), None)
        if invite is None or self.closing:
            raise CallStateError("no re-INVITE to answer")
        return invite

    def _send_reinvite(self, sdp: bytes | None, now: float) -> None:
        request = self.new_request("INVITE")
        request.headers.extend(self.capabilities)
        if sdp:
            request.headers.add("Content-Type", "application/sdp")
            request.body = sdp
        flow = self._dialog.next_flow(self.layer.config.resolve)
        self.layer.add_via(request, flow)
        self.sending = ClientInvite(self, request, flow, initial=False, now=now)

    def _send_bye(self, now: float) -> None:
        if self._bye_sent:
            return
        self._bye_sent = True
        for invite in list(self.invites.values()):
            invite.abandon(now)
        self.invites.clear()
        self.timers.stop_all()
        request = self.new_request("BYE")
        if self._bye_reason:
            request.headers.add("Reason", self._bye_reason)
        self.send_request(request, self._bye_answered, now)

    def _bye_answered(self, response: Response | None, now: float) -> None:
        if response is None or response.status >= 200:
            self.finish(ByeAnswered(self.key, 408 if response is None else response.status), now)

    def _info_answered(self, response: Response | None, now: float) -> None:
        if response is not None and response.status < 200:
            return
        status = 408 if response is None else response.status
        self.emit(InfoAnswered(self.key, status))
        if status == 481:
            self.gone("INFO", now)

    def _fire(self, name: str, now: float) -> None:
        sdp, self._retry = self._retry, None
        if self.invites:
            # The peer was faster: its offer comes first, ours a little later.
            self._retry = sdp
            self.timers.set(name, now + 1.0)
        else:
            self._send_reinvite(sdp, now)
