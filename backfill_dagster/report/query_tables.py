"""What a query sees of accounts: the tables `plan` and `repos`, the view `outcomes`, filled shard by shard.

Only those that a query names are made. Rows of records are `query_views.py`'s.
"""

# ruff: noqa: S608 - the names in these statements are this module's own; values are bound or come as Arrow.

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, get_type_hints

import duckdb
import pyarrow as pa

from backfill_dagster.model import UNROUTABLE_SHARD, Outcome, PlannedDid, RepoOutcome, Shard, Wanted
from backfill_dagster.progress import outcome_of
from backfill_dagster.records.fold import Fold
from backfill_dagster.report.query_database import INTERNAL, run_on_rows
from backfill_dagster.report.reasons import REASONS

ACCOUNT_TABLES = ("repos", "outcomes", "plan")

_ARROW_TYPES: dict[Any, pa.DataType] = {
    str: pa.string(),
    str | None: pa.string(),
    bool: pa.bool_(),
    int: pa.int64(),
    int | None: pa.int64(),
    Mapping[str, str]: pa.map_(pa.string(), pa.string()),
    Mapping[str, int]: pa.map_(pa.string(), pa.int64()),
    Mapping[str, int] | None: pa.map_(pa.string(), pa.int64()),
}

_EVIDENCE: dict[str, pa.DataType] = {
    name: _ARROW_TYPES[hint]
    for name, hint in get_type_hints(RepoOutcome).items()
    if name not in ("did", "outcome") and hint in _ARROW_TYPES
}
"""The fields of an outcome; a new one becomes a column by itself, unless it is of a form that only a worker reads."""

_PLAN_SCHEMA = pa.schema(
    {
        "did": pa.string(),
        "shard": pa.string(),
        "host": pa.string(),
        "pds_endpoint": pa.string(),
        "handle": pa.string(),
        "delisted": pa.bool_(),
        "columns": pa.string(),
    }
)
_REPOS_SCHEMA = pa.schema(
    {
        "did": pa.string(),
        "shard": pa.string(),
        "host": pa.string(),
        "outcome": pa.string(),
        "records_total": pa.int64(),
        **_EVIDENCE,
    }
)

_SELECTS = {
    "plan": "* REPLACE (columns::JSON AS columns)",
    "repos": "* REPLACE (try_cast(fetched_at AS TIMESTAMPTZ) AS fetched_at, "
    "try_cast(finished_at AS TIMESTAMPTZ) AS finished_at)",
}


class AccountTables:
    """Makes the tables and fills them with one shard after the other.

    Args:
        database: where to.
        wanted: what the outcomes have to answer to; asked for only if they are looked at.
        names: which of `ACCOUNT_TABLES` are looked at.
    """

    def __init__(
        self, database: duckdb.DuckDBPyConnection, wanted: Callable[[], Wanted], names: Collection[str]
    ) -> None:
        self._database = database
        self._shards: set[str] = set()
        self._wants_plan = "plan" in names
        self._wanted = wanted() if {"repos", "outcomes"} & set(names) else None
        if self._wants_plan:
            self._create("plan", _PLAN_SCHEMA)
        if self._wanted is not None:
            self._create("repos", _REPOS_SCHEMA)
            self._create_outcomes()

    def add(self, shard: str, planned: Sequence[PlannedDid], fold: Fold) -> None:
        """Put a shard's current DIDs in, with what its log says; in place of what was put in for it before."""
        if self._wants_plan:
            self._put("plan", shard, _plan_rows(shard, planned))
        if self._wanted is not None:
            self._put("repos", shard, _repo_rows(shard, planned, fold, self._wanted))
        self._shards.add(shard)

    def _create(self, table: str, schema: pa.Schema) -> None:
        run_on_rows(self._database, f"CREATE TABLE {table} AS SELECT {_SELECTS[table]} FROM", schema.empty_table())

    def _create_outcomes(self) -> None:
        rows = [(one.value, one.is_terminal, *REASONS[one]) for one in Outcome]
        reasons = pa.table(list(zip(*rows, strict=True)), ["outcome", "terminal", "reason", "remedy"])
        run_on_rows(self._database, f"CREATE TABLE {INTERNAL}.reasons AS FROM", reasons)
        self._database.execute(
            "CREATE VIEW outcomes AS SELECT outcome, count(*) AS dids, terminal, reason, remedy "
            f"FROM repos JOIN {INTERNAL}.reasons USING (outcome) GROUP BY ALL ORDER BY dids DESC, outcome"
        )

    def _put(self, table: str, shard: str, rows: pa.Table) -> None:
        if shard in self._shards:
            self._database.execute(f"DELETE FROM {table} WHERE shard = ?", [shard])
        run_on_rows(self._database, f"INSERT INTO {table} SELECT {_SELECTS[table]} FROM", rows)


def _host(shard: str) -> str | None:
    return None if shard == UNROUTABLE_SHARD else Shard.parse(shard).host


def _plan_rows(shard: str, planned: Sequence[PlannedDid]) -> pa.Table:
    count = len(planned)
    return pa.table(
        {
            "did": [one.did for one in planned],
            "shard": [shard] * count,
            "host": [_host(shard) if planned else None] * count,
            "pds_endpoint": [one.pds_endpoint for one in planned],
            "handle": [one.handle for one in planned],
            "delisted": [one.delisted for one in planned],
            "columns": [json.dumps(dict(one.columns), ensure_ascii=False) for one in planned],
        },
        schema=_PLAN_SCHEMA,
    )


def _repo_rows(shard: str, planned: Sequence[PlannedDid], fold: Fold, wanted: Wanted) -> pa.Table:
    current = [one for one in planned if not one.delisted]
    results = [_result(one, fold) for one in current]
    values: dict[str, list[Any]] = {
        "did": [one.did for one in current],
        "shard": [shard] * len(current),
        "host": [_host(shard) if current else None] * len(current),
        "outcome": [outcome_of(one.did, fold, wanted).value for one in current],
        "records_total": [result.records_total for result in results],
    }
    for name in _EVIDENCE:
        evidence = (getattr(result, name) for result in results)
        values[name] = [list(value.items()) if isinstance(value, Mapping) else value for value in evidence]
    return pa.table(values, schema=_REPOS_SCHEMA)


def _result(planned: PlannedDid, fold: Fold) -> RepoOutcome:
    """The log's word on a DID; of one that it doesn't know yet, the plan's."""
    if planned.did in fold.dids:
        return fold.dids[planned.did][0]
    return RepoOutcome(
        did=planned.did, outcome=Outcome.PENDING, pds_endpoint=planned.pds_endpoint, handle=planned.handle
    )
