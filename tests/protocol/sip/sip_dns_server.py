"""A small name server on 127.0.0.1, for tests."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import cast

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

from bridge.sip.flow import Address


class NameServer(asyncio.DatagramProtocol):
    """Answers from `zone`, `{"name TYPE": ["rdata", ...]}`; NXDOMAIN for names that are not in it."""

    def __init__(self, zone: dict[str, list[str]]) -> None:
        self.zone = zone
        self.ttl = 60
        self.silent: set[str] = set()
        """Questions (`name TYPE`, or `*`) that are never answered."""
        self.spoil: Callable[[bytes], bytes] = bytes
        """What becomes of each answer on its way."""
        self.asked: Counter[str] = Counter()
        self.address: Address = ("", 0)
        self._transport: asyncio.DatagramTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)
        self.address = transport.get_extra_info("sockname")

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        query = dns.message.from_wire(data)
        [question] = query.question
        name = question.name.to_text(omit_final_dot=True).lower()
        kind = dns.rdatatype.to_text(question.rdtype)
        self.asked[f"{name} {kind}"] += 1
        if not self.silent.isdisjoint({f"{name} {kind}", "*"}):
            return
        response = dns.message.make_response(query)
        response.flags |= dns.flags.AA
        if records := self.zone.get(f"{name} {kind}"):
            response.answer.append(dns.rrset.from_text(question.name, self.ttl, "IN", kind, *records))
        elif not any(entry.split()[0] == name for entry in self.zone):
            response.set_rcode(dns.rcode.NXDOMAIN)
        self._transport.sendto(self.spoil(response.to_wire(max_size=65_535)), addr)


@asynccontextmanager
async def name_server(zone: dict[str, list[str]]) -> AsyncIterator[NameServer]:
    transport, server = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: NameServer(zone), local_addr=("127.0.0.1", 0)
    )
    try:
        yield server
    finally:
        transport.close()
