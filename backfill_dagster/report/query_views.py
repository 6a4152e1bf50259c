"""What a query sees of records: one view per record type over the live parts, where they lie now, less the dead rows.

Which parts and which rows is `query_shards.py`'s; when to start over is `query.py`'s.
"""

# ruff: noqa: S608 - a view can't have parameters; every path and name in these statements is quoted.

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import duckdb
import pyarrow as pa

from backfill_dagster.config import BackfillConfig
from backfill_dagster.config.record_types import asset_name, takes
from backfill_dagster.records.fold import LivePart
from backfill_dagster.records.schema import POST, SHORT_NAMES, quarantine_schema, schema_for
from backfill_dagster.report.query_database import INTERNAL, quoted, run_on_rows, text_list
from backfill_dagster.report.query_shards import LiveShard
from backfill_dagster.store import ObjectStore
from backfill_dagster.store.duckdb_paths import literal_path

QUARANTINE = "quarantine"


@dataclass
class _Relation:
    """One view to be.

    Attributes:
        name: the record type, or `quarantine`.
        schema: its columns as long as there is no part.
        parts: its live parts, each with its shard.
    """

    name: str
    schema: pa.Schema
    parts: list[tuple[str, LivePart]] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        """The name, and the one that needs no quotes: as Dagster's assets write it."""
        return list(dict.fromkeys([self.name, asset_name(self.name)]))


class RecordViews:
    """The views of all record types and of the quarantine.

    Args:
        database: where to make them.
        store: where the parts are.
        shards: what is live.
        config: its record types have a view before their first row.
    """

    def __init__(
        self,
        database: duckdb.DuckDBPyConnection,
        store: ObjectStore,
        shards: Mapping[str, LiveShard],
        config: BackfillConfig,
    ) -> None:
        self._database, self._store, self._shards = database, store, shards
        self._relations = _relations(shards, config)
        self._places: dict[str, str] = {}

    @property
    def names(self) -> list[str]:
        """Every name that a query can use."""
        return [name for relation in self._relations for name in relation.names]

    def create(self, is_wanted: Callable[[str], bool]) -> None:
        """Make the views that have a wanted name; the others cost nothing.

        Raises:
            ObjectMissingError: a part is neither published nor staged.
            duckdb.Error: a part can't be read.
        """
        self._create_the_dead()
        for relation in self._relations:
            if any(is_wanted(name) for name in relation.names):
                self._create(relation)

    def check_places(self) -> bool:
        """Whether every part still lies where the views look for it.

        Raises:
            ObjectMissingError: one is neither published nor staged.
        """
        return all(self._store.find(key) == place for key, place in self._places.items())

    def _create(self, relation: _Relation) -> None:
        name = quoted(relation.name)
        if relation.parts:
            self._database.execute(f"CREATE VIEW {name} AS {self._live_rows(relation)}")
        else:
            run_on_rows(self._database, f"CREATE TABLE {name} AS FROM", relation.schema.empty_table())
        for alias in relation.names[1:]:
            self._database.execute(f"CREATE VIEW {quoted(alias)} AS FROM {name}")

    def _create_the_dead(self) -> None:
        rows = [(shard, did, seq) for shard, live in self._shards.items() for did, seq in live.superseded.items()]
        shards, dids, seqs = zip(*rows, strict=True) if rows else ((), (), ())
        columns = {
            "shard": pa.array(shards, pa.string()),
            "author": pa.array(dids, pa.string()),
            "seq": pa.array(seqs, pa.int64()),
        }
        run_on_rows(self._database, f"CREATE TABLE {INTERNAL}.superseded AS FROM", pa.table(columns))
        self._database.execute(f"CREATE TABLE {INTERNAL}.parts (filename VARCHAR, shard VARCHAR, seq BIGINT)")

    def _live_rows(self, relation: _Relation) -> str:
        places = {self._place(live): (shard, live) for shard, live in relation.parts}
        texts = self._texts_beside_bytes(list(places))
        groups: dict[tuple[bool, bool], list[str]] = defaultdict(list)
        for place, (shard, live) in places.items():
            groups[place in texts, self._shards[shard].is_clean(live)].append(place)
        selects = []
        for (is_text, is_clean), some in groups.items():
            rows = f"SELECT * FROM {_read(some)}" if is_clean else self._without_the_dead(some, places)
            selects.append(f"SELECT * REPLACE (encode(record) AS record) FROM ({rows})" if is_text else rows)
        return " UNION ALL BY NAME ".join(selects)

    def _place(self, live: LivePart) -> str:
        place = self._places[live.part.path] = self._store.find(live.part.path)
        return place

    def _texts_beside_bytes(self, places: Sequence[str]) -> set[str]:
        """Where `record` is JSON text although other parts have CBOR bytes (`records.raw` was changed): made bytes too.

        DuckDB would do that by itself, and take what looks like an escape in the text for one.
        """
        found = self._database.execute(
            f"SELECT file_name, logical_type IS NOT NULL FROM parquet_schema({_literals(places)}) WHERE name = 'record'"
        ).fetchall()
        texts = {place for place, is_text in found if is_text}
        return texts if len(texts) < len(found) else set()

    def _without_the_dead(self, some: Sequence[str], places: Mapping[str, tuple[str, LivePart]]) -> str:
        """A row is dead when its author is superseded, in its part's shard, by a later entry than its part's."""
        parts = {
            "filename": some,
            "shard": [places[place][0] for place in some],
            "seq": [places[place][1].seq for place in some],
        }
        run_on_rows(self._database, f"INSERT INTO {INTERNAL}.parts FROM", pa.table(parts))
        return (
            f"SELECT rows.* FROM {_read(some)} AS rows JOIN {INTERNAL}.parts AS part ON part.filename = rows.filename "
            f"ANTI JOIN {INTERNAL}.superseded AS dead "
            "ON dead.shard = part.shard AND dead.author = rows.author AND dead.seq > part.seq"
        )


def _relations(shards: Mapping[str, LiveShard], config: BackfillConfig) -> list[_Relation]:
    """All views that there can be: of what the config names, of what has live parts.

    SQL doesn't tell upper from lower case: types that differ in nothing else share a view, `collection` tells them
    apart.
    """
    raw = config.records.raw
    found = {name.lower(): _Relation(name, schema_for(name, raw)) for name in _named_types(config.record_types)}
    found[QUARANTINE] = _Relation(QUARANTINE, quarantine_schema())
    for shard, live in shards.items():
        for part in live.parts:
            name = part.part.record_type or QUARANTINE
            relation = found.setdefault(name.lower(), _Relation(name, schema_for(name, raw)))
            relation.parts.append((shard, part))
    return sorted(found.values(), key=lambda relation: relation.name)


def _named_types(entries: Sequence[str]) -> Iterator[str]:
    """The record types that the entries of `record_types` are sure to mean, before there are any rows."""
    for collection, short in SHORT_NAMES.items():
        if any(takes(entry, collection) for entry in entries):
            yield from (short, "reply") if collection == POST else (short,)
    yield from (entry for entry in entries if not entry.endswith(".*") and entry not in SHORT_NAMES)


def _read(places: Sequence[str]) -> str:
    return f"read_parquet({_literals(places)}, union_by_name = true, hive_partitioning = false)"


def _literals(places: Sequence[str]) -> str:
    return text_list([*map(literal_path, places)])
