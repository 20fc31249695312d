"""What happens at the socket's edge: RTCP beside RTP and among it, SRTP, a tap, and who may report."""

import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rtp_parties import HOST, Party, exchange

from bridge.rtp.latch import RELATCH_AFTER_S
from bridge.rtp.mux import RtpMux
from bridge.rtp.packet import RtpPacket
from bridge.rtp.rtcp import Goodbye, ReceiverReport, SenderReport, parse_compound, serialise_compound
from bridge.rtp.srtp import Srtp
from bridge.rtp.srtp_keys import SrtpKeys

SUITE = "AES_CM_128_HMAC_SHA1_80"
ONE, OTHER, THIRD = (secrets.token_bytes(30) for _ in range(3))
KEYS = (SrtpKeys(SUITE, ONE, OTHER), SrtpKeys(SUITE, OTHER, ONE))


def connect(first: Party, second: Party, *, rtcp_mux: bool = False, secure: bool = False) -> None:
    for party, other, keys in ((first, second, KEYS[0]), (second, first, KEYS[1])):
        party.session.update(0.0, remote=other.address)
        party.endpoint.configure(
            time.monotonic(),
            rtcp_to=(HOST, other.pair.port + 1),
            rtcp_mux=rtcp_mux,
            srtp=keys if secure else None,
        )


def talk(mux: RtpMux, *parties: Party, ticks: int = 20) -> None:
    for _ in range(ticks):
        for party in parties:
            party.endpoint.tick(time.monotonic())
        mux.poll(time.monotonic())


def report(mux: RtpMux, *parties: Party) -> None:
    """Each reports now, and reads what the others said."""
    for party in parties:
        assert party.endpoint.rtcp is not None
        party.endpoint.rtcp.due = 0.0
        party.endpoint.attend(time.monotonic())
        mux.poll(time.monotonic())


@contextmanager
def far_end() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((HOST, 0))
        sock.setblocking(False)
        yield sock


def drain(sock: socket.socket) -> list[bytes]:
    packets = []
    while True:
        try:
            packets.append(sock.recv(2048))
        except BlockingIOError:
            return packets


def exchange_reports(*, rtcp_mux: bool, secure: bool) -> None:
    with exchange(rtcp=True) as (mux, join):
        first, second = join(), join()
        connect(first, second, rtcp_mux=rtcp_mux, secure=secure)
        for _ in range(3):
            talk(mux, first, second)
            report(mux, first, second)
        for party in (first, second):
            rtcp = party.endpoint.rtcp
            assert rtcp is not None and rtcp.remote is not None
            assert rtcp.round_trip_ms is not None and rtcp.round_trip_ms < 1000
            assert rtcp.malformed == 0 and rtcp.remote.lost == 0
            assert party.session.quality.packets_received == 60
            assert party.session.quality.rejected == {}
        first.endpoint.leave("done")
        mux.poll(time.monotonic())
        assert second.endpoint.rtcp is not None and second.endpoint.rtcp.left


def test_reports_go_over_the_odd_port() -> None:
    exchange_reports(rtcp_mux=False, secure=False)


def test_reports_go_with_the_media_where_that_was_agreed_on() -> None:
    exchange_reports(rtcp_mux=True, secure=False)


def test_media_and_reports_are_encrypted() -> None:
    exchange_reports(rtcp_mux=False, secure=True)


def test_media_and_reports_are_encrypted_on_one_port() -> None:
    exchange_reports(rtcp_mux=True, secure=True)


def test_what_is_on_the_wire_is_srtp() -> None:
    with exchange(rtcp=True) as (mux, join), far_end() as sock, far_end() as rtcp_sock:
        party = join()
        party.session.update(0.0, remote=sock.getsockname())
        party.endpoint.configure(time.monotonic(), rtcp_to=rtcp_sock.getsockname(), srtp=KEYS[0])
        talk(mux, party, ticks=2)
        report(mux, party)
        party.endpoint.leave()
        theirs = Srtp(KEYS[1])
        for data in drain(sock):
            assert len(data) == 12 + 160 + 10
            packet = theirs.unprotect(data, 0.0)
            assert packet is not None and RtpPacket.parse(packet).payload == b"\xff" * 160
        compounds = [theirs.unprotect_rtcp(data, 0.0) for data in drain(rtcp_sock)]
        assert all(compounds)
        kinds = [type(packet) for data in compounds if data for packet in parse_compound(data)]
        assert kinds.count(SenderReport) == 2 and kinds.count(Goodbye) == 1


