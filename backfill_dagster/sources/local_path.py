"""A source's file on this disk: is it one, and which version of it. What is in it, the sibling modules read."""

from __future__ import annotations

import hashlib
from pathlib import Path

from backfill_dagster.errors import SourceError

HASHED_MAX_BYTES = 256 * 1024 * 1024
"""Up to here a file's version is its digest (about a second); a larger one is known by size and time of change."""

_CHUNK_BYTES = 1024 * 1024


def check_file(path: Path) -> None:
    """Raise SourceError unless `path` is a regular file: a pipe or device would be waited for without end."""
    try:
        if path.is_file():
            return
        what = "is a folder" if path.is_dir() else "is not a regular file" if path.exists() else "doesn't exist"
    except OSError as error:
        what = f"can't be looked at ({error.strerror})"
    raise SourceError(f"{path} {what}: correct source.path")


def file_version(path: Path, *, hashed_max_bytes: int = HASHED_MAX_BYTES) -> str:
    """Content version of a file: `sha256:<hex>`, or `stat:<size>:<mtime in ns>` above the bound.

    Raises:
        SourceError: it can't be read.
    """
    check_file(path)
    try:
        found = path.stat()
        if found.st_size > hashed_max_bytes:
            return f"stat:{found.st_size}:{found.st_mtime_ns}"
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
    except OSError as error:
        raise unreadable(path, error) from error
    return f"sha256:{digest.hexdigest()}"


def unreadable(path: Path, error: OSError) -> SourceError:
    """The one line for a file that the system won't read."""
    return SourceError(f"can't read {path}: {error.strerror or error}; make it readable, or correct source.path")
