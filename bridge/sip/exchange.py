"""One request of ours through all its sendings: over TCP when large, with credentials when challenged, to the next
server when one fails (RFC 3261 8.1.3.5, 18.1.1, 22; RFC 3263 4.3)."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from bridge.sip.digest import DigestClient
from bridge.sip.flow import Flow
from bridge.sip.layer import TransactionLayer
from bridge.sip.message import Headers, Request, Response
from bridge.sip.transaction import ClientTransaction, ResponseUser

AUTHORIZATION = ("Authorization", "Proxy-Authorization")

_MAX_CHALLENGES = 6
"""Challenges answered for one sending's sake: a proxy and a server, each with a nonce that runs out, make four."""


class Exchange:
    """Repeats the request as a new transaction, with a new CSeq number, as long as there is something to be tried.
    Its user gets every provisional response, and the one final that is left (None: there was none, see `failure`)."""

    def __init__(
        self,
        layer: TransactionLayer,
        request: Request,
        flow: Flow,
        user: ResponseUser,
        now: float,
        *,
        digest: DigestClient | None = None,
        alternatives: Iterable[Flow] = (),
        renumber: Callable[[], int] | None = None,
        on_repeat: Callable[[float], None] | None = None,
    ) -> None:
        """Send `request`, which has no Via yet. `renumber` gives the CSeq number of a repetition, by default the
        next; `on_repeat` is called before each."""
        self.request = request
        """As last sent."""
        self.flow = flow
        """Where it was last sent: a stream in place of UDP for a large one."""
        self.failure = ""
        """Why the transport could not deliver it, "" unless that was its end."""
        self._layer = layer
        self._user = user
        self._digest = digest
        self._alternatives = list(alternatives)
        self._renumber = renumber
        self._on_repeat = on_repeat
        self._path = flow
        """The flow that was asked for."""
        self._challenges = 0
        self._proceeding = False
        self._stopped = False
        self._no_stream = False
        if digest is not None:
            request.headers.extend(digest.preempt(request))
        self._transaction = self._send(request, flow, now)

    @property
    def path(self) -> Flow:
        """The flow in use, before a large request left it for a stream."""
        return self._path

    def stop(self) -> None:
        """Repeat it no more: the next final response is handed over, whatever it is."""
        self._stopped = True

    def terminate(self) -> None:
        """Wait for nothing any more."""
        self._transaction.terminate()

    def repeat(self, now: float, fields: Mapping[str, str]) -> None:
        """Send it again after a final response, with these fields in place of those of the same name (422)."""
        self._again(self._path, now, fields=fields)

    def retarget(self, uri: str, flow: Flow, alternatives: Iterable[Flow], now: float) -> None:
        """Send it somewhere else after a final response (3xx)."""
        self._alternatives = list(alternatives)
        self._challenges = 0
        self._no_stream = False
        self._again(flow, now, uri=uri)

    # -- inside ---------------------------------------------------------------------------------------------

    def _send(self, request: Request, flow: Flow, now: float) -> ClientTransaction:
        layer = self._layer
        self._path, self._proceeding = flow, False
        layer.add_via(request, flow)
        data = request.serialise()
        if not flow.reliable and not self._no_stream and len(data) > layer.config.max_udp_bytes:
            stream = layer.config.stream_flow(flow) if layer.config.stream_flow is not None else None
            if stream is not None:
                flow = stream
                request.headers = Headers(field for field in request.headers if field[0] != "Via")
                layer.add_via(request, flow)
                data = request.serialise()
        self.request, self.flow = request, flow
        send = layer.invite if request.method == "INVITE" else layer.request
        return send(request, flow, self._receive, now, data)

    def _receive(self, response: Response | None, now: float) -> None:
        if response is None:
            if self._after_failure(now):
                return
        elif response.status < 200:
            self._proceeding = True
        elif response.status >= 300 and not self._stopped and self._after_refusal(response, now):
            return
        self._user(response, now)

    def _after_failure(self, now: float) -> bool:
        """Whether a request that nobody answered was sent again."""
        self.failure = self._transaction.failure
        if self._stopped or self._proceeding:
            return False
        if self.failure and self.flow != self._path:
            # Not every peer listens on TCP (RFC 3261 18.1.1).
            self._layer.counters["streams refused"] += 1
            self._no_stream = True
            self._again(self._path, now)
            return True
        return self._fail_over(now)

    def _after_refusal(self, response: Response, now: float) -> bool:
        """Whether a refused request was sent again."""
        if response.status == 503:
            return self._fail_over(now)
        if response.status not in (401, 407) or self._digest is None or self._challenges >= _MAX_CHALLENGES:
            return False
        fields = self._digest.answer(response, self.request)
        if fields is None:
            return False
        self._challenges += 1
        self._again(self._path, now, authorization=fields)
        return True

    def _fail_over(self, now: float) -> bool:
        if not self._alternatives:
            return False
        self._layer.counters["failed over"] += 1
        self._challenges = 0
        self._no_stream = False
        self._again(self._alternatives.pop(0), now)
        return True

    def _again(
        self,
        flow: Flow,
        now: float,
        *,
        uri: str = "",
        fields: Mapping[str, str] | None = None,
        authorization: list[tuple[str, str]] | None = None,
    ) -> None:
        if self._on_repeat is not None:
            self._on_repeat(now)
        self.failure = ""
        old = self.request
        number = old.cseq.number + 1 if self._renumber is None else self._renumber()
        changed = {name.lower(): (name, value) for name, value in (fields or {}).items()}
        changed["cseq"] = ("CSeq", f"{number} {old.method}")
        secure = old.uri.startswith("sips:")
        ours = self._layer.contact(self._path, secure=secure)
        headers = Headers()
        for name, value in old.headers:
            if name == "Via" or (name in AUTHORIZATION and self._digest is not None):
                continue
            if name == "Contact" and flow != self._path and value.startswith(ours):
                headers.add(name, self._layer.contact(flow, secure=secure) + value[len(ours) :])
            else:
                headers.add(*changed.pop(name.lower(), (name, value)))
        headers.extend(changed.values())
        request = replace(old, uri=uri or old.uri, headers=headers)
        if authorization is None and self._digest is not None:
            authorization = self._digest.preempt(request)
        headers.extend(authorization or ())
        self._transaction = self._send(request, flow, now)
