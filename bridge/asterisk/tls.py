"""TLS between us and an Asterisk: whom we trust, what we show, and what went wrong, in words that say what to do."""

import ssl
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import structlog

log = structlog.get_logger(__name__)

EXPIRED = 10
NOT_YET = 9
WRONG_NAME = frozenset({62, 64})
UNKNOWN_ISSUER = frozenset({18, 19, 20, 21})
"""Of OpenSSL (x509_vfy.h): what is wrong with a certificate."""

NO_TLS = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE"})
"""OpenSSL's names of what it sees where the far side speaks something else."""

MAYBE_TLS = "if its TLS port is there, url must begin with https:"
"""Where there was no answer in plain HTTP."""


class CertificateFileError(OSError):
    """A file of certificates, or of a key, can't be used; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Trust:
    """Whose certificates are good enough."""

    verify: bool = True
    """False: anybody's."""
    ca: Path | None = None
    """A file of authorities, or the very certificate of the far side (PEM); None: those of the system."""

    def context(self) -> ssl.SSLContext:
        """For a connection that we open; a file that has changed is read again. Raises CertificateFileError."""
        if not self.verify or self.ca is None:
            return _client_context(self.verify, None, ())
        return _client_context(True, self.ca, _state(self.ca, "ca"))


class OwnCertificate:
    """What we show to those who connect; taken up anew when its files change, as renewals do each few weeks."""

    def __init__(self, certificate: Path, key: Path | None) -> None:
        """PEM files; the key may be in the certificate's. Raises CertificateFileError."""
        self._certificate, self._key = certificate, key
        self._seen = self._look()
        self._context = self._load()

    def context(self) -> ssl.SSLContext:
        """For the next connection. Files that can't be used are told of, and the last that could are."""
        try:
            seen = self._look()
            if seen != self._seen:
                self._seen = seen
                self._context = self._load()
                log.info("certificate taken up", file=str(self._certificate))
        except CertificateFileError as error:
            if self._seen:
                self._seen = ()
                log.error("a changed certificate can't be used, the one before stays", error=str(error))
        return self._context

    def _look(self) -> tuple[int, ...]:
        files = [self._certificate] if self._key is None else [self._certificate, self._key]
        return tuple(part for file in files for part in _state(file, "certificate"))

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            # An encrypted key would have OpenSSL ask at the terminal.
            context.load_cert_chain(self._certificate, self._key, password=lambda: b"")
        except (OSError, ssl.SSLError) as error:
            shown = f"certificate {self._certificate} with key {self._key or 'inside'}"
            raise CertificateFileError(f"{shown}: {_plain(error)}") from error
        return context


def what_failed(error: BaseException, host: str, setting: str = "url") -> str:
    """What a failed connection to `host` comes down to, where TLS is at fault; empty where it is not. `setting` is
    what `host` is of."""
    found = _tls_error(error)
    if found is None:
        return ""
    if isinstance(found, CertificateFileError):
        return str(found)
    if isinstance(found, ssl.SSLCertVerificationError):
        return _refused(found, host, setting)
    if isinstance(found, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return "it hung up in the TLS handshake: is that its TLS port?"
    if found.reason in NO_TLS:
        return "it speaks no TLS at this port"
    if found.reason in ("UNSUPPORTED_PROTOCOL", "TLSV1_ALERT_PROTOCOL_VERSION"):
        return "it knows no TLS that is safe: 1.2 or later"
    return f"TLS: {_plain(found)}"


def _refused(error: ssl.SSLCertVerificationError, host: str, setting: str) -> str:
    if error.verify_code == EXPIRED:
        return "its certificate has expired"
    if error.verify_code == NOT_YET:
        return "its certificate is not valid yet: is a clock wrong?"
    if error.verify_code in WRONG_NAME:
        return f"its certificate is not for {host}: `{setting}` must have a name or an address that it is for"
    if error.verify_code in UNKNOWN_ISSUER:
        said = error.verify_message
        return f"nobody whom we trust vouches for its certificate ({said}): `ca` names a file of who does"
    return f"its certificate is not to be trusted: {error.verify_message}"


def _tls_error(error: BaseException | None) -> ssl.SSLError | CertificateFileError | None:
    """The reason below what libraries make of it."""
    for _ in range(8):
        if error is None or isinstance(error, ssl.SSLError | CertificateFileError):
            return error
        error = error.__cause__ or error.__context__
    return None


def _plain(error: OSError) -> str:
    """Without the place in Python's source."""
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.lower().replace("_", " ")
    return error.strerror or str(error)


def _state(file: Path, what: str) -> tuple[int, ...]:
    """Changes whenever the file does."""
    try:
        found = file.stat()
    except OSError as error:
        raise CertificateFileError(f"{what} {file}: {error.strerror}") from error
    return (found.st_mtime_ns, found.st_size, found.st_ino)


@lru_cache(maxsize=8)
def _client_context(verify: bool, ca: Path | None, state: tuple[int, ...]) -> ssl.SSLContext:
    """One for all: to load the system's certificates takes 20 ms, in which no call would be heard."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif ca is None:
        context.load_default_certs()
    else:
        try:
            context.load_verify_locations(ca)
        except (OSError, ssl.SSLError) as error:
            raise CertificateFileError(f"ca {ca}: {_plain(error)}") from error
        # What is in the file is trusted, though it be no authority's: a certificate of one server can stand there.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context
