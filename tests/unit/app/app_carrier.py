"""A carrier on a real socket: registers with a password, answers OPTIONS, refuses calls when it has seen them."""

import asyncio
from collections.abc import Callable
from typing import Any

from bridge.sip.digest import DigestServer, Secret
from bridge.sip.message import Request, make_response, parse_message


class Carrier(asyncio.DatagramProtocol):
    def __init__(self, password: str = "open sesame") -> None:
        self.digest = DigestServer("carrier", {"alice": Secret(password)}.get)
        self.requests: list[Request] = []
        self.call_status = 486
        self.options_status = 200
        self._transport: Any = None
        self._changed = asyncio.Event()

    @property
    def port(self) -> int:
        return int(self._transport.get_extra_info("sockname")[1])

    async def start(self) -> "Carrier":
        loop = asyncio.get_running_loop()
        await loop.create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", 0))
        return self

    def close(self) -> None:
        self._transport.close()

    async def until(self, true: Callable[[], bool]) -> None:
        """Wait for something that a request brings about."""
        async with asyncio.timeout(30):
            while not true():
                self._changed.clear()
                try:
                    await asyncio.wait_for(self._changed.wait(), 0.05)
                except TimeoutError:
                    continue

    def of(self, method: str) -> list[Request]:
        return [request for request in self.requests if request.method == method]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if not data.strip():
            return
        request = parse_message(data)
        if not isinstance(request, Request) or request.method == "ACK":
            return
        self.requests.append(request)
        response = self._response(request)
        self._transport.sendto(response, addr)
        self._changed.set()

    def _response(self, request: Request) -> bytes:
        if request.method == "OPTIONS":
            return make_response(request, self.options_status, to_tag="c").serialise()
        verdict = self.digest.check(request, asyncio.get_running_loop().time())
        if not verdict.username:
            response = make_response(request, verdict.status, to_tag="c")
            response.headers.extend(verdict.headers)
        elif request.method == "REGISTER":
            response = make_response(request, 200, to_tag="c")
            response.headers.add(
                "Contact", f"{request.headers.get('Contact')};expires={request.headers.get('Expires')}"
            )
            response.headers.add("Service-Route", "<sip:edge.carrier.example;lr>")
        else:
            response = make_response(request, self.call_status, to_tag="c")
        return response.serialise()
