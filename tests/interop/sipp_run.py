"""Running SIPp: one scenario, to its end, with what it sent and received."""

import math
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import own_group
from free_ports import free_port, free_ports

SCENARIOS = Path(__file__).parent / "sipp"

_HEAD = re.compile(r"^-{20,} .*\n\w+ message (sent|received) .*\n\n", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Message:
    """A SIP message as SIPp logged it."""

    sent: bool
    text: str


class Sipp:
    """One run of a scenario. Its calls have the Call-IDs `<scenario>-<n>@<port>`."""

    def __init__(
        self,
        folder: Path,
        scenario: str,
        bridge_port: int,
        *,
        calls: int = 1,
        rate: int = 50,
        at_once: int | None = None,
        retransmit: bool = True,
        tcp: bool = False,
        lost_percent: int = 0,
        limit_s: int = 40,
        keys: Mapping[str, object] | None = None,
    ) -> None:
        """`keys`: what `[name]` in the scenario stands for."""
        program = shutil.which("sipp")
        assert program, "SIPp is not installed, and these tests can't do without it: apt-get install sip-tester"
        self.scenario = scenario
        self.port = free_port()
        self._limit_s = limit_s
        self._folder = Path(tempfile.mkdtemp(prefix=f"{scenario}-", dir=folder))
        _tone(self._folder / "tone.ulaw")
        # It takes the ports behind as well, for RTCP and for pictures.
        media = free_ports(4)
        self._messages = self._folder / "messages.log"
        self._errors = self._folder / "errors.log"
        command = [program, f"127.0.0.1:{bridge_port}", "-sf", str(SCENARIOS / f"{scenario}.xml")]
        command += ["-i", "127.0.0.1", "-mi", "127.0.0.1", "-p", str(self.port), "-mp", str(media)]
        command += ["-m", str(calls), "-r", str(rate), "-l", str(at_once or calls)]
        command += ["-cid_str", f"{scenario}-%u@{self.port}", "-nostdin"]
        # What is lost often is sent again for half a minute (RFC 3261 17.1.1.2): it may come at last.
        command += ["-recv_timeout", "40000" if lost_percent else "20000"]
        command += ["-timeout", str(limit_s), "-timeout_error", "-trace_err", "-error_file", str(self._errors)]
        command += ["-trace_msg", "-message_file", str(self._messages)]
        # SIPp strips the blanks that a line of a scenario begins with; a folded header needs one.
        command += ["-key", "fold", "  "]
        for name, value in (keys or {}).items():
            command += ["-key", name, str(value)]
        if tcp:
            command += ["-t", "t1"]
        if lost_percent:
            command += ["-lost", str(lost_percent)]
        if not retransmit:
            command.append("-nr")
        with (self._folder / "screen.log").open("wb") as screen:
            self._process = own_group.start(
                command, cwd=self._folder, stdin=subprocess.DEVNULL, stdout=screen, stderr=subprocess.STDOUT
            )

    def wait_until_listening(self) -> "Sipp":
        """For the called side, before it is called: a refused datagram ends a call at once."""
        wanted = f":{self.port:04X} "
        until = time.monotonic() + 30
        while wanted not in Path("/proc/net/udp").read_text():
            assert time.monotonic() < until, f"SIPp does not listen:\n{self._report()}"
            time.sleep(0.01)
        return self

    def call_id(self, number: int = 1) -> str:
        """The SIP Call-ID of call 1, 2, ..."""
        return f"{self.scenario}-{number}@{self.port}"

    def finish(self) -> "Sipp":
        """Wait until every call of the scenario went as it says. AssertionError with its messages otherwise."""
        try:
            code = self._process.wait(self._limit_s + 10)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"SIPp did not end:\n{self._report()}") from None
        assert code == 0, f"{self.scenario}: SIPp ended with {code}\n{self._report()}"
        return self

    def kill(self) -> None:
        own_group.kill(self._process.pid)
        self._process.wait()

    def messages(self) -> list[Message]:
        """All messages in order."""
        parts = _HEAD.split(self._messages.read_text())
        return [Message(parts[i] == "sent", parts[i + 1].strip()) for i in range(1, len(parts) - 1, 2)]

    def received(self, first_line: str) -> list[str]:
        """What the bridge sent beginning so."""
        return [m.text for m in self.messages() if not m.sent and m.text.startswith(first_line)]

    def _report(self) -> str:
        """What SIPp complained of, then its last messages; or what it said, if it did not get that far."""
        logs = [(self._errors, 3000), (self._messages, 8000)]
        parts = [path.read_text(errors="replace")[-end:] for path, end in logs if path.exists()]
        return "\n".join(parts) or (self._folder / "screen.log").read_text(errors="replace")[-3000:]


def _tone(path: Path) -> None:
    """A second of 440 Hz at 8000 Hz, G.711 u-law: what `rtp_stream` plays."""
    pcm = 8000 * np.sin(2 * math.pi * 440 * np.arange(8000) / 8000)
    magnitude = np.abs(pcm) + 132
    exponent = np.floor(np.log2(magnitude / 132)).astype(int)
    mantissa = (magnitude / 2.0 ** (exponent + 3)).astype(int) & 0x0F
    path.write_bytes((~((pcm < 0) << 7 | exponent << 4 | mantissa) & 0xFF).astype(np.uint8).tobytes())
