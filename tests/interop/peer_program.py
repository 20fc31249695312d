"""A program of somebody else's, run for a test: its output, its start and its end."""

import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import own_group

START_S = 40.0


def installed(program: str, package: str) -> str:
    """The path of `program`; these tests can't do without it."""
    found = shutil.which(program) or shutil.which(program, path="/usr/sbin:/usr/local/sbin")
    assert found, f"{program} is not installed, and these tests can't do without it: apt-get install {package}"
    return found


class PeerProgram:
    """One running program, its output kept line by line."""

    def __init__(
        self, name: str, command: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self.said: list[str] = []
        self.process = own_group.start(
            list(command),
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait_for(self, probe: Callable[[], Any], limit_s: float, what: str) -> Any:
        """What `probe` gives as soon as it is true."""
        until = time.monotonic() + limit_s
        while not (found := probe()):
            assert time.monotonic() < until, f"{self.name}: no {what} within {limit_s} s; it said:\n{self.tail()}"
            assert self.process.poll() is None, f"{self.name} is gone, waiting for {what}:\n{self.tail()}"
            time.sleep(0.02)
        return found

    def wait_for_line(self, wanted: str, limit_s: float = START_S) -> str:
        """The first line of its output that holds `wanted`."""
        found: str = self.wait_for(
            lambda: next((line for line in list(self.said) if wanted in line), None), limit_s, f"line {wanted!r}"
        )
        return found

    def stop(self) -> None:
        """SIGTERM, and SIGKILL if that is not enough; its children end with it."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
        own_group.kill(self.process.pid)
        self.process.wait()
        self._reader.join(5)

    def tail(self, lines: int = 60) -> str:
        return "".join(self.said[-lines:])

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line)
