"""SRTP keys in session descriptions: `a=crypto` lines read, written and chosen from (RFC 4568, RFC 7714 12).

The keys travel in the clear inside SDP: they are worth what the signalling's own protection is, so TLS.
"""

import base64
import binascii
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bridge.rtp.srtp_keys import SrtpKeys
from bridge.sip.errors import SdpError


@dataclass(frozen=True, slots=True)
class Suite:
    """A way to encrypt and authenticate, by its registered name."""

    name: str
    key_bytes: int
    """Of the master key."""
    salt_bytes: int


SUITES: Mapping[str, Suite] = {
    suite.name: suite
    for suite in (
        Suite("AES_CM_128_HMAC_SHA1_80", 16, 14),
        Suite("AEAD_AES_256_GCM", 32, 12),
        Suite("AEAD_AES_128_GCM", 16, 12),
        Suite("AES_CM_128_HMAC_SHA1_32", 16, 14),
    )
}
"""What we take and offer, in our order. The one that everybody has comes first: some peers read no second line."""

LEAST_LIFETIME = 1 << 20
"""Packets that a key must be good for: keys are not renewed in mid-call, and this is six hours at 20 ms."""

_LINE = re.compile(r"([0-9]{1,9})[ \t]++([A-Za-z0-9_]{1,64})[ \t]++(\S++)((?:[ \t]++\S++)*+)[ \t]*+")
_MKI = re.compile(r"([0-9]{1,9}):([0-9]{1,3})")
_LIFETIME = re.compile(r"(2\^)?([0-9]{1,15})")


class SdesError(SdpError):
    """An `a=crypto` line that can't be used; the message says why, and never holds the key."""


@dataclass(frozen=True, slots=True)
class Crypto:
    """One `a=crypto` line: a key that its author will encrypt with."""

    tag: int
    """Names the line: the answer to it bears the same."""
    suite: str
    key: bytes = field(repr=False)
    """Master key and salt."""
    mki_bytes: int = 0
    """Bytes of the key's number, which each of the author's packets carries before the authentication tag."""

    def __str__(self) -> str:
        """The attribute's value, as we write it: without lifetime or MKI."""
        return f"{self.tag} {self.suite} inline:{base64.b64encode(self.key).decode()}"


def parse_crypto(value: str) -> Crypto:
    """Read the attribute's value. Raises SdesError for what is malformed, unknown, or weakens the stream."""
    line = _LINE.fullmatch(value)
    if line is None:
        raise SdesError("an a=crypto line without tag, suite and key")
    tag, name, keys, parameters = int(line[1]), line[2].upper(), line[3], line[4].split()
    suite = SUITES.get(name)
    if suite is None:
        raise SdesError(f"crypto suite {name} is not known")
    for parameter in parameters:
        # A parameter that begins with a minus may be ignored, every other must be understood (RFC 4568 6.3.8).
        # Those that exist leave packets open (UNENCRYPTED_*, UNAUTHENTICATED_SRTP), or ask for what we can't do.
        if not parameter.startswith("-") and parameter.upper() != "KDR=0":
            raise SdesError(f"crypto line {tag} asks for {parameter.split('=')[0][:40]}")
    if ";" in keys:
        raise SdesError(f"crypto line {tag} has several keys")
    method, _, info = keys.partition(":")
    if method.lower() != "inline":
        raise SdesError(f"crypto line {tag} has a key method other than inline")
    text, *fields = info.split("|")
    return Crypto(tag, name, _key(text, suite, tag), _mki_bytes(fields, tag))


def choose(values: Sequence[str]) -> Crypto:
    """The first line that can be used: they come in their author's order of preference.

    Raises SdesError, which tells the trouble with each line."""
    troubles = []
    for value in values:
        try:
            return parse_crypto(value)
        except SdesError as error:
            troubles.append(str(error))
    raise SdesError("; ".join(troubles) or "no a=crypto line")


def new_keys() -> tuple[Crypto, ...]:
    """A fresh key for each suite: the lines of an offer, and what an answer takes its own from."""
    return tuple(
        Crypto(tag, suite.name, secrets.token_bytes(suite.key_bytes + suite.salt_bytes))
        for tag, suite in enumerate(SUITES.values(), 1)
    )


def answer_line(chosen: Crypto, ours: Sequence[Crypto]) -> tuple[Crypto, SrtpKeys]:
    """Our line that answers `chosen`, with our own key for its suite, and the keys both ways."""
    own = next(line for line in ours if line.suite == chosen.suite)
    keys = SrtpKeys(chosen.suite, own.key, chosen.key, chosen.mki_bytes)
    return Crypto(chosen.tag, chosen.suite, own.key), keys


def accept_line(values: Sequence[str], offered: Sequence[Crypto]) -> SrtpKeys:
    """The keys both ways after the answer to our lines. Raises SdesError unless it takes exactly one of them."""
    if len(values) != 1:
        raise SdesError(f"an answer with {len(values)} a=crypto lines")
    theirs = parse_crypto(values[0])
    for line in offered:
        if (line.tag, line.suite) == (theirs.tag, theirs.suite):
            return SrtpKeys(line.suite, line.key, theirs.key, theirs.mki_bytes)
    raise SdesError(f"the answer takes crypto line {theirs.tag} {theirs.suite}, which was not offered")


def _key(text: str, suite: Suite, tag: int) -> bytes:
    # Some leave out the padding.
    text = text.rstrip("=")
    try:
        key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise SdesError(f"the key of crypto line {tag} is not base64") from None
    if len(key) != suite.key_bytes + suite.salt_bytes:
        raise SdesError(
            f"the key of crypto line {tag} has {len(key)} bytes instead of {suite.key_bytes + suite.salt_bytes}"
        )
    return key


def _mki_bytes(fields: Sequence[str], tag: int) -> int:
    """Check a key's lifetime, if one is given, and read the length of its MKI."""
    mki_bytes = 0
    for text in fields:
        if mki := _MKI.fullmatch(text):
            mki_bytes = int(mki[2])
            if not 1 <= mki_bytes <= 128:
                raise SdesError(f"crypto line {tag} has an MKI of {mki_bytes} bytes")
        elif (lifetime := _LIFETIME.fullmatch(text)) and len(lifetime[2]) < 3 + 13 * (not lifetime[1]):
            packets = 1 << int(lifetime[2]) if lifetime[1] else int(lifetime[2])
            if not LEAST_LIFETIME <= packets <= 1 << 48:
                raise SdesError(f"the key of crypto line {tag} is good for {text} packets")
        else:
            raise SdesError(f"crypto line {tag} has a lifetime or MKI that can't be read")
    return mki_bytes
