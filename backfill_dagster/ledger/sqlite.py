"""The ledger in one SQLite file. Its tables are in `sqlite_schema.py`, opening and errors in `sqlite_file.py`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from backfill_dagster.errors import StateError
from backfill_dagster.ledger.base import Settled, ShardSummary, check_attention
from backfill_dagster.ledger.item import item_attributes, item_from_attributes
from backfill_dagster.ledger.sqlite_file import Row, SqliteFile
from backfill_dagster.ledger.sqlite_leases import SqliteLeaseTable
from backfill_dagster.ledger.sqlite_schema import LEDGER_SCHEMA, LEDGER_SCHEMA_VERSION, MAP_COLUMNS, RESULT_COLUMNS
from backfill_dagster.model import LedgerItem, Outcome, Wanted

PAGE_ROWS = 1000
"""Items read at a time: a reader that dawdles holds nobody up."""

_NAMES = ", ".join(RESULT_COLUMNS)
_SELECT = f"SELECT {_NAMES} FROM results"
_PUT = (
    f"INSERT INTO results ({_NAMES}) VALUES ({', '.join('?' * len(RESULT_COLUMNS))}) "
    "ON CONFLICT (backfill, shard, did) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in RESULT_COLUMNS if name not in ("backfill", "shard", "did"))
    + " WHERE excluded.seq > results.seq"
)
_PUT_OVER = _PUT.removesuffix(" WHERE excluded.seq > results.seq") + " WHERE results.seq = ?"


_SETTLED = "settled:"
"""What a summary says is settled is kept in `meta` under this and the shard: ledgers of before need no change."""


class SqliteLedger:
    """`Ledger` of the backfill `backfill` in a file, which may hold other backfills too."""

    def __init__(self, path: Path, backfill: str, *, read_only: bool = False) -> None:
        """Touches no disk. With `read_only` nothing is ever written, not even beside the file."""
        self._backfill = backfill
        self._file = SqliteFile(
            path,
            schema=LEDGER_SCHEMA,
            kind="backfill-dagster ledger",
            version=LEDGER_SCHEMA_VERSION,
            remedy=f"move {path} (and its -wal and -shm) away: `backfill run` writes it again from the logs",
            read_only=read_only,
        )
        self._leases = SqliteLeaseTable(self._file, under=f"{backfill}/")

    @property
    def leases(self) -> SqliteLeaseTable:
        """Leases in the same file."""
        return self._leases

    def put(self, items: Sequence[LedgerItem], *, over: Mapping[str, int] | None = None) -> None:
        """Write items, all in one transaction, each only over a lower seq (or exactly over the one in `over`)."""
        strangers = {item.backfill for item in items} - {self._backfill}
        if strangers:
            raise ValueError(f"items of {sorted(strangers)} for the ledger of {self._backfill}")
        if items:
            if over is None:
                self._file.write(_PUT, (_row(item) for item in items))
            else:
                self._file.write(_PUT_OVER, ([*_row(item), over.get(item.result.did)] for item in items))

    def as_kept(self, item: LedgerItem) -> LedgerItem:
        """The item itself: a row has no bound that one could meet."""
        return item

    def items(self, shard: str) -> Iterator[LedgerItem]:
        """The shard's items by DID, page by page."""
        query = f"{_SELECT} WHERE backfill = ? AND shard = ? AND did > ? ORDER BY did LIMIT {PAGE_ROWS}"
        page = self._items(
            f"{_SELECT} WHERE backfill = ? AND shard = ? ORDER BY did LIMIT {PAGE_ROWS}", self._backfill, shard
        )
        while page:
            yield from page
            page = self._items(query, self._backfill, shard, page[-1].result.did) if len(page) == PAGE_ROWS else []

    def item(self, shard: str, did: str) -> LedgerItem | None:
        """One item."""
        found = self._items(f"{_SELECT} WHERE backfill = ? AND shard = ? AND did = ?", self._backfill, shard, did)
        return found[0] if found else None

    def find(self, did: str) -> list[LedgerItem]:
        """The DID's items, by shard."""
        return self._items(f"{_SELECT} WHERE did = ? AND backfill = ? ORDER BY shard", did, self._backfill)

    def find_in_all(self, did: str) -> list[LedgerItem]:
        """The DID's items in every backfill of the file, by backfill and shard."""
        return self._items(f"{_SELECT} WHERE did = ? ORDER BY backfill, shard", did)

    def seqs(self, shard: str) -> dict[str, int]:
        """DID -> seq."""
        return dict(self._rows("SELECT did, seq FROM results WHERE backfill = ? AND shard = ?", self._backfill, shard))

    def summaries(self) -> dict[str, ShardSummary]:
        """Shard -> summary."""
        rows = self._rows(
            "SELECT shard, outcomes, rows, seq, meta.value FROM shards LEFT JOIN meta "
            "ON meta.backfill = shards.backfill AND meta.name = ? || shard WHERE shards.backfill = ?",
            _SETTLED,
            self._backfill,
        )
        return {
            shard: ShardSummary(
                outcomes=orjson.loads(outcomes), rows=orjson.loads(counts), seq=seq, settled=_settled(value, seq)
            )
            for shard, outcomes, counts, seq, value in rows
        }

    def put_summary(self, shard: str, summary: ShardSummary) -> None:
        """Write a summary over one of the same or a lower seq."""
        row = (self._backfill, shard, summary.seq, _json(summary.outcomes), _json(summary.rows))
        said = summary.settled
        answers = None if said is None else [summary.seq, said.wanted.scope, said.wanted.refresh, said.generation]
        with self._file.transaction() as connection:
            connection.execute(
                "INSERT INTO shards (backfill, shard, seq, outcomes, rows) VALUES (?, ?, ?, ?, ?) "
                "ON CONFLICT (backfill, shard) DO UPDATE SET seq = excluded.seq, outcomes = excluded.outcomes, "
                "rows = excluded.rows WHERE excluded.seq >= shards.seq",
                row,
            )
            connection.execute(
                "INSERT OR REPLACE INTO meta SELECT ?, ?, ? FROM shards WHERE backfill = ? AND shard = ? AND seq = ?",
                (self._backfill, _SETTLED + shard, orjson.dumps(answers).decode(), *row[:3]),
            )

    def attention(self, outcome: Outcome, limit: int) -> list[LedgerItem]:
        """Items with this outcome, by shard and DID. ValueError when none needs attention."""
        check_attention(outcome)
        query = f"{_SELECT} WHERE backfill = ? AND attention = ? ORDER BY shard, did LIMIT ?"
        return self._items(query, self._backfill, outcome.value, limit)

    def mark_for_retry(self, shard: str, did_seqs: Mapping[str, int]) -> None:
        """Mark DIDs; of two marks the one with the higher seq stays."""
        if did_seqs:
            self._file.write(
                "INSERT INTO retry_marks VALUES (?, ?, ?, ?) ON CONFLICT (backfill, shard, did) "
                "DO UPDATE SET seq = max(seq, excluded.seq)",
                ((self._backfill, shard, _text(did), seq) for did, seq in did_seqs.items()),
            )

    def retry_marks(self, shard: str) -> dict[str, int]:
        """DID -> seq that the mark answers to."""
        query = "SELECT did, seq FROM retry_marks WHERE backfill = ? AND shard = ?"
        return dict(self._rows(query, self._backfill, shard))

    def marked_shards(self) -> set[str]:
        """Shards with marks."""
        rows = self._rows("SELECT DISTINCT shard FROM retry_marks WHERE backfill = ?", self._backfill)
        return {shard for (shard,) in rows}

    def clear_marks(self, shard: str, dids: Iterable[str]) -> None:
        """Delete the marks whose seq is lower than the DID's item's."""
        marked = self.retry_marks(shard)
        answered = [(self._backfill, shard, _text(did)) for did in dids if _text(did) in marked]
        if answered:
            self._file.write(
                "DELETE FROM retry_marks WHERE backfill = ? AND shard = ? AND did = ? AND seq < (SELECT seq "
                "FROM results AS r WHERE (r.backfill, r.shard, r.did) = "
                "(retry_marks.backfill, retry_marks.shard, retry_marks.did))",
                answered,
            )

    def state_id(self) -> str | None:
        """The state that this ledger is bound to."""
        rows = self._rows("SELECT value FROM meta WHERE backfill = ? AND name = 'state_id'", self._backfill)
        return rows[0][0] if rows else None

    def bind_state(self, state_id: str) -> None:
        """Bind it, if it isn't; a transaction, so that of two states only one can."""
        bound = self.state_id()
        if bound is None:
            with self._file.transaction() as connection:
                has_items = connection.execute(
                    "SELECT EXISTS (SELECT 1 FROM results WHERE backfill = ?)", (self._backfill,)
                ).fetchone()[0]
                if not has_items:
                    connection.execute(
                        "INSERT OR IGNORE INTO meta VALUES (?, 'state_id', ?)", (self._backfill, state_id)
                    )
            bound = self.state_id()
        if bound != state_id:
            raise StateError(
                f"{self._file.path} belongs to the state {bound or 'of an unknown id'} of {self._backfill}, not to "
                f"{state_id}; bring that state folder back, or move the ledger away: it is written again from the logs"
            )

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _rows(self, query: str, *parameters: str | int) -> list[Row]:
        return self._file.rows(query, [_text(value) if isinstance(value, str) else value for value in parameters])

    def _items(self, query: str, *parameters: str | int) -> list[LedgerItem]:
        return [_item(row) for row in self._rows(query, *parameters)]


