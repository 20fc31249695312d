"""SRTP and SRTCP of one stream, both ways (RFC 3711, RFC 7714): libsrtp, with new keys in mid-call and MKIs added."""

from collections import deque
from collections.abc import Mapping

import pylibsrtp

from bridge.rtp.srtp_keys import SrtpKeys

PROFILES: Mapping[str, int] = {
    "AES_CM_128_HMAC_SHA1_80": pylibsrtp.Policy.SRTP_PROFILE_AES128_CM_SHA1_80,
    "AES_CM_128_HMAC_SHA1_32": pylibsrtp.Policy.SRTP_PROFILE_AES128_CM_SHA1_32,
    "AEAD_AES_128_GCM": pylibsrtp.Policy.SRTP_PROFILE_AEAD_AES_128_GCM,
    "AEAD_AES_256_GCM": pylibsrtp.Policy.SRTP_PROFILE_AEAD_AES_256_GCM,
}

TAGS: Mapping[str, tuple[int, int]] = {
    "AES_CM_128_HMAC_SHA1_80": (10, 10),
    # SRTCP keeps the long tag (RFC 3711 5.2, RFC 4568 6.2.2).
    "AES_CM_128_HMAC_SHA1_32": (4, 10),
    # With GCM the tag is part of what is encrypted: an MKI comes last of all (RFC 7714 8.2, 9.2).
    "AEAD_AES_128_GCM": (0, 0),
    "AEAD_AES_256_GCM": (0, 0),
}
"""Bytes behind an MKI in SRTP and in SRTCP packets."""

OLD_KEY_S = 3.0
"""After a change of keys, packets under the old one are still taken: those that were on their way."""

MAX_SOURCES = 16
"""SSRCs that are remembered under one key: each takes memory."""

WINDOW = 1024
"""Packets (20 s) among which a replay is known; libsrtp's own 128 are too few for a burst after a stall."""

_REPLAYED = ("replay check failed (bad index)", "replay check failed (index too old)")


class Srtp:
    """Not thread-safe. Nothing that comes from the network raises."""

    def __init__(self, keys: SrtpKeys) -> None:
        """Raises KeyError for a suite that is not in `PROFILES`, ValueError for a key that is too short."""
        self.keys = keys
        self.accepted = 0
        """RTP packets."""
        self.refused = 0
        """RTP packets that fail authentication: another key, or not from the far end at all."""
        self.replayed = 0
        """RTP packets that were taken before."""
        self.refused_in_a_row = 0
        """RTP packets refused since the last that was taken."""
        self._out = _session(keys.suite, keys.send, outbound=True)
        self._in = _Inbound(keys)
        self._old: _Inbound | None = None
        self._old_until = 0.0

    @property
    def suite(self) -> str:
        return self.keys.suite

    def rekey(self, keys: SrtpKeys, now: float) -> None:
        """Go on with these keys; a direction whose key stays keeps its counters."""
        old, self.keys = self.keys, keys
        if (keys.suite, keys.send) != (old.suite, old.send):
            self._out = _session(keys.suite, keys.send, outbound=True)
        if (keys.suite, keys.receive, keys.receive_mki_bytes) != (old.suite, old.receive, old.receive_mki_bytes):
            self._old, self._old_until = self._in, now + OLD_KEY_S
            self._in = _Inbound(keys)
            self.refused_in_a_row = 0

    def protect(self, packet: bytes) -> bytes | None:
        """Encrypt an RTP packet of ours; None if it is too long."""
        try:
            return self._out.protect(packet)
        except (pylibsrtp.Error, ValueError):
            return None

    def protect_rtcp(self, compound: bytes) -> bytes | None:
        """Encrypt an RTCP compound of ours; None if it is too long."""
        try:
            return self._out.protect_rtcp(compound)
        except (pylibsrtp.Error, ValueError):
            return None

    def unprotect(self, data: bytes, now: float) -> bytes | None:
        """The RTP packet in an SRTP packet of at least 12 bytes that came at `now`; None if it is refused."""
        try:
            packet = self._in.unprotect(data)
        except (pylibsrtp.Error, ValueError) as error:
            if str(error) in _REPLAYED:
                self.replayed += 1
                return None
            if self._old is None:
                self.refused += 1
                self.refused_in_a_row += 1
                return None
            return self._under_old_key(data, now)
        self.accepted += 1
        self.refused_in_a_row = 0
        return packet

    def unprotect_rtcp(self, data: bytes, now: float) -> bytes | None:
        """The RTCP compound in an SRTCP packet; None if it is refused."""
        for inbound in (self._in, self._old if now < self._old_until else None):
            if inbound is not None:
                try:
                    return inbound.unprotect_rtcp(data)
                except (pylibsrtp.Error, ValueError):
                    continue
        return None

    def _under_old_key(self, data: bytes, now: float) -> bytes | None:
        old = self._old if now < self._old_until else None
        self._old = old
        if old is not None:
            try:
                packet = old.unprotect(data)
            except (pylibsrtp.Error, ValueError):
                pass
            else:
                self.accepted += 1
                self.refused_in_a_row = 0
                return packet
        self.refused += 1
        self.refused_in_a_row += 1
        return None


class _Inbound:
    """What the far end encrypts under one key, from any SSRC."""

    __slots__ = ("_mki_bytes", "_rtcp_tag", "_rtp_tag", "_session", "_sources", "_ssrc")

    def __init__(self, keys: SrtpKeys) -> None:
        self._mki_bytes = keys.receive_mki_bytes
        self._rtp_tag, self._rtcp_tag = TAGS[keys.suite]
        self._session = _session(keys.suite, keys.receive, outbound=False)
        self._ssrc = b""
        self._sources: deque[bytes] = deque()

    def unprotect(self, data: bytes) -> bytes:
        if self._mki_bytes:
            data = _without_mki(data, self._mki_bytes, self._rtp_tag)
        packet = self._session.unprotect(data)
        if (ssrc := data[8:12]) != self._ssrc:
            self._changed(ssrc)
        return packet

    def unprotect_rtcp(self, data: bytes) -> bytes:
        if self._mki_bytes:
            data = _without_mki(data, self._mki_bytes, self._rtcp_tag)
        return self._session.unprotect_rtcp(data)

    def _changed(self, ssrc: bytes) -> None:
        self._ssrc = ssrc
        if ssrc in self._sources:
            self._sources.remove(ssrc)
        self._sources.append(ssrc)
        if len(self._sources) > MAX_SOURCES:
            self._session.remove_stream(int.from_bytes(self._sources.popleft(), "big"))


def _session(suite: str, key: bytes, *, outbound: bool) -> pylibsrtp.Session:
    kind = pylibsrtp.Policy.SSRC_ANY_OUTBOUND if outbound else pylibsrtp.Policy.SSRC_ANY_INBOUND
    policy = pylibsrtp.Policy(key=key, ssrc_type=kind, srtp_profile=PROFILES[suite])
    policy.window_size = WINDOW
    return pylibsrtp.Session(policy)


def _without_mki(data: bytes, mki_bytes: int, tag: int) -> bytes:
    end = len(data) - tag
    if end < mki_bytes:
        raise ValueError("the packet is shorter than its MKI")
    return data[: end - mki_bytes] + data[end:]
