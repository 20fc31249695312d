"""Synthesised phrases, kept: in memory the ones used lately, on disk the ones prepared at start."""

import contextlib
import hashlib
import os
import tempfile
from collections import OrderedDict
from pathlib import Path

import structlog

log = structlog.get_logger(__name__)

MAGIC = b"OHPHRASE1\n"
DIGEST_BYTES = 32


def phrase_key(text: str, *, voice: str, sample_rate: int) -> str:
    """The name of a phrase; `voice` tells the model and everything else that its sound depends on."""
    return hashlib.sha256(f"{voice}\n{sample_rate}\n{text}".encode()).hexdigest()


class PhraseMemory:
    """At most `limit` bytes of phrases, the least recently used out first."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0
        self._phrases: OrderedDict[str, bytes] = OrderedDict()

    def get(self, key: str) -> bytes | None:
        pcm = self._phrases.get(key)
        if pcm is not None:
            self._phrases.move_to_end(key)
        return pcm

    def put(self, key: str, pcm: bytes) -> None:
        self._size += len(pcm) - len(self._phrases.pop(key, b""))
        self._phrases[key] = pcm
        while self._size > self._limit:
            self._size -= len(self._phrases.popitem(last=False)[1])


class PhraseFiles:
    """A directory with a file a phrase. Whatever is wrong with it, the caller goes on without. Calls block."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._complained = False

    def read(self, key: str) -> bytes | None:
        """None if there is none, or it is damaged."""
        try:
            content = self._path(key).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            self._complain("read", error)
            return None
        digest_end = len(MAGIC) + DIGEST_BYTES
        pcm = content[digest_end:]
        if not content.startswith(MAGIC) or content[len(MAGIC) : digest_end] != hashlib.sha256(pcm).digest():
            log.warning("damaged phrase is synthesised anew", file=str(self._path(key)))
            return None
        return pcm

    def write(self, key: str, pcm: bytes) -> None:
        """Put the whole file there, or none."""
        temporary = None
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self._directory, suffix=".new", delete=False) as file:
                temporary = Path(file.name)
                file.write(MAGIC + hashlib.sha256(pcm).digest() + pcm)
            os.replace(temporary, self._path(key))  # noqa: PTH105 - says that it is atomic
        except OSError as error:
            self._complain("write", error)
            if temporary is not None:
                with contextlib.suppress(OSError):
                    temporary.unlink()

    def _path(self, key: str) -> Path:
        return self._directory / f"{key}.phrase"

    def _complain(self, what: str, error: OSError) -> None:
        if not self._complained:
            self._complained = True
            log.warning(f"can't {what} phrases; they are synthesised at each start", error=str(error))
