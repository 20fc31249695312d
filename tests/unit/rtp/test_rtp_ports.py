"""The port pool, on real sockets."""

import socket

import pytest

from bridge.rtp.ports import PortPool, PortsError, PortsExhaustedError

HOST = "127.0.0.1"


def free_range(pairs: int) -> int:
    """An even port with `2 * pairs` free ports from it on."""
    for base in range(42000, 60000, 100):
        socks = []
        try:
            for port in range(base, base + 2 * pairs):
                sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                socks.append(sock)
                sock.bind((HOST, port))
            return base
        except OSError:
            continue
        finally:
            for sock in socks:
                sock.close()
    raise AssertionError("no free range of ports")


def test_pair_is_an_even_port_and_the_next_both_bound() -> None:
    pool = PortPool(HOST, 41001, 41999)
    pair = pool.allocate(0.0)
    assert pair.port % 2 == 0
    assert pair.rtp.getsockname() == (HOST, pair.port)
    assert pair.rtcp.getsockname() == (HOST, pair.port + 1)
    assert not pair.rtp.getblocking()
    pool.release(pair, 0.0)
    assert pair.rtp.fileno() == pair.rtcp.fileno() == -1


def test_all_pairs_of_the_range_are_given_once() -> None:
    base = free_range(4)
    pool = PortPool(HOST, base, base + 7)
    assert pool.capacity == 4
    pairs = [pool.allocate(0.0) for _ in range(4)]
    assert sorted(pair.port for pair in pairs) == [base, base + 2, base + 4, base + 6]
    with pytest.raises(PortsExhaustedError, match=f"{base} to {base + 7}: 4 pairs in use"):
        pool.allocate(0.0)
    for pair in pairs:
        pool.release(pair, 0.0)
    assert pool.in_use == 0


def test_released_pair_rests_before_it_is_used_again() -> None:
    base = free_range(1)
    pool = PortPool(HOST, base, base + 1)
    pool.release(pool.allocate(10.0), 10.0)
    with pytest.raises(PortsExhaustedError, match="1 resting"):
        pool.allocate(11.9)
    pair = pool.allocate(12.0)
    assert pair.port == base
    pool.release(pair, 12.0)
    pool.release(pair, 12.0)
    assert pool.capacity == 1


@pytest.mark.parametrize("offset", [0, 1])
def test_port_that_another_program_has_is_skipped(offset: int) -> None:
    base = free_range(2)
    pool = PortPool(HOST, base, base + 3)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind((HOST, base + offset))
        pair = pool.allocate(0.0)
        assert pair.port == base + 2
        with pytest.raises(PortsExhaustedError, match="1 taken by other programs"):
            pool.allocate(0.0)
    second = pool.allocate(0.0)
    assert second.port == base
    pool.release(pair, 0.0)
    pool.release(second, 0.0)


def test_address_that_is_not_ours_is_said() -> None:
    with pytest.raises(PortsError, match=r"192\.0\.2\.1"):
        PortPool("192.0.2.1", 42000, 42009).allocate(0.0)


def test_range_without_a_pair_is_refused() -> None:
    with pytest.raises(ValueError, match="no even port"):
        PortPool(HOST, 40001, 40002)
