"""Two hosts with a router between them, as network namespaces of the kernel: for tests that need more than one host.

    office (the bridge, and the test itself while it is `inside`)  10.91.1.2
      |  10.91.1.1
    router
      |  10.91.2.1
    far (Asterisk)                                                10.91.2.2

Neither reaches anything else. The router forwards; it can translate addresses for either side, lose packets, hold
them up by different times, and have its link to `far` taken away. Needs root, iproute2, nftables and /dev/net/tun
(this kernel may have no netem: delay is made by a program, the rest by nftables)."""

import ctypes
import fcntl
import os
import random
import re
import selectors
import struct
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from heapq import heappop, heappush
from pathlib import Path
from typing import Literal

OFFICE, FAR = "10.91.1.2", "10.91.2.2"
ROUTER_INSIDE, ROUTER_OUTSIDE = "10.91.1.1", "10.91.2.1"
"""The router's addresses: on the office's side, on the far side."""

CLONE_NEWNET = 0x40000000
TUNSETIFF = 0x400454CA
IFF_TUN_WITHOUT_HEADER = 0x1001
LARGEST_PACKET = 65_536

_LEFTOVER = re.compile(r"offhook-(\d+)-(office|router|far)")

_libc = ctypes.CDLL(None, use_errno=True)


class Network:
    """Made by the constructor, taken away by `close`."""

    def __init__(self) -> None:
        assert os.geteuid() == 0, "hosts of one's own need root: run these tests as root"
        _remove_leftovers()
        stem = f"offhook-{os.getpid()}"
        self.office, self.router, self.far = (f"{stem}-{name}" for name in ("office", "router", "far"))
        self._delay: Delay | None = None
        try:
            self._make()
        except BaseException:
            self.close()
            raise

    def _make(self) -> None:
        for name in (self.office, self.router, self.far):
            run("ip", "netns", "add", name)
            run("ip", "-n", name, "link", "set", "lo", "up")
        for host, port, address, gateway in (
            (self.office, "inside", OFFICE, ROUTER_INSIDE),
            (self.far, "outside", FAR, ROUTER_OUTSIDE),
        ):
            run("ip", "-n", self.router, "link", "add", port, "type", "veth", "peer", "name", "eth", "netns", host)
            run("ip", "-n", self.router, "address", "add", f"{gateway}/24", "dev", port)
            run("ip", "-n", self.router, "link", "set", port, "up")
            run("ip", "-n", host, "address", "add", f"{address}/24", "dev", "eth")
            run("ip", "-n", host, "link", "set", "eth", "up")
            run("ip", "-n", host, "route", "add", "default", "via", gateway)
        with inside(self.router):
            for setting in ("ip_forward", "conf/all/forwarding"):
                Path(f"/proc/sys/net/ipv4/{setting}").write_text("1")

    def close(self) -> None:
        self.prompt()
        for name in (self.office, self.router, self.far):
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)

    # -- what is wrong with it ------------------------------------------------------------------------------

    def translate(self, side: Literal["office", "far"]) -> None:
        """Have `side` behind the router's own address on the other side: what comes from there must have been begun
        from behind, or be in `forward`."""
        inner, outer = ("inside", "outside") if side == "office" else ("outside", "inside")
        self.rules(
            f"""
            table ip nat {{
                chain pre {{
                    type nat hook prerouting priority dstnat;
                }}
                chain post {{
                    type nat hook postrouting priority srcnat;
                    oifname {outer} masquerade
                }}
                chain forward {{
                    type filter hook forward priority filter; policy drop;
                    ct state established,related accept
                    iifname {inner} accept
                    ct status dnat accept
                }}
            }}
            """
        )

    def forward(self, side: Literal["office", "far"], *ports: tuple[str, str]) -> None:
        """Protocols and ports (or ranges) of the router's own address that go on to `side`, which is translated."""
        outer, host = ("outside", OFFICE) if side == "office" else ("inside", FAR)
        for protocol, port in ports:
            self.rules(f"add rule ip nat pre iifname {outer} {protocol} dport {port} dnat to {host}")

    def lose(self, percent: int) -> None:
        """So many of a hundred packets, both ways, by chance."""
        self.rules(
            f"""
            table ip loss {{
                chain forward {{
                    type filter hook forward priority filter;
                    oifname {{ inside, outside }} numgen random mod 100 < {percent} drop
                }}
            }}
            """
        )

    def delay(self, least_s: float, most_s: float, *, overtaking: bool = False) -> None:
        """Each packet, both ways, by anything between; with `overtaking` later ones may come first."""
        with inside(self.router):
            self._delay = Delay(least_s, most_s, overtaking=overtaking)
        run("ip", "-n", self.router, "link", "set", Delay.NAME, "up")
        with inside(self.router):
            Path(f"/proc/sys/net/ipv4/conf/{Delay.NAME}/rp_filter").write_text("0")
        run("ip", "-n", self.router, "route", "add", "default", "dev", Delay.NAME, "table", "7")
        for port in ("inside", "outside"):
            run("ip", "-n", self.router, "rule", "add", "iif", port, "priority", "7", "table", "7")

    def prompt(self) -> None:
        """No more delay."""
        if self._delay is None:
            return
        for _ in ("inside", "outside"):
            run("ip", "-n", self.router, "rule", "delete", "priority", "7")
        self._delay.close()
        self._delay = None

    def cut(self) -> None:
        """The link to `far` is gone."""
        run("ip", "-n", self.router, "link", "set", "outside", "down")

    def join(self) -> None:
        """It is back."""
        run("ip", "-n", self.router, "link", "set", "outside", "up")

    def rules(self, text: str) -> None:
        """Add to the router's rules (nftables)."""
        run("ip", "netns", "exec", self.router, "nft", "-f", "-", given=text)

    def whole(self) -> None:
        """As it was made."""
        self.prompt()
        run("ip", "netns", "exec", self.router, "nft", "flush", "ruleset")
        self.join()

    def command(self, host: str, command: Sequence[str]) -> list[str]:
        """How to run `command` on one of the hosts; the process is the command's own."""
        return ["ip", "netns", "exec", host, *command]


