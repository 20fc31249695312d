"""Pipecat in an environment of its own, in a folder of the user's cache: our own dependencies stay what they are."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

LOCK = Path(__file__).with_name("pipecat.txt")


def pipecat_python() -> Path:
    """The interpreter that has Pipecat; installed (about 450 MB) when it is not there yet."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "offhook"
    cache.mkdir(parents=True, exist_ok=True)
    wanted = hashlib.sha256(LOCK.read_bytes() + sys.version.encode()).hexdigest()[:16]
    folder = cache / f"pipecat-{wanted}"
    python = folder / "bin/python"
    with (cache / "pipecat.lock").open("w") as lock:
        # Two runs of the tests at once install it once.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "complete").exists():
            for old in cache.glob("pipecat-*"):
                shutil.rmtree(old, ignore_errors=True)
            venv.create(folder, with_pip=True)
            subprocess.run(
                [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--require-hashes", "-r", LOCK],
                check=True,
            )
            (folder / "complete").touch()
    return python
