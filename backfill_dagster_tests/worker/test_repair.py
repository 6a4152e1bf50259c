"""Every damage is named by `verify`, no run calls it complete, and a repair mends it or says what is lost."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from backfill_dagster.errors import StateError
from backfill_dagster.localnet import LocalNetwork
from backfill_dagster.model import Outcome
from backfill_dagster.report import verify_backfill
from backfill_dagster.worker.repair import Repaired
from backfill_dagster_tests.net.virtual_time import InstantTime
from backfill_dagster_tests.road import opened
from backfill_dagster_tests.worker.damages import DAMAGES, Damage, dids_of, make, shard_of
from backfill_dagster_tests.worker.tiny import assert_sound, fold_of, item_of, tiny
from backfill_dagster_tests.worker.upkeep import (
    BROKEN,
    LIKE,
    AllRows,
    all_rows,
    by_uri,
    copied,
    finish,
    repair,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def network() -> AsyncIterator[LocalNetwork]:
    async with tiny(repos=4, median=10) as network:
        follow = {"collection": "app.bsky.graph.follow", "record": {"subject": "did:web:a.example"}}
        for did in network.dids:
            await network.control.add({"did": did, "records": [LIKE, follow, BROKEN]})
        yield network


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def base(tmp_path_factory: pytest.TempPathFactory, network: LocalNetwork) -> Path:
    folder = tmp_path_factory.mktemp("base")
    locks = pytest.MonkeyPatch()
    with locks.context() as patch:
        patch.setenv("BACKFILL_LOCK_DIR", str(folder / "locks"))
        await make(folder, network)
    return folder


@dataclass(frozen=True)
class Whole:
    """What an unbroken backfill has."""

    rows: AllRows
    dids: list[str]
    shard: str


@pytest.fixture(scope="module")
def whole(base: Path) -> Whole:
    with opened(base / "study.yaml", InstantTime().effects()) as state:
        return Whole(by_uri(all_rows(state)), dids_of(state), shard_of(state))


def damaged(base: Path, copy: Path, damage: Damage) -> Path:
    with copied(base, copy) as state:
        damage.do(state)
    return copy / "study.yaml"


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.name)
async def test_damaged_and_repaired(
    folder: Path, network: LocalNetwork, base: Path, whole: Whole, damage: Damage
) -> None:
    lost = {whole.dids[number] for number in damage.lost}
    kept = set(whole.dids) - lost
    with opened(damaged(base, folder / "copy", damage), InstantTime().effects()) as state:
        problems = verify_backfill(state)
        for said in damage.said:
            assert any(said in problem for problem in problems), problems

        repaired = await repair(state)
        assert repaired.held == {}
        assert {did for one in repaired.shards.values() for did in one.reopened} == lost
        assert repaired.left == len(lost)
        assert verify_backfill(state) == []
        known = fold_of(state, whole.shard).dids
        assert {did: known[did][0].outcome for did in kept} == dict.fromkeys(kept, Outcome.COMPLETE)
        assert {known[did][0].outcome for did in lost} <= {Outcome.PENDING}
        assert {known[did][0].error_code for did in lost} <= {"part_lost"}
        assert rows_of(all_rows(state), kept) == rows_of(whole.rows, kept)

        asked = network.pds_requests()
        await finish(state)
        assert network.pds_requests() - asked == len(lost), "who has lost nothing is not asked for"
        assert_same_rows(by_uri(all_rows(state)), whole.rows)
        assert {item_of(state, did, whole.shard).result.outcome for did in whole.dids} == {Outcome.COMPLETE}
        assert_sound(state)
        assert await repair(state) == Repaired(), "a second one has nothing to do"


def rows_of(rows: AllRows, dids: set[str]) -> AllRows:
    return by_uri(
        {name: kept for name, some in rows.items() if (kept := [row for row in some if row["author"] in dids])}
    )


def assert_same_rows(some: AllRows, others: AllRows) -> None:
    """But for the time of the fetch."""

    def without_time(rows: AllRows) -> AllRows:
        return {name: [row | {"fetched_at": None} for row in of_type] for name, of_type in rows.items()}

    assert without_time(some) == without_time(others)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.name)
async def test_a_run_refuses_or_heals_and_calls_nothing_complete_that_is_not(
    folder: Path, network: LocalNetwork, base: Path, whole: Whole, damage: Damage
) -> None:
    asked = network.pds_requests()
    with opened(damaged(base, folder / "copy", damage), InstantTime().effects()) as state:
        try:
            await finish(state)
        except StateError as error:
            assert "`backfill repair`" in str(error)
            assert not damage.heals
        problems = verify_backfill(state)
        assert network.pds_requests() == asked, "nothing is fetched around a hole"
        if damage.heals:
            assert problems == []
            assert by_uri(all_rows(state)) == whole.rows
            assert await repair(state) == Repaired()
        else:
            assert problems, "it is named until it is mended"
