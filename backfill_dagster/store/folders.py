"""Folders of a local store: made so that they survive a power cut, and walked while others change them."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator
from pathlib import Path

from backfill_dagster.store.base import ObjectInfo
from backfill_dagster.store.disk import Disk
from backfill_dagster.store.problems import disk_problem


class DurableFolders:
    """Makes folders below `root`, and `root` itself with what is missing above it."""

    def __init__(self, root: Path, disk: Disk) -> None:
        self._root = root
        self._disk = disk
        self._durable: set[Path] = set()

    def ensure(self, folder: Path) -> None:
        """Create what is missing and flush every name on the way, once per process. Raises the plain OSError.

        One that is there already may be the work of a process that died before it flushed.
        """
        if folder in self._durable:
            return
        if folder != self._root:
            self.ensure(folder.parent)
        elif not folder.parent.is_dir():
            self._ensure_above(folder.parent)
        self._disk.make_folder(folder)
        if folder != self._root or os.access(folder.parent, os.R_OK):
            self._disk.sync_folder(folder.parent)
        self._durable.add(folder)

    def _ensure_above(self, folder: Path) -> None:
        if not folder.parent.is_dir():
            self._ensure_above(folder.parent)
        self._disk.make_folder(folder)
        self._disk.sync_folder(folder.parent)


def walk_files(folder: Path, prefix: str, hidden: Collection[str]) -> Iterator[ObjectInfo]:
    """The regular files below a folder, in no order; none when it isn't there.

    Args:
        folder: where to begin.
        prefix: what their keys begin with.
        hidden: names right in `folder` that are passed over.

    Raises:
        StateError: a folder can't be read.
    """
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name in hidden:
                    continue
                if entry.is_dir():
                    yield from walk_files(folder / entry.name, f"{prefix}{entry.name}/", ())
                elif (size := _size(entry)) is not None:
                    yield ObjectInfo(f"{prefix}{entry.name}", size)
    except FileNotFoundError:
        return
    except OSError as error:
        raise disk_problem(error, "list", folder) from error


def _size(entry: os.DirEntry[str]) -> int | None:
    """Bytes of a file; None for what is no regular file, or vanished while the folder was read."""
    try:
        found = entry.stat()
    except FileNotFoundError:
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None
