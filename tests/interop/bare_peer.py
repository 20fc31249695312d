"""Single requests from a plain UDP socket, from any address of the loopback network: a stranger, or a friend."""

import itertools
import socket
from collections.abc import Sequence
from types import TracebackType
from typing import Self

LIMIT_S = 20.0


class BarePeer:
    """Knows nothing of transactions: what it sends, and what comes back, is up to the test."""

    def __init__(self, sip_port: int, *, address: str = "127.0.0.1") -> None:
        self._sip_port = sip_port
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((address, 0))
        self._socket.settimeout(LIMIT_S)
        self.address = address
        self.port: int = self._socket.getsockname()[1]
        self._numbers = itertools.count(1)

    def send(self, method: str, *, headers: Sequence[str] = ()) -> None:
        """A request of its own dialog and transaction, without a body."""
        number = next(self._numbers)
        lines = [
            f"{method} sip:echo@127.0.0.1:{self._sip_port} SIP/2.0",
            f"Via: SIP/2.0/UDP {self.address}:{self.port};branch=z9hG4bK-{number}-{self.port};rport",
            f"From: <sip:bare@{self.address}>;tag=bare{number}",
            f"To: <sip:echo@127.0.0.1:{self._sip_port}>",
            f"Call-ID: bare-{number}-{self.port}",
            f"CSeq: 1 {method}",
            f"Contact: <sip:bare@{self.address}:{self.port}>",
            "Max-Forwards: 70",
            *headers,
            "Content-Length: 0",
        ]
        self._socket.sendto(("\r\n".join(lines) + "\r\n\r\n").encode(), ("127.0.0.1", self._sip_port))

    def ask(self, method: str = "OPTIONS", *, headers: Sequence[str] = ()) -> str:
        """The answer to a request."""
        self.send(method, headers=headers)
        return self._socket.recv(65_535).decode()

    def heard(self) -> list[str]:
        """What has come by now and was not read. The bridge answers in the order of what comes in: the answer to
        somebody who asked later proves that there will be none to an earlier one."""
        self._socket.setblocking(False)
        found = []
        try:
            while True:
                found.append(self._socket.recv(65_535).decode())
        except BlockingIOError:
            return found
        finally:
            self._socket.settimeout(LIMIT_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._socket.close()
