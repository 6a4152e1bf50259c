"""Disks that remember what was asked of them, and that refuse at a chosen call."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

from backfill_dagster.store.disk import Disk


class RecordingDisk(Disk):
    """The real disk; `calls` holds (operation, path below `root`), `refuse` maps an operation to an errno.

    A refusal comes before the system call, or after it has been done when `late` is set.
    """

    def __init__(self, root: Path, refuse: dict[str, int] | None = None, late: bool = False) -> None:
        self.root = root
        self.refuse = refuse or {}
        self.late = late
        self.calls: list[tuple[str, str]] = []

    def _note(self, operation: str, path: Path) -> None:
        self.calls.append((operation, os.path.relpath(path, self.root)))
        if not self.late:
            self._refuse(operation)

    def _refuse(self, operation: str) -> None:
        if operation in self.refuse:
            raise OSError(self.refuse[operation], os.strerror(self.refuse[operation]))

    def _done(self, operation: str) -> None:
        if self.late:
            self._refuse(operation)

    def create(self, path: Path) -> BinaryIO:
        self._note("create", path)
        return super().create(path)

    def sync_file(self, file: BinaryIO) -> None:
        self._note("sync_file", Path(file.name))
        super().sync_file(file)
        self._done("sync_file")

    def sync_folder(self, path: Path) -> None:
        self._note("sync_folder", path)
        super().sync_folder(path)
        self._done("sync_folder")

    def make_folder(self, path: Path) -> None:
        self._note("make_folder", path)
        super().make_folder(path)

    def link(self, source: Path, target: Path) -> None:
        self._note("link", target)
        super().link(source, target)
        self._done("link")

    def rename(self, source: Path, target: Path) -> None:
        self._note("rename", target)
        super().rename(source, target)
        self._done("rename")

    def unlink(self, path: Path) -> None:
        self._note("unlink", path)
        super().unlink(path)