def test_media_in_clear_or_under_another_key_is_not_played_where_srtp_was_agreed_on() -> None:
    with exchange() as (mux, join), far_end() as sock:
        party = join()
        party.session.update(0.0, remote=sock.getsockname())
        party.endpoint.configure(time.monotonic(), srtp=KEYS[0])
        wrong = Srtp(SrtpKeys(SUITE, THIRD, THIRD))
        for sequence in range(5):
            packet = RtpPacket(0, sequence, sequence * 160, 5, b"\x20" * 160).serialize()
            sealed = wrong.protect(packet)
            assert sealed is not None
            sock.sendto(packet, party.address)
            sock.sendto(sealed, party.address)
            mux.poll(time.monotonic())
        assert party.session.quality.packets_received == 0
        assert party.endpoint.srtp is not None and party.endpoint.srtp.refused_in_a_row == 10


def test_authenticated_source_that_moved_is_followed_without_waiting_for_silence() -> None:
    with exchange() as (mux, join), far_end() as old, far_end() as new:
        party = join()
        party.session.update(0.0, remote=old.getsockname())
        party.endpoint.configure(time.monotonic(), srtp=KEYS[0])
        theirs = Srtp(KEYS[1])

        def send(sock: socket.socket, sequence: int, ssrc: int) -> None:
            data = theirs.protect(RtpPacket(0, sequence, sequence * 160, ssrc, b"\x20" * 160).serialize())
            assert data is not None
            sock.sendto(data, party.address)
            mux.poll(time.monotonic())

        for sequence in range(20):
            send(old, sequence, 5)
        assert party.session.destination == old.getsockname()
        for sequence in range(500, 510):
            send(new, sequence, 6)
        assert party.session.destination == new.getsockname()


def test_stranger_in_clear_must_wait_for_silence() -> None:
    with exchange() as (mux, join), far_end() as old, far_end() as new:
        party = join()
        party.session.update(0.0, remote=old.getsockname())
        now = 1000.0
        for sequence in range(20):
            packet = RtpPacket(0, sequence, sequence * 160, 5, b"\x20" * 160).serialize()
            party.session.receive(packet, old.getsockname(), now)
        for sequence in range(5):
            packet = RtpPacket(0, sequence, sequence * 160, 6, b"\x20" * 160).serialize()
            party.session.receive(packet, new.getsockname(), now + 0.1)
        assert party.session.destination == old.getsockname()
        for sequence in range(5, 10):
            packet = RtpPacket(0, sequence, sequence * 160, 6, b"\x20" * 160).serialize()
            party.session.receive(packet, new.getsockname(), now + RELATCH_AFTER_S + 0.1)
        assert party.session.destination == new.getsockname()
        assert mux.crashes == 0


def test_reports_of_strangers_are_not_read() -> None:
    with exchange(rtcp=True) as (mux, join), far_end() as sock:
        party = join()
        party.session.update(0.0, remote=("127.0.0.9", 9))
        party.endpoint.configure(time.monotonic(), rtcp_to=("127.0.0.9", 10))
        sock.sendto(serialise_compound([ReceiverReport(5)]), (HOST, party.pair.port + 1))
        mux.poll(time.monotonic())
        assert party.endpoint.rtcp is not None and party.endpoint.rtcp.received == 0
        party.endpoint.configure(time.monotonic(), rtcp_to=(HOST, 10))
        sock.sendto(serialise_compound([ReceiverReport(5)]), (HOST, party.pair.port + 1))
        mux.poll(time.monotonic())
        assert party.endpoint.rtcp.received == 1


def test_reports_go_where_the_far_ends_come_from() -> None:
    with exchange(rtcp=True) as (mux, join), far_end() as sock, far_end() as nat:
        party = join()
        party.session.update(0.0, remote=sock.getsockname())
        party.endpoint.configure(time.monotonic(), rtcp_to=(HOST, 9))
        talk(mux, party, ticks=2)
        nat.sendto(serialise_compound([ReceiverReport(5)]), (HOST, party.pair.port + 1))
        mux.poll(time.monotonic())
        report(mux, party)
        assert drain(nat)


