"""DuckDB's door to S3, noting which objects couldn't be read: what a service says to a GET doesn't name the object."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow.fs as pafs

from backfill_dagster.store.s3_filesystem import S3File, S3Files


class NotingFiles(S3Files):
    """Attributes: `failed`, the addresses of the objects that couldn't be read, in the order of their failures."""

    def __init__(self, filesystem: Callable[[], pafs.S3FileSystem]) -> None:
        super().__init__(filesystem)
        self.failed: list[str] = []

    @contextmanager
    def noted(self, path: str) -> Iterator[None]:
        """What goes wrong in the block is about that object."""
        try:
            yield
        except OSError:
            self.failed.append(f"s3://{self._strip_protocol(path)}")
            raise

    def info(self, path: str, **options: Any) -> Any:
        """As of any file system."""
        with self.noted(path):
            return super().info(path, **options)

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        with self.noted(path):
            return _NotingFile(super()._open(path, mode, **options))


class _NotingFile(S3File):
    def __init__(self, opened: S3File) -> None:
        super().__init__(opened.fs, opened.stream, opened.path, opened.mode)
        self._opened = opened  # which closes the stream when it goes

    def read(self, size: int | None = -1) -> bytes:
        """As of any file."""
        with self.fs.noted(self.path):
            return super().read(size)
