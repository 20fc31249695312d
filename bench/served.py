"""A real bridge for a measurement: `offhook serve` in a process of its own, and what shows of it from outside."""

import contextlib
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

READY_S = 240.0
"""A first start with the embedded engines synthesises every fixed phrase."""

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Served:
    """A bridge that takes calls."""

    pid: int
    sip_port: int
    http_port: int
    data_dir: Path

    @property
    def api_url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    def get(self, path: str) -> httpx.Response:
        """From the HTTP API, with the key. Raises httpx.HTTPError."""
        key = (self.data_dir / "api-key").read_text().strip()
        answer = httpx.get(self.api_url + path, headers={"Authorization": f"Bearer {key}"}, timeout=30)
        answer.raise_for_status()
        return answer

    def json(self, path: str) -> Any:
        return self.get(path).json()

    def metrics(self) -> dict[str, float]:
        """Name with labels to value."""
        found = {}
        for line in self.get("/metrics").text.splitlines():
            if line and not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                found[name] = float(value)
        return found

    def cpu_s(self) -> float:
        """User and system time of the bridge and its workers so far (s)."""
        return sum(process_cpu_s(pid) for pid in self._tree())

    def rss_mb(self) -> float:
        """Resident memory of the bridge and its workers; pages they share count for each."""
        return sum(
            int(match[1]) / 1024
            for pid in self._tree()
            if (match := re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text()))
        )

    def pss_mb(self) -> float:
        """Proportional set size of the bridge and its workers: a page that several share counts once."""
        return self._mapped_mb("Pss")

    def own_mb(self) -> float:
        """The same without what is mapped from files: its share of those changes with what else runs on the box."""
        return self._mapped_mb("Pss_Anon")

    def _mapped_mb(self, name: str) -> float:
        return sum(
            int(match[1]) / 1024
            for pid in self._tree()
            if (match := re.search(rf"^{name}:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE))
        )

    def open_files(self) -> int:
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def threads(self) -> int:
        return len(list(Path(f"/proc/{self.pid}/task").iterdir()))

    def calls(self, count: int) -> list[dict[str, Any]]:
        """The newest, from the API."""
        found: list[dict[str, Any]] = []
        cursor = ""
        while len(found) < count:
            page = self.json(f"/api/calls?limit={min(200, count - len(found))}{cursor}")
            found += page["calls"]
            if not page.get("next_cursor"):
                break
            cursor = f"&cursor={page['next_cursor']}"
        return found

    def _tree(self) -> list[int]:
        children: dict[int, list[int]] = {}
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit():
                    parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
                    children.setdefault(parent, []).append(int(entry.name))
        tree = [self.pid]
        for pid in tree:
            tree += children.get(pid, [])
        return tree


@contextlib.contextmanager
def serve(
    config: str, folder: Path, *, variables: Mapping[str, str] | None = None, profile: Path | None = None
) -> Iterator[Served]:
    """Run a bridge with this YAML in `folder` until the context is left. Ports are chosen here. `variables`: further
    ones of its environment. `profile`: where a profile of it is written (`bench.sampled`). Raises RuntimeError with
    the end of its log where it does not come up."""
    sip_port, http_port = _free_port(socket.SOCK_DGRAM), _free_port(socket.SOCK_STREAM)
    (folder / "bench.yaml").write_text(config)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OFFHOOK_")}
    environment |= {
        "OFFHOOK_SIP_LISTEN": "127.0.0.1",
        "OFFHOOK_SIP_PORT": str(sip_port),
        "OFFHOOK_HTTP_PORT": str(http_port),
        "OFFHOOK_DATA_DIR": str(folder / "data"),
        "PYTHONPATH": str(Path(__file__).parent.parent),
        **(variables or {}),
    }
    module = ["bridge.cli"] if profile is None else ["bench.sampled", str(profile.absolute())]
    command = [sys.executable, "-W", "ignore", "-m", *module, "serve", "-c", "bench.yaml"]
    log = folder / "bridge.log"
    with log.open("wb") as output:
        bridge = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=output)
        try:
            _wait_until_ready(bridge, log)
            yield Served(bridge.pid, sip_port, http_port, folder / "data")
        finally:
            bridge.terminate()
            try:
                bridge.wait(10)
            except subprocess.TimeoutExpired:
                bridge.kill()
                bridge.wait()


def process_cpu_s(pid: int) -> float:
    """User and system time of a process so far (s), in steps of 10 ms; threads that have ended included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def _wait_until_ready(bridge: "subprocess.Popen[bytes]", log: Path) -> None:
    until = time.monotonic() + READY_S
    while b"ready for calls" not in log.read_bytes():
        if bridge.poll() is not None or time.monotonic() > until:
            raise RuntimeError(f"the bridge did not start: {log.read_text()[-2000:]}")
        time.sleep(0.1)


def _free_port(kind: int) -> int:
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def quantile(values: list[float], part: float) -> float:
    """The value that `part` of them don't exceed; nan of none."""
    return sorted(values)[min(int(len(values) * part), len(values) - 1)] if values else float("nan")
