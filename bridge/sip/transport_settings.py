"""What the transports of a user agent are told at their start."""

from dataclasses import dataclass, field

from bridge.sip.resolver import ResolverSettings
from bridge.sip.tcp import StreamLimits
from bridge.sip.tls import TlsSettings
from bridge.sip.via import DEFAULT_TLS_PORT


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportSettings:
    hosts: tuple[str, ...] = ("0.0.0.0",)
    """Addresses of ours to listen on; `::` is IPv6 alone, for both have both."""
    port: int = 5060
    """Of UDP and TCP; 0 takes one that is free on both."""
    udp: bool = True
    tcp: bool = True
    tls_port: int = DEFAULT_TLS_PORT
    """Listened on if `tls.own` has a certificate; 0 takes any free one."""
    tls: TlsSettings = field(default_factory=TlsSettings)
    limits: StreamLimits = field(default_factory=StreamLimits)
    resolver: ResolverSettings = field(default_factory=ResolverSettings)
    close_grace_s: float = 2.0
    """A peer that closed a connection may answer on another one within it; then what waits for it has failed."""
    unreachable_s: float = 0.4
    """A UDP peer that ICMP says is not there has failed if it is still so after this: it may just be starting, and
    a single such packet is easily forged. Less than T1, so that the first repetition decides."""
    no_stream_s: float = 600.0
    """A peer that refused TCP gets large requests over UDP for so long."""
