"""The Via header field and where it sends responses (RFC 3261 18.2, RFC 3581)."""

import re
from dataclasses import dataclass, replace
from functools import lru_cache

from bridge.sip.errors import SipSyntaxError
from bridge.sip.flow import Flow
from bridge.sip.grammar import Params, format_params, get_param, has_param, parse_params, with_param
from bridge.sip.uri import parse_host_port

BRANCH_COOKIE = "z9hG4bK"
"""What the branch of every RFC 3261 element begins with."""

DEFAULT_PORT = 5060
DEFAULT_TLS_PORT = 5061

# Any version, so that even a message of another one can be refused with 505; SIP/2.0 is written in any case.
_VIA = re.compile(
    r"\s*+SIP\s*+/\s*+[0-9]++\.[0-9]++\s*+/\s*+([A-Za-z0-9\-.!%*_+`'~]++)\s++([^\s;:]++|\[[^\]]*+\])\s*+(?::\s*+([0-9]++))?\s*+(;.*)?",
    re.I | re.S,
)


@dataclass(frozen=True, slots=True)
class Via:
    """One hop: who sent the message, and how to answer."""

    transport: str
    """In upper case: UDP, TCP, TLS."""
    host: str
    port: int | None = None
    params: Params = ()

    @classmethod
    def parse(cls, text: str) -> "Via":
        """One Via value, not a list. Raises SipSyntaxError."""
        return _parse_via(text)

    @property
    def branch(self) -> str:
        """Empty when absent."""
        return get_param(self.params, "branch") or ""

    @property
    def sent_by(self) -> str:
        """Host and port as the sender calls itself, part of a server transaction's name."""
        return f"{self.host}:{self.port}"

    def param(self, name: str) -> str | None:
        """Value of a parameter, "" for a bare one, None when absent."""
        return get_param(self.params, name)

    def stamped(self, flow: Flow) -> "Via":
        """With `received` and `rport` as the packet's source shows them (RFC 3261 18.2.1, RFC 3581 4)."""
        host, port = flow.remote
        wants_rport = has_param(self.params, "rport")
        # Whatever the sender wrote there is not to be believed.
        params = tuple(param for param in self.params if param[0] != "received")
        if wants_rport:
            params = with_param(params, "rport", str(port))
        if wants_rport or self.host.strip("[]") != host:
            params = with_param(params, "received", host)
        return replace(self, params=params)

    def reply_flow(self, flow: Flow) -> Flow:
        """Where responses go, for a Via that was stamped with the packet's `flow`."""
        if flow.reliable or self.param("rport"):
            return flow
        default = DEFAULT_TLS_PORT if self.transport == "TLS" else DEFAULT_PORT
        return replace(flow, remote=(flow.remote[0], self.port or default))

    def __str__(self) -> str:
        port = "" if self.port is None else f":{self.port}"
        return f"SIP/2.0/{self.transport} {self.host}{port}{format_params(self.params)}"


@lru_cache(512)
def _parse_via(text: str) -> Via:
    match = _VIA.fullmatch(text)
    if match is None:
        raise SipSyntaxError("malformed Via", text)
    host, port = parse_host_port(match[2] if match[3] is None else f"{match[2]}:{match[3]}")
    # Stray separators are let pass here: a refusal of the message has to find its way back (RFC 4475 3.1.2.1).
    return Via(match[1].upper(), host, port, parse_params((match[4] or "").rstrip("; \t")))
