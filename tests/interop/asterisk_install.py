"""Asterisk 22 and 16 in folders of the user's cache: Debian 12 has neither, other suites of the same mirror have.

Packages are fetched by apt with a state of its own and unpacked, never installed; Asterisk then runs by the loader
and the libraries that it came with. Takes about half a minute and 250 MB, once for each.

Asterisk 22.10 (forky) has no chan_sip. Asterisk 16.28 (bullseye) has chan_sip and ExternalMedia by RTP, but no
AudioSocket, which came with 18."""

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

Suite = Literal["forky", "bullseye"]
"""Debian's: Asterisk 22 is in forky, 16.28 in bullseye. Their Release files have expired, the signatures verify."""

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
LEFT_OUT = ("./usr/share/doc", "./usr/share/man", "./usr/share/locale")


def asterisk_root(suite: Suite = "forky") -> Path:
    """The folder that Asterisk and its libraries are unpacked in; fetched when it is not there yet."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "offhook"
    cache.mkdir(parents=True, exist_ok=True)
    root = cache / f"asterisk-{suite}"
    with (cache / "asterisk.lock").open("w") as lock:
        # Two runs of the tests at once fetch it once.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (root / "usr/sbin/asterisk").exists():
            with tempfile.TemporaryDirectory(dir=cache) as work:
                _fetch(Path(work), suite)
                shutil.rmtree(root, ignore_errors=True)
                (Path(work) / "root").rename(root)
    return root


def asterisk_command(root: Path, arguments: list[str]) -> list[str]:
    """How to run it: by its own loader, with its own libraries."""
    libraries = root / "usr/lib/x86_64-linux-gnu"
    # Not by usr/lib64: there bullseye's is a link to an absolute path, the machine's own.
    loader = libraries / "ld-linux-x86-64.so.2"
    path = f"{libraries}:{libraries / 'asterisk'}:{root / 'usr/lib'}"
    return [str(loader), "--library-path", path, str(root / "usr/sbin/asterisk"), *arguments]


def asterisk_modules(root: Path) -> Path:
    """Where its modules are (`astmoddir`): before forky not below the architecture's folder."""
    later = root / "usr/lib/x86_64-linux-gnu/asterisk/modules"
    return later if later.exists() else root / "usr/lib/asterisk/modules"


def mirror() -> str:
    """The Debian mirror that this machine is set up with."""
    folder = Path("/etc/apt")
    sources = [folder / "sources.list", *sorted((folder / "sources.list.d").glob("*"))]
    for path in sources:
        if not path.is_file():
            continue
        text = path.read_text(errors="replace")
        for line in text.splitlines():
            one_line = re.match(r"deb\s+(?:\[[^\]]*\]\s+)?(\S+)\s+(\S+)\s", line)
            if one_line and "debian" in one_line[1] and "security" not in one_line[2]:
                return one_line[1].rstrip("/")
            uris = re.match(r"URIs:\s*(\S*/debian/?)\s*$", line)
            if uris:
                return uris[1].rstrip("/")
    raise AssertionError("no Debian mirror in /etc/apt: Asterisk can't be fetched")


def _fetch(work: Path, suite: Suite) -> None:
    for folder in ("lists/partial", "archives/partial", "root"):
        (work / folder).mkdir(parents=True)
    (work / "status").touch()
    (work / "sources.list").write_text(f"deb [signed-by={KEYRING}] {mirror()} {suite} main\n")
    options = {
        "Dir::Etc::sourcelist": work / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::Etc::preferences": "/dev/null",
        "Dir::Etc::preferencesparts": "/dev/null",
        "Dir::State::lists": work / "lists",
        "Dir::State::status": work / "status",
        "Dir::State::extended_states": work / "extended_states",
        "Dir::Cache": work,
        "Dir::Cache::archives": work / "archives",
        "Debug::NoLocking": "1",
        "APT::Sandbox::User": "root",
        "APT::Install-Recommends": "0",
        "APT::Default-Release": "",
        "Acquire::Languages": "none",
        "Acquire::Check-Valid-Until": "false",
        "Acquire::Retries": "3",
    }
    apt = ["apt-get", "-qq", *(f"-o{name}={value}" for name, value in options.items())]
    for step in (["update"], ["install", "-y", "--download-only", "asterisk"]):
        done = subprocess.run([*apt, *step], check=False, capture_output=True, text=True)
        assert done.returncode == 0, f"apt-get {step[0]} for Asterisk failed:\n{done.stdout}\n{done.stderr}"
    packages = sorted((work / "archives").glob("*.deb"))
    # Debian's packages expect /lib and its like to be links into /usr.
    for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        (work / "root/usr" / name).mkdir(parents=True, exist_ok=True)
        (work / "root" / name).symlink_to(f"usr/{name}")
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda package: _unpack(package, work / "root"), packages))


def _unpack(package: Path, root: Path) -> None:
    excluded = [f"--exclude={path}" for path in LEFT_OUT]
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE) as tar:
        subprocess.run(
            ["tar", "-x", "--keep-directory-symlink", "--no-same-owner", *excluded, "-C", str(root)],
            stdin=tar.stdout,
            check=True,
        )
    assert tar.returncode == 0, f"{package.name} could not be unpacked"
