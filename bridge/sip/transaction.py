"""The four transaction state machines (RFC 3261 17, with RFC 6026's Accepted states).

Each is given what arrives and its due timers; it sends through `send`, hands responses to its user and tells
`on_end` once when it is over. Timer names are the RFCs' letters.
"""

from collections.abc import Callable
from enum import Enum, auto

from bridge.sip.flow import Flow
from bridge.sip.message import Request, Response, make_response
from bridge.sip.timers import TimerQueue, Timers, TimerValues
from bridge.sip.via import BRANCH_COOKIE

Send = Callable[[bytes, Flow], None]

ResponseUser = Callable[[Response | None, float], None]
"""Takes each response of a client transaction and `now`; None when it gave up waiting (timer B or F)."""

ClientKey = tuple[str, str]
"""Branch and method (RFC 3261 17.1.3)."""

ServerKey = tuple[str, ...]
"""See `server_key`."""


_COPIED_TO_ACK = ("Via", "From", "Call-ID", "Route", "Max-Forwards", "Authorization", "Proxy-Authorization")
"""RFC 3261 17.1.1.3, and 22.1: an ACK can't be challenged, and bears what its INVITE was let in with."""


class State(Enum):
    CALLING = auto()
    TRYING = auto()
    PROCEEDING = auto()
    COMPLETED = auto()
    CONFIRMED = auto()
    ACCEPTED = auto()
    TERMINATED = auto()


class InviteClient:
    """An INVITE that we sent (RFC 3261 17.1.1, RFC 6026 7.2). The ACK of a 2xx is its user's."""

    def __init__(
        self,
        request: Request,
        flow: Flow,
        user: ResponseUser,
        *,
        queue: TimerQueue,
        send: Send,
        values: TimerValues,
        on_end: Callable[["InviteClient"], None],
        now: float,
        data: bytes = b"",
    ) -> None:
        self.request = request
        self.flow = flow
        self.key: ClientKey = (request.via.branch, "INVITE")
        self.state = State.CALLING
        self.failure = ""
        """Why the transport could not deliver, "" unless that was the end."""
        self.timers = Timers(queue, self._fire)
        self._user = user
        self._send = send
        self._values = values
        self._on_end = on_end
        self._data = data or request.serialise()
        self._ack: bytes | None = None
        self._interval = values.t1
        send(self._data, flow)
        if not flow.reliable:
            self.timers.set("A", now + self._interval)
        self.timers.set("B", now + values.give_up)

    def receive(self, response: Response, now: float) -> None:
        final = response.status >= 200
        if self.state in (State.CALLING, State.PROCEEDING):
            self.timers.stop("A", "B")
            if not final:
                self.state = State.PROCEEDING
            elif response.status < 300:
                self.state = State.ACCEPTED
                self.timers.set("M", now + self._values.give_up)
            else:
                self._complete(response, now)
            self._user(response, now)
        elif self.state is State.COMPLETED and response.status >= 300 and self._ack:
            self._send(self._ack, self.flow)
        elif self.state is State.ACCEPTED and 200 <= response.status < 300:
            self._user(response, now)

    def fail(self, failure: str, now: float) -> None:
        """The transport can't deliver (RFC 3261 17.1.4). An INVITE that is known to have arrived goes on over UDP:
        what could not be delivered was another message. A connection that is gone takes the answer with it."""
        if self.state is State.CALLING or (self.state is State.PROCEEDING and self.flow.reliable):
            self.failure = failure
            self.terminate()
            self._user(None, now)

    def terminate(self) -> None:
        """End it without a word."""
        if self.state is not State.TERMINATED:
            self.state = State.TERMINATED
            self.timers.stop_all()
            self._on_end(self)

    def _complete(self, response: Response, now: float) -> None:
        self.state = State.COMPLETED
        ack = Request("ACK", self.request.uri)
        for name, value in self.request.headers:
            if name in _COPIED_TO_ACK:
                ack.headers.add(name, value)
        ack.headers.add("To", response.headers.get("To") or "")
        ack.headers.add("CSeq", f"{self.request.cseq.number} ACK")
        self._ack = ack.serialise()
        self._send(self._ack, self.flow)
        if self.flow.reliable:
            self.terminate()
        else:
            self.timers.set("D", now + self._values.give_up)

    def _fire(self, name: str, now: float) -> None:
        if name == "A":
            self._send(self._data, self.flow)
            self._interval *= 2
            self.timers.set("A", now + self._interval)
            return
        self.terminate()
        if name == "B":
            self._user(None, now)