def _settled(value: str | None, seq: int) -> Settled | None:
    """What a summary of this seq says is settled; an earlier one's word doesn't count."""
    answers = orjson.loads(value or "null")
    if answers is None or answers[0] != seq:
        return None
    _, scope, refresh, generation = answers
    return Settled(Wanted(scope, refresh), generation)


def _row(item: LedgerItem) -> list[Any]:
    outcome = item.result.outcome
    attributes = item_attributes(item) | {"attention": outcome.value if outcome.needs_attention else None}
    return [_column(attributes[name]) for name in RESULT_COLUMNS]


def _column(value: Any) -> Any:
    if isinstance(value, Mapping):
        return _json(value)
    return _text(value) if isinstance(value, str) else value


def _item(row: Row) -> LedgerItem:
    values: dict[str, Any] = dict(zip(RESULT_COLUMNS, row, strict=True))
    maps = {name: None if values[name] is None else orjson.loads(values[name]) for name in MAP_COLUMNS}
    return item_from_attributes(values | maps | {"signature_checked": bool(values["signature_checked"])})


def _json(value: Mapping[str, Any]) -> str:
    plain = {_text(name): _text(item) if isinstance(item, str) else item for name, item in value.items()}
    return orjson.dumps(plain, option=orjson.OPT_SORT_KEYS).decode()


def _text(value: str) -> str:
    """The text as UTF-8 can say it, as the log keeps it: lone surrogates (odd bytes in a header) become `?`."""
    return value.encode("utf-8", "replace").decode("utf-8")
