"""The transaction layer: makes transactions, finds the one a message belongs to, and collects what is to be sent."""

import hashlib
import secrets
from collections import Counter

from bridge.sip.errors import SipSyntaxError
from bridge.sip.flow import Address, Flow
from bridge.sip.grammar import split_list
from bridge.sip.message import Request, Response, make_response
from bridge.sip.settings import UserAgentConfig
from bridge.sip.timers import TimerQueue
from bridge.sip.transaction import (
    ClientKey,
    ClientTransaction,
    InviteClient,
    InviteServer,
    NonInviteClient,
    NonInviteServer,
    ResponseUser,
    ServerKey,
    ServerTransaction,
    merge_key,
    server_key,
)
from bridge.sip.uri import format_host
from bridge.sip.via import BRANCH_COOKIE


class TransactionLayer:
    """All transactions of one user agent, with its outbox, timers and counters."""

    def __init__(self, config: UserAgentConfig) -> None:
        self.config = config
        self.queue = TimerQueue()
        self.outbox: list[tuple[bytes, Flow]] = []
        self.counters: Counter[str] = Counter()
        self.clients: dict[ClientKey, ClientTransaction] = {}
        self.servers: dict[ServerKey, ServerTransaction] = {}
        self._merged: dict[tuple[str, str, int, str], ServerKey] = {}
        self._secret = secrets.token_bytes(16)

    def __len__(self) -> int:
        return len(self.clients) + len(self.servers)

    def send(self, data: bytes, flow: Flow) -> None:
        self.counters["sent"] += 1
        self.outbox.append((data, flow))

    # -- as a client ----------------------------------------------------------------------------------------

    def advertised(self, flow: Flow) -> Address:
        """Our address as the peer of `flow` should see it."""
        return self.config.advertised(flow) if self.config.advertised else flow.local

    def contact(self, flow: Flow, *, secure: bool = False) -> str:
        """Our Contact value for the peer of `flow`; `secure` in a call to a sips URI (RFC 3261 8.1.1.8)."""
        host, port = self.advertised(flow)
        user = f"{self.config.contact_user}@" if self.config.contact_user else ""
        if secure:
            return f"<sips:{user}{format_host(host)}:{port}>"
        transport = "" if flow.transport == "udp" else f";transport={flow.transport}"
        return f"<sip:{user}{format_host(host)}:{port}{transport}>"

    @property
    def capabilities(self) -> list[tuple[str, str]]:
        """Allow, and Supported where there is something to say: an empty field, though legal, upsets some peers."""
        allow = ("Allow", ", ".join(self.config.allow))
        return [allow, ("Supported", ", ".join(self.config.supported))] if self.config.supported else [allow]

    def capabilities_of_invite(self, *, offers: bool) -> list[tuple[str, str]]:
        """`capabilities` for an INVITE, with an offer or without. Without, a reliable response would bring one that
        its PRACK would have to answer: so there are to be none (RFC 3262 5)."""
        if offers:
            return self.capabilities
        supported = ", ".join(tag for tag in self.config.supported if tag != "100rel")
        return [self.capabilities[0], ("Supported", supported)] if supported else self.capabilities[:1]

    def add_via(self, request: Request, flow: Flow, branch: str = "") -> None:
        """Put our hop on top; a new branch unless one is given (a CANCEL bears its INVITE's)."""
        host, port = self.advertised(flow)
        branch = branch or BRANCH_COOKIE + secrets.token_hex(10)
        via = f"SIP/2.0/{flow.transport.upper()} {format_host(host)}:{port};rport;branch={branch}"
        if flow.reliable:
            # The peer's requests to this address may come on the same connection (RFC 5923 5).
            via += ";alias"
        request.headers.prepend("Via", via)

    def invite(self, request: Request, flow: Flow, user: ResponseUser, now: float, data: bytes = b"") -> InviteClient:
        """Send an INVITE that has its Via. `data`: it, serialised, where it is at hand."""
        transaction = InviteClient(
            request,
            flow,
            user,
            queue=self.queue,
            send=self.send,
            values=self.config.timers,
            on_end=self._client_ended,
            now=now,
            data=data,
        )
        self.clients[transaction.key] = transaction
        return transaction

    def request(
        self, request: Request, flow: Flow, user: ResponseUser, now: float, data: bytes = b""
    ) -> NonInviteClient:
        """Send any other request that has its Via, but ACK. `data`: it, serialised, where it is at hand."""
        transaction = NonInviteClient(
            request,
            flow,
            user,
            queue=self.queue,
            send=self.send,
            values=self.config.timers,
            on_end=self._client_ended,
            now=now,
            data=data,
        )
        self.clients[transaction.key] = transaction
        return transaction

    def receive_response(self, response: Response, now: float) -> None:
        """Hand a checked response to its transaction; a stray one is counted and dropped."""
        try:
            vias = response.headers.items_of("Via")
            key = (response.via.branch, response.cseq.method)
        except SipSyntaxError:
            self.counters["dropped: malformed response"] += 1
            return
        # A second Via means that we were taken for a proxy (RFC 3261 8.1.3.3).
        transaction = self.clients.get(key) if len(vias) == 1 else None
        if transaction is None:
            self.counters["dropped: stray response"] += 1
            return
        transaction.receive(response, now)

    def transport_failed(self, flow: Flow, now: float, detail: str) -> None:
        """End the wait of each transaction on a flow that could not deliver."""
        self.counters["transport failures"] += 1
        for transaction in [t for t in self.clients.values() if t.flow == flow]:
            transaction.fail(detail or "the transport failed", now)

    # -- as a server ----------------------------------------------------------------------------------------

    def stamp(self, request: Request, flow: Flow) -> None:
        """Note in the topmost Via where the request really came from. Raises SipSyntaxError."""
        via = request.via.stamped(flow)
        others = split_list(request.headers.get_all("Via")[0])[1:]
        request.headers.replace_first("Via", ", ".join([str(via), *others]))

    def serve_invite(self, request: Request, flow: Flow) -> InviteServer:
        transaction = InviteServer(
            request,
            flow,
            server_key(request),
            queue=self.queue,
            send=self.send,
            values=self.config.timers,
            on_end=self._server_ended,
        )
        self._register(transaction)
        return transaction

    def serve(self, request: Request, flow: Flow) -> NonInviteServer:
        transaction = NonInviteServer(
            request,
            flow,
            server_key(request),
            queue=self.queue,
            send=self.send,
            values=self.config.timers,
            on_end=self._server_ended,
        )
        self._register(transaction)
        return transaction

    def is_merged(self, request: Request) -> bool:
        """Whether a copy of this request that came another way is being served (RFC 3261 8.2.2.2)."""
        return merge_key(request) in self._merged

    def reply(self, request: Request, flow: Flow, response: Response) -> None:
        """Answer a stamped request without a transaction (RFC 3261 8.2.7): the answer to a retransmission is
        worked out again, and is the same."""
        self.send(response.serialise(), request.via.reply_flow(flow))

    def refuse(
        self, request: Request, flow: Flow, status: int, reason: str = "", headers: tuple[tuple[str, str], ...] = ()
    ) -> None:
        """`reply` with a final status and these headers."""
        response = make_response(request, status, reason, to_tag=self.stateless_tag(request))
        if self.config.user_agent:
            response.headers.add("Server", self.config.user_agent)
        response.headers.extend(headers)
        self.counters[f"refused: {status}"] += 1
        self.reply(request, flow, response)

    def stateless_tag(self, request: Request) -> str:
        """A To tag that is the same for each copy of a request, and for the ACK of its refusal."""
        branch = request.via.branch or str(request.cseq.number)
        seed = f"{branch}\n{request.headers.get('Call-ID')}".encode("utf-8", "replace")
        return hashlib.blake2s(seed, key=self._secret, digest_size=8).hexdigest()

    def _register(self, transaction: ServerTransaction) -> None:
        self.servers[transaction.key] = transaction
        self._merged[transaction.merge_key] = transaction.key

    def _client_ended(self, transaction: ClientTransaction) -> None:
        self.clients.pop(transaction.key, None)

    def _server_ended(self, transaction: ServerTransaction) -> None:
        self.servers.pop(transaction.key, None)
        if self._merged.get(transaction.merge_key) == transaction.key:
            del self._merged[transaction.merge_key]