class NonInviteClient:
    """Any other request that we sent, but ACK (RFC 3261 17.1.2)."""

    def __init__(
        self,
        request: Request,
        flow: Flow,
        user: ResponseUser,
        *,
        queue: TimerQueue,
        send: Send,
        values: TimerValues,
        on_end: Callable[["NonInviteClient"], None],
        now: float,
        data: bytes = b"",
    ) -> None:
        self.flow = flow
        self.key: ClientKey = (request.via.branch, request.method)
        self.state = State.TRYING
        self.failure = ""
        """Why the transport could not deliver, "" unless that was the end."""
        self.timers = Timers(queue, self._fire)
        self._user = user
        self._send = send
        self._values = values
        self._on_end = on_end
        self._data = data or request.serialise()
        self._interval = values.t1
        send(self._data, flow)
        if not flow.reliable:
            self.timers.set("E", now + self._interval)
        self.timers.set("F", now + values.give_up)

    def receive(self, response: Response, now: float) -> None:
        if self.state not in (State.TRYING, State.PROCEEDING):
            return
        if response.status < 200:
            self.state = State.PROCEEDING
        else:
            self.state = State.COMPLETED
            self.timers.stop("E", "F")
            if self.flow.reliable:
                self.terminate()
            else:
                self.timers.set("K", now + self._values.t4)
        self._user(response, now)

    def fail(self, failure: str, now: float) -> None:
        """The transport can't deliver (RFC 3261 17.1.4)."""
        if self.state in (State.TRYING, State.PROCEEDING):
            self.failure = failure
            self.terminate()
            self._user(None, now)

    def terminate(self) -> None:
        """End it without a word."""
        if self.state is not State.TERMINATED:
            self.state = State.TERMINATED
            self.timers.stop_all()
            self._on_end(self)

    def _fire(self, name: str, now: float) -> None:
        if name == "E":
            self._send(self._data, self.flow)
            proceeding = self.state is State.PROCEEDING
            self._interval = self._values.t2 if proceeding else min(2 * self._interval, self._values.t2)
            self.timers.set("E", now + self._interval)
            return
        self.terminate()
        if name == "F":
            self._user(None, now)


class InviteServer:
    """An INVITE that came in (RFC 3261 17.2.1, RFC 6026 7.1); says 100 Trying at once, so that the peer rests.

    The retransmission of a 2xx by time is its user's, who calls `settle` at the ACK."""

    def __init__(
        self,
        request: Request,
        flow: Flow,
        key: ServerKey,
        *,
        queue: TimerQueue,
        send: Send,
        values: TimerValues,
        on_end: Callable[["InviteServer"], None],
    ) -> None:
        self.key = key
        self.flow = request.via.reply_flow(flow)
        self.merge_key = merge_key(request)
        self.state = State.PROCEEDING
        self.timers = Timers(queue, self._fire)
        self._send = send
        self._values = values
        self._on_end = on_end
        self._interval = values.t1
        self.local_tag = ""
        """Our tag in its final response, for the answer to a CANCEL."""
        self.on_cancel: Callable[[str, float], None] | None = None
        """Takes the Reason header of a CANCEL, and `now`."""
        self._data: bytes | None = make_response(request, 100).serialise()
        send(self._data, self.flow)

    @property
    def accepted(self) -> bool:
        """Whether it was answered with a 2xx, whose ACK is none of this transaction's."""
        return self.state is State.ACCEPTED

    def respond(self, response: Response, now: float) -> None:
        """Send a response; after a final one there is no other."""
        if self.state is not State.PROCEEDING:
            return
        self._data = response.serialise()
        self._send(self._data, self.flow)
        if response.status < 200:
            return
        if response.status < 300:
            self.state = State.ACCEPTED
            self.timers.set("L", now + self._values.give_up)
            return
        self.state = State.COMPLETED
        if not self.flow.reliable:
            self.timers.set("G", now + self._interval)
        self.timers.set("H", now + self._values.give_up)

    def receive(self, request: Request, now: float) -> None:
        """A retransmission of the INVITE, or the ACK of a final response that was not 2xx."""
        if request.method == "ACK":
            if self.state is State.COMPLETED:
                self.state = State.CONFIRMED
                self._data = None
                self.timers.stop_all()
                if self.flow.reliable:
                    self.terminate()
                else:
                    self.timers.set("I", now + self._values.t4)
        elif self._data is not None and self.state is not State.CONFIRMED:
            # In Accepted, too: a repeated INVITE says that our 2xx was lost, and its timer may be 4 s away.
            self._send(self._data, self.flow)

    def resend(self) -> None:
        """Send the last response once more, unless it was settled."""
        if self._data is not None:
            self._send(self._data, self.flow)

    def settle(self) -> None:
        """The 2xx was acknowledged: repeat it no more."""
        self._data = None

    def terminate(self) -> None:
        """End it without a word."""
        if self.state is not State.TERMINATED:
            self.state = State.TERMINATED
            self._data = None
            self.timers.stop_all()
            self._on_end(self)

    def _fire(self, name: str, now: float) -> None:
        if name == "G":
            self.resend()
            self._interval = min(2 * self._interval, self._values.t2)
            self.timers.set("G", now + self._interval)
        else:
            self.terminate()