@contextmanager
def inside(name: str) -> Iterator[None]:
    """This thread, the threads and the processes that it starts, and the sockets that it opens are on that host."""
    with Path("/proc/thread-self/ns/net").open() as before:
        _enter(Path(f"/run/netns/{name}"))
        try:
            yield
        finally:
            if _libc.setns(before.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "the network that this thread came from is lost")


def _enter(file: Path) -> None:
    with file.open() as handle:
        if _libc.setns(handle.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"{file} can't be entered")


def run(*command: str, given: str | None = None) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True, input=given)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr or done.stdout}"


def _remove_leftovers() -> None:
    """Of runs that were killed: their processes are gone but for what they had started there."""
    listed = subprocess.run(["ip", "netns", "list"], check=True, capture_output=True, text=True).stdout
    for name, pid in ((found[0], found[1]) for found in _LEFTOVER.finditer(listed)):
        if Path(f"/proc/{pid}").exists():
            continue
        pids = subprocess.run(["ip", "netns", "pids", name], check=False, capture_output=True, text=True).stdout
        for left in pids.split():
            with suppress(ProcessLookupError):
                os.kill(int(left), 9)
        subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


class Delay:
    """A device that packets are routed into, and come out of again a while later. Made inside the router."""

    NAME = "delay"

    def __init__(self, least_s: float, most_s: float, *, overtaking: bool) -> None:
        self._overtaking = overtaking
        self._range = (least_s, most_s)
        # Of its own, so that each run is the same.
        self._chance = random.Random(1)
        self._device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(self._device, TUNSETIFF, struct.pack("16sH14x", self.NAME.encode(), IFF_TUN_WITHOUT_HEADER))
        self._stop, self._stopped = os.pipe()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        os.write(self._stopped, b"x")
        self._thread.join()
        for handle in (self._device, self._stop, self._stopped):
            os.close(handle)

    def _run(self) -> None:
        held: list[tuple[float, int, bytes]] = []
        count = 0
        last_at = 0.0
        with selectors.DefaultSelector() as selector:
            selector.register(self._device, selectors.EVENT_READ)
            selector.register(self._stop, selectors.EVENT_READ)
            while True:
                rest_s = max(held[0][0] - time.monotonic(), 0.0) if held else None
                ready = {key.fd for key, _ in selector.select(rest_s)}
                if self._stop in ready:
                    return
                with suppress(BlockingIOError):
                    while self._device in ready:
                        packet = os.read(self._device, LARGEST_PACKET)
                        count += 1
                        at = time.monotonic() + self._chance.uniform(*self._range)
                        last_at = at if self._overtaking else max(at, last_at)
                        heappush(held, (last_at, count, packet))
                now = time.monotonic()
                while held and held[0][0] <= now:
                    with suppress(OSError):
                        os.write(self._device, heappop(held)[2])
