"""Reading a long shard log."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

from backfill_dagster.model import Outcome, RepoOutcome
from backfill_dagster.records.log import ShardLog
from backfill_dagster.store import LocalStore
from benchmarks.measure import Figure, median_seconds

ENTRIES = 1_000


def figures() -> Iterator[Figure]:
    """The fold of a log, entry by entry."""
    with tempfile.TemporaryDirectory() as folder:
        log = ShardLog(LocalStore(Path(folder)), "bench~0000", nonce=lambda: uuid.uuid4().hex)
        fold = log.seal(log.read(), epoch=1, run_id="bench")
        for number in range(ENTRIES):
            did = f"did:plc:{number:024d}"
            results = {did: RepoOutcome(did=did, outcome=Outcome.COMPLETE, scope="s")}
            fold = log.append(fold, epoch=1, run_id="bench", scope="s", refresh=0, dids=results)
        yield Figure("shard log folded", ENTRIES, "entries", median_seconds(log.read))
