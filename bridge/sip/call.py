"""One call of a user agent: its dialog, the INVITEs in it, and every other request within it."""

import random
from collections.abc import Callable, Iterable, Sequence
from enum import Enum, auto

from bridge.sip.body import sdp_of
from bridge.sip.dialog import Dialog
from bridge.sip.digest import DigestClient
from bridge.sip.ending import Ending
from bridge.sip.errors import CallStateError
from bridge.sip.events import (
    Answered,
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
    ReofferConfirmed,
)
from bridge.sip.exchange import Exchange
from bridge.sip.flow import Flow
from bridge.sip.layer import TransactionLayer
from bridge.sip.message import Request, Response, make_response
from bridge.sip.offers import Offers
from bridge.sip.refer import Referrals
from bridge.sip.reinvite import Reinvites
from bridge.sip.reliable import ReliableResponses
from bridge.sip.screening import screen
from bridge.sip.session_timer import SessionTimer
from bridge.sip.transaction import InviteServer, ResponseUser, ServerTransaction, ignore_response
from bridge.sip.uac import ClientInvite
from bridge.sip.uas import ServerInvite
from bridge.sip.update import Updates
from bridge.sip.uri import NameAddr


class CallState(Enum):
    SETUP = auto()
    """The first INVITE has no final answer yet."""
    UP = auto()
    """Answered with 2xx, acknowledged or not."""


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
        self.digest: DigestClient | None = None
        """Answers challenges of our requests within the call."""
        self.referrals = Referrals(self)
        self.updates = Updates(self)
        self.offers = Offers(self)
        self.reinvites = Reinvites(self)
        self.session = SessionTimer(self)
        self.reliable: ReliableResponses | None = None
        """Those to the INVITE that made the call, if the peer did."""
        self.ending = Ending(self, tell, forget)
        self._peer_methods: frozenset[str] | None = None

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
        dialog = self.named_dialog
        return self.layer.contact(dialog.flow, secure=dialog.remote_target.scheme == "sips")

    @property
    def local_uri(self) -> str:
        """Our URI, as the peer knows us."""
        return str(NameAddr.parse(self.named_dialog.local).uri)

    @property
    def remote_target(self) -> str:
        return str(self.named_dialog.remote_target)

    @property
    def capabilities(self) -> list[tuple[str, str]]:
        return self.layer.capabilities

    @property
    def named_dialog(self) -> Dialog:
        """The dialog. Raises CallStateError before there is one."""
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
        request = self.named_dialog.request(method)
        if method in ("INVITE", "REFER", "NOTIFY", "UPDATE"):
            request.headers.add("Contact", self.contact)
        if self.layer.config.user_agent:
            request.headers.add("User-Agent", self.layer.config.user_agent)
        return request

    def send_request(self, request: Request, user: ResponseUser, now: float) -> Exchange:
        return self._send_within(self.named_dialog, request, user, now)

    def _send_within(self, dialog: Dialog, request: Request, user: ResponseUser, now: float) -> Exchange:
        flow = dialog.next_flow(self.layer.config.resolve)
        return Exchange(self.layer, request, flow, user, now, digest=self.digest, renumber=dialog.next_cseq)

    @property
    def established(self) -> bool:
        """Answered with 2xx: not about to be, and not over."""
        return self.state is CallState.UP and not any(invite.held for invite in self.invites.values())

    def peer_allows(self, method: str) -> bool:
        """Whether the peer said that it takes this method."""
        return self._peer_methods is not None and method in self._peer_methods

    def note_peer(self, message: Request | Response) -> None:
        """Take in what the peer says of its abilities."""
        methods = message.headers.tokens_of("Allow")
        if methods:
            self._peer_methods = frozenset(method.upper() for method in methods)

    def refresh_target(self, message: Request | Response) -> None:
        self.named_dialog.refresh_target(message)
        self.note_peer(message)

    def release(self, now: float) -> None:
        """Something that a 200 of ours may have waited for is over."""
        for invite in list(self.invites.values()):
            invite.release(now)

    @property
    def up(self) -> bool:
        """Answered with 2xx, or about to be."""
        return self.state is CallState.UP

    @property
    def closing(self) -> bool:
        """We hang up, or the last event was told: from now on nothing is."""
        return self.ending.closing

    def emit(self, event: Event) -> None:
        """Tell the owner, unless it has hung up or was told the end."""
        self.ending.emit(event)

    # -- the owner's verbs ----------------------------------------------------------------------------------

    def ring(self, status: int, reason: str, sdp: bytes | None, now: float) -> None:
        self._first_invite().ring(status, reason, sdp, now)

    def answer(self, sdp: bytes, headers: Iterable[tuple[str, str]], now: float) -> None:
        self._first_invite().answer(sdp, headers, now)
        self.state = CallState.UP

    def reject(self, status: int, reason: str, headers: Iterable[tuple[str, str]], now: float) -> None:
        self._first_invite().reject(status, reason, headers, now)
        self.ending.finish(None, now)

    def cancel(self, reason: str, now: float) -> None:
        if self.sending is None or self.state is not CallState.SETUP:
            raise CallStateError("only an outbound call without an answer can be cancelled")
        self.sending.cancel(now, reason)

    def retarget(self, target: str, flows: Sequence[Flow], now: float) -> None:
        if self.sending is None or self.state is not CallState.SETUP:
            raise CallStateError("only an outbound call without an answer can be redirected")
        self.sending.retarget(target, flows, now)

    def acknowledge(self, sdp: bytes, now: float) -> None:
        if self.sending is None or self.sending.answer is None or self.sending.over:
            raise CallStateError("no answered INVITE of ours waits for its ACK")
        sdp = self.offers.following(sdp)
        self.sending.acknowledge(sdp)
        self.offers.agreed_on(sdp, None)

    def hangup(self, status: int, reason: str, now: float, headers: Iterable[tuple[str, str]] = ()) -> None:
        if self.state is CallState.UP:
            self.ending.bye(reason, now, headers)
        elif self.sending is not None:
            self.cancel(reason, now)
        else:
            self.reject(status, "", [("Reason", reason)] if reason else (), now)

    def reinvite(self, sdp: bytes | None, now: float) -> None:
        if self.state is not CallState.UP or self.closing:
            raise CallStateError("the call is not up")
        self.reinvites.offer(sdp, now)

    def update(self, sdp: bytes, now: float) -> None:
        offers = self.offers
        if self.closing or offers.ours_open or offers.theirs_open or offers.retrying:
            raise CallStateError("the call is over, or another offer is under way")
        if not offers.first_is_settled:
            raise CallStateError("the first offer is not yet answered by a reliable response")
        self.updates.send(sdp, now)

    def answer_reinvite(self, sdp: bytes, now: float) -> None:
        if self.updates.offered and not self.closing:
            self.updates.answer(sdp, now)
        else:
            self.reinvites.answer(sdp, now)

    def reject_reinvite(self, status: int, reason: str, now: float) -> None:
        if self.updates.offered and not self.closing:
            self.updates.reject(status, reason, now)
        else:
            self.reinvites.reject(status, reason, now)

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

    def start_outbound(
        self, request: Request, flow: Flow, now: float, *, alternatives: Sequence[Flow] = (), max_redirects: int = 0
    ) -> None:
        """Send the INVITE that makes this call; it has no Via yet."""
        request.headers.extend(self.session.fields())
        self.sending = ClientInvite(
            self, request, flow, initial=True, now=now, alternatives=alternatives, max_redirects=max_redirects
        )

    def start_inbound(self, request: Request, transaction: InviteServer, dialog: Dialog, now: float) -> None:
        """The INVITE that makes this call."""
        self.dialog = dialog
        self.note_peer(request)
        invite = ServerInvite(self, request, transaction, initial=True, now=now)
        self.invites[request.cseq.number] = invite
        self.reliable = invite.reliable

    def receive(self, request: Request, flow: Flow, now: float) -> None:
        """A new request of the peer within this dialog."""
        if request.method == "ACK":
            self._acknowledged(request, now)
            return
        layer = self.layer
        if request.method == "INVITE":
            invite_transaction = layer.serve_invite(request, flow)
            if self._in_order(request, invite_transaction, flow, now):
                self.reinvites.receive(request, invite_transaction, now)
            return
        transaction = layer.serve(request, flow)
        if not self._in_order(request, transaction, flow, now):
            return
        if request.method == "BYE" and not self.inbound and self.state is CallState.SETUP:
            # Who was called ends what it has not answered with a final response (RFC 3261 15).
            transaction.respond(self.response(request, 481), now)
        elif request.method == "BYE":
            transaction.respond(self.response(request, 200), now)
            self.ending.bye_received(request, now)
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
        elif request.method == "UPDATE":
            self.updates.receive(request, transaction, now)
        elif request.method == "PRACK" and self.reliable is not None:
            self.reliable.receive(request, transaction, now)
        elif request.method == "PRACK":
            transaction.respond(self.response(request, 481), now)
        else:
            transaction.respond(self.response(request, 501), now)

    def invite_cancelled(self, invite: ServerInvite, reason: str, now: float) -> None:
        """CANCEL of an INVITE that is not yet answered."""
        if invite.initial:
            self.ending.finish(Cancelled(self.key, f"cancel: {reason}" if reason else "cancel"), now)
        else:
            self.reinvites.cancelled(invite, now)

    def _in_order(self, request: Request, transaction: ServerTransaction, flow: Flow, now: float) -> bool:
        """Refuse what no dialog takes; note the number and the source of what is taken."""
        dialog = self.dialog
        number = request.cseq.number
        if dialog is None:
            self.refuse(request, transaction, 481 if request.method == "BYE" else 500, now)
            return False
        last = dialog.remote_cseq
        # A BYE with the number of the request before it is wrong, too, but ending is what both sides want.
        if last is not None and (number < last or (number == last and request.method != "BYE")):
            self.layer.counters["refused: out of order"] += 1
            self.refuse(request, transaction, 500, now)
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

    def refuse(self, request: Request, transaction: ServerTransaction, status: int, now: float) -> None:
        response = self.response(request, status)
        if status == 500 and request.method == "INVITE":
            response.headers.add("Retry-After", str(self.random_retry_s()))
        transaction.respond(response, now)

    def _acknowledged(self, request: Request, now: float) -> None:
        invite = self.invites.get(request.cseq.number)
        if invite is None or not invite.answered:
            self.layer.counters["dropped: stray ACK"] += 1
            return
        del self.invites[invite.cseq]
        invite.acknowledged()
        self.offers.agreed_on(None, sdp_of(request))
        if not invite.initial:
            self.emit(ReofferConfirmed(self.key, sdp_of(request)))
        elif self.closing:
            self.ending.send_bye(now)
        else:
            self.emit(Confirmed(self.key, sdp_of(request)))

    # -- what becomes of INVITEs ----------------------------------------------------------------------------

    def never_acknowledged(self, invite: ServerInvite, now: float) -> None:
        self.invites.pop(invite.cseq, None)
        if self.closing:
            self.ending.send_bye(now)
        else:
            self.ending.break_off(LostReason.NO_ACK, "no ACK came for our 200", now)

    def never_pracked(self, now: float) -> None:
        self._first_invite().reject(504, "", (), now)
        self.ending.finish(Cancelled(self.key, "no-prack"), now)

    def never_answered(self, invite: ServerInvite, now: float) -> None:
        if invite.initial:
            invite.reject(480, "", (), now)
            self.ending.finish(Cancelled(self.key, "expired"), now)
        else:
            invite.reject(500, "", (), now)
            self.reinvites.cancelled(invite, now)

    def progress(self, response: Response, sdp: bytes | None) -> None:
        self.emit(Progress(self.key, response.status, response.reason, sdp))

    def invite_accepted(self, invite: ClientInvite, response: Response, sdp: bytes | None, now: float) -> None:
        self.note_peer(response)
        if not self.closing and not invite.cancelled:
            self.session.accepted(response, now)
        if not invite.initial:
            self.reinvites.accepted(invite, sdp)
            return
        self.offers.agreed_on(None if invite.early_answered else invite.request.body, sdp)
        self.state = CallState.UP
        if invite.cancelled:
            # The CANCEL and the answer crossed.
            self.ending.finish(Rejected(self.key, 487, "Request Terminated", None), now, forget=False)
            self.ending.send_bye(now)
        else:
            self.emit(Answered(self.key, sdp, invite.late_offer, response))

    def invite_rejected(self, invite: ClientInvite, response: Response, now: float) -> None:
        again = response.status == 422 and not invite.cancelled
        if not invite.initial:
            self.reinvites.refused(invite, response, now)
        elif again and self.session.too_small(response):
            # With the session interval that the peer asks for (RFC 4028 7.3).
            self.dialog = None
            invite.repeat(now, dict(self.session.fields()))
        else:
            self.ending.finish(Rejected(self.key, response.status, response.reason, response), now)

    def invite_timed_out(self, invite: ClientInvite, now: float) -> None:
        if invite.initial:
            detail = (
                f"our INVITE was not delivered: {invite.failure}" if invite.failure else "no answer to our INVITE"
            )
            self.ending.finish(Lost(self.key, LostReason.TIMEOUT, detail), now)
        else:
            self.ending.unreachable("no answer to our re-INVITE", now)

    def answer_unusable(self, detail: str, now: float) -> None:
        self.ending.finish(Lost(self.key, LostReason.UNUSABLE, detail), now)

    def send_stray_bye(self, dialog: Dialog, now: float) -> None:
        """Hang up a second answer to our INVITE."""
        self._send_within(dialog, dialog.request("BYE"), ignore_response, now)

    # -- inside ---------------------------------------------------------------------------------------------

    def _first_invite(self) -> ServerInvite:
        invite = next((invite for invite in self.invites.values() if invite.initial and invite.pending), None)
        if invite is None:
            raise CallStateError("only an inbound call that is not yet answered can be answered or rejected")
        return invite

    def _info_answered(self, response: Response | None, now: float) -> None:
        if response is not None and response.status < 200:
            return
        status = 408 if response is None else response.status
        self.emit(InfoAnswered(self.key, status))
        if status == 481:
            self.ending.gone("INFO", now)
