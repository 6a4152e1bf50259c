"""Delta refreshes: when only what is newer than the last fetch has to be asked for, and which of its rows then stand.

What a partial repo proves is `records.delta`'s; fetching it is `repo`'s.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from backfill_dagster.atproto.dag_cbor import decode_dag_cbor
from backfill_dagster.atproto.repo import Repo
from backfill_dagster.atproto.tid import is_tid
from backfill_dagster.config import BackfillConfig
from backfill_dagster.model import RepoOutcome, Wanted
from backfill_dagster.records.delta import OldKey, UnprovenError, standing_rows
from backfill_dagster.records.fold import Fold
from backfill_dagster.records.parts import OldRows
from backfill_dagster.records.read import open_part, part_batches
from backfill_dagster.records.row_index import RowIndex
from backfill_dagster.records.rows import COLLECTIONS_MAX, ROW_WEIGHT_BYTES, Entry
from backfill_dagster.records.schema import Raw, quarantine_schema, schema_for
from backfill_dagster.records.selection import Selection
from backfill_dagster.records.timestamps import created_at_micros
from backfill_dagster.records.tree_marks import by_name
from backfill_dagster.store import ObjectStore

NEW_BYTES_MAX = 64 * 1024 * 1024
"""Weight of new records that are put between old rows; a repo with more of them is nearly as quick to fetch whole.

Below `parts.MERGED_BYTES_MAX`: none of them may become Arrow before the old rows between them are there."""


def delta_base(config: BackfillConfig, fold: Fold, did: str, wanted: Wanted) -> RepoOutcome | None:
    """The DID's outcome, if what is newer than its last complete fetch is all that has to be asked for.

    That fetch has to be of this scope, its rows have to stand here, and its signature to be checked if all are.
    """
    known = fold.dids.get(did)
    if known is None or config.processing.fetch != "auto":
        return None
    result = known[0]
    if result.scope != wanted.scope or result.rows_scope != wanted.scope:
        return None
    if result.last_complete_rev is None or not is_tid(result.last_complete_rev) or result.commit_cid is None:
        return None
    if config.processing.verify == "full" and not result.signature_checked:
        return None
    return result


def dids_in_another_form(store: ObjectStore, fold: Fold, raw: Raw) -> set[str]:
    """DIDs with rows in parts that have other columns than those of now (`records.raw` was changed): fetched whole.

    Raises:
        StateError: a part is missing or unreadable.
    """
    found: set[str] = set()
    for live in fold.parts.values():
        record_type = live.part.record_type
        wanted = quarantine_schema() if record_type is None else schema_for(record_type, raw)
        with open_part(store, live.part.path) as file:
            if file.schema_arrow.equals(wanted):
                continue
        for batch in part_batches(store, live.part.path, ["author"]):
            found.update(pc.unique(batch.column("author")).to_pylist())
    return found


class DeltaRows:
    """Finds a DID's old rows and says which of them stand beside a partial repo's.

    Args:
        store: where the parts are.
        selection: which records are wanted.
    """

    def __init__(self, store: ObjectStore, selection: Selection) -> None:
        self._store = store
        self._selection = selection
        self._index: RowIndex | None = None

    def standing(
        self, fold: Fold, repo: Repo, base: RepoOutcome, purged: frozenset[str]
    ) -> tuple[OldRows, Sequence[int]]:
        """The old rows that stand, by record type; and of each gap of the repo, how many of them are in it.

        Args:
            fold: the shard's log; during one run only entries of that run may follow the first that was given.
            repo: the partial repo.
            base: the last fetch.
            purged: AT URIs that may not be stored.

        Raises:
            UnprovenError: they can't be told.
            StateError: a part is missing or unreadable.
        """
        # Parts go only when the run is over, and no DID is fetched twice in one, so one look at the parts will do.
        index = self._index = self._index or RowIndex(self._store, fold)
        types = dict.fromkeys(one.record_type for one in index.ranges(repo.did))
        old = {name: list(_keys(index, repo.did, name)) for name in types}
        all_old = [*chain(*old.values())]
        self._check_new(repo, all_old)
        found = standing_rows(repo, all_old, self._selection, marks=by_name(base.tree), purged=purged)
        uris = pa.array([f"at://{repo.did}/{key}" for key in found.dropped], pa.string())
        # A type of which nothing stands has to make no part.
        standing = [name for name, keys in old.items() if any(one.key not in found.dropped for one in keys)]
        return {name: partial(_kept, index, repo.did, name, uris) for name in standing}, found.gap_rows

    def _check_new(self, repo: Repo, old: Sequence[OldKey]) -> None:
        """New records have to be few, and countable without what was left out before."""
        wanted = [entry for entry in repo.entries if self._selection.wants_collection(entry[0])]
        collections = {entry[0] for entry in wanted} | {one.key.partition("/")[0] for one in old}
        if len(collections) > COLLECTIONS_MAX:
            raise UnprovenError("the repo has too many collections to tell which ones have parts of their own")
        if sum(len(repo.block(cid)) + ROW_WEIGHT_BYTES for _, _, cid in wanted) > NEW_BYTES_MAX:
            raise UnprovenError("the partial CAR has too much that is new")
        if self._selection.has_time_range and any(_is_undated(repo, entry) for entry in wanted):
            raise UnprovenError("the partial CAR has a record without any date, which may have been counted before")


def _keys(index: RowIndex, did: str, record_type: str | None) -> Iterator[OldKey]:
    start = len(f"at://{did}/")
    for _, table in index.batches(did, (record_type,)):
        for uri, cid in zip(table.column("uri").to_pylist(), table.column("cid").to_pylist(), strict=True):
            yield OldKey(uri[start:], cid)


def _is_undated(repo: Repo, entry: Entry) -> bool:
    _, rkey, cid = entry
    if is_tid(rkey):
        return False
    try:
        record = decode_dag_cbor(repo.block(cid))
    except ValueError:
        return True
    created_at = record.get("createdAt") if isinstance(record, dict) else None
    return not isinstance(created_at, str) or created_at_micros(created_at) is None


def _kept(index: RowIndex, did: str, record_type: str | None, dropped: Any) -> Iterator[Any]:
    """Copies of the rows that stand: slices would keep whole row groups in memory as long as the batch waits."""
    for _, table in index.batches(did, (record_type,)):
        kept = table.filter(pc.invert(pc.is_in(table.column("uri"), dropped)))
        yield from (batch for batch in kept.combine_chunks().to_batches() if batch.num_rows)
