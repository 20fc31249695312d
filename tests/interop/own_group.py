"""Programs of the tests, each the leader of a process group of its own: whatever it starts ends with it.

A test that fails or runs out of time may leave a program behind that nobody holds yet, or one whose children outlive
it (Kamailio's workers, a bridge's engines). Every program that is started here is therefore known to a watcher until
it is ended: when the test process has ended, in whatever way, the watcher kills what is left."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from functools import cache
from typing import IO, Any

SESSION = {"start_new_session": True}
"""What a program is to be started with: its process group has its own number."""

_WATCHER = """\
import os, sys
running = set()
for line in sys.stdin:
    (running.add if line[0] == "+" else running.discard)(int(line[1:]))
for pid in running:
    try:
        os.killpg(pid, 9)
    except ProcessLookupError:
        pass
"""


@cache
def _watcher() -> IO[bytes]:
    """Its input, which ends with this process."""
    # By a shell that is gone at once: tests count the children of this process.
    command = ["/bin/sh", "-c", 'exec 3<&0; "$0" -I -S -c "$1" <&3 >/dev/null 2>&1 &', sys.executable, _WATCHER]
    with_input = subprocess.Popen(command, stdin=subprocess.PIPE, bufsize=0, **SESSION)
    with_input.wait()
    assert with_input.stdin is not None
    return with_input.stdin


_running: set[int] = set()


def start(command: list[str], **how: Any) -> subprocess.Popen[Any]:
    """`subprocess.Popen`, in a group of its own. It is to be ended by `kill`, however it ended itself."""
    process = subprocess.Popen(command, **how, **SESSION)
    belongs_to_us(process.pid)
    return process


def belongs_to_us(pid: int) -> None:
    """Know of the leader of a group that was started in another way, with `SESSION`."""
    _running.add(pid)
    _watcher().write(b"+%d\n" % pid)


def kill(pid: int) -> None:
    """SIGKILL to the whole group. Its leader is still to be waited for by whoever started it. A group that is gone,
    or was killed before, is none of our business any more."""
    if pid in _running:
        _running.discard(pid)
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        _watcher().write(b"-%d\n" % pid)
