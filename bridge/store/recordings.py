"""Recordings as files of one directory: found by the name the record holds, and never outside it."""

from pathlib import Path


def recording_path(directory: Path, name: str) -> Path | None:
    """Where the recording `name` lies, or None for a name that is no plain file of `directory`.

    A link that leads out of the directory is none of ours either."""
    if not name or name in (".", "..") or "/" in name or "\\" in name or "\x00" in name:
        return None
    path = directory / name
    try:
        resolved = path.resolve(strict=True)
    except (OSError, RuntimeError):
        return None
    if resolved.parent != directory.resolve() or not resolved.is_file():
        return None
    return resolved


def delete_recording(directory: Path, name: str) -> None:
    """Remove the recording; one that is not there (any more) is as good as removed. Raises OSError."""
    path = recording_path(directory, name)
    if path is not None:
        path.unlink(missing_ok=True)
