"""Programs of the tests, each the leader of a process group of its own: whatever it starts ends with it.

A test that fails or runs out of time may leave a program behind that nobody holds yet, or one whose children outlive
it (Kamailio's workers, a bridge's engines). Every program that is started here is therefore known until it is ended,
and what is left at the end of the test process is killed."""

import atexit
import os
import signal
import subprocess
from typing import Any

SESSION = {"start_new_session": True}
"""What a program is to be started with: its process group has its own number."""

_running: set[int] = set()


def start(command: list[str], **how: Any) -> subprocess.Popen[Any]:
    """`subprocess.Popen`, in a group of its own. It is to be ended by `kill`, however it ended itself."""
    process = subprocess.Popen(command, **how, **SESSION)
    belongs_to_us(process.pid)
    return process


def belongs_to_us(pid: int) -> None:
    """Know of the leader of a group that was started in another way, with `SESSION`."""
    _running.add(pid)


def kill(pid: int) -> None:
    """SIGKILL to the whole group. Its leader is still to be waited for by whoever started it. A group that is gone,
    or was killed before, is none of our business any more."""
    if pid in _running:
        _running.discard(pid)
        try:
            os.killpg(pid, signal.SIGKILL)
        except ProcessLookupError:
            return


@atexit.register
def _kill_all() -> None:
    for pid in list(_running):
        kill(pid)
