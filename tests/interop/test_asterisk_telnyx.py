"""The shipped Telnyx trunks, by credentials and by address, with a stand-in for Telnyx's SIP proxy."""

import hashlib
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from asterisk_shop import AsteriskShop
from free_ports import free_port

HOST = "127.0.0.4"
USER, PASSWORD = "acme4711", "secret-of-the-connection"


class Proxy:
    """Challenges registrations, and takes calls with 486."""

    def __init__(self) -> None:
        self.port = free_port()
        self.registered: list[str] = []
        """Contacts that proved to know the password."""
        self.called: list[str] = []
        """Request URIs of INVITEs."""
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((HOST, self.port))
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._socket.close()

    def invite(self, shop: AsteriskShop, number: str) -> None:
        """Call the shop."""
        offer = "v=0\r\no=- 1 1 IN IP4 127.0.0.4\r\ns=-\r\nc=IN IP4 127.0.0.4\r\nt=0 0\r\nm=audio 40000 RTP/AVP 0\r\n"
        text = (
            f"INVITE sip:{number}@127.0.0.1:{shop.sip_port} SIP/2.0\r\n"
            f"Via: SIP/2.0/UDP {HOST}:{self.port};rport;branch=z9hG4bKtelnyx\r\nMax-Forwards: 70\r\n"
            f"From: <sip:+4930111@{HOST}>;tag=telnyx\r\nTo: <sip:{number}@127.0.0.1>\r\nCall-ID: telnyx-1\r\n"
            f"CSeq: 1 INVITE\r\nContact: <sip:{HOST}:{self.port}>\r\nContent-Type: application/sdp\r\n"
            f"Content-Length: {len(offer)}\r\n\r\n{offer}"
        )
        self._socket.sendto(text.encode(), ("127.0.0.1", shop.sip_port))

    def _serve(self) -> None:
        while True:
            try:
                data, peer = self._socket.recvfrom(65535)
            except OSError:
                return
            text = data.decode()
            if text.startswith("REGISTER"):
                self._answer(text, peer, *self._register(text))
            elif text.startswith("INVITE"):
                self.called.append(text.split()[1])
                self._answer(text, peer, "486 Busy Here")
            elif text.startswith("OPTIONS"):
                self._answer(text, peer, "200 OK")

    def _register(self, text: str) -> tuple[str, str]:
        given = dict(re.findall(r'(\w+)="?([^",\r]+)"?', found[1])) if (found := AUTHORIZATION.search(text)) else {}
        contact = re.search(r"^Contact: (<[^>]+>)", text, re.MULTILINE)
        first, second = md5(f"{USER}:telnyx:{PASSWORD}"), md5(f"REGISTER:{given.get('uri', '')}")
        if contact is not None and given.get("response") == md5(f"{first}:{given.get('nonce')}:{second}"):
            self.registered.append(contact[1])
            return "200 OK", f"Contact: {contact[1]};expires=600\r\n"
        return "401 Unauthorized", 'WWW-Authenticate: Digest realm="telnyx", nonce="7f3a", algorithm=MD5\r\n'

    def _answer(self, text: str, peer: tuple[str, int], status: str, more: str = "") -> None:
        kept = re.findall(r"^(?:Via|From|To|Call-ID|CSeq): .*?\r\n", text, re.MULTILINE)
        lines = "".join(line if not line.startswith("To:") else line[:-2] + ";tag=t\r\n" for line in kept)
        self._socket.sendto(f"SIP/2.0 {status}\r\n{lines}{more}Content-Length: 0\r\n\r\n".encode(), peer)


AUTHORIZATION = re.compile(r"^Authorization: Digest (.*)\r$", re.MULTILINE)


def md5(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    stand_in = Proxy()
    yield stand_in
    stand_in.close()


def start(folder: Path, proxy: Proxy, kind: str) -> AsteriskShop:
    """The shop with one of the two trunks filled in."""
    file = f"offhook/pjsip-telnyx-{kind}.conf"
    addresses = [("192.76.120.10\n", f"{HOST}\n", 1), ("match = 64.16.250.10\n", "", 1)]
    host = [("sip:sip.telnyx.com", f"sip:{HOST}:{proxy.port}", {"credentials": 2, "ip": 1}[kind])]
    names = [("= YOUR-TELNYX-USER\nfrom_domain", f"= {USER}\nfrom_domain", 1)]
    names.append(("sip:YOUR-TELNYX-USER@sip.telnyx.com", f"sip:{USER}@{HOST}:{proxy.port}", 1))

    class Shop(AsteriskShop):
        def _install(self) -> None:
            super()._install()
            (self.etc / "offhook/secrets/telnyx.conf").write_text(
                f"[telnyx]\ntype = auth\nauth_type = userpass\nusername = {USER}\npassword = {PASSWORD}\n"
            )

    return Shop(
        folder / "asterisk",
        uncommented=[("pjsip.conf", f"#include {file}")],
        replaced={file: addresses + host + (names if kind == "credentials" else [])},
    )


@pytest.mark.parametrize("kind", ["credentials", "ip"])
def test_the_trunk_registers_where_it_has_to_and_calls_go_both_ways(tmp_path: Path, proxy: Proxy, kind: str) -> None:
    shop = start(tmp_path, proxy, kind)
    try:
        assert [line for line in shop.problems() if "pjsip" in line] == []
        if kind == "credentials":
            shop.program.wait_for(lambda: proxy.registered, 30, "registration")
            shop.program.wait_for(lambda: "Registered" in shop.cli("pjsip show registrations"), 30, "its success")
        shop.originate("PJSIP/+4930123456@telnyx", "tone@world")
        shop.program.wait_for(lambda: proxy.called, 30, "call out")
        assert proxy.called[0] == f"sip:+4930123456@{HOST}:{proxy.port}"
        proxy.invite(shop, "+4930999")
        shop.program.wait_for_line("[+4930999@from-carrier:1]", 30)
        shop.program.wait_for_line("[+4930999@offhook:1]", 30)
    finally:
        shop.stop()
