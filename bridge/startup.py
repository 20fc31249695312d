"""What a start needs of the machine: a directory, its lock, free ports; and what is said where one is missing."""

import contextlib
import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from bridge.config import Config, SipSettings
from bridge.legs.sip_endpoint import SipEndpointSettings
from bridge.sip.resolver import ResolverSettings
from bridge.sip.tls import CertificateFiles, TlsSettings


class StartError(Exception):
    """The bridge can't start; the message says why and what to do."""


def make_data_dir(path: Path) -> Path:
    """Raises StartError."""
    try:
        path.mkdir(mode=0o750, parents=True, exist_ok=True)
    except OSError as error:
        raise StartError(
            f"the data directory {path} can't be made ({error.strerror}): set data_dir or OFFHOOK_DATA_DIR"
        ) from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise StartError(f"the data directory {path} is not writable for this user: set data_dir or OFFHOOK_DATA_DIR")
    return path


@contextlib.contextmanager
def only_one(data_dir: Path) -> Iterator[None]:
    """Two bridges on one data directory would close each other's calls. Raises StartError."""
    with (data_dir / "offhook.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StartError(
                f"another bridge runs on the data directory {data_dir}: stop it, or set another OFFHOOK_DATA_DIR"
            ) from error
        yield


def sip_port_problem(error: OSError, settings: SipSettings) -> str:
    """Which of the SIP ports can't be listened on, why, and which setting to change."""
    kind = "udp" if not settings.tcp or (settings.udp and _is_taken(settings.listen, settings.port)) else "tcp"
    where = f"sip {settings.listen}:{settings.port}/{kind}"
    if error.errno == errno.EADDRINUSE:
        return (
            f"{where} is taken by another program: stop it, or choose another port (sip.port, OFFHOOK_SIP_PORT; "
            f"for TLS tls.port)"
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{where} is no address of this machine: correct sip.listen"
    if error.errno == errno.EACCES:
        return f"{where} may not be used by this user: choose a port above 1023 (sip.port)"
    return f"{where} can't be listened on: {error.strerror}"


def _is_taken(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((host, port))
        except OSError:
            return True
    return False


def endpoint_settings(config: Config) -> SipEndpointSettings:
    """What the SIP endpoint is told of the configuration."""
    sip, tls = config.sip, config.tls
    own = None if tls.certificate is None else CertificateFiles(tls.certificate, tls.key)
    return SipEndpointSettings(
        host=sip.listen,
        port=sip.port,
        more_hosts=sip.more_listen,
        udp=sip.udp,
        tcp=sip.tcp,
        tls_port=tls.port,
        tls=TlsSettings(
            own=own,
            by_name={name: CertificateFiles(one.certificate, one.key) for name, one in tls.by_name.items()},
            ca=tls.ca,
            client=tls.client,
            verify=tls.verify,
        ),
        resolver=ResolverSettings(nameservers=tuple(_name_server(server) for server in sip.nameservers)),
        advertised_address=sip.advertised_address,
        advertised_port=sip.advertised_port,
        advertised_tls_port=tls.advertised_port,
        local_networks=sip.local_networks,
        outbound_proxy=sip.outbound_proxy,
        user_agent=sip.user_agent,
        t1_s=sip.t1_ms / 1000,
        retry_after_s=config.limits.retry_after_s,
        session_expires_s=sip.session_expires_s,
        min_se_s=sip.min_se_s,
        reliable=sip.reliable,
    )


def _name_server(text: str) -> tuple[str, int]:
    if text.startswith("["):
        host, _, port = text[1:].partition("]")
        return host, int(port.lstrip(":") or 53)
    host, _, port = text.partition(":") if text.count(":") == 1 else (text, "", "")
    return host, int(port or 53)
