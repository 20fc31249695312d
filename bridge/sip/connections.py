"""All TCP and TLS connections: listeners, those that came in, those that we opened, and which one a message takes."""

import asyncio
import errno
import socket
import struct
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from typing import Any, Protocol

import structlog

from bridge.sip.errors import SipError
from bridge.sip.flow import Address, Flow, Transport
from bridge.sip.message import parse_message
from bridge.sip.tcp import Connection, StreamLimits, set_options
from bridge.sip.tls import TlsContexts
from bridge.sip.via import DEFAULT_PORT, DEFAULT_TLS_PORT

log = structlog.get_logger(__name__)

SWEEP_S = 1.0
"""How often connections are looked through for those whose time is up."""

_ACCEPTED_AT_ONCE = 16
"""Then others have their turn: the media clock runs on the same loop."""

_MAX_GONE = 4096
_SHUTDOWN_S = 1.0
_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER's value that has `close` send RST: nothing of a refused connection stays, not even TIME_WAIT."""


class StreamUser(Protocol):
    """Who is told what happens on connections."""

    def stream_received(self, data: bytes, flow: Flow) -> None: ...

    def stream_lost(self, connection: Connection) -> None: ...


class Connections:
    """Times are the event loop's."""

    def __init__(
        self,
        user: StreamUser,
        limits: StreamLimits,
        tls: TlsContexts,
        *,
        max_bytes: int,
        counters: Counter[str],
        accepts: Callable[[str], bool],
    ) -> None:
        self._user = user
        self._limits = limits
        self._tls = tls
        self._max_bytes = max_bytes
        self._counters = counters
        self._accepts = accepts
        self._loop = asyncio.get_running_loop()
        self._listeners: dict[socket.socket, Transport] = {}
        self._table: dict[Flow, Connection] = {}
        self._aliases: dict[tuple[Transport, Address], Connection] = {}
        self._inbound: Counter[str] = Counter()
        """Connections that came in, by the peer's address."""
        self._newcomers: dict[Connection, None] = {}
        """Those that came in, the oldest first; it may hold some that are none any more."""
        self._gone: dict[Flow, frozenset[str]] = {}
        """Connections that came in and are no more, with their peers' names: nobody listens at their far end."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._empty = asyncio.Event()
        """There is no connection."""
        self._empty.set()
        self._sweep: asyncio.TimerHandle | None = None
        self._closed = False

    def __len__(self) -> int:
        return len(self._table)

    def __iter__(self) -> Iterator[Connection]:
        return iter(tuple(self._table.values()))

    # -- connections that come in ---------------------------------------------------------------------------

    def listen(self, sock: socket.socket, transport: Transport) -> None:
        """Take connections on a listening socket, which is ours from now on."""
        self._listeners[sock] = transport
        self._loop.add_reader(sock, self._acceptable, sock, transport)

    def _acceptable(self, listener: socket.socket, transport: Transport) -> None:
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                sock, remote = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    raise
                # The listener stays readable: without a pause the loop would spin until descriptors are free.
                log.warning("connections can't be taken for a second", transport=transport, error=str(error))
                self._loop.remove_reader(listener)
                self._loop.call_later(1.0, self._listen_again, listener, transport)
                return
            self._accepted(sock, (str(remote[0]), int(remote[1])), listener, transport)

    def _listen_again(self, listener: socket.socket, transport: Transport) -> None:
        if listener in self._listeners:
            self._loop.add_reader(listener, self._acceptable, listener, transport)

    def _accepted(self, sock: socket.socket, remote: Address, listener: socket.socket, transport: Transport) -> None:
        try:
            sock.setblocking(False)
            set_options(sock, self._limits)
            local = (str(sock.getsockname()[0]), int(listener.getsockname()[1]))
        except OSError:
            # It was gone again.
            sock.close()
            return
        if self._closed or not self._accepts(remote[0]) or not self._room(remote[0]):
            self._counters["connections refused"] += 1
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            sock.close()
            return
        self._counters["connections taken"] += 1
        self._inbound[remote[0]] += 1
        connection = self._add(Flow(transport, remote, local), inbound=True)
        self._newcomers[connection] = None
        self._start(connection, self._adopt(connection, sock))

    async def _adopt(self, connection: Connection, sock: socket.socket) -> None:
        tls = self._tls.server if connection.flow.transport == "tls" else None
        limits = self._limits
        timeouts = {"ssl_handshake_timeout": limits.handshake_s, "ssl_shutdown_timeout": _SHUTDOWN_S} if tls else {}
        try:
            await self._loop.connect_accepted_socket(lambda: connection, sock, ssl=tls, **timeouts)
        except OSError as error:
            self._counters["TLS handshakes failed"] += 1
            connection.fail(str(error) or type(error).__name__)

    def _room(self, address: str) -> bool:
        """Whether one more connection of `address` may be taken; a silent one may have to go for it."""
        limits = self._limits
        most = min(limits.max_newcomers, limits.max_connections)
        if len(self._newcomers) >= most:
            self._newcomers = dict.fromkeys(c for c in self._newcomers if not c.proven and not c.closing)
        crowded = len(self._newcomers) >= most or self._inbound.total() >= limits.max_connections
        for full, whose in ((self._inbound[address] >= limits.max_per_address, address), (crowded, None)):
            if not full:
                continue
            silent = next(
                (c for c in self._newcomers if not c.proven and not c.closing and whose in (None, c.flow.remote[0])),
                None,
            )
            if silent is None:
                return False
            silent.fail("room was needed")
            # Its socket goes a little later, its place is free now.
            silent.end()
        return True

    def disconnect(self, address: str) -> None:
        """Cut off all that came in from an IP address."""
        for connection in self:
            if connection.inbound and connection.flow.remote[0] == address:
                connection.fail("the address is banned")

    # -- connections that we open ---------------------------------------------------------------------------

    def find(self, flow: Flow) -> Connection | None:
        """The connection that a message on `flow` takes, if there is one."""
        connection = self._table.get(flow)
        if connection is None:
            alias = self._aliases.get((flow.transport, flow.remote))
            # TLS: only where the peer has shown that it is the domain that we want to reach (RFC 5923 9).
            if alias is not None and (flow.transport == "tcp" or flow.name in alias.peer_names):
                connection = alias
        return None if connection is None or connection.closing else connection

    def is_gone(self, flow: Flow) -> bool:
        """Whether `flow` was a connection that came in and is no more: it can't be opened from here."""
        return flow in self._gone

    def names_of_gone(self, flow: Flow) -> frozenset[str]:
        return self._gone.get(flow, frozenset())

    def open(self, flow: Flow) -> Connection:
        """The connection of `flow`, opened if there is none; what is sent before it stands waits."""
        connection = self.find(flow)
        if connection is None:
            connection = self._add(flow, inbound=False)
            self._start(connection, self._connect(connection))
        return connection

    async def _connect(self, connection: Connection) -> None:
        flow, limits = connection.flow, self._limits
        try:
            async with asyncio.timeout(limits.connect_s):
                sock = await self._connected_socket(flow)
                if flow.transport == "tls":
                    await self._loop.create_connection(
                        lambda: connection,
                        sock=sock,
                        ssl=self._tls.client,
                        server_hostname=flow.name or flow.remote[0],
                        ssl_handshake_timeout=limits.connect_s,
                        ssl_shutdown_timeout=_SHUTDOWN_S,
                    )
                else:
                    await self._loop.create_connection(lambda: connection, sock=sock)
        except TimeoutError:
            connection.fail(f"no connection within {limits.connect_s:g} s")
        except (OSError, ValueError) as error:
            # ssl.SSLError is one of them; ValueError is a name that can't be one of a server.
            connection.fail(str(error) or type(error).__name__)

    async def _connected_socket(self, flow: Flow) -> socket.socket:
        sock = socket.socket(socket.AF_INET6 if ":" in flow.remote[0] else socket.AF_INET, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            set_options(sock, self._limits)
            # Peers that know us by our address must see the one that we speak of.
            sock.bind((flow.local[0], 0))
            await self._loop.sock_connect(sock, flow.remote)
        except BaseException:
            sock.close()
            raise
        return sock

    # -- ConnectionOwner ------------------------------------------------------------------------------------

    def now(self) -> float:
        return self._loop.time()

    def opened(self, connection: Connection) -> None:
        if not connection.inbound:
            self._counters["connections opened"] += 1

    def received(self, connection: Connection, data: bytes) -> None:
        if connection.inbound and connection.alias is None and b"alias" in data[:1000]:
            self._note_alias(connection, data)
        self._user.stream_received(data, connection.flow)

    def lost(self, connection: Connection) -> None:
        flow = connection.flow
        if self._table.get(flow) is connection:
            del self._table[flow]
            if not self._table:
                self._empty.set()
        self._newcomers.pop(connection, None)
        if connection.work is not None:
            connection.work.cancel()
        alias = connection.alias
        if alias is not None and self._aliases.get((flow.transport, alias)) is connection:
            del self._aliases[flow.transport, alias]
        if connection.inbound:
            self._inbound[flow.remote[0]] -= 1
            if not self._inbound[flow.remote[0]]:
                del self._inbound[flow.remote[0]]
            if connection.proven:
                while len(self._gone) >= _MAX_GONE:
                    del self._gone[next(iter(self._gone))]
                self._gone[flow] = connection.peer_names
        if connection.failure:
            self._counters["connections failed"] += 1
            # What strangers' connections come to is counted: a flood of them must not fill the log.
            tell = log.info if connection.proven or not connection.inbound else log.debug
            tell("connection failed", flow=str(flow), inbound=connection.inbound, error=connection.failure)
        self._user.stream_lost(connection)

    def _note_alias(self, connection: Connection, data: bytes) -> None:
        """The peer may want requests to the address in its Via sent back on this connection (RFC 5923 5)."""
        flow = connection.flow
        try:
            via = parse_message(data).via
        except SipError:
            return
        if via.param("alias") is None:
            return
        port = via.port or (DEFAULT_TLS_PORT if flow.transport == "tls" else DEFAULT_PORT)
        # Its own address, which TCP has proven, and none that it might make up.
        connection.alias = (flow.remote[0], port)
        self._aliases[flow.transport, connection.alias] = connection

    # -- inside ---------------------------------------------------------------------------------------------

    def _add(self, flow: Flow, *, inbound: bool) -> Connection:
        old = self._table.get(flow)
        if old is not None:
            # The peer's port was used again before we knew that its connection was gone.
            if not old.closing:
                old.fail("its place was taken by a new one")
            old.end()
        connection = Connection(
            flow,
            self,
            self._limits,
            inbound=inbound,
            max_bytes=self._max_bytes,
            verify=self._tls.settings.verify,
        )
        self._table[flow] = connection
        self._empty.clear()
        self._gone.pop(flow, None)
        if self._sweep is None:
            self._sweep = self._loop.call_later(SWEEP_S, self._look_through)
        return connection

    def _start(self, connection: Connection, work: Coroutine[Any, Any, None]) -> None:
        connection.work = task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _look_through(self) -> None:
        self._sweep = None
        now = self._loop.time()
        for connection in self:
            why = connection.overdue(now)
            if why == "idle":
                connection.close()
            elif why:
                connection.fail(why)
            elif connection.wants_ping(now):
                connection.ping()
        if self._table:
            self._sweep = self._loop.call_later(SWEEP_S, self._look_through)

    def close(self) -> None:
        """Take no more connections, end those that are up. Each is told as lost."""
        self._closed = True
        for listener in self._listeners:
            self._loop.remove_reader(listener)
            listener.close()
        self._listeners.clear()
        for connection in self:
            connection.close()

    async def aclose(self) -> None:
        """`close`, and wait until all is gone; a peer that takes nothing is cut off after a second."""
        self.close()
        for task in tuple(self._tasks):
            task.cancel()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._empty.wait(), _SHUTDOWN_S)
        for connection in self:
            connection.fail("the bridge stopped")
        await self._empty.wait()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