class NonInviteServer:
    """Any other request that came in, but ACK (RFC 3261 17.2.2)."""

    def __init__(
        self,
        request: Request,
        flow: Flow,
        key: ServerKey,
        *,
        queue: TimerQueue,
        send: Send,
        values: TimerValues,
        on_end: Callable[["NonInviteServer"], None],
    ) -> None:
        self.key = key
        self.flow = request.via.reply_flow(flow)
        self.merge_key = merge_key(request)
        self.state = State.TRYING
        self.timers = Timers(queue, self._fire)
        self._send = send
        self._values = values
        self._on_end = on_end
        self._data: bytes | None = None

    def respond(self, response: Response, now: float) -> None:
        """Send a response; after a final one there is no other."""
        if self.state in (State.COMPLETED, State.TERMINATED):
            return
        self._data = response.serialise()
        self._send(self._data, self.flow)
        if response.status < 200:
            self.state = State.PROCEEDING
            return
        self.state = State.COMPLETED
        if self.flow.reliable:
            self.terminate()
        else:
            self.timers.set("J", now + self._values.give_up)

    def receive(self, request: Request, now: float) -> None:
        """A retransmission: it gets what was last answered, nothing before there is an answer."""
        if self._data is not None:
            self._send(self._data, self.flow)

    def terminate(self) -> None:
        """End it without a word."""
        if self.state is not State.TERMINATED:
            self.state = State.TERMINATED
            self.timers.stop_all()
            self._on_end(self)

    def _fire(self, name: str, now: float) -> None:
        self.terminate()


ClientTransaction = InviteClient | NonInviteClient
ServerTransaction = InviteServer | NonInviteServer


def server_key(request: Request, method: str | None = None) -> ServerKey:
    """The name of the server transaction that `request` belongs to (RFC 3261 17.2.3); an ACK's is its INVITE's.

    `method` stands in for the request's own: a CANCEL looks for its INVITE. Call-ID and CSeq number, which all
    messages of a transaction share, keep those apart whose sender always writes the same branch."""
    method = method or request.method
    if method == "ACK":
        method = "INVITE"
    via = request.via
    if via.branch.startswith(BRANCH_COOKIE):
        return (via.branch, via.sent_by, method, request.call_id, str(request.cseq.number))
    # An element of RFC 2543 makes no unique branch: there the request as a whole is the name. The tag of To
    # stays out of it, since the ACK has one and the INVITE has none.
    tag = request.from_.tag or ""
    return (str(via), request.uri, tag, request.call_id, str(request.cseq.number), method)


def merge_key(request: Request) -> tuple[str, str, int, str]:
    """What two copies of one request have in common when they came by two ways (RFC 3261 8.2.2.2)."""
    return (request.call_id, request.from_.tag or "", request.cseq.number, request.method)


def ignore_response(response: Response | None, now: float) -> None:
    """For a request whose answer changes nothing, such as a CANCEL: the INVITE's own final response counts."""