def test_junk_on_the_rtcp_port_hurts_nobody() -> None:
    with exchange(rtcp=True) as (mux, join), far_end() as sock:
        party = join()
        party.session.update(0.0, remote=sock.getsockname())
        party.endpoint.configure(time.monotonic(), srtp=None)
        for data in (b"", b"\x80", bytes(1500), b"\x80\xc8\xff\xff" + bytes(40)):
            sock.sendto(data, (HOST, party.pair.port + 1))
            sock.sendto(data, party.address)
        talk(mux, party, ticks=3)
        assert party.endpoint.rtcp is not None and party.endpoint.rtcp.malformed == 4
        assert mux.crashes == 0


def test_tap_sees_both_ways_in_clear_and_can_be_taken_off() -> None:
    with exchange(rtcp=True) as (mux, join):
        first, second = join(), join()
        connect(first, second, secure=True)
        seen: list[tuple[bool, bytes]] = []
        first.endpoint.tap(lambda received, data, address, now: seen.append((received, data)))
        talk(mux, first, second, ticks=3)
        report(mux, first, second)
        first.endpoint.tap(None)
        talk(mux, first, second, ticks=3)
        assert sum(received and RtpPacket.parse(data).payload_type == 0 for received, data in seen) == 3
        assert sum(not received for received, _ in seen) == 4
        assert any(isinstance(parse_compound(data)[0], SenderReport) for _, data in seen if data[1] == 200)


def test_endpoint_is_looked_at_twice_a_second() -> None:
    with exchange() as (mux, join):
        party = join()
        looks: list[float] = []
        party.endpoint.observe = looks.append
        for step in range(200):
            mux.poll(step * 0.02)
        assert len(looks) == 8


def test_observer_that_raises_ends_its_own_call_only() -> None:
    with exchange() as (mux, join):
        party, other = join(), join()

        def fail(now: float) -> None:
            raise RuntimeError("broken observer")

        party.endpoint.observe = fail
        mux.poll(time.monotonic())
        assert [str(error) for error in party.crashes] == ["broken observer"]
        assert party.endpoint.closed and not other.endpoint.closed


def say(sock: socket.socket, party: Party, sequences: range, ssrc: int = 5) -> None:
    for sequence in sequences:
        sock.sendto(RtpPacket(0, sequence, sequence * 160, ssrc, b"\x20" * 160).serialize(), party.address)


def test_a_flood_of_strangers_neither_crowds_the_far_end_out_nor_takes_its_place() -> None:
    with exchange() as (mux, join), far_end() as far, far_end() as stranger:
        party = join()
        party.session.update(0.0, remote=far.getsockname())
        say(far, party, range(8))
        mux.poll(time.monotonic())
        say(far, party, range(8, 16))
        mux.poll(time.monotonic())
        party.endpoint.attend(time.monotonic())
        before = party.session.quality
        say(stranger, party, range(1000), ssrc=6)
        say(far, party, range(16, 20))
        mux.poll(time.monotonic())
        quality = party.session.quality
        assert quality.packets_received - before.packets_received == 4
        assert quality.packets_rejected == 0
        party.endpoint.close()
        stranger.sendto(b"for the next call", party.address)
        assert party.pair.rtp.recv(100) == b"for the next call"


def test_who_speaks_from_elsewhere_after_a_silence_is_let_through_again() -> None:
    with exchange() as (mux, join), far_end() as far, far_end() as moved:
        party = join()
        party.session.update(0.0, remote=far.getsockname())
        say(far, party, range(8))
        mux.poll(time.monotonic())
        say(far, party, range(8, 16))
        mux.poll(time.monotonic())
        party.endpoint.attend(time.monotonic())
        say(moved, party, range(20, 28))
        mux.poll(time.monotonic())
        assert party.session.destination == far.getsockname()
        # A re-INVITE that moves the far end lets it through at once.
        party.session.update(0.0, remote=moved.getsockname())
        party.endpoint.configure(time.monotonic())
        say(moved, party, range(28, 36))
        mux.poll(time.monotonic())
        say(moved, party, range(36, 44))
        mux.poll(time.monotonic())
        assert party.session.destination == moved.getsockname()
        # And so does silence.
        party.endpoint.attend(time.monotonic())
        party.endpoint.attend(time.monotonic() + RELATCH_AFTER_S)
        say(far, party, range(60, 64))
        mux.poll(time.monotonic())
        assert party.session.quality.rejected == {"stranger": 4}
