"""Ports of 127.0.0.1 for the programs of a test."""

import itertools
import os
import random
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

_FROM, _TO = 30_000, 65_500
"""Above the RTP ports of the bridges."""


def _ours() -> list[int]:
    """What the system does not give out by itself: those may be gone between our look and their use."""
    low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    return [port for port in range(_FROM, _TO) if not low <= port <= high] or list(range(_FROM, _TO))


def _share(ports: list[int]) -> list[int]:
    """The part of this process, where several run the tests beside each other: nothing is reserved in between."""
    worker, workers = os.environ.get("PYTEST_XDIST_WORKER", ""), int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if not worker.startswith("gw"):
        return ports
    size = len(ports) // workers
    number = int(worker.removeprefix("gw"))
    return ports[number * size : (number + 1) * size]


def _walk() -> Iterator[int]:
    """For ever, from anywhere: what was taken last comes again as late as possible."""
    ports = _share(_ours())
    start = random.randrange(len(ports))
    return itertools.cycle(ports[start:] + ports[:start])


_next = _walk()


def free_port() -> int:
    """A port that was free a moment ago for UDP and for TCP; no other call of this process gets it soon."""
    return free_ports(1)


def free_ports(count: int, *, rtp: bool = False) -> int:
    """The first of so many free ports in a row; it is even, unless `count` is 1. For RTP it does not matter that a
    connection of a test before still fades on one."""
    kinds = (socket.SOCK_DGRAM,) if rtp else (socket.SOCK_STREAM, socket.SOCK_DGRAM)
    found: list[int] = []
    for port in itertools.islice(_next, 2 * (_TO - _FROM)):
        if found and port != found[-1] + 1:
            found = []
        if not _is_free(port, kinds):
            found = []
        elif found or count == 1 or port % 2 == 0:
            found.append(port)
        if len(found) == count:
            return found[0]
    raise AssertionError(f"there are no {count} free ports in a row from {_FROM} to {_TO}")


def _is_free(port: int, kinds: Sequence[socket.SocketKind]) -> bool:
    for kind in kinds:
        with socket.socket(socket.AF_INET, kind) as sock:
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True
