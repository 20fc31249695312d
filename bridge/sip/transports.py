"""A user agent on its sockets, UDP, TCP and TLS: moves messages, re-arms one timer, hands out events. No protocol
in here but where a message goes when the connection that it belongs to is gone (RFC 3261 18)."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import replace
from typing import Any

import structlog

from bridge.sip.agent import UserAgent
from bridge.sip.connections import Connections
from bridge.sip.errors import LocateError, SipError, SipSyntaxError
from bridge.sip.events import Answered, Event, InviteReceived
from bridge.sip.flow import Address, Flow, Transport
from bridge.sip.message import Request, Response, parse_message
from bridge.sip.resolver import Resolver, Target
from bridge.sip.sockets import Sockets, family_of
from bridge.sip.stream import PING
from bridge.sip.tcp import Connection
from bridge.sip.tls import TlsContexts
from bridge.sip.transport_settings import TransportSettings
from bridge.sip.udp import local_address_towards
from bridge.sip.uri import NameAddr, Uri
from bridge.sip.via import DEFAULT_PORT, DEFAULT_TLS_PORT

log = structlog.get_logger(__name__)

EventHandler = Callable[[Event], None]
"""Takes each event, synchronously. It may call the agent's verbs; what they send goes out when it returns."""

Tap = Callable[[bool, bytes, Flow, float], None]
"""Sees every message: whether it was received, its bytes, its flow, and when."""

_FORGET_ROUTES_S = 60.0
_SUSPECTED_S = 32.0
_MAX_REMEMBERED = 4096


