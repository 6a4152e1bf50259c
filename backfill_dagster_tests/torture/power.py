"""What a power cut leaves of a folder: what has changed since the last flush goes, names and content each by itself.

POSIX promises no more than this, but for one thing that every journaling file system adds: a rename is never half
done. Which calls are made is not known here.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class _Change:
    """A name that came, or names that went or were taken over; those still have another one in the morgue."""

    came: Path | None
    went: tuple[tuple[Path, Path], ...] = ()

    def is_in(self, folder: Path) -> bool:
        names = [path for path, _ in self.went] + ([self.came] if self.came else [])
        return any(path.parent == folder for path in names)

    def undo(self) -> None:
        if self.came is not None and self.came.is_dir():
            shutil.rmtree(self.came)
        elif self.came is not None:
            self.came.unlink(missing_ok=True)  # it may have gone on to a name that is durable
        for path, keeper in self.went:
            os.link(keeper, path)


class Journal:
    """Remembers what is not durable yet, so that it can be undone.

    Args:
        morgue: a folder on the same file system, for what was deleted.
    """

    def __init__(self, morgue: Path) -> None:
        self._morgue = morgue
        self._changes: list[_Change] = []
        self._content: set[int] = set()

    @contextmanager
    def change(self, came: Path | None, *went: Path) -> Iterator[None]:
        """One change, made in the block: a file or folder gets a name, and files (if they are there) lose theirs."""
        self._morgue.mkdir(exist_ok=True)
        keepers = [(path, self._morgue / uuid.uuid4().hex) for path in went if path.exists()]
        for path, keeper in keepers:
            os.link(path, keeper)
        yield
        self._changes.append(_Change(came, tuple(keepers)))

    def written(self, number: int) -> None:
        """Something was written to the file that is open under this number."""
        self._content.add(os.fstat(number).st_ino)

    def file_flushed(self, number: int) -> None:
        """The content of the file that is open under this number is durable."""
        self._content.discard(os.fstat(number).st_ino)

    def folder_flushed(self, folder: Path) -> None:
        """The names in this folder are durable."""
        self._changes = [change for change in self._changes if not change.is_in(folder)]

    def cut(self, root: Path, *, names_stay: bool) -> None:
        """Leave below `root` what is durable; half of the unflushed content if the names stay, nothing of it if not."""
        for path in [one for one in root.rglob("*") if one.is_file()]:
            if path.stat().st_ino in self._content:
                os.truncate(path, path.stat().st_size // 2 if names_stay else 0)
        if not names_stay:
            for change in reversed(self._changes):
                change.undo()
