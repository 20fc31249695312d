"""A stand-in for a carrier's SIP proxy, as Telnyx's: a registrar that knows a password, calls out challenged by 407,
and calls in from any address. Whoever talks with it hears himself."""

import hashlib
import re
import socket
import threading
from collections.abc import Callable

HOST = "127.0.0.4"
ELSEWHERE = "127.0.0.5"
"""One of its addresses that no configuration lists."""
USER, PASSWORD = "acme4711", "secret-of-the-connection"

_GIVEN = re.compile(r"^(?:Proxy-)?Authorization: Digest (.*)\r$", re.MULTILINE)
_KEPT = re.compile(r"^(?:Via|From|To|Call-ID|CSeq): .*?\r\n", re.MULTILINE)


class StandIn:
    """Listens on `port` of HOST. `challenges`: it asks for the password at calls too."""

    def __init__(self, port: int, *, challenges: bool) -> None:
        self.port = port
        self.registered: list[str] = []
        """URIs of contacts that proved to know the password."""
        self.challenged = 0
        """INVITEs that were asked for the password."""
        self.called: list[str] = []
        """Request URIs of INVITEs that were answered."""
        self.answered: list[str] = []
        """Call-IDs of its own calls that were answered."""
        self._challenges = challenges
        self._sockets = {host: _bound(host, port) for host in (HOST, ELSEWHERE)}
        self._rtp = _bound(HOST, 0)
        for host, own in self._sockets.items():
            _run(own, lambda data, peer, host=host: self._on_sip(data.decode(), peer, host))
        _run(self._rtp, self._rtp.sendto)

    def close(self) -> None:
        for one in (*self._sockets.values(), self._rtp):
            one.close()

    def invite(self, target: str, to: str, port: int, *, host: str = HOST) -> str:
        """Call the request URI `target` at `port` of 127.0.0.1, with this To. The Call-ID."""
        call_id = f"call-{len(to)}-{host}"
        head = (
            f"INVITE {target} SIP/2.0\r\nVia: SIP/2.0/UDP {host}:{self.port};rport;branch=z9hG4bK{call_id}\r\n"
            f"Max-Forwards: 70\r\nFrom: <sip:+4930111@{host}>;tag=telnyx\r\nTo: {to}\r\nCall-ID: {call_id}\r\n"
            f"CSeq: 1 INVITE\r\nContact: <sip:{host}:{self.port}>\r\n"
        )
        self._sockets[host].sendto((head + self._sdp()).encode(), ("127.0.0.1", port))
        return call_id

    def _sdp(self) -> str:
        """The end of a message: type, length and body."""
        body = (
            f"v=0\r\no=- 1 1 IN IP4 {HOST}\r\ns=-\r\nc=IN IP4 {HOST}\r\nt=0 0\r\n"
            f"m=audio {self._rtp.getsockname()[1]} RTP/AVP 0\r\n"
        )
        return f"Content-Type: application/sdp\r\nContent-Length: {len(body)}\r\n\r\n{body}"

    def _on_sip(self, text: str, peer: tuple[str, int], host: str) -> None:
        def answer(status: str, rest: str = "Content-Length: 0\r\n\r\n") -> None:
            lines = "".join(
                line if not line.startswith("To:") or "tag=" in line else line[:-2] + ";tag=t\r\n"
                for line in _KEPT.findall(text)
            )
            self._sockets[host].sendto(f"SIP/2.0 {status}\r\n{lines}{rest}".encode(), peer)

        match text.split(" ", 1)[0]:
            case "REGISTER":
                contact = re.search(r"^Contact: <([^>]+)>", text, re.MULTILINE)
                if contact is not None and _knows_the_password(text, "REGISTER"):
                    self.registered.append(contact[1])
                    answer("200 OK", f"Contact: <{contact[1]}>;expires=600\r\nContent-Length: 0\r\n\r\n")
                else:
                    answer("401 Unauthorized", _challenge("WWW"))
            case "INVITE" if self._challenges and not _knows_the_password(text, "INVITE"):
                self.challenged += 1
                answer("407 Proxy Authentication Required", _challenge("Proxy"))
            case "INVITE":
                self.called.append(text.split()[1])
                answer("200 OK", f"Contact: <sip:{HOST}:{self.port}>\r\n{self._sdp()}")
            case "BYE" | "OPTIONS":
                answer("200 OK")
            case "SIP/2.0" if text.startswith("SIP/2.0 200") and "CSeq: 1 INVITE" in text:
                self._acknowledge(text, peer, host)

    def _acknowledge(self, text: str, peer: tuple[str, int], host: str) -> None:
        kept = {line.split(":", 1)[0]: line for line in _KEPT.findall(text)}
        via = f"Via: SIP/2.0/UDP {host}:{self.port};rport;branch=z9hG4bKack{len(self.answered)}\r\n"
        lines = f"{via}{kept['From']}{kept['To']}{kept['Call-ID']}"
        ack = f"ACK sip:127.0.0.1:{peer[1]} SIP/2.0\r\n{lines}CSeq: 1 ACK\r\nMax-Forwards: 70\r\n"
        self._sockets[host].sendto(f"{ack}Content-Length: 0\r\n\r\n".encode(), peer)
        self.answered.append(kept["Call-ID"].split(":", 1)[1].strip())


def _bound(host: str, port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind((host, port))
    return made


def _run(own: socket.socket, take: Callable[[bytes, tuple[str, int]], object]) -> None:
    def serve() -> None:
        while True:
            try:
                take(*own.recvfrom(65535))
            except OSError:
                return

    threading.Thread(target=serve, daemon=True).start()


def _challenge(kind: str) -> str:
    return f'{kind}-Authenticate: Digest realm="telnyx", nonce="7f3a", algorithm=MD5\r\nContent-Length: 0\r\n\r\n'


def _knows_the_password(text: str, method: str) -> bool:
    if (found := _GIVEN.search(text)) is None:
        return False
    given = dict(re.findall(r'(\w+)="?([^",\r]+)"?', found[1]))
    first, second = _md5(f"{USER}:telnyx:{PASSWORD}"), _md5(f"{method}:{given.get('uri', '')}")
    return given.get("response") == _md5(f"{first}:{given.get('nonce')}:{second}")


def _md5(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()
