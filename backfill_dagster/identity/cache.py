"""Resolved DID documents on disk: the three things that are needed of each, and when they were learnt.

A SQLite file that any number of processes may share; losing it costs requests, nothing else. Who asks the servers is
`resolver`; what can't be resolved isn't remembered here. What one PLC directory said is not told to who asks another.
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from types import TracebackType

from backfill_dagster.atproto.did_document import DidDocument
from backfill_dagster.errors import StateError

BUSY_SECONDS = 30.0
LOOKUP_MAX_DIDS = 500

_CREATE = """
CREATE TABLE IF NOT EXISTS document (
    directory TEXT NOT NULL,
    did TEXT NOT NULL,
    handle TEXT NOT NULL,
    pds_endpoint TEXT NOT NULL,
    signing_key TEXT NOT NULL,
    resolved_at REAL NOT NULL,
    PRIMARY KEY (directory, did)
) WITHOUT ROWID
"""
# An earlier shape, whose rows don't say which directory they are of.
_DROP_UNSAID = "DROP TABLE IF EXISTS did_document"
_PUT = "INSERT OR REPLACE INTO document VALUES (?, ?, ?, ?, ?, ?)"
_GET = """
SELECT did, handle, pds_endpoint, signing_key FROM document
WHERE directory = ? AND resolved_at BETWEEN ? AND ? AND did IN
"""


def _connect(path: Path | None) -> sqlite3.Connection:
    return sqlite3.connect(str(path or ":memory:"), timeout=BUSY_SECONDS, isolation_level=None)


def _make(path: Path) -> None:
    """Make the file aside, in WAL mode, and put it in its place; of several processes the first wins.

    Switching a shared file to WAL fails at once with "database is locked", whatever the timeout, when another process
    is doing the same: seen once in 480 openings by eight processes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f"{path.name}.") as folder:
        new = Path(folder) / path.name
        with closing(_connect(new)) as database:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute(_CREATE)
        with suppress(FileExistsError):
            path.hardlink_to(new)


class DocumentCache:
    """DID -> DidDocument with an age.

    Args:
        path: the SQLite file, made with its folder when missing; None keeps everything in memory.
        clock: seconds since the epoch.
        directory: origin of the PLC directory that the DIDs are looked up in. One file may serve several: the same
            DIDs in a network for trials are other accounts, on other hosts.

    Raises (all methods):
        StateError: the file can't be opened, read or written, or isn't such a cache.
    """

    def __init__(self, path: Path | None, clock: Callable[[], float], directory: str) -> None:
        self._path = path
        self._clock = clock
        self._directory = directory
        with self._said():
            if path is not None and not path.exists():
                _make(path)
            self._database = _connect(path)
        try:
            with self._said():
                self._database.execute(_DROP_UNSAID)
                self._database.execute(_CREATE)
                # A cache may lose its last entries in a power cut; it may not cost an fsync each.
                self._database.execute("PRAGMA synchronous = NORMAL")
        except StateError:
            self._database.close()
            raise

    def get(self, did: str, max_age_seconds: float) -> DidDocument | None:
        """The document, if it was learnt at most so long ago."""
        return self.get_many([did], max_age_seconds).get(did)

    def get_many(self, dids: Sequence[str], max_age_seconds: float) -> dict[str, DidDocument]:
        """Those of the documents (at most 500 DIDs a call) that were learnt at most so long ago."""
        if len(dids) > LOOKUP_MAX_DIDS:
            raise ValueError(f"at most {LOOKUP_MAX_DIDS} DIDs a look-up")
        now = self._clock()
        with self._said():
            rows = self._database.execute(
                f"{_GET} ({','.join('?' * len(dids))})", [self._directory, now - max_age_seconds, now, *dids]
            ).fetchall()
        return {row[0]: DidDocument(*row) for row in rows}

    def put(self, document: DidDocument) -> None:
        """Remember a document as learnt now."""
        with self._said():
            known = (document.did, document.handle, document.pds_endpoint, document.signing_key)
            self._database.execute(_PUT, (self._directory, *known, self._clock()))

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def __enter__(self) -> DocumentCache:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def _said(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            is_full = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL or "disk is full" in str(error)
            remedy = (
                "free space on that disk and start again"
                if is_full
                else "make its folder writable, or delete the file: it only saves requests"
            )
            raise StateError(f"can't use the cache of DID documents {self._path} ({error}); {remedy}") from error
