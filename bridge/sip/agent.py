"""The user agent as one object without I/O: datagrams, verbs and `now` in; datagrams, events and the next timer out.

    agent.receive(data, flow, now)      a datagram came
    agent.invite(...), answer(...) ...  the owner acts
    agent.outgoing(), agent.events()    to be drained after each of these
    agent.timer(), handle_timer(now)    to be called when the time has come

Nothing in here raises on account of what a peer sends.
"""

import secrets
from collections import Counter
from collections.abc import Iterable, Sequence

from bridge.sip.call import Call
from bridge.sip.digest import Credentials, DigestClient
from bridge.sip.errors import CallGoneError
from bridge.sip.events import CallKey, Event, RequestAnswered, RequestKey
from bridge.sip.exchange import Exchange
from bridge.sip.flow import Flow
from bridge.sip.incoming import Incoming
from bridge.sip.layer import TransactionLayer
from bridge.sip.message import Response
from bridge.sip.outside import MAX_FORWARDS, HeaderFields, build_invite, build_request
from bridge.sip.replaces import replaces_of
from bridge.sip.settings import Refusal, UserAgentConfig


class UserAgent:
    """Times are seconds on one monotonic clock of the owner's. Verbs on a call raise CallGoneError when it has ended
    and CallStateError when they don't fit its state; `bye`, `cancel` and `hangup` of an ended call do nothing."""

    def __init__(self, config: UserAgentConfig) -> None:
        self.config = config
        self._layer = TransactionLayer(config)
        self._calls: dict[CallKey, Call] = {}
        self._events: list[Event] = []
        self._incoming = Incoming(config, self._layer, self._calls, self._tell, self._forget)

    # -- for the adapter ------------------------------------------------------------------------------------

    def receive(self, data: bytes, flow: Flow, now: float) -> None:
        """Take one datagram, or one message of a stream, that came over `flow`."""
        self._incoming.receive(data, flow, now)

    def transport_failed(self, flow: Flow, now: float, detail: str = "") -> None:
        """What was sent over `flow` could not be delivered (refused, reset, unreachable): requests on it that wait
        for an answer are sent to the next server, or end as if they had timed out."""
        self._layer.transport_failed(flow, now, detail)

    def timer(self) -> float | None:
        """When to call `handle_timer` next, None for never."""
        return self._layer.queue.next()

    def handle_timer(self, now: float) -> None:
        """Do what is due. Harmless too early."""
        self._layer.queue.run(now)

    def outgoing(self) -> list[tuple[bytes, Flow]]:
        """What is to be sent, in order; taking it removes it."""
        out, self._layer.outbox = self._layer.outbox, []
        return out

    def events(self) -> list[Event]:
        """What happened, in order; taking it removes it."""
        events, self._events = self._events, []
        return events

    # -- state ----------------------------------------------------------------------------------------------

    @property
    def counters(self) -> Counter[str]:
        """Messages by what became of them: `received`, `sent`, `dropped: <why>`, `refused: <status>`, ..."""
        return self._layer.counters

    @property
    def accepting(self) -> bool:
        """Whether new calls are taken."""
        return self._incoming.refusing is None

    def refuse_new(self, reason: str, retry_after_s: int) -> None:
        """From now on answer new INVITEs and OPTIONS with 503 (draining, overload)."""
        self._incoming.refusing = Refusal(503, reason, (("Retry-After", str(retry_after_s)),))

    def accept_new(self) -> None:
        """Take new calls again."""
        self._incoming.refusing = None

    @property
    def call_count(self) -> int:
        """Calls that are not over, ringing ones and those whose BYE is unanswered included."""
        return len(self._calls)

    @property
    def transaction_count(self) -> int:
        """Transactions, ended ones that still wait for repetitions included (about half a minute each)."""
        return len(self._layer)

    @property
    def timer_count(self) -> int:
        """Timers that run, of calls and transactions."""
        return self._layer.queue.running

    def call_id(self, key: CallKey) -> str:
        """The SIP Call-ID. Raises CallGoneError."""
        call = self._call(key)
        if call.dialog is not None:
            return call.dialog.call_id
        return call.sending.request.call_id if call.sending is not None else ""

    def replaces_header(self, key: CallKey, *, early_only: bool = False) -> str:
        """The Replaces value that names this call to its peer (RFC 3891): whoever calls the peer with it takes our
        place. In a Refer-To it stands escaped, as `?Replaces=...`. Raises CallGoneError, CallStateError."""
        return str(replaces_of(self._call(key), early_only=early_only))

    def local_uri(self, key: CallKey) -> str:
        """Our address in the call's dialog, as a SIP URI. Raises CallGoneError, CallStateError."""
        return self._call(key).local_uri

    def remote_target(self, key: CallKey) -> str:
        """Where the peer's end of the call is reached (its Contact), as a SIP URI. Raises CallGoneError,
        CallStateError."""
        return self._call(key).remote_target

    # -- the owner's verbs ----------------------------------------------------------------------------------

    def invite(
        self,
        target: str,
        flow: Flow,
        now: float,
        *,
        from_: str,
        to: str = "",
        sdp: bytes | None = None,
        headers: HeaderFields = (),
        route: Iterable[str] = (),
        alternatives: Sequence[Flow] = (),
        credentials: Credentials | DigestClient | None = None,
        max_redirects: int = 0,
        max_forwards: int = MAX_FORWARDS,
    ) -> CallKey:
        """Call `target` (a SIP URI) by way of `flow`. `from_` and `to` are URIs or name-addrs; `to` is `target`
        unless given; `route` are Route values; without `sdp` the peer makes the offer. Raises SipSyntaxError.

        `alternatives` are tried in turn on 503, and when nothing at all comes back. Challenges are answered with
        `credentials`, throughout the call. So many 3xx are told as `Redirected`. A call that is made on account of
        one that came in has its `max_forwards`, less one; ValueError where that is less than 0."""
        key = CallKey(secrets.token_hex(8))
        layer = self._layer
        request = build_invite(
            layer,
            target,
            flow,
            tag=key,
            from_=from_,
            to=to,
            sdp=sdp,
            headers=headers,
            route=route,
            max_forwards=max_forwards,
        )
        call = Call(key, layer, self._tell, self._forget, inbound=False)
        call.digest = _digest(credentials)
        self._calls[key] = call
        call.start_outbound(request, flow, now, alternatives=alternatives, max_redirects=max_redirects)
        return key

    def retarget(self, key: CallKey, target: str, flows: Sequence[Flow], now: float) -> None:
        """After `Redirected`: go on at `target` (a SIP URI), by the first of `flows`; the others are alternatives.
        Raises SipSyntaxError, ValueError without a flow, CallStateError where no redirection waits."""
        self._call(key).retarget(target, flows, now)

    def set_credentials(self, key: CallKey, credentials: Credentials | DigestClient | None) -> None:
        """What challenges of our requests within this call are answered with, from the next request on."""
        self._call(key).digest = _digest(credentials)

    def ring(
        self, key: CallKey, now: float, *, status: int = 180, reason: str = "", sdp: bytes | None = None
    ) -> None:
        """Send a provisional response; with `sdp` it is early media (183)."""
        self._call(key).ring(status, reason, sdp, now)

    def answer(self, key: CallKey, sdp: bytes, now: float, *, headers: HeaderFields = ()) -> None:
        """Take the call with 200: `sdp` is our answer, or our offer where the INVITE had none."""
        self._call(key).answer(sdp, headers, now)

    def reject(self, key: CallKey, status: int, now: float, *, reason: str = "", headers: HeaderFields = ()) -> None:
        """Refuse an inbound call with a status of 300 or more. No event follows."""
        self._call(key).reject(status, reason, headers, now)

    def acknowledge(self, key: CallKey, sdp: bytes, now: float) -> None:
        """Send the ACK with our answer, after `Answered` or `ReofferAnswered` with a late offer."""
        self._call(key).acknowledge(sdp, now)

    def cancel(self, key: CallKey, now: float, *, reason: str = "") -> None:
        """Give up an outbound call that is not answered; `reason` is a Reason header value. `Rejected` follows (487),
        or `Lost`."""
        if key in self._calls:
            self._calls[key].cancel(reason, now)

    def bye(self, key: CallKey, now: float, *, reason: str = "", headers: HeaderFields = ()) -> None:
        """Hang up a call that is up; `reason` is a Reason header value. `ByeAnswered` follows."""
        if key in self._calls:
            self._calls[key].ending.bye(reason, now, headers)

    def hangup(
        self, key: CallKey, now: float, *, status: int = 480, reason: str = "", headers: HeaderFields = ()
    ) -> None:
        """End a call in whatever state: `bye` (with `headers`), `cancel`, or `reject` with `status`."""
        if key in self._calls:
            self._calls[key].hangup(status, reason, now, headers)

    def reinvite(self, key: CallKey, sdp: bytes | None, now: float) -> None:
        """Offer a changed session; without `sdp` ask the peer for an offer. On glare (491) it is sent again by
        itself. `ReofferAnswered` or `ReofferRejected` follows. CallStateError while another one is under way."""
        self._call(key).reinvite(sdp, now)

    def answer_reinvite(self, key: CallKey, sdp: bytes, now: float) -> None:
        """Accept the peer's re-INVITE, with our answer or, where it had no offer, our offer."""
        self._call(key).answer_reinvite(sdp, now)

    def reject_reinvite(self, key: CallKey, status: int, now: float, *, reason: str = "") -> None:
        """Refuse the peer's re-INVITE (488 where nothing is in common); the call goes on as it was."""
        self._call(key).reject_reinvite(status, reason, now)

    def update(self, key: CallKey, sdp: bytes, now: float) -> None:
        """Offer a changed session by UPDATE, which needs no ACK and may come before the call is answered (RFC 3311),
        once the first offer was answered reliably. `ReofferAnswered` or `ReofferRejected` follows; glare (491) as
        with `reinvite`. CallStateError while another offer is under way, or too early."""
        self._call(key).update(sdp, now)

    def can_update(self, key: CallKey) -> bool:
        """Whether the peer has said that it takes UPDATE. Raises CallGoneError."""
        return self._call(key).peer_allows("UPDATE")

    def info(self, key: CallKey, content_type: str, body: bytes, now: float) -> None:
        """Send INFO. `InfoAnswered` follows."""
        self._call(key).info(content_type, body, now)

    def refer(self, key: CallKey, target: str, now: float, *, headers: HeaderFields = ()) -> None:
        """Ask the peer to call `target` (URI or `<URI>`). `ReferAccepted` and `ReferResult`s, or `ReferRejected`."""
        self._call(key).refer(target, tuple(headers), now)

    def accept_refer(self, key: CallKey, now: float) -> None:
        """Say that we shall call where `Referred` pointed; then `notify` how it goes."""
        self._call(key).referrals.accept(now)

    def reject_refer(self, key: CallKey, status: int, now: float) -> None:
        """Refuse a `Referred` (603, 405, ...)."""
        self._call(key).referrals.reject(status, now)

    def notify(self, key: CallKey, status: int, now: float, *, reason: str = "") -> None:
        """Report the status that our call to the Refer-To got; 200 and more end the matter."""
        self._call(key).referrals.notify(status, reason, now)

    # -- requests outside any call --------------------------------------------------------------------------

    def contact(self, flow: Flow) -> str:
        """Our Contact value for the peer of `flow`, as in a REGISTER: `<sip:...>`, to be given parameters."""
        return self._layer.contact(flow)

    def request(
        self,
        method: str,
        target: str,
        flow: Flow,
        now: float,
        *,
        from_: str,
        to: str = "",
        headers: HeaderFields = (),
        body: bytes = b"",
        content_type: str = "",
        call_id: str = "",
        cseq: int = 0,
        route: Iterable[str] = (),
        credentials: Credentials | DigestClient | None = None,
        alternatives: Sequence[Flow] = (),
    ) -> RequestKey:
        """Send a request outside any call (OPTIONS, REGISTER, MESSAGE, ...). `RequestAnswered` follows, once.

        Challenges are answered with `credentials`; a DigestClient keeps its nonces for the next request.
        `alternatives` are tried in turn on 503 and when there is no answer. `call_id` and `cseq` (from 1) are made
        unless given. Raises SipSyntaxError, and ValueError for a method that belongs to a call."""
        key = RequestKey(secrets.token_hex(8))
        request = build_request(
            self._layer,
            method,
            target,
            flow,
            from_=from_,
            to=to,
            headers=headers,
            body=body,
            content_type=content_type,
            call_id=call_id,
            cseq=cseq,
            route=route,
        )

        def answered(response: Response | None, now: float) -> None:
            if response is None or response.status >= 200:
                self._tell(RequestAnswered(key, exchange.request, response, exchange.flow))

        exchange = Exchange(
            self._layer, request, flow, answered, now, digest=_digest(credentials), alternatives=alternatives
        )
        return key

    # -- inside ---------------------------------------------------------------------------------------------

    def _call(self, key: CallKey) -> Call:
        call = self._calls.get(key)
        if call is None:
            raise CallGoneError(f"no call {key}: it has ended")
        return call

    def _tell(self, event: Event) -> None:
        self._events.append(event)

    def _forget(self, call: Call) -> None:
        self._calls.pop(call.key, None)


def _digest(credentials: Credentials | DigestClient | None) -> DigestClient | None:
    return DigestClient(credentials) if isinstance(credentials, Credentials) else credentials
