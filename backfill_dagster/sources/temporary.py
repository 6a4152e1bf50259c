"""The folder for what a query can't keep in memory, and the one line for a disk without room."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from backfill_dagster.errors import SourceError

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder of one's own, gone after the block.

    Raises:
        SourceError: none can be made.
    """
    try:
        folder = tempfile.TemporaryDirectory(prefix="backfill-source-", ignore_cleanup_errors=True)
    except OSError as error:
        raise SourceError(
            f"can't make a temporary folder ({error.strerror}): set TMPDIR to a folder that can be written to"
        ) from error
    with folder as path:
        yield Path(path)


@contextmanager
def room_errors(folder: Path) -> Iterator[None]:
    """What goes wrong in the block is about writing in that folder."""
    try:
        yield
    except OSError as error:
        raise SourceError(no_room_text(error, folder) or f"can't write in {folder}: {error}; see TMPDIR") from error


def no_room_text(error: BaseException, folder: Path) -> str | None:
    """The one line for a disk without room; None when the error is about something else."""
    # DuckDB and Arrow pass on the system's words.
    if getattr(error, "errno", None) not in _NO_ROOM and not any(os.strerror(one) in str(error) for one in _NO_ROOM):
        return None
    return (
        f"the temporary folder {folder.parent} has no room for what source.query needs: free space there, or set "
        "TMPDIR to a folder on a larger disk"
    )
