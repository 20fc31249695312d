"""The addresses that we listen on, the UDP sockets there, and which of our addresses a peer is shown."""

import socket
from collections.abc import Sequence

from bridge.sip.flow import Address, Flow, Transport
from bridge.sip.transport_settings import TransportSettings
from bridge.sip.udp import DatagramUser, UdpSocket, bound_socket, local_address_towards
from bridge.sip.via import DEFAULT_TLS_PORT

_ANY = ("0.0.0.0", "::")
_PORT_TRIES = 50


def family_of(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


class Sockets:
    """Needs a running event loop. After `close` the addresses can still be read."""

    def __init__(self, settings: TransportSettings, user: DatagramUser, *, tls: bool) -> None:
        """`tls`: whether it is listened on."""
        self._settings = settings
        self._user = user
        self._tls = tls
        self._udp: dict[Address, UdpSocket] = {}
        self._addresses: dict[Transport, list[Address]] = {"udp": [], "tcp": [], "tls": []}

    def open(self) -> list[tuple[socket.socket, Transport]]:
        """Bind everything; UDP is read from now on, the sockets for streams are handed over. Raises OSError."""
        for _ in range(1 if self._settings.port else _PORT_TRIES):
            try:
                return self._bind()
            except OSError as error:
                # A port that UDP found free may be taken for TCP: then another one is tried.
                failure = error
        raise failure

    def addresses(self, transport: Transport) -> Sequence[Address]:
        return self._addresses[transport]

    def send(self, data: bytes, flow: Flow) -> bool:
        """Send a datagram. False: the system has no room for it. Raises OSError where no socket leads there."""
        udp = self._udp.get(flow.local)
        if udp is None:
            family = family_of(flow.remote[0])
            udp = next((udp for address, udp in self._udp.items() if family_of(address[0]) == family), None)
        if udp is None:
            raise OSError(f"no udp socket of ours leads to {flow.remote[0]}")
        return udp.send(data, flow.remote)

    def local(self, transport: Transport, remote: str) -> Address:
        """Our address and port towards a peer. Raises OSError where nothing leads there."""
        family = family_of(remote)
        listening = [address for address in self._addresses[transport] if family_of(address[0]) == family]
        if len(listening) > 1:
            own = local_address_towards(remote)
            listening.sort(key=lambda address: address[0] != own)
        if listening:
            return self.shown(listening[0], remote)
        if transport != "tls" or all(family_of(host) != family for host in self._settings.hosts):
            raise OSError(f"no {transport} socket of ours leads to {remote}")
        # Without a certificate we can't be called by TLS, and can call: answers come on the same connection.
        return (local_address_towards(remote), self._settings.tls_port or DEFAULT_TLS_PORT)

    @staticmethod
    def shown(local: Address, remote: str) -> Address:
        """A bound address as a peer sees it: one of ours where the socket takes any. Raises OSError."""
        return (local_address_towards(remote), local[1]) if local[0] in _ANY else local

    def close(self) -> None:
        for udp in self._udp.values():
            udp.close()
        self._udp.clear()

    def _bind(self) -> list[tuple[socket.socket, Transport]]:
        settings = self._settings
        port, tls_port = settings.port, settings.tls_port
        bound: list[tuple[socket.socket, Transport]] = []
        try:
            for host in settings.hosts:
                if settings.udp:
                    bound.append((bound_socket(socket.SOCK_DGRAM, host, port), "udp"))
                    port = bound[-1][0].getsockname()[1]
                if settings.tcp:
                    bound.append((bound_socket(socket.SOCK_STREAM, host, port), "tcp"))
                    port = bound[-1][0].getsockname()[1]
                if self._tls:
                    bound.append((bound_socket(socket.SOCK_STREAM, host, tls_port), "tls"))
                    tls_port = bound[-1][0].getsockname()[1]
        except OSError:
            for sock, _ in bound:
                sock.close()
            raise
        for sock, transport in bound:
            host, port = sock.getsockname()[:2]
            self._addresses[transport].append((host, port))
            if transport == "udp":
                self._udp[host, port] = UdpSocket(sock, self._user)
        return [(sock, transport) for sock, transport in bound if transport != "udp"]
