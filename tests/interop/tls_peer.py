"""A TLS connection to a bridge, with a certificate of its own or without."""

import socket
import ssl
from pathlib import Path
from types import TracebackType
from typing import Self

from certificates import KeyPair


class TlsPeer:
    """Raises OSError (ssl.SSLError is one) where the bridge does not want it: with TLS 1.3 a client is told so only
    when it reads."""

    def __init__(self, port: int, *, trusts: Path, certificate: KeyPair | None = None) -> None:
        context = ssl.create_default_context(cafile=str(trusts))
        if certificate is not None:
            context.load_cert_chain(certificate.certificate, certificate.key)
        self._port = port
        plain = socket.create_connection(("127.0.0.1", port), timeout=20)
        try:
            self._socket = context.wrap_socket(plain, server_hostname="localhost")
        except BaseException:
            plain.close()
            raise

    @property
    def bridge_certificate(self) -> str:
        """As PEM."""
        der = self._socket.getpeercert(binary_form=True)
        assert der is not None
        return ssl.DER_cert_to_PEM_cert(der)

    def options(self) -> str:
        """The status line of the answer to OPTIONS."""
        lines = [
            f"OPTIONS sip:127.0.0.1:{self._port};transport=tls SIP/2.0",
            "Via: SIP/2.0/TLS 127.0.0.1;branch=z9hG4bK-tls;rport",
            "From: <sip:tls@127.0.0.1>;tag=tls",
            "To: <sip:127.0.0.1>",
            f"Call-ID: tls-{self._socket.getsockname()[1]}",
            "CSeq: 1 OPTIONS",
            "Max-Forwards: 70",
            "Content-Length: 0",
        ]
        self._socket.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        answer = self._socket.recv(65_535).decode()
        if not answer:
            raise ConnectionResetError("the bridge closed the connection")
        return answer.splitlines()[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._socket.close()
