"""The keys of one SRTP stream: what signalling agrees on, and the media path encrypts with."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class SrtpKeys:
    suite: str
    """Registered name of the crypto suite (RFC 4568 6.2, RFC 7714 14.2)."""
    send: bytes = field(repr=False)
    """Master key and salt of what we send."""
    receive: bytes = field(repr=False)
    receive_mki_bytes: int = 0
    """Bytes of the key's number (MKI), which each packet of the far end carries; we send none."""
