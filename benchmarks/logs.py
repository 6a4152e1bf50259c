"""Reading a long shard log: entry by entry, and from its newest snapshot."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO

from backfill_dagster.model import Outcome, RepoOutcome
from backfill_dagster.records.entry import Part
from backfill_dagster.records.fold import Fold
from backfill_dagster.records.log import ShardLog
from backfill_dagster.store import LocalStore
from backfill_dagster.store.disk import Disk
from backfill_dagster.worker.writer import SNAPSHOT_ENTRIES
from benchmarks.measure import Figure, median_seconds

ENTRIES = 10_000
DIDS = 4_000
DIDS_PER_ENTRY = 10
PARTS_PER_ENTRY = 4

EVIDENCE = {"post": 812, "reply": 233, "like": 4120, "repost": 318, "follow": 401, "block": 12}


class HastyDisk(Disk):
    """Flushes nothing: writing the log is not what is measured."""

    def sync_file(self, file: BinaryIO) -> None:
        """Leave it to the system."""
        file.flush()

    def sync_folder(self, path: Path) -> None:
        """Leave it to the system."""


def figures() -> Iterator[Figure]:
    """The fold of a log of a shard that has been refreshed for months; the snapshot is as old as it ever gets."""
    with tempfile.TemporaryDirectory() as folder:
        log = ShardLog(LocalStore(Path(folder), disk=HastyDisk()), "bench~0000", nonce=lambda: uuid.uuid4().hex)
        last = _write(log)
        assert log.read() == last
        yield Figure("shard log folded from its newest snapshot", ENTRIES, "entries", median_seconds(log.read))
        whole = partial(log.read, whole=True)
        yield Figure("shard log folded entry by entry", ENTRIES, "entries", median_seconds(whole, rounds=1))


def _write(log: ShardLog) -> Fold:
    fold = log.seal(log.read(), epoch=1, run_id="bench")
    while fold.seq < ENTRIES:
        first = (fold.seq * DIDS_PER_ENTRY) % DIDS
        dids = {one.did: one for one in map(outcome_of, range(first, first + DIDS_PER_ENTRY))}
        adds = [_part(fold.seq + 1, number) for number in range(PARTS_PER_ENTRY)]
        # A rewrite follows each round of refreshes, so a shard's live parts are bounded.
        removes = list(fold.parts) if first == 0 else []
        fold = log.append(
            fold, epoch=1, run_id="bench", scope="s", refresh=0, adds=adds, removes=removes, dids=dids, supersedes=dids
        )
        if fold.seq == ENTRIES - SNAPSHOT_ENTRIES + 1:
            log.write_snapshot(fold)
    return fold


def outcome_of(number: int, outcome: Outcome = Outcome.COMPLETE) -> RepoOutcome:
    """A DID with the evidence that a common account leaves."""
    return RepoOutcome(
        did=f"did:plc:{number:024d}",
        outcome=outcome,
        scope="0123456789abcdef",
        pds_endpoint="https://puffball.us-east.host.bsky.network",
        handle=f"account-{number}.bsky.social",
        rev="3l5abcdefgh2a",
        commit_cid="bafyreif5wbyojvsphmmc6mavlj2ws6u7amqzlvl3tgj4fdljzchfpdq2wy",
        last_complete_rev="3l5abcdefgh2a",
        signature_checked=True,
        repo_bytes=500_000,
        records_by_type=EVIDENCE,
        rows_scope="0123456789abcdef",
        attempts=1,
        fetched_at="2026-11-24T12:00:00.000Z",
        finished_at="2026-11-24T12:00:01.000Z",
        run_id="bench",
        config_hash="0123456789abcdef",
        code_version="0.1.0",
    )


def _part(seq: int, number: int) -> Part:
    path = f"records/record_type=post/bench~0000-{seq:08d}-1-{number:032x}.parquet"
    return Part(path, "post", 1_000, 100_000, f"{seq:064x}")
