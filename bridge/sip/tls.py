"""TLS for SIP: contexts of both sides, and whose certificate it is (RFC 3261 26.3, RFC 5922)."""

import ipaddress
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from bridge.sip.errors import SipSyntaxError, TlsError
from bridge.sip.uri import Uri

ClientCertificates = Literal["none", "request", "require"]


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """PEM files. The key may be in the certificate's file, which holds the whole chain, our own first."""

    certificate: Path
    key: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsSettings:
    own: CertificateFiles | None = None
    """What we show: to clients, and to servers that ask for it. Without it no TLS is listened on."""
    by_name: Mapping[str, CertificateFiles] = field(default_factory=dict)
    """Others, for clients that ask (SNI) for these host names."""
    ca: Path | None = None
    """Whom we trust, as a PEM file; None: whom the system trusts."""
    client: ClientCertificates = "none"
    """Whether peers that connect must show a certificate that `ca` vouches for."""
    verify: bool = True
    """Whether servers that we connect to must show a valid certificate of the name that we wanted to reach."""


class TlsContexts:
    """Contexts for new connections; `reload` reads the files again, connections that are up keep theirs.

    Raises TlsError for files that can't be used."""

    def __init__(self, settings: TlsSettings) -> None:
        self.settings = settings
        self.server: ssl.SSLContext | None
        """None where there is no certificate of ours."""
        self.client: ssl.SSLContext
        self.server, self.client = _server_context(settings), _client_context(settings)

    def reload(self) -> None:
        """Take over changed files. Raises TlsError; then all stays as it was."""
        self.server, self.client = _server_context(self.settings), _client_context(self.settings)


def names_of(certificate: Mapping[str, Any] | None) -> frozenset[str]:
    """Whom a verified certificate (as `getpeercert` gives it) speaks for, in lower case: SIP domains if it names any,
    else host names, and addresses (RFC 5922 7.1). The common name stands in where there is no alternative name."""
    alternatives = (certificate or {}).get("subjectAltName", ())
    addresses = {_canonical(value) for kind, value in alternatives if kind == "IP Address"}
    domains = {domain for kind, value in alternatives if kind == "URI" and (domain := _sip_domain(value))}
    hosts = {value.lower() for kind, value in alternatives if kind == "DNS"}
    if not alternatives:
        subject = (certificate or {}).get("subject", ())
        hosts = {value.lower() for part in subject for key, value in part if key == "commonName"}
    return frozenset(addresses | (domains or hosts))


def speaks_for(names: frozenset[str], host: str) -> bool:
    """Whether one of a certificate's names is `host` (a name, or an address without brackets). A wildcard stands for
    one label: RFC 5922 7.2 wants none, but carriers' certificates have them."""
    host = _canonical(host.lower().rstrip("."))
    _, dot, parent = host.partition(".")
    return host in names or (bool(dot) and not _is_address(host) and "." in parent and f"*.{parent}" in names)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _canonical(host: str) -> str:
    return str(ipaddress.ip_address(host)) if _is_address(host) else host


def _sip_domain(text: str) -> str:
    """The host of a `sip:` URI that stands for a domain: one with a user stands for that user alone."""
    try:
        uri = Uri.parse(text)
    except SipSyntaxError:
        return ""
    return uri.host if uri.scheme == "sip" and not uri.user else ""


def _load(context: ssl.SSLContext, files: CertificateFiles) -> None:
    try:
        # An encrypted key would have OpenSSL ask at the terminal.
        context.load_cert_chain(files.certificate, files.key, password=lambda: b"")
    except (OSError, ssl.SSLError) as error:
        raise TlsError(f"certificate {files.certificate} with key {files.key or 'inside'}: {error}") from error


def _trust(context: ssl.SSLContext, ca: Path | None) -> None:
    try:
        if ca is None:
            context.load_default_certs()
        else:
            context.load_verify_locations(ca)
    except (OSError, ssl.SSLError) as error:
        raise TlsError(f"certificate authority {ca}: {error}") from error


def _server_context(settings: TlsSettings) -> ssl.SSLContext | None:
    if settings.own is None:
        return None
    context = _one_server_context(settings, settings.own)
    others = {name.lower(): _one_server_context(settings, files) for name, files in settings.by_name.items()}

    def choose(connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        other = others.get((name or "").lower())
        if other is not None:
            connection.context = other

    if others:
        context.sni_callback = choose
    return context


def _one_server_context(settings: TlsSettings, files: CertificateFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _load(context, files)
    if settings.client != "none":
        _trust(context, settings.ca)
        context.verify_mode = ssl.CERT_REQUIRED if settings.client == "require" else ssl.CERT_OPTIONAL
    return context


def _client_context(settings: TlsSettings) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if settings.verify:
        _trust(context, settings.ca)
    # The name is checked by `speaks_for`: OpenSSL knows nothing of SIP domains in URIs.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED if settings.verify else ssl.CERT_NONE
    if settings.own is not None:
        _load(context, settings.own)
    return context
