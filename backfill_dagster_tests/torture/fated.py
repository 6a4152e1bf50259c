"""Disk, ledger and lease tables whose every durable call meets its fate first; and a store that notes what it promised.

What can happen to a call is in `fate.py`.
"""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from io import BufferedWriter, FileIO, RawIOBase
from pathlib import Path
from typing import Any, BinaryIO

from backfill_dagster.errors import ObjectMissingError
from backfill_dagster.ledger import LeaseRecord, ShardSummary, SqliteLedger
from backfill_dagster.ledger.sqlite_file import SqliteFile
from backfill_dagster.ledger.sqlite_leases import SqliteLeaseTable
from backfill_dagster.model import LedgerItem
from backfill_dagster.store import LocalStore
from backfill_dagster.store.disk import Disk
from backfill_dagster.store.keys import STAGING
from backfill_dagster_tests.torture.fate import Fate
from backfill_dagster_tests.torture.power import Journal

_IN_SQLITE = {
    errno.ENOSPC: (sqlite3.SQLITE_FULL, "database or disk is full"),
    errno.EIO: (sqlite3.SQLITE_IOERR, "disk I/O error"),
}


class FatedFile(RawIOBase):
    """What lies under a buffer: each write here is one of the system's."""

    def __init__(self, path: Path, fate: Fate, journal: Journal) -> None:
        super().__init__()
        self._file = FileIO(path, "x")
        self._fate = fate
        self._journal = journal
        self.name = str(path)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._file.fileno()

    def write(self, data: Any) -> int:
        content = bytes(data)
        self._fate.meet("write", self.name, half=lambda: self._write(content[: len(content) // 2]))
        return self._write(content)

    def _write(self, content: bytes) -> int:
        self._journal.written(self._file.fileno())
        return self._file.write(content)

    def close(self) -> None:
        self._file.close()
        super().close()


class FatedDisk(Disk):
    """The real disk with a journal of what a power cut would undo: which is why it needs no real flushing."""

    def __init__(self, fate: Fate, journal: Journal) -> None:
        self._fate = fate
        self._journal = journal

    def create(self, path: Path) -> BinaryIO:
        self._fate.meet("create", path)
        with self._journal.change(path):
            return BufferedWriter(FatedFile(path, self._fate, self._journal))

    def sync_file(self, file: BinaryIO) -> None:
        file.flush()
        self._fate.meet("sync_file", file.name)
        self._journal.file_flushed(file.fileno())

    def sync_folder(self, path: Path) -> None:
        self._fate.meet("sync_folder", path)
        self._journal.folder_flushed(path)

    def make_folder(self, path: Path) -> None:
        self._fate.meet("make_folder", path)
        if not path.exists():
            with self._journal.change(path):
                super().make_folder(path)

    def link(self, source: Path, target: Path) -> None:
        self._fate.meet("link", target)
        with self._journal.change(target):
            super().link(source, target)

    def rename(self, source: Path, target: Path) -> None:
        self._fate.meet("rename", target)
        with self._journal.change(target, source, target):
            super().rename(source, target)

    def unlink(self, path: Path) -> None:
        self._fate.meet("unlink", path)
        with self._journal.change(None, path):
            super().unlink(path)


class PromisingStore(LocalStore):
    """Notes what it has promised: `kept` holds the files whose writing has returned, by path below the root."""

    def __init__(self, root: Path, disk: Disk) -> None:
        super().__init__(root, disk=disk)
        self.kept: dict[str, bytes] = {}
        self._below = root

    def put_if_absent(self, key: str, data: bytes) -> bool:
        is_new = super().put_if_absent(key, data)
        if is_new:
            self.kept[key] = data
        return is_new

    @contextmanager
    def stage(self, key: str) -> Iterator[BinaryIO]:
        with super().stage(key) as file:
            yield file
        with suppress(FileNotFoundError):  # a successor may have swept it already
            self.kept[f"{STAGING}/{key}"] = (self._below / STAGING / key).read_bytes()

    def publish(self, keys: Iterable[str]) -> None:
        wanted = list(keys)
        for key in wanted:
            self.kept.pop(f"{STAGING}/{key}", None)
        super().publish(wanted)
        for key in wanted:
            with suppress(ObjectMissingError):
                self.kept[key] = self.get(key)

    def delete(self, key: str) -> None:
        self.kept.pop(key, None)
        super().delete(key)

    def discard_staged(self, key: str) -> None:
        self.kept.pop(f"{STAGING}/{key}", None)
        super().discard_staged(key)


class FatedLeases:
    """A lease table; taking and letting go count, heartbeats don't."""

    def __init__(self, table: SqliteLeaseTable, fate: Fate, kind: str) -> None:
        self._table = table
        self._fate = fate
        self._kind = kind

    def read(self, name: str) -> LeaseRecord | None:
        return self._table.read(name)

    def compare_and_set(self, name: str, expected: LeaseRecord | None, new: LeaseRecord) -> bool:
        _meet(self._fate, self._kind, self._table._file)
        with self._fate.quiet:
            return self._table.compare_and_set(name, expected, new)

    def hurried(self, seconds: float) -> FatedLeases:
        return self

    def close(self) -> None:
        self._table.close()


class FatedLedger:
    """The SQLite ledger; whatever writes meets its fate first."""

    def __init__(self, ledger: SqliteLedger, fate: Fate) -> None:
        self._ledger = ledger
        self._fate = fate
        self.leases = FatedLeases(ledger.leases, fate, "lease")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ledger, name)

    def put(self, items: Sequence[LedgerItem]) -> None:
        self._meet("ledger_put")
        self._ledger.put(items)

    def put_summary(self, shard: str, summary: ShardSummary) -> None:
        self._meet("ledger_summary")
        self._ledger.put_summary(shard, summary)

    def mark_for_retry(self, shard: str, did_seqs: Mapping[str, int]) -> None:
        self._meet("ledger_mark")
        self._ledger.mark_for_retry(shard, did_seqs)

    def clear_marks(self, shard: str, dids: Iterable[str]) -> None:
        self._meet("ledger_clear")
        self._ledger.clear_marks(shard, dids)

    def bind_state(self, state_id: str) -> None:
        self._meet("ledger_bind")
        self._ledger.bind_state(state_id)

    def _meet(self, kind: str) -> None:
        _meet(self._fate, kind, self._ledger._file)


def _meet(fate: Fate, kind: str, file: SqliteFile) -> None:
    """A refusing disk reaches callers of SQLite as an error of SQLite, which the file says in its own words."""
    try:
        fate.meet(kind, file.path)
    except OSError as refusal:
        code, text = _IN_SQLITE[refusal.errno or 0]
        error = sqlite3.OperationalError(text)
        error.sqlite_errorcode = code
        with file._said():
            raise error from refusal
