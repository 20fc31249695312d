"""What a start needs of the machine: a directory, its lock, free ports; and what is said where one is missing."""

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


class StartError(Exception):
    """The bridge can't start; the message says why and what to do."""


def make_data_dir(path: Path) -> Path:
    """Raises StartError."""
    try:
        path.mkdir(mode=0o750, parents=True, exist_ok=True)
    except OSError as error:
        raise StartError(
            f"the data directory {path} can't be made ({error.strerror}): set data_dir or OFFHOOK_DATA_DIR"
        ) from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise StartError(f"the data directory {path} is not writable for this user: set data_dir or OFFHOOK_DATA_DIR")
    return path


@contextlib.contextmanager
def only_one(data_dir: Path) -> Iterator[None]:
    """Two bridges on one data directory would close each other's calls. Raises StartError."""
    with (data_dir / "offhook.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StartError(
                f"another bridge runs on the data directory {data_dir}: stop it, or set another OFFHOOK_DATA_DIR"
            ) from error
        yield


def port_problem(error: OSError, where: str, section: str) -> str:
    """Why `where` (`sip 0.0.0.0:5060/udp`) can't be listened on, and which setting of `section` to change."""
    if error.errno == errno.EADDRINUSE:
        return (
            f"{where} is taken by another program: stop it, or choose another port "
            f"({section}.port, OFFHOOK_{section.upper()}_PORT)"
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{where} is no address of this machine: correct {section}.listen"
    if error.errno == errno.EACCES:
        return f"{where} may not be used by this user: choose a port above 1023 ({section}.port)"
    return f"{where} can't be listened on: {error.strerror}"
