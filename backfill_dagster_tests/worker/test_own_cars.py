"""The whole road over small repos that the reference PDS wrote once (`tools/reference_pds/make_fixtures.mjs`)."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from backfill_dagster.localnet import LocalnetOptions, LocalNetwork
from backfill_dagster.model import RepoOutcome
from backfill_dagster.report import verify_backfill
from backfill_dagster.state import BackfillState
from backfill_dagster_tests.road import Came, opened, rows_by_author, run_all, write_config

FOLDER = Path(__file__).parents[1] / "fixtures" / "reference"
SAID: dict[str, Any] = json.loads((FOLDER / "reference.json").read_text())
"""What the PDS said of each repo when it was made."""

KINDS = {f"com.example.kind{letter}.thing": 1 for letter in "abcdefghijklmnopqrst"}
ROWS = {
    "empty": {},
    "ten": {"post": 4, "reply": 2, "like": 1, "repost": 1, "follow": 1, "block": 1},
    "edited": {"post": 7},
    "collections": {"post": 2, "app.bsky.actor.profile": 1, "chat.bsky.actor.declaration": 1} | KINDS,
    "three_hundred": {"post": 200, "reply": 40, "like": 60},
    "p256": {"post": 8},
}
SINCE = "since"
NEW_ROWS = {"post": 9}
"""Of the repo in since.car: dated after its `start_date`; 60 others are dated 2024 and left out of the CAR."""

RANGE: dict[str, Any] = {"time_range": {"start_date": SAID[SINCE]["start_date"]}}


def network_of(*names: str) -> LocalNetwork:
    cars = tuple(FOLDER / f"{name}.car" for name in names)
    return LocalNetwork(LocalnetOptions(hosts=1, repos=0, states={}, cars=cars))


def config_for(folder: Path, network: LocalNetwork, **changes: Any) -> Path:
    kinds = ["app.bsky.*", "chat.bsky.*", "com.example.*"]
    return write_config(folder, network.plc_url, network.dids, **({"record_types": kinds} | changes))


def results(state: BackfillState, came: Came) -> dict[str, RepoOutcome]:
    return {item.result.did: item.result for shard in came.planned.plan.shards() for item in state.ledger.items(shard)}


def digests(state: BackfillState) -> dict[str, str]:
    """Author -> SHA-256 over `<uri> <cid>` lines, as `reference.json` has it from listRecords."""
    lines: dict[str, list[str]] = {}
    for path in Path(str(state.config.state_path)).glob("records/*/*.parquet"):
        for row in pq.ParquetFile(path).read(columns=["author", "uri", "cid"]).to_pylist():
            lines.setdefault(row["author"], []).append(f"{row['uri']} {row['cid']}\n")
    return {did: hashlib.sha256("".join(sorted(own)).encode()).hexdigest() for did, own in lines.items()}


async def test_each_repo_is_complete_with_exactly_its_records(folder: Path) -> None:
    async with network_of(*ROWS) as network:
        with opened(config_for(folder, network, processing={"verify": "full"})) as state:
            came = await run_all(state)
            found, sums, items = rows_by_author(state.config), digests(state), results(state, came)
            assert verify_backfill(state) == []
    dids = {name: SAID[name]["did"] for name in ROWS}
    assert came.outcomes == dict.fromkeys(dids.values(), "complete")
    assert found == {did: ROWS[name] for name, did in dids.items() if ROWS[name]}
    assert sums == {did: SAID[name]["records_sha256"] for name, did in dids.items() if ROWS[name]}
    for name, did in dids.items():
        result, said = items[did], SAID[name]
        assert (result.rev, result.commit_cid) == (said["rev"], said["commit_cid"])
        assert (result.last_complete_rev, result.signature_checked) == (said["rev"], True)
        assert result.records_by_type == ROWS[name]
        assert (result.records_total, result.quarantined, result.undated) == (said["records"], 0, 0)
        assert sum((result.records_seen_by_collection or {}).values()) == said["records"]
        assert result.repo_bytes == (FOLDER / f"{name}.car").stat().st_size
        assert result.handle == f"the-{name.replace('_', '-')}.test"


async def test_a_partial_car_is_complete_where_it_was_asked_for(folder: Path) -> None:
    async with network_of(SINCE) as network:
        path = config_for(folder, network, **RANGE, processing={"since_slack_days": 0})
        with opened(path) as state:
            came = await run_all(state)
            assert rows_by_author(state.config) == {SAID[SINCE]["did"]: NEW_ROWS}
            result = results(state, came)[SAID[SINCE]["did"]]
            assert verify_backfill(state) == []
    assert (result.outcome, result.signature_checked) == ("complete", True)
    assert (result.rev, result.commit_cid) == (SAID[SINCE]["rev"], SAID[SINCE]["commit_cid"])
    assert result.records_by_type == NEW_ROWS
    assert result.records_seen_by_collection is None


@pytest.mark.parametrize("changes", [{}, RANGE | {"processing": {"fetch": "full"}}])
async def test_a_partial_car_is_invalid_where_the_whole_was_asked_for(folder: Path, changes: dict[str, Any]) -> None:
    async with network_of(SINCE) as network:
        with opened(config_for(folder, network, **changes)) as state:
            came = await run_all(state)
            result = results(state, came)[SAID[SINCE]["did"]]
            assert (result.outcome, result.error_code) == ("invalid_repo", "MissingBlock")
            assert came.rows == {}
            assert rows_by_author(state.config) == {}
            assert verify_backfill(state) == []


async def test_a_repo_of_another_key_has_no_rows(folder: Path, tmp_path: Path) -> None:
    car, document = tmp_path / "ten.car", json.loads((FOLDER / "ten.did.json").read_text())
    other = json.loads((FOLDER / "edited.did.json").read_text())
    document["verificationMethod"] = other["verificationMethod"]
    car.write_bytes((FOLDER / "ten.car").read_bytes())
    car.with_name("ten.did.json").write_text(json.dumps(document))
    async with LocalNetwork(LocalnetOptions(hosts=1, repos=0, states={}, cars=(car,))) as network:
        with opened(config_for(folder, network)) as state:
            came = await run_all(state)
            result = results(state, came)[SAID["ten"]["did"]]
            assert (result.outcome, result.signature_checked) == ("invalid_repo", False)
            assert came.rows == {}
