"""What `offhook check` says of TLS towards Asterisks: files that can't be used, certificates that nobody looks at."""

import ipaddress
from collections.abc import Iterator

from bridge.asterisk.settings import AsteriskSettings, WebsocketListenerSettings
from bridge.asterisk.tls import CertificateFileError, OwnCertificate, Trust


def check_trust(what: str, one: AsteriskSettings) -> Iterator[str]:
    """What keeps us from connecting, one line each."""
    if one.url.startswith("https:"):
        yield from _unusable(what, one.trust)
    if one.ami is not None and one.ami.tls:
        yield from _unusable(f"{what}: ami", one.ami.trust)


def check_certificate(listener: WebsocketListenerSettings) -> Iterator[str]:
    """What keeps Asterisks from connecting to us."""
    if listener.certificate is None:
        return
    try:
        OwnCertificate(listener.certificate, listener.key)
    except CertificateFileError as error:
        yield f"websocket_listener: {error}"


def doubtful_trust(what: str, one: AsteriskSettings) -> Iterator[str]:
    """What may be meant otherwise."""
    https, ami = one.url.startswith("https:"), one.ami
    if https and not one.verify:
        yield f"{what}: verify: false: whoever gets in between can read its password and make calls. Set ca"
    if one.ca is not None and not (https and one.verify):
        yield f"{what}: ca has no meaning {'with verify: false' if https else 'without https'}"
    if ami is None:
        return
    if ami.tls and not ami.verify:
        yield f"{what}: ami: verify: false: whoever gets in between can do what its user may. Set ca"
    if ami.ca is not None and not (ami.tls and ami.verify):
        yield f"{what}: ami: ca has no meaning {'with verify: false' if ami.tls else 'without tls: true'}"
    if not ami.tls and not _here(ami.host):
        yield f"{what}: ami: {ami.host} is spoken to unencrypted: set tls: true, or have a network of your own there"


def _unusable(what: str, trust: Trust) -> Iterator[str]:
    try:
        trust.context()
    except CertificateFileError as error:
        yield f"{what}: {error}"


def _here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
