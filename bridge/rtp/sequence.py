"""The sequence numbers of one source: unwrapped, counted, duplicates known (RFC 3550 A.1)."""

MAX_DROPOUT = 3000
MAX_MISORDER = 100
"""Steps of the sequence number that are still the same stream (RFC 3550 A.1)."""

FIRST_CYCLE = 0x10000
"""Added to sequence numbers, so that one from before the first packet is not negative."""

SEEN_BITS = (1 << 128) - 1
"""Duplicates are known among the last 128 packets."""


class Sequences:
    """Counts one call's packets, whatever codecs and sources it goes through. Sans-IO."""

    __slots__ = (
        "_expected_before",
        "_first",
        "_forgotten",
        "_received_before",
        "_seen",
        "_seen_to",
        "_top",
        "counted",
        "gaps",
        "received",
        "ssrc",
    )

    def __init__(self) -> None:
        self.ssrc = -1
        """Of the source that is counted; -1 before the first."""
        self.received = 0
        """Packets, duplicates not counted, of all sources."""
        self.gaps = 0
        """Runs of packets that did not come: how bursty the loss is."""
        self.counted = 0
        """Unwrapped number of the packet that was counted last."""
        self._expected_before = self._received_before = 0
        """Of the sources before this one."""
        self._first = self._top = 0
        self._seen = 0
        """A bit for each packet that came, down from the one at `_seen_to`; all between that and the top came."""
        self._seen_to = 0
        self._forgotten = True

    def start(self, sequence: int, ssrc: int) -> None:
        """Count the first packet of what may be another source; the same one, if it comes near, is counted on."""
        if ssrc == self.ssrc and not self._forgotten and not self.far(sequence):
            self.count(sequence)
            return
        self._expected_before += self.expected
        self._received_before = self.received
        self.ssrc = ssrc
        self._forgotten = False
        self._first = self._top = self._seen_to = self.counted = sequence + FIRST_CYCLE
        self._seen = 1
        self.received += 1

    def forget(self) -> None:
        """Nothing is counted for a while: what comes then is counted anew."""
        self._forgotten = True

    def count(self, sequence: int) -> bool:
        """Note the packet as received; False if it was before, or is far off."""
        step = ((sequence - self._top + 0x8000) & 0xFFFF) - 0x8000
        if step == 1:
            self._top = self.counted = self._top + 1
        elif 0 < step < MAX_DROPOUT:
            self._see()
            self._seen = (self._seen << step | 1) & SEEN_BITS
            self._top = self._seen_to = self.counted = self._top + step
            self.gaps += 1
        elif -MAX_MISORDER < step <= 0:
            self._see()
            bit = 1 << -step
            if self._seen & bit:
                return False
            self._seen |= bit
            self.counted = self._top + step
            # A late one fills its gap, takes a piece off its end, or parts it in two.
            self.gaps += 1 - bool(self._seen & bit << 1) - bool(self._seen & bit >> 1)
            self._first = min(self._first, self._top + step)
        else:
            return False
        self.received += 1
        return True

    def _see(self) -> None:
        """Bring the bits up to the top: while all is in order nobody looks at them."""
        run = self._top - self._seen_to
        if run:
            self._seen = (self._seen << run | (1 << run) - 1) & SEEN_BITS if run < 128 else SEEN_BITS
            self._seen_to = self._top

    def extend(self, sequence: int) -> int:
        """The unwrapped sequence number."""
        return self._top + ((sequence - self._top + 0x8000) & 0xFFFF) - 0x8000

    def far(self, sequence: int) -> bool:
        """Whether it is too far off to be of the same stream."""
        return not -MAX_MISORDER < self.extend(sequence) - self._top < MAX_DROPOUT

    def is_behind(self, sequence: int) -> bool:
        """Whether it is older than the newest, yet of the same stream."""
        return -MAX_MISORDER < self.extend(sequence) - self._top < 0

    @property
    def lost(self) -> int:
        """Packets expected by sequence number and never received, of all sources."""
        return max(0, self._expected_before + self.expected - self.received)

    @property
    def expected(self) -> int:
        """Packets by sequence number of the present source."""
        return self._top - self._first + 1 if self.ssrc >= 0 else 0

    @property
    def received_now(self) -> int:
        """Packets of the present source, duplicates not counted."""
        return self.received - self._received_before

    @property
    def highest(self) -> int:
        """Extended highest sequence number of the present source."""
        return self._top - FIRST_CYCLE
