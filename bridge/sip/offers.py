"""Offers and answers of one call (RFC 3264, 6337): whose is open, and what was agreed on last."""

import random
from typing import TYPE_CHECKING

from bridge.sip.body import following

if TYPE_CHECKING:
    from bridge.sip.call import Call


class Offers:
    """Asks those who carry them: the INVITEs of both sides, with their PRACKs, and the UPDATEs."""

    def __init__(self, call: "Call") -> None:
        self._call = call
        self.local: bytes | None = None
        """Our side of the session as last agreed on."""
        self.remote: bytes | None = None
        """The peer's."""

    @property
    def ours_open(self) -> bool:
        """An offer of ours waits for its answer, or an INVITE of ours for its final response or its ACK."""
        call = self._call
        return (
            (call.sending is not None and call.sending.offering)
            or call.updates.offering
            or any(invite.offering for invite in call.invites.values())
        )

    @property
    def theirs_open(self) -> bool:
        """An offer of the peer's waits for our answer."""
        return self._call.updates.offered or any(invite.offered for invite in self._call.invites.values())

    @property
    def retrying(self) -> bool:
        """An offer of ours met one of the peer's and is sent again soon."""
        return self._call.reinvites.waiting or self._call.updates.waiting

    @property
    def changing(self) -> bool:
        """The session is being changed, by whichever side, or about to be."""
        return self.ours_open or bool(self._call.invites) or self._call.updates.offered or self.retrying

    @property
    def first_is_settled(self) -> bool:
        """Whether the first offer is answered, so that UPDATE may bring the next: before the call is answered, by a
        reliable response that was acknowledged (RFC 3311 5.1)."""
        call = self._call
        if call.established:
            return True
        if call.sending is not None:
            return call.sending.early_answered
        return call.reliable is not None and call.reliable.agreed and not call.reliable.outstanding

    def following(self, sdp: bytes) -> bytes:
        """`sdp`, with a version that follows that of our last description."""
        return sdp if self.local is None else following(self.local, sdp)

    def agreed_on(self, local: bytes | None, remote: bytes | None) -> None:
        """Note what was agreed on; None changes nothing."""
        self.local = local or self.local
        self.remote = remote or self.remote

    def glare_delay_s(self) -> float:
        """How long to wait after 491: the caller longer, so that the two don't meet again (RFC 3261 14.1)."""
        return random.uniform(0.0, 2.0) if self._call.inbound else random.uniform(2.1, 4.0)
