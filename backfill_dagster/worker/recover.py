"""Recovery at the start of a run, after the seal: finish what a dead writer had committed, sweep what it had not.

Only a sealed log may be recovered, and only files of an older epoch are swept: a stalled predecessor that wakes up
in its own recovery must not touch newer files (`docs/architecture.md`, the shard log).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from backfill_dagster.errors import StateError
from backfill_dagster.ledger import Ledger, items_behind
from backfill_dagster.records.fold import Fold
from backfill_dagster.records.part_file import part_name, parts_of, shard_and_epoch
from backfill_dagster.store import ObjectInfo, ObjectStore

LEDGER_CHUNK = 500


def recover(store: ObjectStore, ledger: Ledger, fold: Fold, *, backfill: str, shard: str) -> None:
    """Make files and ledger agree with the sealed log `fold` of `shard`.

    Raises:
        StateError: a live part is neither published nor staged, or the disk refuses.
    """
    publish_live_parts(store, fold, shard)
    published = parts_of(store, shard)
    # Before the sweep: where a new part is lost, the old ones are all there is.
    check_parts(store, fold, shard, published)
    mend_ledger(ledger, fold, backfill=backfill, shard=shard)
    sweep(store, fold, shard, published)


def publish_live_parts(store: ObjectStore, fold: Fold, shard: str) -> int:
    """Publish the live parts that still lie in staging; returns how many there were."""
    waiting = [info.key for info in store.staged() if _is_of(info.key, shard) and info.key in fold.parts]
    store.publish(waiting)
    return len(waiting)


def check_parts(store: ObjectStore, fold: Fold, shard: str, published: Iterable[ObjectInfo]) -> None:
    """Refuse to go on where rows are lost: a run that fetches around the hole would call the shard complete.

    Args:
        store: where the parts are; it is asked only for those that the listing doesn't have as they should be.
        fold: the shard's log.
        shard: partition key.
        published: the shard's parts, as of `parts_of`.

    Raises:
        StateError: a live part is missing or has another size than the log says.
    """
    listed = {info.key: info.size for info in published}
    for path, live in fold.parts.items():
        if listed.get(path) == live.part.bytes:
            continue
        if (size := store.size(path)) != live.part.bytes:
            found = "is missing" if size is None else f"has {size} bytes instead of {live.part.bytes}"
            raise StateError(
                f"{shard}: its part {store.path(path)} {found}; bring it back from a backup of the state folder, or "
                "let `backfill repair` reopen the accounts in it"
            )


def mend_ledger(ledger: Ledger, fold: Fold, *, backfill: str, shard: str) -> None:
    """Write the ledger items whose seq is older than the log's.

    A mark on such a DID may have come while its entry was on the way: it is kept, at the price of one fetch too many.
    """
    stale = items_behind(ledger, fold.dids, backfill=backfill, shard=shard)
    marks = ledger.retry_marks(shard) if stale else {}
    unanswered = {item.result.did: item.seq for item in stale if item.result.did in marks}
    if unanswered:
        ledger.mark_for_retry(shard, unanswered)
    for start in range(0, len(stale), LEDGER_CHUNK):
        ledger.put(stale[start : start + LEDGER_CHUNK])


def sweep(store: ObjectStore, fold: Fold, shard: str, published: Iterable[ObjectInfo]) -> int:
    """Delete the shard's files that no entry made live and that an older epoch wrote; returns how many there were.

    Args: as of `check_parts`.
    """
    # By their names, which are never used twice: where folders differ only by case, listings can't be trusted.
    live = {part_name(path) for path in fold.parts}
    staged = [info.key for info in store.staged() if _is_dead(info.key, live, fold.epoch, shard)]
    for key in staged:
        store.discard_staged(key)
    dead = [info.key for info in published if _is_dead(info.key, live, fold.epoch, shard)]
    for key in dead:
        store.delete(key)
    return len(staged) + len(dead)


def newest_epoch(store: ObjectStore, shard: str) -> int:
    """The highest epoch in the names of a shard's parts, 0 without any: a log may have lost entries of it."""
    named = (shard_and_epoch(info.key) for info in parts_of(store, shard))
    return max((one[1] for one in named if one is not None), default=0)


def _is_of(key: str, shard: str) -> bool:
    named = shard_and_epoch(key)
    return named is not None and named[0] == shard


def _is_dead(key: str, live: Collection[str], epoch: int, shard: str) -> bool:
    named = shard_and_epoch(key)
    return named is not None and named[0] == shard and named[1] < epoch and part_name(key) not in live
