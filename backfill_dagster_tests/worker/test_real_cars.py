"""The whole road over real CAR files: `BACKFILL_REAL_CARS` names the folder; they are read there and never copied."""

from __future__ import annotations

import json
from pathlib import Path

import duckdb
import pytest

from backfill_dagster.atproto.repo import open_repo
from backfill_dagster.localnet import LocalnetOptions, LocalNetwork
from backfill_dagster.model import LedgerItem
from backfill_dagster.report import verify_backfill
from backfill_dagster_tests.requirements import need_folder
from backfill_dagster_tests.road import opened, run_all, write_config

LITTLE = "did:plc:lulmyldiq4sb2ikags5sfb25"
TINY = "did:plc:7hptvnhdyeu53xp6rz7e42iy"
SNARFED = "did:plc:5zspv27pk4iqtrl2ql2nykjh"
EVERYTHING = ["app.bsky.*", "sh.tangled.*", "pub.leaflet.*", "network.slices.*"]


@pytest.fixture
def cars() -> Path:
    return need_folder("BACKFILL_REAL_CARS")


async def back_fill(folder: Path, cars: Path, **changes: object) -> dict[str, LedgerItem]:
    """All CAR files through the whole road; DID -> ledger item."""
    files = tuple(sorted(cars.glob("*.car")))  # noqa: ASYNC240 - nothing else runs yet
    async with LocalNetwork(LocalnetOptions(hosts=1, repos=0, seed=1, cars=files)) as network:
        config = write_config(folder, network.plc_url, network.dids, **changes)
        with opened(config) as state:
            came = await run_all(state)
            assert verify_backfill(state) == []
            (shard,) = came.planned.plan.shards()
            return {item.result.did: item for item in state.ledger.items(shard)}


def collections_of(path: Path, did: str) -> dict[str, int]:
    """Collection -> records, by the protocol package alone."""
    counts: dict[str, int] = {}
    for collection, _, _ in open_repo(path.read_bytes(), did=did, signing_key=None, verify="structure").entries:
        counts[collection] = counts.get(collection, 0) + 1
    return counts


async def test_structure(folder: Path, cars: Path) -> None:
    items = await back_fill(folder, cars, record_types=EVERYTHING, processing={"verify": "structure"})
    results = {did: item.result for did, item in items.items()}
    little = results.pop(LITTLE)
    assert (little.outcome, little.records_total, little.quarantined) == ("complete", 278, 0)
    assert little.records_seen_by_collection == collections_of(cars / "repostream_little.car", LITTLE)
    assert len(little.records_seen_by_collection or {}) == 24
    by_type = dict(little.records_by_type)
    assert by_type.pop("post") + by_type.pop("reply") == 85
    assert (by_type["like"], by_type["repost"], by_type["follow"], by_type["block"]) == (70, 51, 2, 2)
    assert sum(n for name, n in by_type.items() if "." in name and not name.startswith("app.bsky.")) == 67
    assert results.pop(TINY).outcome == "complete"
    assert results.pop(SNARFED).outcome == "complete"
    empties = [r for r in results.values() if r.outcome == "complete" and not r.records_seen_by_collection]
    assert [r.records_total for r in empties] == [0]
    version_2 = [r for r in results.values() if sum((r.records_seen_by_collection or {}).values()) == 142]
    assert [(r.outcome, r.rev, r.quarantined, r.records_total) for r in version_2] == [("complete", None, 0, 142)]
    slices = [r for r in results.values() if r.outcome == "invalid_repo"]
    assert len(slices) == 1
    assert len(results) == 3


async def test_a_reply_without_root_keeps_its_row(folder: Path, cars: Path) -> None:
    """The one in these files is a comment of another lexicon, whose reply has a parent only."""
    await back_fill(folder, cars, record_types=["pub.leaflet.*"], processing={"verify": "structure"})
    comments = folder / "data" / "study" / "records" / "record_type=pub.leaflet.comment" / "*.parquet"
    rows = duckdb.sql(f"SELECT author, record FROM read_parquet('{comments}')").fetchall()
    assert [author for author, _ in rows] == [LITTLE]
    assert set(json.loads(rows[0][1])["reply"]) == {"parent"}


async def test_full_verification_names_the_high_s_signature(folder: Path, cars: Path) -> None:
    items = await back_fill(folder, cars)
    did = json.loads((cars / "indigo_fakermaker.did.json").read_text())["id"]
    result = items[did].result
    assert result.outcome == "invalid_repo"
    assert "high-S" in (result.error_detail or "")
    assert {item.result.outcome.value for item in items.values()} == {"invalid_repo"}
    assert not any(item.result.records_total for item in items.values())
