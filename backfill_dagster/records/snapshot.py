"""A fold as one object beside the log, so that a log of ten thousand entries is read in one go: a cache, no truth.

`snapshots/<shard>/<seq:08d>.json`. No entry is ever deleted for it; one that can't be read, or doesn't fit its entry,
is passed over. When snapshots are written and read is `log.py`'s business.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from backfill_dagster.model import RepoOutcome
from backfill_dagster.records.canonical import hashed_json, read_hashed_json
from backfill_dagster.records.entry import part_from_json
from backfill_dagster.records.fold import Fold, LivePart

SNAPSHOTS = "snapshots/"

SNAPSHOT_VERSION = 1
"""Another version's snapshots are passed over: the log says it all."""


def snapshot_prefix(shard: str) -> str:
    """What the keys of a shard's snapshots begin with."""
    return f"{SNAPSHOTS}{shard}/"


def snapshot_key(shard: str, seq: int) -> str:
    """Key of the snapshot that holds the fold up to and with entry `seq`."""
    return f"{snapshot_prefix(shard)}{seq:08d}.json"


def snapshot_bytes(fold: Fold) -> bytes:
    """A fold as canonical JSON with its own sha256; the same fold gives the same bytes."""
    content = {
        "version": SNAPSHOT_VERSION,
        "seq": fold.seq,
        "epoch": fold.epoch,
        "own": fold.own,
        "entries": fold.entries,
        "parts": [{"part": asdict(live.part), "seq": live.seq} for live in fold.parts.values()],
        "dids": {did: {"seq": seq, "result": result.to_json()} for did, (result, seq) in fold.dids.items()},
        "superseded": dict(fold.superseded),
        "rewritten_seq": fold.rewritten_seq,
        "purged": sorted(fold.purged),
        "voids": sorted(fold.voids),
    }
    return hashed_json(content)


def fold_from_snapshot(data: bytes) -> Fold:
    """The fold that a snapshot holds.

    Raises:
        ValueError: it can't be read, is of another version, or its sha256 is wrong.
    """
    content = read_hashed_json(data)
    try:
        if content["version"] != SNAPSHOT_VERSION:
            raise ValueError(f"it is of version {content['version']}")
        return _fold(content)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"a field is missing or of the wrong type ({error!r})") from error


def _fold(content: Mapping[str, Any]) -> Fold:
    parts = [LivePart(part_from_json(one["part"]), one["seq"]) for one in content["parts"]]
    return Fold(
        seq=content["seq"],
        epoch=content["epoch"],
        own=content["own"],
        entries=content["entries"],
        parts={live.part.path: live for live in parts},
        dids={did: (RepoOutcome.from_json(did, one["result"]), one["seq"]) for did, one in content["dids"].items()},
        superseded=content["superseded"],
        rewritten_seq=content["rewritten_seq"],
        purged=frozenset(content["purged"]),
        voids=frozenset(content["voids"]),
    )
