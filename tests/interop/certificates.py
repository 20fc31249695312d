"""A certificate authority of the tests' own, and what it signs."""

import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class KeyPair:
    certificate: Path
    key: Path


class Authority:
    """Signs certificates for names and addresses; `certificate` is what peers are to trust."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self.certificate = folder / "ca.pem"
        self._key = folder / "ca.key"
        _openssl(
            "req -x509 -newkey rsa:2048 -nodes -days 3 -subj /CN=tests",
            ["-keyout", str(self._key), "-out", str(self.certificate)],
        )

    def issue(self, name: str, *, host: str = "localhost", address: str = "127.0.0.1", days: int = 3) -> KeyPair:
        """A certificate for `host` and `address`, for either end of a connection; `name` names the files. It has
        expired where `days` is negative."""
        key, request, certificate = (self._folder / f"{name}.{end}" for end in ("key", "csr", "pem"))
        _openssl(
            f"req -newkey rsa:2048 -nodes -subj /CN={host}",
            ["-keyout", str(key), "-out", str(request), "-addext", f"subjectAltName=DNS:{host},IP:{address}"],
        )
        _openssl(
            f"x509 -req -days {days} -copy_extensions copyall -CAcreateserial",
            ["-in", str(request), "-out", str(certificate), "-CA", str(self.certificate), "-CAkey", str(self._key)],
        )
        return KeyPair(certificate, key)


def _openssl(words: str, arguments: list[str]) -> None:
    done = subprocess.run(["openssl", *words.split(), *arguments], check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"openssl {words.split()[0]} failed: {done.stderr}"
