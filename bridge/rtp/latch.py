"""Symmetric RTP: from which address a leg's media is taken, and so where ours goes.

The far end's SDP may name an address that only it can see, so the first consistent source wins where the named one
is silent. Once a source is established, nobody else's packets are played or move the stream.
"""

Address = tuple[str, int]

PROOF_PACKETS = 3
"""In sequence, from one unexpected address with one SSRC, before it is taken for the far end."""

ESTABLISH_PACKETS = 10
"""From the source, before not even the address in the SDP can replace it."""

RELATCH_AFTER_S = 2.0
"""Silence of the source after which another may take its place."""

MAX_STEP = 5
"""Steps of the sequence number between packets that prove a source: some of them may get lost."""

MAX_CANDIDATES = 8
"""Addresses that may prove themselves at the same time: a sprayer can't keep the far end from doing so."""


class SourceLatch:
    """Sans-IO: asked about each packet until `established`, afterwards only about other addresses'."""

    def __init__(self, signalled: Address | None, *, symmetric: bool = True) -> None:
        """`signalled` is the address in the far end's SDP, None while there is none. Without `symmetric` no other
        address is ever taken."""
        self.signalled = signalled
        self.source: Address | None = None
        """Where the media comes from."""
        self.established = False
        self._symmetric = symmetric
        self._packets = 0
        self._candidates: dict[tuple[Address, int], tuple[int, int]] = {}
        """By address and SSRC: the last sequence number, and packets in sequence."""
        self._former: Address | None = None
        self._former_until = 0.0

    @property
    def destination(self) -> Address | None:
        """Where to send."""
        return self.source or self.signalled

    def admit(self, address: Address, ssrc: int, sequence: int, now: float, heard_at: float) -> bool:
        """Whether to play this packet. `heard_at` is when the source was last heard (s)."""
        if address == self.source:
            self._packets += 1
            if self._packets >= ESTABLISH_PACKETS:
                self.established = True
            return True
        silent = self.source is None or now - heard_at >= RELATCH_AFTER_S
        if self.established and not silent:
            return False
        if address == self.signalled:
            self._latch(address)
            return True
        if not silent or not self._symmetric or (address == self._former and now < self._former_until):
            return False
        return self._prove(address, ssrc, sequence)

    def resignal(self, signalled: Address | None, now: float) -> None:
        """A new SDP: if it moved the far end, forget the source, and don't go back to it while it falls silent."""
        if signalled != self.signalled:
            self._former = self.source
            self._former_until = now + RELATCH_AFTER_S
            self.signalled = signalled
            self.relatch()

    def relatch(self) -> None:
        """Look for the source anew; any address may prove itself, the present one too."""
        self.source = None
        self.established = False
        self._candidates.clear()

    def _prove(self, address: Address, ssrc: int, sequence: int) -> bool:
        key = (address, ssrc)
        last, packets = self._candidates.pop(key, (sequence - 1, 0))
        packets = packets + 1 if 0 < (sequence - last) & 0xFFFF <= MAX_STEP else 1
        if packets < PROOF_PACKETS:
            if len(self._candidates) == MAX_CANDIDATES:
                del self._candidates[next(iter(self._candidates))]
            self._candidates[key] = (sequence, packets)
            return False
        self._latch(address)
        return True

    def _latch(self, address: Address) -> None:
        self.source = address
        self.established = False
        self._packets = 1
        self._candidates.clear()
