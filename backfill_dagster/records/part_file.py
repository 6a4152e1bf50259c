"""One Parquet file on its way into staging: written in row groups, measured and hashed while it is written.

What is in it and when it is live are `parts.py`'s and the log's business.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from typing import Any, BinaryIO, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from backfill_dagster.records.entry import Part
from backfill_dagster.records.schema import LOW_CARDINALITY
from backfill_dagster.store.base import ObjectInfo, ObjectStore

T = TypeVar("T")

_RECORDS, _QUARANTINE = _FOLDERS = ("records", "quarantine")

_PART_NAME = re.compile(r"(?P<shard>.+)-[0-9]{8}-(?P<epoch>[0-9]+)-[0-9a-f]+\.parquet")


def part_key(record_type: str | None, *, shard: str, seq: int, epoch: int, unique: str) -> str:
    """Key of a part: `records/record_type=<type>/<shard>-<seq>-<epoch>-<unique>.parquet`, or `quarantine/...`.

    Args:
        record_type: None for the quarantine.
        shard: partition key.
        seq: number of the log entry that will add it.
        epoch: the writer's.
        unique: hex digits, never the same twice.
    """
    folder = _QUARANTINE if record_type is None else f"{_RECORDS}/record_type={record_type}"
    return f"{folder}/{shard}-{seq:08d}-{epoch}-{unique}.parquet"


def part_name(key: str) -> str:
    """The file name in the key of a part; unique by itself."""
    return key.rsplit("/", 1)[-1]


def shard_and_epoch(key: str) -> tuple[str, int] | None:
    """Shard and writer's epoch in the key of a part; None when it isn't one of ours."""
    folder, _, name = key.partition("/")
    match = _PART_NAME.fullmatch(part_name(name))
    # Another state below this one's prefix has parts too, whose unfinished uploads are listed with our own.
    return None if match is None or folder not in _FOLDERS else (match["shard"], int(match["epoch"]))


def staged_parts(store: ObjectStore) -> list[ObjectInfo]:
    """Every file on its way to the folders of parts; another state below this one has its own. Raises StateError."""
    return [info for info in store.staged() if info.key.partition("/")[0] in _FOLDERS]


def published_parts(store: ObjectStore) -> Iterator[ObjectInfo]:
    """Every file in the folders of parts, whatever it is. Raises StateError."""
    for folder in _FOLDERS:
        yield from store.list(f"{folder}/")


def parts_of(store: ObjectStore, shard: str) -> list[ObjectInfo]:
    """The published parts of one shard, live or not, of whatever record types there ever were. Raises StateError.

    Record type by record type, as many as there are: all parts of all shards would be listed anew for each shard.
    """
    folders = (f"{_QUARANTINE}/", *store.folders(f"{_RECORDS}/"))
    listed = (info for folder in folders for info in store.list(f"{folder}{shard}-"))
    return [info for info in listed if (named := shard_and_epoch(info.key)) is not None and named[0] == shard]


class _HashingFile(io.RawIOBase):
    """Passes on what is written, counting and hashing it. Closing it leaves the file below open, for the fsync.

    After `stop` it swallows everything: the destructor of an abandoned Parquet writer still writes a footer.
    """

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file = file
        self.sha256 = hashlib.sha256()
        self.size = 0
        self._stopped = False

    def stop(self) -> None:
        self._stopped = True

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        count = len(data)
        if not self._stopped:
            self._file.write(data)
            self.sha256.update(data)
            self.size += count
        return count


class PartFile:
    """A part being written under `staging/`; ends with `finish` or `discard`.

    Raises:
        StateError: the disk refused, here and in every method; nothing stays of the file then.
    """

    def __init__(
        self, store: ObjectStore, key: str, record_type: str | None, schema: pa.Schema, compression: str
    ) -> None:
        self._store, self._key, self._record_type, self._schema = store, key, record_type, schema
        self._rows = 0
        self._stack = ExitStack()
        self._file = _HashingFile(self._stack.enter_context(store.stage(key)))
        self._stack.callback(self._file.stop)
        self._writer = self._guarded(lambda: _open_writer(self._file, schema, compression))

    def write(self, batches: Sequence[Any]) -> None:
        """Write record batches as one row group."""
        table = pa.Table.from_batches(batches, self._schema)
        self._guarded(lambda: self._writer.write_table(table, row_group_size=max(1, table.num_rows)))
        self._rows += table.num_rows

    def finish(self) -> Part:
        """Write the footer, flush file and folder; the part waits in staging."""
        self._guarded(self._writer.close)
        self._stack.close()
        return Part(self._key, self._record_type, self._rows, self._file.size, self._file.sha256.hexdigest())

    def discard(self) -> None:
        """Remove the file, whatever has been written, finished or not."""
        with suppress(_DiscardedError), self._stack:
            raise _DiscardedError
        self._store.discard_staged(self._key)

    def _guarded(self, step: Callable[[], T]) -> T:
        """An error passes through the store's own context manager, which removes the file and names the remedy."""
        with self._stack.pop_all() as guard:
            result = step()
            self._stack = guard.pop_all()
        return result


class _DiscardedError(Exception):
    """Passes through the store's context manager so that it removes the file; never leaves `PartFile.discard`."""


def _open_writer(file: _HashingFile, schema: pa.Schema, compression: str) -> pq.ParquetWriter:
    return pq.ParquetWriter(
        file,
        schema,
        compression=compression,
        use_dictionary=list(LOW_CARDINALITY),
        write_statistics=True,
        write_page_checksum=True,  # so that no rewrite copies a flipped bit into a part with a good sha256
    )
