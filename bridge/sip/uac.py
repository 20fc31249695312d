"""One INVITE that we sent, first or re-INVITE: from sending to the ACK of its answer (RFC 3261 13.2, 14.1)."""

from typing import TYPE_CHECKING

from bridge.sip.dialog import Dialog
from bridge.sip.errors import SipSyntaxError
from bridge.sip.flow import Flow
from bridge.sip.message import Request, Response
from bridge.sip.timers import Timers
from bridge.sip.transaction import InviteClient, ignore_response

if TYPE_CHECKING:
    from bridge.sip.call import Call


class ClientInvite:
    """Follows the responses, forms the dialog, and acknowledges every 2xx, each time it comes."""

    def __init__(self, call: "Call", request: Request, flow: Flow, *, initial: bool, now: float) -> None:
        self.initial = initial
        self.late_offer = not request.body
        self.request = request
        self.flow = flow
        self.cancelled = False
        self._cancel_reason = ""
        self.answer: Response | None = None
        """The 2xx, once there is one."""
        self.over = False
        self.timers = Timers(call.layer.queue, self._fire)
        self._call = call
        self._ringing = False
        """A provisional response came, so that a CANCEL may go out."""
        self._early_sdp: dict[str, bytes] = {}
        self._acks: dict[str, tuple[bytes, Flow]] = {}
        self.timers.set("ring limit", now + call.layer.config.max_ring_s)
        self._transaction: InviteClient = call.layer.invite(request, flow, self._receive, now)

    def cancel(self, now: float, reason: str = "") -> None:
        """Give up, with a Reason header if any; CANCEL waits for the first provisional response (RFC 3261 9.1)."""
        if self.cancelled or self.over or self.answer is not None:
            return
        self.cancelled = True
        self._cancel_reason = reason
        if self._ringing:
            self._send_cancel(now)

    def acknowledge(self, sdp: bytes | None) -> None:
        """Send the ACK of the 2xx, with our answer if the offer was the peer's."""
        if self.answer is None or self._call.dialog is None:
            return
        self.over = True
        self._send_ack(self._call.dialog, self.answer, sdp)

    def _receive(self, response: Response | None, now: float) -> None:
        if response is None:
            self._end()
            self._call.invite_timed_out(self, now)
        elif response.status < 200:
            self._provisional(response, now)
        elif response.status < 300:
            self._accepted(response, now)
        else:
            self._end()
            self._call.invite_rejected(self, response, now)

    def _end(self) -> None:
        self.over = True
        self.timers.stop_all()

    def _provisional(self, response: Response, now: float) -> None:
        first, self._ringing = not self._ringing, True
        if self.cancelled:
            if first:
                self._send_cancel(now)
            return
        sdp = self._call.sdp_of(response)
        tag = _tag(response)
        if sdp is not None and len(self._early_sdp) < 8:
            self._early_sdp[tag] = sdp
        if self.initial and response.status > 100:
            self._call.progress(response, sdp)

    def _accepted(self, response: Response, now: float) -> None:
        tag = _tag(response)
        if tag in self._acks:
            self._call.layer.send(*self._acks[tag])
            return
        if self.answer is not None:
            if tag != _tag(self.answer):
                self._hang_up_fork(response, now)
            # Otherwise the owner still works on its answer to a late offer: the peer's next repetition gets it.
            return
        self.timers.stop_all()
        call = self._call
        if self.initial:
            try:
                call.dialog = Dialog.from_answer(self.request, response, self.flow)
                call.dialog.next_flow(None)
            except SipSyntaxError as error:
                call.dialog = None
                self._end()
                self._transaction.terminate()
                call.answer_unusable(str(error), now)
                return
        elif call.dialog is not None:
            call.dialog.refresh_target(response)
        self.answer = response
        # Some peers put their answer into a provisional response alone.
        sdp = call.sdp_of(response) or self._early_sdp.get(tag)
        if not self.late_offer or self.cancelled or call.closing:
            self.acknowledge(None)
        call.invite_accepted(self, response, sdp, now)

    def _send_ack(self, dialog: Dialog, response: Response, sdp: bytes | None) -> None:
        call = self._call
        ack = dialog.request("ACK", cseq=self.request.cseq.number)
        if sdp is not None:
            ack.headers.add("Content-Type", "application/sdp")
            ack.body = sdp
        flow = dialog.next_flow(call.layer.config.resolve)
        call.layer.add_via(ack, flow)
        data = ack.serialise()
        # Kept as long as the INVITE's transaction takes repetitions of the 2xx; it keeps us.
        self._acks[_tag(response)] = (data, flow)
        call.layer.send(data, flow)

    def _hang_up_fork(self, response: Response, now: float) -> None:
        """A proxy forked the call and a second phone was picked up: take it, and hang up."""
        try:
            dialog = Dialog.from_answer(self.request, response, self.flow)
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
        self._call.layer.add_via(cancel, self.flow, self.request.via.branch)
        self._call.layer.request(cancel, self.flow, ignore_response, now)
        # A peer that never answers the INVITE after a CANCEL is gone (RFC 3261 9.1).
        self.timers.set("cancelled", now + self._call.layer.config.timers.give_up)

    def _fire(self, name: str, now: float) -> None:
        if name == "ring limit":
            self.cancel(now)
        else:
            self._end()
            self._transaction.terminate()
            self._call.invite_timed_out(self, now)


def _tag(response: Response) -> str:
    try:
        return response.to.tag or ""
    except SipSyntaxError:
        return ""
