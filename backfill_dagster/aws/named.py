"""pyarrow's S3 file system for readers that lose sight of what they read: its errors say which object they are about.

DuckDB hands on the text of an error, and nothing of where it came from. The words are those in which pyarrow names an
object itself, where it does.
"""

from __future__ import annotations

from typing import Any

import pyarrow.fs as pafs


class NamedReads:
    """A file system whose files name themselves; all else is pyarrow's own."""

    def __init__(self, filesystem: pafs.S3FileSystem) -> None:
        self._filesystem = filesystem

    def open_input_file(self, path: str) -> _NamedFile:
        """The object at `bucket/key`, for random reading."""
        return _NamedFile(self._filesystem.open_input_file(path), path)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._filesystem, name)


class _NamedFile:
    def __init__(self, file: Any, path: str) -> None:
        self._file = file
        self._path = path

    def read_at(self, length: int, start: int) -> bytes:
        """So many bytes from there."""
        try:
            data: bytes = self._file.read_at(length, start)
        except OSError as error:
            bucket, _, key = self._path.partition("/")
            # None: DuckDB would show the first error's traceback, and then what is said here.
            raise OSError(f"When reading key '{key}' in bucket '{bucket}': {error}") from None
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)
