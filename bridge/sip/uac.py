"""One INVITE that we sent, first or re-INVITE: from sending to the ACK of its answer (RFC 3261 13.2, 14.1)."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from bridge.sip.dialog import Dialog
from bridge.sip.early import MAX_FORKS, EarlyDialog, EarlyDialogs, reliable_number, tag_of
from bridge.sip.errors import CallStateError, SipSyntaxError
from bridge.sip.events import Redirected
from bridge.sip.exchange import AUTHORIZATION, Exchange
from bridge.sip.flow import Flow
from bridge.sip.message import REASONS, Request, Response
from bridge.sip.redirect import Redirections
from bridge.sip.timers import Timers
from bridge.sip.transaction import ignore_response

if TYPE_CHECKING:
    from bridge.sip.call import Call


class ClientInvite:
    """Follows the responses, forms the dialogs, and acknowledges every 2xx, each time it comes."""

    def __init__(
        self,
        call: "Call",
        request: Request,
        flow: Flow,
        *,
        initial: bool,
        now: float,
        alternatives: Sequence[Flow] = (),
        max_redirects: int = 0,
    ) -> None:
        """Send `request`, which has no Via yet."""
        self.initial = initial
        self.late_offer = not request.body
        self.cancelled = False
        self._cancel_reason = ""
        self.answer: Response | None = None
        """The 2xx, once there is one."""
        self.over = False
        self.timers = Timers(call.layer.queue, self._fire)
        self._call = call
        self._ringing = False
        """A provisional response came, so that a CANCEL may go out."""
        self._early = EarlyDialogs(call)
        self._acks: dict[str, tuple[bytes, Flow]] = {}
        self._redirections = Redirections(max_redirects, request.uri)
        self._redirected = False
        """The owner is to say where to go on."""
        self.timers.set("ring limit", now + call.layer.config.max_ring_s)
        self._exchange = Exchange(
            call.layer,
            request,
            flow,
            self._receive,
            now,
            digest=call.digest,
            alternatives=alternatives,
            renumber=None if initial or call.dialog is None else call.dialog.next_cseq,
            on_repeat=self._repeated,
        )

    @property
    def request(self) -> Request:
        """The INVITE as last sent."""
        return self._exchange.request

    @property
    def failure(self) -> str:
        """Why the transport could not deliver it, "" unless that was its end."""
        return self._exchange.failure

    @property
    def early_answered(self) -> bool:
        """The call's early dialog brought the answer to our offer in a reliable response: the next offer may come."""
        dialog = self._call.dialog
        early = self._early.get(dialog.remote_tag) if dialog is not None else None
        return self.initial and early is not None and early.answered

    @property
    def offering(self) -> bool:
        """Our offer waits for its answer, or the INVITE in which the peer is to make one is not over."""
        return not self.over and not self.early_answered

    def takes(self, request: Request, now: float) -> bool:
        """Whether a request of the peer belongs to this call, while no dialog of it is confirmed; it makes the early
        dialog that it comes in the call's."""
        if self.request.call_id != request.call_id:
            return False
        early = self._early.get(request.from_.tag or "")
        if early is not None:
            self._use(early.dialog, now)
        return early is not None or not len(self._early)

    # -- what its call does ---------------------------------------------------------------------------------

    def cancel(self, now: float, reason: str = "") -> None:
        """Give up, with a Reason header if any; CANCEL waits for the first provisional response (RFC 3261 9.1)."""
        if self.cancelled or self.over or self.answer is not None:
            return
        self.cancelled = True
        self._cancel_reason = reason
        self._exchange.stop()
        if self._redirected and self._redirections.response is not None:
            self._end()
            self._call.invite_rejected(self, self._redirections.response, now)
        elif self._ringing:
            self._send_cancel(now)

    def abandon(self) -> None:
        """The call ended: repeat nothing any more."""
        self._exchange.stop()

    def acknowledge(self, sdp: bytes | None) -> None:
        """Send the ACK of the 2xx, with our answer if the offer was the peer's."""
        if self.answer is None or self._call.dialog is None:
            return
        self.over = True
        self._send_ack(self._call.dialog, self.answer, sdp)

    def retarget(self, target: str, flows: Sequence[Flow], now: float) -> None:
        """Go on at `target` after a redirection. Raises CallStateError, SipSyntaxError."""
        if not self._redirected or self.cancelled:
            raise CallStateError("no redirection waits for a target")
        if not flows:
            raise ValueError(f"no flow to {target}")
        uri = self._redirections.chosen(target)
        self._redirected = False
        self._exchange.retarget(uri, flows[0], flows[1:], now)

    def repeat(self, now: float, fields: Mapping[str, str]) -> None:
        """Send it again after it was refused, with these header fields (422)."""
        self.over = False
        self.timers.set("ring limit", now + self._call.layer.config.max_ring_s)
        self._exchange.repeat(now, fields)

    # -- responses ------------------------------------------------------------------------------------------

    def _receive(self, response: Response | None, now: float) -> None:
        if response is not None and response.status < 200:
            self._provisional(response, now)
        elif response is not None and response.status < 300:
            self._accepted(response, now)
        else:
            self._refused(response, now)

    def _refused(self, response: Response | None, now: float) -> None:
        call = self._call
        if self.initial and not self.cancelled and not call.closing:
            targets = self._redirections.follow(response)
            redirection = self._redirections.response
            if targets and redirection is not None:
                self._forget_early(now)
                self._redirected = True
                call.emit(Redirected(call.key, targets, redirection))
                return
        self._end()
        if response is None:
            call.invite_timed_out(self, now)
            return
        if self.cancelled and response.status in (401, 407):
            # Nobody is asked for a password who has given up.
            response = replace(response, status=487, reason=REASONS[487])
        call.invite_rejected(self, response, now)

    def _end(self) -> None:
        self.over = True
        self.timers.stop_all()

    def _repeated(self, now: float) -> None:
        self._ringing = False
        self._forget_early(now)

    def _forget_early(self, now: float) -> None:
        self._early.clear()
        if self.initial and self._call.dialog is not None:
            self._call.updates.abandon(now)
            self._call.dialog = None

    def _provisional(self, response: Response, now: float) -> None:
        first, self._ringing = not self._ringing, True
        if self.cancelled and first:
            self._send_cancel(now)
        if response.status == 100:
            return
        call = self._call
        early = self._early_dialog(response)
        sdp = call.sdp_of(response)
        if early is not None:
            rseq = None if self.late_offer or call.layer.config.reliable == "off" else reliable_number(response)
            if rseq is not None and not self._early.acknowledge(early, rseq, self.request, now):
                return
            if sdp is not None:
                early.sdp = sdp
                early.answered = early.answered or rseq is not None
            if self.initial and (call.dialog is None or sdp is not None):
                # Where several phones ring, the one that is heard is the call's.
                self._use(early.dialog, now)
            if self.initial and sdp is not None and rseq is not None:
                call.offers.agreed_on(self.request.body, sdp)
        if self.initial and not self.cancelled:
            call.note_peer(response)
            call.progress(response, sdp)

    def _early_dialog(self, response: Response) -> EarlyDialog | None:
        """The dialog that a provisional response belongs to; None where it makes none that could be used."""
        tag, call = tag_of(response), self._call
        if not self.initial:
            dialog = call.dialog
            return self._early.open(tag, dialog) if dialog is not None and dialog.remote_tag == tag else None
        if not tag or (early := self._early.get(tag)) is not None:
            return early if tag else None
        try:
            return self._early.enter(tag, self._form(response))
        except SipSyntaxError:
            return None

    def _form(self, response: Response) -> Dialog:
        """The dialog that a response makes. Raises SipSyntaxError for one in which no request could be sent."""
        exchange = self._exchange
        dialog = Dialog.from_answer(self.request, response, exchange.path)
        if exchange.flow != exchange.path and dialog.remote_target.param("transport") == exchange.flow.transport:
            dialog.flow = exchange.flow
        dialog.next_flow(None)
        return dialog

    def _use(self, dialog: Dialog, now: float) -> None:
        """Make this the call's dialog."""
        call = self._call
        if call.dialog is not None and call.dialog is not dialog:
            call.updates.abandon(now)
        call.dialog = dialog

    def _accepted(self, response: Response, now: float) -> None:
        tag = tag_of(response)
        if tag in self._acks:
            self._call.layer.send(*self._acks[tag])
            return
        if self.answer is not None:
            if tag != tag_of(self.answer):
                self._hang_up_fork(response, now)
            # Otherwise the owner still works on its answer to a late offer: the peer's next repetition gets it.
            return
        self.timers.stop_all()
        call, early = self._call, self._early.get(tag)
        # Some peers put their answer into a provisional response alone; where it was a reliable one, that is the
        # rule, and an UPDATE may have changed the session since.
        sdp = call.sdp_of(response) or (early.sdp if early is not None else None)
        if early is not None and early.answered and early.dialog is call.dialog:
            sdp = call.sdp_of(response) or call.offers.remote
        if self.initial:
            try:
                self._use(self._early.confirm(tag, self._form(response)), now)
            except SipSyntaxError as error:
                call.dialog = None
                self._end()
                self._exchange.terminate()
                call.answer_unusable(str(error), now)
                return
        elif call.dialog is not None:
            call.dialog.refresh_target(response)
        self.answer = response
        if not self.late_offer or self.cancelled or call.closing:
            self.acknowledge(None)
        call.invite_accepted(self, response, sdp, now)

    # -- what it sends --------------------------------------------------------------------------------------

    def _send_ack(self, dialog: Dialog, response: Response, sdp: bytes | None) -> None:
        call = self._call
        ack = dialog.request("ACK", cseq=self.request.cseq.number)
        if call.digest is not None:
            # It can't be challenged: it bears what its INVITE was let in with (RFC 3261 22.1).
            ack.headers.extend((name, value) for name, value in self.request.headers if name in AUTHORIZATION)
        if sdp is not None:
            ack.headers.add("Content-Type", "application/sdp")
            ack.body = sdp
        flow = dialog.next_flow(call.layer.config.resolve)
        call.layer.add_via(ack, flow)
        data = ack.serialise()
        # Kept as long as the INVITE's transaction takes repetitions of the 2xx; it keeps us.
        self._acks[tag_of(response)] = (data, flow)
        call.layer.send(data, flow)

    def _hang_up_fork(self, response: Response, now: float) -> None:
        """A proxy forked the call and a second phone was picked up: take it, and hang up."""
        if len(self._acks) >= MAX_FORKS:
            self._call.layer.counters["dropped: too many answers"] += 1
            return
        try:
            dialog = self._early.confirm(tag_of(response), self._form(response))
            self._send_ack(dialog, response, None)
            self._call.send_stray_bye(dialog, now)
        except SipSyntaxError:
            self._call.layer.counters["dropped: unusable answer"] += 1

    def _send_cancel(self, now: float) -> None:
        cancel = Request("CANCEL", self.request.uri)
        for name, value in self.request.headers:
            if name in ("From", "To", "Call-ID", "Route", "Max-Forwards"):
                cancel.headers.add(name, value)
        cancel.headers.add("CSeq", f"{self.request.cseq.number} CANCEL")
        if self._cancel_reason:
            cancel.headers.add("Reason", self._cancel_reason)
        layer, flow = self._call.layer, self._exchange.flow
        layer.add_via(cancel, flow, self.request.via.branch)
        layer.request(cancel, flow, ignore_response, now)
        # A peer that never answers the INVITE after a CANCEL is gone (RFC 3261 9.1).
        self.timers.set("cancelled", now + layer.config.timers.give_up)

    def _fire(self, name: str, now: float) -> None:
        if name == "ring limit":
            self.cancel(now)
        else:
            self._end()
            self._exchange.terminate()
            self._call.invite_timed_out(self, now)
