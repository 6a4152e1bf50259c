"""The few system calls that durability rests on, by name.

`LocalStore` changes the disk through these alone, so that a test can count them, fail them or kill the process at
each. Which calls make up a durable operation is decided in `store/local.py`, not here.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO


class Disk:
    """The real disk. Every method raises the plain OSError of its system call."""

    def create(self, path: Path) -> BinaryIO:
        """Open a new file for writing; FileExistsError when there is one."""
        return path.open("xb")

    def sync_file(self, file: BinaryIO) -> None:
        """Flush a file to the medium."""
        file.flush()
        os.fsync(file.fileno())

    def sync_folder(self, path: Path) -> None:
        """Flush a folder's names to the medium."""
        number = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(number)
        finally:
            os.close(number)

    def make_folder(self, path: Path) -> None:
        """Create one folder; one that is there is fine."""
        path.mkdir(exist_ok=True)

    def link(self, source: Path, target: Path) -> None:
        """Give a file a second name; FileExistsError when it is taken. This is put-if-absent's one moment."""
        os.link(source, target)

    def rename(self, source: Path, target: Path) -> None:
        """Move a file within the file system, replacing what is there."""
        source.rename(target)

    def unlink(self, path: Path) -> None:
        """Delete a name; FileNotFoundError when there is none."""
        path.unlink()
