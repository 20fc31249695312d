"""Kamailio as registrar and outbound proxy: digest for everything, Record-Route on every call, TLS if asked for."""

import socket
from pathlib import Path

from certificates import KeyPair
from free_ports import free_port
from peer_program import PeerProgram, installed

PASSWORD = "open sesame"
"""Of every user."""
DOMAIN = "pbx.test"

CONFIG = """\
#!KAMAILIO
debug=2
log_stderror=yes
fork=yes
children=2
tcp_children=2
auto_aliases=no
dns=no
rev_dns=no
alias="{domain}"
listen=udp:127.0.0.1:{port}
listen=tcp:127.0.0.1:{port}
{tls_listen}
mpath="/usr/lib/x86_64-linux-gnu/kamailio/modules/"
loadmodule "kex.so"
loadmodule "corex.so"
loadmodule "tm.so"
loadmodule "tmx.so"
loadmodule "sl.so"
loadmodule "rr.so"
loadmodule "pv.so"
loadmodule "maxfwd.so"
loadmodule "textops.so"
loadmodule "siputils.so"
loadmodule "xlog.so"
loadmodule "auth.so"
loadmodule "usrloc.so"
loadmodule "registrar.so"
loadmodule "nathelper.so"
{tls_modules}
modparam("rr", "enable_full_lr", 1)
modparam("registrar|nathelper", "received_avp", "$avp(received)")
modparam("tm", "fr_timer", 10000)
modparam("tm", "fr_inv_timer", 60000)
modparam("registrar", "min_expires", {min_expires})
modparam("registrar", "max_expires", {max_expires})
modparam("registrar", "default_expires", {max_expires})
modparam("auth", "nonce_expire", {nonce_s})
modparam("auth", "qop", "auth")
modparam("auth", "algorithm", "{algorithm}")

request_route {{
    if (!mf_process_maxfwd_header("10")) {{
        sl_send_reply("483", "Too Many Hops");
        exit;
    }}
    force_rport();
    if (is_method("CANCEL")) {{
        if (t_check_trans()) t_relay();
        exit;
    }}
    if (has_totag()) {{
        if (!loose_route()) {{
            # pyVoIP does not follow the recorded route, but names the far end.
            if ($rp == {neighbour_port}) t_relay();
            else if (is_method("ACK") && t_check_trans()) t_relay();
            else if (!is_method("ACK")) sl_send_reply("404", "Not Here");
            exit;
        }}
        xlog("L_NOTICE", "in dialog: $rm $ci\\n");
        handle_ruri_alias();
        t_relay();
        exit;
    }}
    t_check_trans();
    if (is_method("OPTIONS")) {{
        sl_send_reply("200", "Keepalive");
        exit;
    }}
    if (is_method("REGISTER")) {{
        if (!pv_www_authenticate("{domain}", "{password}", "0")) {{
            www_challenge("{domain}", "1");
            exit;
        }}
        xlog("L_NOTICE", "registers: $fU expires $hdr(Expires) over $proto\\n");
        # Over TLS the connection is the way back: whoever registers need not listen.
        if (proto == TLS) fix_nated_register();
        save("location");
        exit;
    }}
    # Calls of the neighbour that it is an SBC for come without a password.
    if ({calls_need_password} && src_port != {neighbour_port}) {{
        if (!pv_proxy_authenticate("{domain}", "{password}", "0")) {{
            proxy_challenge("{domain}", "1");
            exit;
        }}
        consume_credentials();
    }}
    if (!is_method("INVITE")) {{
        sl_send_reply("405", "Method Not Allowed");
        exit;
    }}
    record_route();
    if (proto == TLS) add_contact_alias();
    if (!lookup("location")) {{
        if ({neighbour_port} == 0) {{
            sl_send_reply("404", "Not Found");
            exit;
        }}
        $du = "sip:127.0.0.1:{neighbour_port}";
    }}
    xlog("L_NOTICE", "call: $fU to $rU over $proto\\n");
    t_relay();
}}

onreply_route {{
    if (proto == TLS) add_contact_alias();
}}
"""

TLS = """\
[server:default]
method = TLSv1.2+
verify_certificate = no
require_certificate = no
certificate = {certificate}
private_key = {key}
[client:default]
method = TLSv1.2+
verify_certificate = no
require_certificate = no
"""


class Kamailio:
    """One proxy. Calls to users who have not registered go to `neighbour_port`, if there is one."""

    def __init__(
        self,
        folder: Path,
        *,
        neighbour_port: int = 0,
        tls: KeyPair | None = None,
        nonce_s: int = 300,
        min_expires: int = 10,
        max_expires: int = 3600,
        algorithm: str = "MD5",
        calls_need_password: bool = True,
    ) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        self.port = free_port()
        self.tls_port = free_port() if tls else 0
        tls_modules = f'loadmodule "tls.so"\nmodparam("tls", "config", "{folder}/tls.cfg")' if tls else ""
        if tls is not None:
            (folder / "tls.cfg").write_text(TLS.format(certificate=tls.certificate, key=tls.key))
        (folder / "kamailio.cfg").write_text(
            CONFIG.format(
                domain=DOMAIN,
                password=PASSWORD,
                port=self.port,
                tls_listen=f"listen=tls:127.0.0.1:{self.tls_port}\nenable_tls=yes" if tls else "",
                tls_modules=tls_modules,
                neighbour_port=neighbour_port,
                nonce_s=nonce_s,
                min_expires=min_expires,
                max_expires=max_expires,
                algorithm=algorithm,
                calls_need_password=int(calls_need_password),
            )
        )
        program = installed("kamailio", "kamailio")
        command = [program, "-DD", "-E", "-f", str(folder / "kamailio.cfg"), "-Y", str(folder), "-m", "32", "-M", "8"]
        command += ["-P", str(folder / "kamailio.pid"), "-w", str(folder)]
        self.program = PeerProgram("Kamailio", command, folder)
        try:
            self._wait_until_listening()
        except BaseException:
            self.program.stop()
            raise

    @property
    def proxy(self) -> str:
        return f"sip:127.0.0.1:{self.port}"

    def stop(self) -> None:
        self.program.stop()

    def _wait_until_listening(self) -> None:
        """It says nothing when it is ready; its workers answer then."""
        request = (
            f"OPTIONS sip:127.0.0.1:{self.port} SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1;rport;branch=z9hG4bKready\r\n"
            "From: <sip:test@127.0.0.1>;tag=1\r\nTo: <sip:test@127.0.0.1>\r\nCall-ID: ready\r\nCSeq: 1 OPTIONS\r\n"
            "Max-Forwards: 5\r\nContent-Length: 0\r\n\r\n"
        ).encode()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(("127.0.0.1", 0))
            sock.settimeout(0.2)

            def answers() -> bool:
                sock.sendto(request, ("127.0.0.1", self.port))
                try:
                    return sock.recv(4096).startswith(b"SIP/2.0 200")
                except OSError:
                    return False

            self.program.wait_for(answers, 40, "answer to OPTIONS")
