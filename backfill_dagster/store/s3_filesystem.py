"""DuckDB's door to S3: an fsspec file system over pyarrow's client. DuckDB's own would be downloaded at run time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow.fs as pafs
from fsspec.implementations.arrow import ArrowFSWrapper


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
        return super()._open(path, mode, **options)

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return path.removeprefix("s3://")
