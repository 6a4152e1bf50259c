"""Leases in a SQLite file: the shards' in the ledger's, the hosts' in one file per machine and user."""

from __future__ import annotations

from dataclasses import asdict, fields

from backfill_dagster.ledger.lease_record import LeaseRecord
from backfill_dagster.ledger.sqlite_file import SqliteFile

_NAMES = tuple(f.name for f in fields(LeaseRecord))

_SELECT = f"SELECT {', '.join(_NAMES)} FROM leases WHERE name = ?"

_SELECT_HELD = f"SELECT {', '.join(_NAMES)} FROM leases WHERE NOT released AND substr(name, 1, ?) = ? ORDER BY name"

_UPSERT = f"INSERT OR REPLACE INTO leases ({', '.join(_NAMES)}) VALUES ({', '.join('?' * len(_NAMES))})"


class SqliteLeaseTable:
    """`LeaseTable` in the table `leases` of a file; compare-and-set is one immediate transaction."""

    def __init__(self, file: SqliteFile, *, under: str = "") -> None:
        """With `under`, `holders` leaves out names that don't begin so: a ledger's file may hold other backfills."""
        self._file = file
        self._under = under

    def read(self, name: str) -> LeaseRecord | None:
        """The record; None when there is none, or no file."""
        rows = self._file.rows(_SELECT, (name,))
        return _record(rows[0]) if rows else None

    def compare_and_set(self, name: str, expected: LeaseRecord | None, new: LeaseRecord) -> bool:
        """Write `new` if the record is exactly `expected`. ValueError when it is another name's."""
        if new.name != name:
            raise ValueError(f"a record of {new.name} under the name {name}")
        with self._file.transaction() as connection:
            row = connection.execute(_SELECT, (name,)).fetchone()
            if (None if row is None else _record(row)) != expected:
                return False
            connection.execute(_UPSERT, tuple(asdict(new).values()))
        return True

    def hurried(self, seconds: float) -> SqliteLeaseTable:
        """Itself: no request of one's own gets lost, and `BUSY_SECONDS` bound the wait for another writer."""
        return self

    def holders(self) -> list[LeaseRecord]:
        """The records that aren't released, by name."""
        return [_record(row) for row in self._file.rows(_SELECT_HELD, (len(self._under), self._under))]

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _record(row: tuple[object, ...]) -> LeaseRecord:
    values = dict(zip(_NAMES, row, strict=True))
    return LeaseRecord(**(values | {"released": bool(values["released"])}))  # type: ignore[arg-type]
