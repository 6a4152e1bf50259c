"""Writing where the user said: a refusal of the disk becomes one line with the remedy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from backfill_dagster.errors import BackfillError


@contextmanager
def writing(path: Path, *, remedy: str) -> Iterator[None]:
    """For a block that writes `path`.

    Raises:
        BackfillError: an OSError of the block, in words.
    """
    try:
        yield
    except OSError as error:
        raise BackfillError(f"can't write {path}: {error.strerror or error}; {remedy}") from error
