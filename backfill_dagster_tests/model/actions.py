"""What a writer can do: each step of the model in words, with the code that it stands for.

A function that is renamed makes a test fail here, so that the model is looked at again.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from backfill_dagster_tests.model.world import World


class Action(Enum):
    """(what is said of it in a trace, file in `backfill_dagster/`, function)."""

    TAKE_LEASE = ("takes the lease", "worker/leases.py", "held_leases")
    READ = ("reads the log", "records/log.py", "ShardLog.read")
    SEAL = ("seals the log", "records/log.py", "ShardLog.seal")
    SEAL_READS_ON = ("finds the number of its seal taken and reads on", "records/log.py", "ShardLog.seal")
    SEAL_IS_LATE = ("finds a seal as new as its own and stops", "records/log.py", "ShardLog.seal")
    RECOVER_PART = ("publishes a live part left in staging", "worker/recover.py", "publish_live_parts")
    RECOVER_DONE = ("finds no live part in staging and none missing", "worker/recover.py", "check_parts")
    PART_IS_MISSING = ("misses a live part and stops", "worker/recover.py", "check_parts")
    MEND = ("writes the ledger items that are behind", "worker/recover.py", "mend_ledger")
    SWEEP = ("sweeps a file", "worker/recover.py", "sweep")
    SWEEP_DONE = ("finds nothing left to sweep", "worker/recover.py", "sweep")
    STAGE = ("stages a part of new rows", "records/parts.py", "BatchWriter.finish")
    STAGE_REWRITE = ("stages live rows of parts with dead ones", "records/rewrite.py", "PartRewriter.superseded")
    OLD_PART_IS_GONE = ("misses a part that it wants to rewrite and stops", "records/read.py", "open_part")
    APPEND = ("appends its entry", "records/log.py", "ShardLog.append")
    REPLY_LOST = ("appends its entry, and the reply is lost", "records/log.py", "ShardLog._put")
    REFUSED = ("is refused by the store, and can't know it", "records/log.py", "ShardLog._put")
    FENCED = ("finds its number taken and stops", "records/log.py", "ShardLog.append")
    READ_ON = ("finds its number taken and reads on", "records/log.py", "ShardLog.append")
    RECOGNISED = ("reads its own nonce back: committed", "records/log.py", "ShardLog._put")
    DISCARD = ("takes its entry for refused, discards its parts and stops", "worker/batch.py", "ShardBatches.discard")
    PUBLISH = ("publishes a part", "store/local.py", "LocalStore.publish")
    PART_VANISHED = ("finds its part neither staged nor published and stops", "store/local.py", "LocalStore.publish")
    BOOK = ("writes its ledger items", "ledger/sqlite.py", "SqliteLedger.put")
    DELETE = ("deletes a part that it replaced", "store/local.py", "LocalStore.delete")
    SNAPSHOT = ("keeps a snapshot", "records/log.py", "ShardLog.write_snapshot")
    RELEASE = ("has finished and releases the lease", "ledger/lease.py", "Lease.release")
    CRASH = ("dies", "", "")

    def __init__(self, words: str, file: str, function: str) -> None:
        self.words = words
        self.file = file
        self.function = function


class Step(NamedTuple):
    """One step that is possible in a world: by the writer of which epoch, and the world after it."""

    action: Action
    epoch: int
    world: World
