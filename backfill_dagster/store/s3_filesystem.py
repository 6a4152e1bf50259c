"""DuckDB's door to S3: an fsspec file system over pyarrow's client. DuckDB's own would be downloaded at run time."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

import pyarrow.fs as pafs
from fsspec.implementations.arrow import ArrowFile, ArrowFSWrapper


class S3Files(ArrowFSWrapper):  # type: ignore[misc]
    """Files by `s3://bucket/key`, only for reading.

    Args:
        filesystem: gives pyarrow's file system, with credentials that are good at that moment.
    """

    protocol = "s3"
    cachable = False

    def __init__(self, filesystem: Callable[[], pafs.S3FileSystem]) -> None:
        self._filesystem = filesystem
        super().__init__(filesystem())

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        self.fs = self._filesystem()
        if mode != "rb":
            raise ValueError(f"opened for reading only, not {mode!r}")
        return S3File(self, self.fs.open_input_file(self._strip_protocol(path)), path, mode)

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return path.removeprefix("s3://")


class S3File(ArrowFile):  # type: ignore[misc]
    """An object in which a thread reads where it has gone to itself.

    DuckDB's threads share a file, and one's `seek` may come between another's `seek` and `read`. A thread that has not
    gone anywhere reads on where the last one has stopped.
    """

    def __init__(self, fs: S3Files, stream: Any, path: str, mode: str) -> None:
        super().__init__(fs, stream, path, mode)
        self._lock = threading.Lock()
        self._place = 0
        self._gone_to: dict[int, int] = {}  # by thread, until it reads

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place, as any file does."""
        with self._lock:
            start = {os.SEEK_SET: 0, os.SEEK_CUR: self._here(), os.SEEK_END: self.size}[whence]
            self._place = self._gone_to[threading.get_ident()] = start + offset
            return self._place

    def tell(self) -> int:
        """Where this thread would read."""
        with self._lock:
            return self._here()

    def read(self, size: int | None = -1) -> bytes:
        """Up to so many bytes; None or a negative number: all that are left."""
        with self._lock:
            place = self._here()
            left = max(self.size - place, 0)
            length = left if size is None or size < 0 else min(size, left)
            if self._gone_to.pop(threading.get_ident(), None) is None:
                self._gone_to.clear()  # it is read in turn, so whoever comes next reads on
            self._place = place + length
        data: bytes = self.stream.read_at(length, place)
        return data

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def close(self) -> None:
        """Close it."""
        self.stream.close()

    def _here(self) -> int:
        return self._gone_to.get(threading.get_ident(), self._place)
