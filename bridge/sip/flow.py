"""Where a message came from or goes to."""

from dataclasses import dataclass
from typing import Literal

Address = tuple[str, int]
"""IP address (no brackets) and port."""

Transport = Literal["udp", "tcp", "tls"]


@dataclass(frozen=True, slots=True)
class Flow:
    """A path between us and a peer: the transport and the address at each end.

    For TCP and TLS it names a connection; for UDP the socket is told by `local`."""

    transport: Transport
    remote: Address
    local: Address
    """Our address as this peer can reach it: a real one, even where the socket listens on 0.0.0.0. For TCP and TLS
    the port is the one that we listen on, whoever opened the connection."""
    name: str = ""
    """The domain that a TLS server must show a certificate of; connections for two domains are two. Empty for
    connections that came in, and for other transports."""

    @property
    def reliable(self) -> bool:
        """Whether the transport delivers or fails, so that nothing is ever sent twice (RFC 3261 17)."""
        return self.transport != "udp"

    def __str__(self) -> str:
        return f"{self.transport}:{self.remote[0]}:{self.remote[1]}"
