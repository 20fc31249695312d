"""A user agent on a UDP socket: moves datagrams, re-arms one timer, hands out events. No protocol in here."""

import asyncio
import socket
from collections.abc import Callable
from functools import lru_cache
from typing import cast

from bridge.sip.agent import UserAgent
from bridge.sip.events import Event
from bridge.sip.flow import Address, Flow

EventHandler = Callable[[Event], None]
"""Takes each event, synchronously. It may call the agent's verbs; what they send goes out when it returns."""


@lru_cache(1024)
def local_address_towards(ip: str) -> str:
    """The address of this machine that packets to `ip` (an address, no name) leave from, by the routing table.
    Nothing is sent. Remembered, until `local_address_towards.cache_clear()`. Raises OSError without a route."""
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        # Any port does, but 0.
        probe.connect((ip, 9))
        return str(probe.getsockname()[0])


class UdpEndpoint(asyncio.DatagramProtocol):
    """Made by `open_udp`. After calling a verb of the agent's from outside an event handler, call `flush`."""

    def __init__(self, agent: UserAgent, handler: EventHandler, loop: asyncio.AbstractEventLoop) -> None:
        self.agent = agent
        self._handler = handler
        self._loop = loop
        self._transport: asyncio.DatagramTransport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at: float | None = None
        self._flushing = False
        self.closed = loop.create_future()
        """Done once the socket is gone."""

    @property
    def address(self) -> Address:
        """Where the socket is bound."""
        if self._transport is None:
            raise RuntimeError("the SIP socket is not open")
        name = self._transport.get_extra_info("sockname")
        return (str(name[0]), int(name[1]))

    def flow_to(self, remote: Address) -> Flow:
        """The flow to a peer at an IP address and port. Raises OSError where there is no route to it."""
        host, port = self.address
        if host in ("0.0.0.0", "::"):
            host = local_address_towards(remote[0])
        return Flow("udp", remote, (host, port))

    def now(self) -> float:
        """The agent's clock (seconds, monotonic)."""
        return self._loop.time()

    def flush(self) -> None:
        """Send what the agent has to send, tell what it has to tell, until there is neither."""
        if self._flushing:
            return
        self._flushing = True
        try:
            while True:
                self._send()
                events = self.agent.events()
                if not events:
                    break
                for event in events:
                    self._tell(event)
        finally:
            self._flushing = False
        self._arm()

    def close(self) -> None:
        """Close the socket at once, whatever is still to come."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._transport is not None:
            self._transport.close()

    # -- asyncio.DatagramProtocol ---------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        try:
            flow = self.flow_to((addr[0], addr[1]))
        except OSError:
            self.agent.counters["dropped: no way back"] += 1
            return
        self.agent.receive(data, flow, self._loop.time())
        self.flush()

    def error_received(self, exc: Exception) -> None:
        # An ICMP error tells nothing that a timer would not; it does not even say which peer.
        self.agent.counters["socket errors"] += 1

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._transport = None
        if not self.closed.done():
            self.closed.set_result(None)

    # -- inside ---------------------------------------------------------------------------------------------

    def _send(self) -> None:
        for data, flow in self.agent.outgoing():
            if self._transport is not None and not self._transport.is_closing():
                self._transport.sendto(data, flow.remote)

    def _tell(self, event: Event) -> None:
        try:
            self._handler(event)
        except Exception as error:  # noqa: BLE001  # the outermost edge: one call's failure must not reach the next
            self._loop.call_exception_handler(
                {"message": f"SIP event handler failed on {type(event).__name__} of {event.key}", "exception": error}
            )

    def _arm(self) -> None:
        at = self.agent.timer()
        if at == self._timer_at and self._timer is not None:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._timer_at = at
        if at is not None and self._transport is not None:
            self._timer = self._loop.call_at(at, self._due)

    def _due(self) -> None:
        self._timer = None
        self.agent.handle_timer(self._loop.time())
        self.flush()


async def open_udp(
    agent: UserAgent,
    handler: EventHandler,
    *,
    host: str = "0.0.0.0",
    port: int = 5060,
) -> UdpEndpoint:
    """Bind a socket and drive `agent` on it. Raises OSError where the port is taken."""
    loop = asyncio.get_running_loop()
    _, endpoint = await loop.create_datagram_endpoint(
        lambda: UdpEndpoint(agent, handler, loop), local_addr=(host, port)
    )
    return endpoint
