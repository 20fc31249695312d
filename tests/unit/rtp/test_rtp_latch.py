"""The source latch: NAT is followed, strangers are not."""

from bridge.rtp.latch import ESTABLISH_PACKETS, MAX_CANDIDATES, PROOF_PACKETS, RELATCH_AFTER_S, Address, SourceLatch

NAMED: Address = ("10.0.0.1", 4000)
NAT: Address = ("198.51.100.7", 62000)
STRANGER: Address = ("203.0.113.9", 5555)


class Line:
    """A latch, and when its source was last heard."""

    def __init__(self, signalled: Address | None = NAMED, *, symmetric: bool = True) -> None:
        self.latch = SourceLatch(signalled, symmetric=symmetric)
        self.heard_at = 0.0

    def hear(self, address: Address, count: int, now: float, *, first: int = 0, ssrc: int = 1) -> int:
        """How many of `count` packets were admitted."""
        admitted = 0
        for n in range(count):
            if self.latch.admit(address, ssrc, (first + n) & 0xFFFF, now + n * 0.02, self.heard_at):
                admitted += 1
                self.heard_at = now + n * 0.02
        return admitted


def established(address: Address = NAMED) -> Line:
    line = Line()
    line.hear(address, ESTABLISH_PACKETS + PROOF_PACKETS, 0.0)
    assert line.latch.established and line.latch.source == address
    return line


def test_address_in_the_sdp_is_taken_at_once() -> None:
    line = Line()
    assert line.latch.destination == NAMED
    assert line.hear(NAMED, 1, 0.0) == 1
    assert line.latch.source == NAMED and not line.latch.established


def test_source_behind_nat_proves_itself_and_gets_our_media() -> None:
    line = Line()
    assert line.hear(NAT, 5, 0.0, first=0xFFFE) == 5 - PROOF_PACKETS + 1
    assert line.latch.destination == NAT


def test_late_offer_latches_without_an_address() -> None:
    line = Line(None)
    assert line.latch.destination is None
    line.hear(NAT, PROOF_PACKETS, 0.0)
    assert line.latch.destination == NAT


def test_packets_that_are_no_sequence_prove_nothing() -> None:
    line = Line()
    for n in range(20):
        assert line.hear(STRANGER, 1, n * 0.02, first=n * 1000) == 0
    assert line.hear(STRANGER, PROOF_PACKETS - 1, 1.0, ssrc=5) == 0
    assert line.hear(STRANGER, PROOF_PACKETS - 1, 1.0, ssrc=6) == 0
    assert line.latch.source is None


def test_sprayers_do_not_keep_the_far_end_from_proving_itself() -> None:
    line = Line()
    admitted = 0
    for n in range(PROOF_PACKETS):
        for port in range(MAX_CANDIDATES - 1):
            line.hear(("203.0.113.9", port), 1, n * 0.02, first=n * 777 + port)
        admitted += line.hear(NAT, 1, n * 0.02, first=n)
    assert admitted == 1 and line.latch.source == NAT


def test_address_in_the_sdp_replaces_another_until_that_is_established() -> None:
    line = Line()
    line.hear(STRANGER, PROOF_PACKETS + 2, 0.0)
    assert line.latch.source == STRANGER
    assert line.hear(NAMED, 1, 0.2) == 1
    assert line.latch.source == NAMED


def test_stranger_neither_moves_nor_enters_an_established_stream() -> None:
    for source in (NAMED, NAT):
        line = established(source)
        for n in range(200):
            assert line.hear(source, 1, 0.3 + n * 0.02, first=n) == 1
            assert line.hear(STRANGER, 1, 0.3 + n * 0.02, first=n) == 0
        assert line.latch.source == source


def test_stranger_does_not_get_between_the_first_packets() -> None:
    line = Line()
    line.hear(NAMED, 1, 0.0)
    assert line.hear(STRANGER, 50, 0.0) == 0


def test_silent_source_is_replaced_by_one_that_proves_itself() -> None:
    line = established(NAMED)
    late = line.heard_at + RELATCH_AFTER_S
    assert line.hear(NAT, PROOF_PACKETS - 1, late - 0.1) == 0
    assert line.hear(NAT, PROOF_PACKETS, late + 0.1) == 1
    assert line.latch.source == NAT


def test_new_sdp_moves_the_stream_and_the_old_source_does_not_win_it_back() -> None:
    moved: Address = ("10.0.0.2", 4444)
    line = established(NAT)
    line.latch.resignal(moved, 1.0)
    assert line.latch.destination == moved
    assert line.hear(NAT, 20, 1.0, first=30) == 0
    assert line.hear(moved, 1, 1.5) == 1
    assert line.latch.source == moved


def test_old_source_may_prove_itself_again_when_the_new_address_stays_silent() -> None:
    line = established(NAT)
    line.latch.resignal(("10.0.0.2", 4444), 1.0)
    assert line.hear(NAT, PROOF_PACKETS, 1.0 + RELATCH_AFTER_S, first=200) == 1


def test_same_sdp_again_changes_nothing() -> None:
    line = established(NAT)
    line.latch.resignal(NAMED, 1.0)
    assert line.latch.source == NAT and line.latch.established


def test_relatch_lets_any_source_prove_itself() -> None:
    line = established(NAMED)
    line.latch.relatch()
    assert line.hear(NAT, PROOF_PACKETS, 0.5) == 1


def test_without_symmetric_rtp_only_the_sdp_counts() -> None:
    line = Line(symmetric=False)
    assert line.hear(NAT, 100, 0.0) == 0
    assert line.hear(NAMED, 1, 3.0) == 1
