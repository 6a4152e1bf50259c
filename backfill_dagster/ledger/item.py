"""The attributes of a ledger item by name: what a table's columns hold, for today's readers and those of the old table.

Storage is elsewhere; maps stay maps here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from operator import attrgetter
from typing import Any

import orjson

from backfill_dagster.model import LedgerItem, Outcome, RepoOutcome

UNKNOWN_HANDLE = "<unknown>"
"""What the old table holds where a handle is empty."""

_LOG_ONLY = frozenset({"tree"})

_RESULT_NAMES = tuple(f.name for f in dataclasses.fields(RepoOutcome) if f.name not in _LOG_ONLY)

_MAP_NAMES = tuple(f.name for f in dataclasses.fields(RepoOutcome) if str(f.type).startswith("Mapping["))

_result_values = attrgetter(*_RESULT_NAMES)


def item_attributes(item: LedgerItem) -> dict[str, Any]:
    """Every attribute of an item: the evidence, and the six names of the old table.

    Returns:
        name -> text, number, bool, map or None. `types` is a comma list of record types, `total_records_by_type` a
        JSON text, `timestamp` is finished_at as `2026-11-23-19:00:00` (empty when it never finished).
    """
    result = item.result
    now = dict(zip(_RESULT_NAMES, _result_values(result), strict=True))
    now["outcome"] = result.outcome.value
    for name in _MAP_NAMES:
        if now[name] is not None:
            now[name] = dict(now[name])
    return {
        "backfill": item.backfill,
        "shard": item.shard,
        "seq": item.seq,
        **now,
        "records_total": result.records_total,
        "bluesky_handle": result.handle or UNKNOWN_HANDLE,
        "types": ",".join(sorted(result.records_by_type)),
        "total_records": result.records_total,
        "total_records_by_type": orjson.dumps(dict(result.records_by_type), option=orjson.OPT_SORT_KEYS).decode(),
        "pds_service_endpoint": result.pds_endpoint,
        "timestamp": (result.finished_at or "")[:19].replace("T", "-"),
    }


def item_from_attributes(attributes: Mapping[str, Any]) -> LedgerItem:
    """Read an item back; names that aren't the item's own are ignored. KeyError or ValueError when it isn't one."""
    result = {name: attributes[name] for name in _RESULT_NAMES}
    return LedgerItem(
        backfill=attributes["backfill"],
        shard=attributes["shard"],
        seq=attributes["seq"],
        result=RepoOutcome(**(result | {"outcome": Outcome(result["outcome"])})),
    )
