"""The API key: made at the first start in the data directory, read there by the command line."""

import os
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path

KEY_FILE = "api-key"
KEY_VARIABLE = "OFFHOOK_API_KEY"
MIN_LENGTH = 16


class KeyFileError(Exception):
    """The API key can't be read or made; the message says what to do."""


def load_or_create_key(data_dir: Path, environ: Mapping[str, str] = os.environ) -> str:
    """The API key: OFFHOOK_API_KEY if it is set, else the data directory's, made (mode 0600) if there is none.

    Raises KeyFileError, also for a file that other users of the machine can read or write."""
    if (key := _from_environment(environ)) is not None:
        return key
    path = data_dir / KEY_FILE
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            _create(path)
    except OSError as error:
        raise KeyFileError(
            f"the API key {path} can't be written ({error.strerror}): make {data_dir} writable for this user, "
            f"or set {KEY_VARIABLE}"
        ) from error
    return _read(path)


def read_key(data_dir: Path, environ: Mapping[str, str] = os.environ) -> str:
    """The key of a bridge that has been started, for its clients. Raises KeyFileError, and makes nothing."""
    if (key := _from_environment(environ)) is not None:
        return key
    return _read(data_dir / KEY_FILE)


def _from_environment(environ: Mapping[str, str]) -> str | None:
    key = environ.get(KEY_VARIABLE, "").strip()
    if not key:
        return None
    return _checked(key, KEY_VARIABLE)


def _create(path: Path) -> None:
    """Make the file whole or not at all; of two bridges that start at once, one makes it and both read it."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "w", encoding="ascii") as file:
            file.write(secrets.token_urlsafe(32) + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            path.hardlink_to(draft)
        except FileExistsError:
            return
    finally:
        draft.unlink(missing_ok=True)


def _read(path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            text = file.read(4096)
    except FileNotFoundError as error:
        raise KeyFileError(
            f"there is no API key at {path}: start the bridge once with this data directory, or set {KEY_VARIABLE}"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise KeyFileError(f"the API key {path} can't be read ({error}): run as the bridge's user") from error
    if mode & (stat.S_IRWXO | stat.S_IWGRP):
        raise KeyFileError(
            f"the API key {path} is open to other users (mode {mode:04o}): delete it to get a new one at the next "
            f"start, or chmod 600 it if nobody else can have read it"
        )
    return _checked(text.strip(), str(path))


def _checked(key: str, where: str) -> str:
    if len(key) < MIN_LENGTH or not key.isascii() or not key.isprintable() or " " in key:
        raise KeyFileError(
            f"the API key in {where} is not one: at least {MIN_LENGTH} printable ASCII characters without spaces"
        )
    return key
