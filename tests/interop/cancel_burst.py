"""An INVITE and its CANCEL right behind it, from a plain socket."""

import re
import socket

_OFFER = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 9 RTP/AVP 0\r\n"


def cancel_at_once(sip_port: int, call_id: str, *, after_trying: bool = False) -> int:
    """Send both, the CANCEL behind the 100 if asked to, then do what the INVITE's final response asks for: ACK, and
    BYE if the answer was faster.

    Returns that response's status: 487 or 200. AssertionError for any other, or if the CANCEL gets no 200."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.connect(("127.0.0.1", sip_port))
        sock.settimeout(20)
        port = sock.getsockname()[1]
        tag = ""

        def send(method: str, cseq: int, branch: str, body: str = "") -> None:
            lines = [
                f"{method} sip:echo@127.0.0.1:{sip_port} SIP/2.0",
                f"Via: SIP/2.0/UDP 127.0.0.1:{port};branch=z9hG4bK-{branch}-{call_id}",
                f"From: <sip:burst@127.0.0.1:{port}>;tag=burst",
                f"To: <sip:echo@127.0.0.1>{tag}",
                f"Call-ID: {call_id}",
                f"CSeq: {cseq} {method}",
                f"Contact: <sip:burst@127.0.0.1:{port}>",
                "Max-Forwards: 70",
                *(["Content-Type: application/sdp"] if body else []),
                f"Content-Length: {len(body)}",
            ]
            sock.send(("\r\n".join(lines) + "\r\n\r\n" + body).encode())

        send("INVITE", 1, "invite", _OFFER)
        if after_trying:
            assert _status(sock.recv(65535).decode()) == (100, "INVITE")
        send("CANCEL", 1, "invite")
        finals: dict[str, int] = {}
        while finals.keys() != {"INVITE", "CANCEL"}:
            answer = sock.recv(65535).decode()
            status, method = _status(answer)
            if status < 200:
                continue
            finals[method] = status
            if method == "INVITE":
                tag = ";tag=" + re.findall(r"^To:.*;tag=(\S+)", answer, re.MULTILINE)[0]
        assert finals["CANCEL"] == 200
        if finals["INVITE"] == 487:
            send("ACK", 1, "invite")
            return 487
        assert finals["INVITE"] == 200
        send("ACK", 1, "ack")
        send("BYE", 2, "bye")
        while _status(sock.recv(65535).decode()) != (200, "BYE"):
            pass
        return 200


def _status(answer: str) -> tuple[int, str]:
    (method,) = re.findall(r"^CSeq: \d+ (\w+)", answer, re.MULTILINE)
    return int(answer.split()[1]), method
