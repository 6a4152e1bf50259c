"""Values of the model in the code's own types, so that the code can be asked what it makes of them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from backfill_dagster.model import Outcome, RepoOutcome
from backfill_dagster.records import entry as code
from backfill_dagster.records.fold import Fold
from backfill_dagster.records.log import ShardLog
from backfill_dagster.records.part_file import part_key
from backfill_dagster.store import LocalStore
from backfill_dagster.store.disk import Disk
from backfill_dagster_tests.model.world import Entry, Log, Part

SHARD = "pds.example~0000"


class HastyDisk(Disk):
    """The real disk without its flushes: what survives a power cut is not asked here."""

    def sync_file(self, file: object) -> None:
        pass

    def sync_folder(self, path: Path) -> None:
        pass


def store_in(folder: Path) -> LocalStore:
    return LocalStore(folder, disk=HastyDisk())


def log_in(store: LocalStore) -> ShardLog:
    return ShardLog(store, SHARD, nonce=lambda: "own")


def key_of(part: Part) -> str:
    return part_key("post", shard=SHARD, seq=part.seq, epoch=part.epoch, unique=f"{part.epoch:02x}")


def keys_of(parts: Iterable[Part]) -> set[str]:
    return {key_of(part) for part in parts}


def part_of(part: Part) -> code.Part:
    """Every file of the tests holds one byte."""
    return code.Part(path=key_of(part), record_type="post", rows=len(part.rows), bytes=1, sha256="")


def outcome_of(did: str, version: int) -> RepoOutcome:
    return RepoOutcome(did=did, outcome=Outcome.COMPLETE, rev=str(version), records_by_type={"post": 1})


def content_of(entry: Entry, seq: int) -> dict[str, object]:
    """What `ShardLog.append` is given. An entry that removes parts has taken out all that was dead before it."""
    return {
        "adds": [part_of(part) for part in entry.adds],
        "removes": [key_of(part) for part in entry.removes],
        "dids": {did: outcome_of(did, version) for did, version in entry.dids},
        "supersedes": sorted(entry.supersedes),
        "rewritten": seq - 1 if entry.removes else 0,
    }


def entries_of(log: Log) -> list[code.LogEntry]:
    """The log as the code writes it, hash chain and all."""
    entries: list[code.LogEntry] = []
    for seq, entry in enumerate(log, start=1):
        prev = entries[-1].own if entries else ""
        named = {"seq": seq, "epoch": entry.epoch, "nonce": f"{entry.epoch}-{seq}", "run_id": f"run {entry.epoch}"}
        entries.append(code.LogEntry(**named, prev=prev, **content_of(entry, seq)).sealed())  # type: ignore[arg-type]
    return entries


def fold_of(log: Log) -> Fold:
    return Fold().then(entries_of(log))


def put_log(folder: Path, log: Log) -> None:
    """Write the entries that aren't there yet, as files."""
    for entry in entries_of(log):
        path = folder / "log" / SHARD / f"{entry.seq:08d}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_bytes(entry.to_bytes())
