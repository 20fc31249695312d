"""What arrives: each message to its transaction, each request to its call, and what becomes of new ones."""

import secrets
from collections import OrderedDict
from collections.abc import Callable

from bridge.sip.call import Call, CallState
from bridge.sip.dialog import Dialog
from bridge.sip.errors import MalformedMessage, SipSyntaxError
from bridge.sip.events import CallKey, Event, InviteReceived
from bridge.sip.flow import Flow
from bridge.sip.layer import TransactionLayer
from bridge.sip.message import Request, Response, check, make_response, parse_message
from bridge.sip.replaces import find_replaced
from bridge.sip.screening import screen_new
from bridge.sip.settings import Refusal, UserAgentConfig, Verdict
from bridge.sip.transaction import InviteServer, ServerKey, server_key

_MAX_REFUSED = 4096


class Incoming:
    """The receiving side of a user agent: shares its layer and calls, and makes the calls that come in."""

    def __init__(
        self,
        config: UserAgentConfig,
        layer: TransactionLayer,
        calls: dict[CallKey, Call],
        tell: Callable[[Event], None],
        forget: Callable[[Call], None],
    ) -> None:
        self.config = config
        self.refusing: Refusal | None = None
        """While set, new calls and OPTIONS get this; calls that are up go on."""
        self._layer = layer
        self._calls = calls
        self._tell = tell
        self._forget = forget
        self._refused: OrderedDict[ServerKey, tuple[Refusal, float]] = OrderedDict()
        """INVITEs that there was no room for, and until when their repetitions may come."""

    def receive(self, data: bytes, flow: Flow, now: float) -> None:
        """Take one datagram, or one message of a stream."""
        counters = self._layer.counters
        counters["received"] += 1
        if len(data) > self.config.max_message_bytes:
            counters["dropped: too large"] += 1
            return
        if not data.strip(b"\r\n\0 "):
            counters["keep-alives"] += 1
            return
        try:
            message = parse_message(data, max_headers=self.config.max_headers)
            check(message)
            if isinstance(message, Response):
                self._layer.receive_response(message, now)
                return
            self._layer.stamp(message, flow)
        except MalformedMessage as error:
            self._malformed(error, flow)
            return
        self._request(message, flow, now)

    def _request(self, request: Request, flow: Flow, now: float) -> None:
        """A checked, stamped request."""
        layer = self._layer
        transaction = layer.servers.get(server_key(request))
        if transaction is not None and self._belongs(request, transaction):
            layer.counters["repeated requests"] += request.method != "ACK"
            transaction.receive(request, now)
            return
        if request.method == "CANCEL":
            self._cancel(request, flow, now)
            return
        tag = request.to.tag
        if tag is None:
            if request.method == "ACK":
                layer.counters["dropped: stray ACK"] += 1
            else:
                self._receive_new(request, flow, now)
            return
        call = self._calls.get(CallKey(tag))
        if call is not None and self._in_dialog(call, request, now):
            if len(layer) >= 2 * self.config.max_transactions and request.method != "ACK":
                layer.counters["dropped: too many transactions"] += 1
            else:
                call.receive(request, flow, now)
        elif request.method == "ACK":
            expected = tag == layer.stateless_tag(request)
            layer.counters["acknowledged refusals" if expected else "dropped: stray ACK"] += 1
        elif self._admits(request, flow):
            layer.refuse(request, flow, 481)

    def _receive_new(self, request: Request, flow: Flow, now: float) -> None:
        """A request outside any dialog."""
        layer = self._layer
        refusal = self._said_before(request, now)
        if refusal is None:
            verdict = self._verdict(request, flow)
            if isinstance(verdict, Verdict):
                layer.counters["dropped: not admitted"] += 1
                return
            looped = layer.is_merged(request) or self._is_ours(request)
            refusal = verdict or (
                Refusal(482) if looped else screen_new(request, self.config) or self._overload(request)
            )
            self._note_refusal(request, refusal, now)
        if refusal is not None:
            layer.refuse(request, flow, refusal.status, refusal.reason, refusal.headers)
        elif request.method == "OPTIONS":
            self._options(request, flow)
        elif request.method == "INVITE":
            self._invited(request, flow, now)
        else:
            layer.refuse(request, flow, 501)

    def _invited(self, request: Request, flow: Flow, now: float) -> None:
        layer = self._layer
        key = CallKey(secrets.token_hex(8))
        try:
            dialog = Dialog.from_invite(request, key, flow)
            dialog.next_flow(None)
        except SipSyntaxError:
            layer.refuse(request, flow, 400, "Unusable Contact Or Record-Route")
            return
        replaced = find_replaced(request, self._calls) if "replaces" in self.config.supported else None
        if isinstance(replaced, Refusal):
            layer.refuse(request, flow, replaced.status, replaced.reason, replaced.headers)
            return
        call = Call(key, layer, self._tell, self._forget, inbound=True)
        self._calls[key] = call
        call.start_inbound(request, layer.serve_invite(request, flow), dialog, now)
        self._tell(InviteReceived(key, request, call.sdp_of(request), flow, replaced))

    def _cancel(self, request: Request, flow: Flow, now: float) -> None:
        layer = self._layer
        invite = layer.servers.get(server_key(request, "INVITE"))
        if not isinstance(invite, InviteServer):
            if self._admits(request, flow):
                layer.refuse(request, flow, 481)
            return
        response = make_response(request, 200, to_tag=invite.local_tag)
        layer.reply(request, flow, response)
        if invite.on_cancel is not None:
            invite.on_cancel(", ".join(request.headers.get_all("Reason")), now)

    def _options(self, request: Request, flow: Flow) -> None:
        layer = self._layer
        response = make_response(request, 200, to_tag=layer.stateless_tag(request))
        config = self.config
        response.headers.add("Allow", ", ".join(config.allow))
        response.headers.add("Accept", "application/sdp")
        response.headers.add("Supported", ", ".join(config.supported))
        response.headers.add("Contact", layer.contact(flow))
        if config.user_agent:
            response.headers.add("Server", config.user_agent)
        layer.counters["answered OPTIONS"] += 1
        layer.reply(request, flow, response)

    def _malformed(self, error: MalformedMessage, flow: Flow) -> None:
        """Answer it where there is enough of it to answer, and never an ACK."""
        layer = self._layer
        request = error.request
        # An answer needs its way back and what it answers; it goes without what else is wanting (RFC 4475 3.3.1).
        names = ("Via", "CSeq")
        if request is None or request.method == "ACK" or not all(request.headers.get(name) for name in names):
            layer.counters["dropped: malformed"] += 1
            return
        try:
            layer.stamp(request, flow)
            if self._admits(request, flow):
                layer.refuse(request, flow, error.status, error.reason)
        except SipSyntaxError:
            # Not even its way back makes sense.
            layer.counters["dropped: malformed"] += 1

    # -- inside ---------------------------------------------------------------------------------------------

    def _admits(self, request: Request, flow: Flow) -> bool:
        """Ask the owner; answer for it where it says no."""
        verdict = self._verdict(request, flow)
        if isinstance(verdict, Refusal):
            self._layer.refuse(request, flow, verdict.status, verdict.reason, verdict.headers)
        elif verdict is not None:
            self._layer.counters["dropped: not admitted"] += 1
        return verdict is None

    def _verdict(self, request: Request, flow: Flow) -> Refusal | Verdict | None:
        verdict = self.config.admit(request, flow) if self.config.admit else None
        return Refusal(verdict) if isinstance(verdict, int) else verdict

    def _said_before(self, request: Request, now: float) -> Refusal | None:
        """What a repeated INVITE was refused with for want of room. There may be room by now, but its sender has been
        answered: the call would be taken for nobody."""
        if request.method != "INVITE":
            return None
        refusal, until = self._refused.get(server_key(request), (None, 0.0))
        return refusal if now < until else None

    def _note_refusal(self, request: Request, refusal: Refusal | None, now: float) -> None:
        if refusal is None or refusal.status != 503 or request.method != "INVITE":
            return
        if len(self._refused) >= _MAX_REFUSED:
            self._refused.popitem(last=False)
        self._refused[server_key(request)] = refusal, now + self.config.timers.give_up

    def _overload(self, request: Request) -> Refusal | None:
        if self.refusing is not None:
            return self.refusing
        full = len(self._calls) >= self.config.max_calls or len(self._layer) >= self.config.max_transactions
        if full and request.method == "INVITE":
            return Refusal(503, "Too Many Calls", (("Retry-After", str(self.config.retry_after_s)),))
        return None

    def _is_ours(self, request: Request) -> bool:
        """Whether a request is an INVITE of ours that came back: taken, we would talk to ourselves."""
        call = self._calls.get(CallKey(request.from_.tag or ""))
        return (
            call is not None
            and not call.inbound
            and call.sending is not None
            and call.sending.request.call_id == request.call_id
        )

    @staticmethod
    def _in_dialog(call: Call, request: Request, now: float) -> bool:
        dialog = call.dialog
        if call.sending is not None and call.state is CallState.SETUP:
            return call.sending.takes(request, now)
        return (
            dialog is not None
            and dialog.call_id == request.call_id
            and dialog.remote_tag == (request.from_.tag or "")
        )

    @staticmethod
    def _belongs(request: Request, transaction: object) -> bool:
        """Whether a request with a transaction's name is its own: the ACK of a 2xx may bear the INVITE's branch
        when it comes from an element of RFC 2543 (or a careless one)."""
        if request.method != "ACK" or not isinstance(transaction, InviteServer):
            return True
        return not transaction.accepted