class Transports:
    """Made by `open_transports`. After calling a verb of the agent's from outside an event handler, call `flush`."""

    def __init__(self, agent: UserAgent, handler: EventHandler, settings: TransportSettings) -> None:
        self.agent = agent
        self.settings = settings
        self.tap: Tap | None = None
        self.on_connection_lost: Callable[[Flow, str], None] | None = None
        """Told of every connection that ended, and why ("": it was closed): a registration over it is void."""
        self.accepts: Callable[[str], bool] = _everybody
        """Asked for every connection that comes in, by the peer's IP address: a banned one is not even greeted."""
        self._handler = handler
        self._loop = asyncio.get_running_loop()
        self._tls = TlsContexts(settings.tls)
        self._sockets = Sockets(settings, self, tls=self._tls.server is not None)
        self._connections = Connections(
            self,
            settings.limits,
            self._tls,
            max_bytes=agent.config.max_message_bytes,
            counters=agent.counters,
            accepts=self._is_welcome,
        )
        families = {family_of(host) for host in settings.hosts}
        switched_on: dict[Transport, bool] = {"udp": settings.udp, "tcp": settings.tcp, "tls": True}
        self.resolver = Resolver(
            settings.resolver,
            transports=tuple(transport for transport, on in switched_on.items() if on),
            families=sorted(families, reverse=True),
            clock=self._loop.time,
        )
        self._located: dict[Address, None] = {}
        """Peers that a URI led to over UDP without asking for it: they may be spoken to over TCP."""
        self._no_stream: dict[Address, float] = {}
        """Peers that refused TCP, and until when it isn't tried again."""
        self._unreachable: dict[Address, float] = {}
        """Peers that ICMP says are not there, and since when."""
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at: float | None = None
        self._routes: asyncio.TimerHandle | None = None
        self._flushing = False
        self._closing = False
        self._tasks: set[asyncio.Task[None]] = set()
        self.closed: asyncio.Future[None] = self._loop.create_future()
        """Done once all sockets are gone."""

    # -- for the owner --------------------------------------------------------------------------------------

    @property
    def address(self) -> Address:
        """The first address that is listened on."""
        kinds: tuple[Transport, ...] = ("udp", "tcp", "tls")
        return next(address for kind in kinds for address in self._sockets.addresses(kind))

    def addresses(self, transport: Transport) -> tuple[Address, ...]:
        """Where a transport is listened on."""
        return tuple(self._sockets.addresses(transport))

    @property
    def connection_count(self) -> int:
        return len(self._connections)

    def flow_to(self, remote: Address, transport: Transport = "udp", name: str = "") -> Flow:
        """The flow to a peer at an IP address and port; for TLS `name` is the domain that its certificate must be
        of, else the address is. Nothing is sent yet. Raises OSError where there is no way to it."""
        return Flow(transport, remote, self._sockets.local(transport, remote[0]), name)

    def now(self) -> float:
        """The agent's clock (seconds, monotonic)."""
        return self._loop.time()

    async def locate(self, uri: Uri | str, *, transport: str = "") -> tuple[Flow, ...]:
        """The flows to a URI, in the order to try them (RFC 3263); never empty. Raises LocateError."""
        try:
            uri = Uri.parse(uri) if isinstance(uri, str) else uri
        except SipSyntaxError as error:
            raise LocateError(str(error)) from error
        targets = await self.resolver.locate(uri, transport)
        flows = []
        failure: OSError | None = None
        for target in targets:
            try:
                flows.append(self._flow_of(target))
            except OSError as error:
                failure = error
                continue
            if target.transport == "udp" and not transport and not uri.param("transport"):
                _remember(self._located, target.address, None)
        if not flows:
            raise LocateError(f"{uri.host}: there is no way to {targets[0].address[0]}: {failure}")
        return tuple(flows)

    def find(self, host: str, port: int | None) -> Address | None:
        """For `UserAgentConfig.resolve`: names within dialogs, from what was looked up before."""
        return None if self._closing else self.resolver.find(host, port)

    def stream_flow(self, flow: Flow) -> Flow | None:
        """For `UserAgentConfig.stream_flow`: TCP to a peer that `locate` found, unless it refused it of late."""
        if not self.settings.tcp or flow.remote not in self._located:
            return None
        if self._no_stream.get(flow.remote, 0.0) > self.now():
            return None
        try:
            return self.flow_to(flow.remote, "tcp")
        except OSError:
            return None

    def flush(self) -> None:
        """Send what the agent has to send, tell what it has to tell, until there is neither."""
        if self._flushing:
            return
        self._flushing = True
        try:
            while True:
                messages = self.agent.outgoing()
                for data, flow in messages:
                    self._send(data, flow)
                events = self.agent.events()
                for event in events:
                    self._tell(event)
                if not messages and not events:
                    break
        finally:
            self._flushing = False
        self._arm()

    def send_keepalive(self, flow: Flow) -> bool:
        """Keep NATs and the peer's connection open (RFC 5626 3.5.1, 4.4.1). False: the connection is gone."""
        if self._closing:
            return False
        if flow.transport == "udp":
            self._send_datagram(PING, flow)
            return True
        connection = self._connections.find(flow)
        if connection is not None:
            connection.ping()
        return connection is not None

    def peer_names(self, flow: Flow) -> frozenset[str]:
        """Whom the certificate that the peer showed on a TLS connection speaks for: domains, host names, addresses,
        in lower case; empty for other flows, and where none was asked for."""
        connection = self._connections.find(flow)
        return frozenset() if connection is None else connection.peer_names

    def disconnect(self, address: str) -> None:
        """Cut off the connections that came from an IP address."""
        self._connections.disconnect(address)

    def reload_certificates(self) -> None:
        """Read certificates and authorities again, for connections from now on. Raises TlsError; then all stays."""
        self._tls.reload()

    def close(self) -> None:
        """Close all sockets, whatever is still to come; `closed` says when they are gone."""
        if not self._closing:
            self._closing = True
            self._start(self._shut())

    # -- DatagramUser, StreamUser ---------------------------------------------------------------------------

    def datagram_received(self, data: bytes, remote: Address, local: Address) -> None:
        try:
            flow = Flow("udp", remote, self._sockets.shown(local, remote[0]))
        except OSError:
            self.agent.counters["dropped: no way back"] += 1
            return
        self._unreachable.pop(remote, None)
        self._received(data, flow)

    def unreachable(self, remote: Address, local: Address, why: str) -> None:
        now = self.now()
        first = self._unreachable.get(remote)
        if first is None or now - first > _SUSPECTED_S:
            _remember(self._unreachable, remote, now)
        elif now - first >= self.settings.unreachable_s:
            del self._unreachable[remote]
            self.agent.counters["peers unreachable"] += 1
            # Without a route there is no telling by which name it was used.
            with suppress(OSError):
                self._failed(Flow("udp", remote, self._sockets.shown(local, remote[0])), why)

    def stream_received(self, data: bytes, flow: Flow) -> None:
        self._received(data, flow)

    def stream_lost(self, connection: Connection) -> None:
        flow, failure = connection.flow, connection.failure
        if self._closing:
            return
        if failure and not connection.was_open and flow.transport == "tcp":
            _remember(self._no_stream, flow.remote, self.now() + self.settings.no_stream_s)
        if connection.inbound and not connection.proven:
            # Nothing of ours was ever sent there.
            return
        for user in connection.users:
            if failure:
                self._failed(user, failure)
            else:
                self._loop.call_later(self.settings.close_grace_s, self._closed_by_peer, user)
        if self.on_connection_lost is not None:
            self.on_connection_lost(flow, failure)

    # -- inside ---------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Bind everything. Raises OSError."""
        for sock, transport in self._sockets.open():
            self._connections.listen(sock, transport)
        self._forget_routes()

    async def _shut(self) -> None:
        for handle in (self._timer, self._routes):
            if handle is not None:
                handle.cancel()
        self._timer = self._routes = None
        self._sockets.close()
        for task in self._tasks - {asyncio.current_task()}:
            task.cancel()
        await self.resolver.aclose()
        await self._connections.aclose()
        if not self.closed.done():
            self.closed.set_result(None)

    def _forget_routes(self) -> None:
        """Addresses of this machine may change."""
        local_address_towards.cache_clear()
        self._routes = self._loop.call_later(_FORGET_ROUTES_S, self._forget_routes)

    def _flow_of(self, target: Target) -> Flow:
        return self.flow_to(target.address, target.transport, target.domain if target.transport == "tls" else "")

    def _received(self, data: bytes, flow: Flow) -> None:
        if self._closing:
            return
        now = self._loop.time()
        if self.tap is not None and len(data) > len(PING):
            self.tap(True, data, flow, now)
        self.agent.receive(data, flow, now)
        self.flush()

    def _send(self, data: bytes, flow: Flow) -> None:
        if self._closing:
            return
        if self.tap is not None:
            self.tap(False, data, flow, self._loop.time())
        if flow.transport == "udp":
            self._send_datagram(data, flow)
        elif self._connections.is_gone(flow) and self._connections.find(flow) is None:
            self._send_anew(data, flow)
        else:
            self._send_on(flow, data, flow)

    def _send_datagram(self, data: bytes, flow: Flow) -> None:
        try:
            sent = self._sockets.send(data, flow)
        except OSError as error:
            self._failed(flow, str(error))
        else:
            self.agent.counters["dropped: no room to send"] += not sent

    def _send_on(self, way: Flow, data: bytes, flow: Flow) -> None:
        """Send over the connection of `way` what belongs to `flow`."""
        connection = self._connections.open(way)
        connection.users.add(flow)
        connection.send(data)

    def _send_anew(self, data: bytes, flow: Flow) -> None:
        """The connection that the peer opened is gone: go where it said that it listens, a response to its Via
        (RFC 3261 18.2.2), a request to the next hop."""
        default = DEFAULT_TLS_PORT if flow.transport == "tls" else DEFAULT_PORT
        names = sorted(self._connections.names_of_gone(flow))
        try:
            message = parse_message(data)
            if isinstance(message, Response):
                remote = (flow.remote[0], message.via.port or default)
                self._send_on(replace(flow, remote=remote, name=names[0] if names else ""), data, flow)
                return
            uri = next_hop(message)
        except SipError as error:
            self._failed(flow, str(error))
            return
        self._start(self._send_to(replace(uri, scheme="sip"), data, flow, names))

    async def _send_to(self, uri: Uri, data: bytes, flow: Flow, names: list[str]) -> None:
        try:
            target, *_ = await self.resolver.locate(uri, flow.transport)
        except LocateError as error:
            self._failed(flow, str(error))
            return
        name = (names[0] if names else target.domain) if flow.transport == "tls" else ""
        self._send_on(replace(flow, remote=target.address, name=name), data, flow)

    def _is_welcome(self, address: str) -> bool:
        return self.accepts(address)

    def _failed(self, flow: Flow, why: str) -> None:
        self.agent.transport_failed(flow, self._loop.time(), why)
        self.flush()

    def _closed_by_peer(self, flow: Flow) -> None:
        if not self._closing and self._connections.find(flow) is None:
            self._failed(flow, "the peer closed the connection")

    def _tell(self, event: Event) -> None:
        if isinstance(event, InviteReceived):
            self._warm(event.request)
        elif isinstance(event, Answered):
            self._warm(event.response)
        try:
            self._handler(event)
        except Exception as error:  # noqa: BLE001  # the outermost edge: one call's failure must not reach the next
            self._loop.call_exception_handler(
                {"message": f"SIP event handler failed on {type(event).__name__} of {event.key}", "exception": error}
            )

    def _warm(self, message: Request | Response) -> None:
        """Look up the names that requests within the new call may have to go to."""
        for name in ("Contact", "Record-Route"):
            with suppress(SipSyntaxError):
                for value in message.headers.items_of(name)[:4]:
                    uri = NameAddr.parse(value).uri
                    if uri.is_sip:
                        self.resolver.warm(uri.param("maddr") or uri.host_address, uri.port)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _arm(self) -> None:
        at = self.agent.timer()
        if at == self._timer_at and self._timer is not None:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._timer_at = at
        if at is not None and not self._closing:
            self._timer = self._loop.call_at(at, self._due)

    def _due(self) -> None:
        self._timer = None
        self.agent.handle_timer(self._loop.time())
        self.flush()


async def open_transports(agent: UserAgent, handler: EventHandler, settings: TransportSettings) -> Transports:
    """Bind all sockets and drive `agent` on them. Raises OSError where a port is taken, TlsError for certificates
    that can't be used."""
    transports = Transports(agent, handler, settings)
    transports.open()
    return transports


def next_hop(request: Request) -> Uri:
    """Where a request goes next: the first Route, else the Request-URI (RFC 3261 8.1.2). Raises SipSyntaxError."""
    routes = request.headers.items_of("Route")
    return NameAddr.parse(routes[0]).uri if routes else request.target


def _everybody(address: str) -> bool:
    return True


def _remember(memory: dict[Address, Any], address: Address, value: Any) -> None:
    """Note it, and forget the oldest where there are too many."""
    while len(memory) >= _MAX_REMEMBERED:
        del memory[next(iter(memory))]
    memory[address] = value
