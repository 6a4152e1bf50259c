"""What came back: status, headers and a body in memory, or in a mapped temporary file when it is big.

How it got here is in `fetch`; what it means is in `answers`.
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

from backfill_dagster.errors import StateError


@dataclass(frozen=True, slots=True)
class Body:
    """One answer.

    Attributes:
        url: what was asked, without the query.
        status: HTTP status; 3xx never gets here.
        headers: names in lower case, repeated ones joined with a comma.
        data: the body, decompressed. Of an answer that is no 2xx only the beginning, or what could be read of it.
        bytes_on_wire: how much of the body was transferred, compressed as it was.
    """

    url: str
    status: int
    headers: Mapping[str, str]
    data: bytes | mmap.mmap
    bytes_on_wire: int

    @property
    def content_type(self) -> str:
        """The media type in lower case without parameters; empty when the server doesn't say."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def sha256(self) -> str:
        """Hex digest of the (decompressed) body."""
        return hashlib.sha256(self.data).hexdigest()

    def close(self) -> None:
        """Give the mapped file back; views of it have to be gone before the memory really is."""
        if isinstance(self.data, mmap.mmap):
            # A view that is still alive keeps the mapping; it goes when the view goes.
            with contextlib.suppress(BufferError):
                self.data.close()

    def __enter__(self) -> Body:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Spool:
    """Collects a body's pieces: in memory up to `over_bytes`, then in an unnamed temporary file."""

    def __init__(self, over_bytes: int, folder: Path | None = None) -> None:
        self._over_bytes = over_bytes
        self._folder = folder
        self._pieces: list[bytes] = []
        self._file: IO[bytes] | None = None
        self.size_bytes = 0

    def write(self, piece: bytes) -> None:
        """Add a piece; StateError when the temporary folder is full or unwritable."""
        self.size_bytes += len(piece)
        try:
            if self._file is not None:
                self._file.write(piece)
                return
            self._pieces.append(piece)
            if self.size_bytes > self._over_bytes:
                self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - closed by finish or discard
                self._file.writelines(self._pieces)
                self._pieces.clear()
        except OSError as error:
            raise _spool_trouble(error) from error

    def finish(self) -> bytes | mmap.mmap:
        """The whole body: bytes, or a read-only mapping of the file (which lives until it is closed)."""
        if self._file is None:
            data = b"".join(self._pieces)
            self._pieces.clear()
            return data
        try:
            self._file.flush()
            return mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise _spool_trouble(error) from error
        finally:
            self.discard()

    def discard(self) -> None:
        """Let go of everything; a mapping that was handed out stays valid."""
        self._pieces.clear()
        if self._file is not None:
            self._file.close()
            self._file = None


def _spool_trouble(error: OSError) -> StateError:
    return StateError(
        f"can't write a large download to the temporary folder ({error.strerror or error}); "
        "make room there or point TMPDIR to a folder with more"
    )
