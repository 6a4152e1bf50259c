"""Every damage is named by `verify`, no run makes a wrong "complete" of it, and a repair mends it or says what is lost."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from backfill_dagster.errors import FencedError, StateError
from backfill_dagster.localnet import LocalNetwork
from backfill_dagster.model import Outcome
from backfill_dagster.report import verify_backfill
from backfill_dagster.state import BackfillState
from backfill_dagster.worker.repair import Mended, Repaired
from backfill_dagster_tests.net.virtual_time import InstantTime
from backfill_dagster_tests.road import opened
from backfill_dagster_tests.worker.damages import DAMAGES, REWRITE, Damage, cut_off, dids_of, entry, make, part
from backfill_dagster_tests.worker.mortal import KilledError, mortal
from backfill_dagster_tests.worker.tiny import assert_sound, fold_of, item_of, only_shard, tiny
from backfill_dagster_tests.worker.upkeep import (
    BROKEN,
    LIKE,
    STEPS_MAX,
    AllRows,
    all_rows,
    by_uri,
    copied,
    cut_short,
    finish,
    flip,
    held,
    left_to_do,
    remove,
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


@pytest.fixture
def rows(base: Path) -> AllRows:
    """What an unbroken backfill has."""
    with opened(base / "study.yaml", InstantTime().effects()) as state:
        return by_uri(all_rows(state))


def damaged(base: Path, copy: Path, damage: Damage) -> Path:
    with copied(base, copy) as state:
        damage.do(state)
    return copy / "study.yaml"


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.name)
async def test_damaged_and_repaired(
    folder: Path, network: LocalNetwork, base: Path, rows: AllRows, damage: Damage
) -> None:
    path = damaged(base, folder / "copy", damage)
    with opened(path, InstantTime().effects()) as state:
        dids = dids_of(state)
        problems = verify_backfill(state)
        for said in damage.said:
            assert any(said in problem for problem in problems), problems
        lost = [dids[number] for number in damage.lost]

        repaired = await repair(state)
        assert repaired.held == {}
        assert sorted(did for one in repaired.shards.values() for did in one.reopened) == sorted(lost)
        assert repaired.left == len(lost)
        assert_sound(state)
        outcomes = {did: fold_of(state).dids[did][0] for did in dids}
        assert {did for did, result in outcomes.items() if result.outcome is not Outcome.COMPLETE} == set(lost)
        assert all(outcomes[did].error_code == "part_lost" for did in lost)
        assert rows_of(all_rows(state), set(dids) - set(lost)) == rows_of(rows, set(dids) - set(lost))

        asked = network.pds_requests()
        await finish(state)
        assert network.pds_requests() - asked == len(lost), "who has lost nothing is not asked for"
        assert_same_rows(by_uri(all_rows(state)), rows)
        assert {item_of(state, did).result.outcome for did in dids} == {Outcome.COMPLETE}
        assert_sound(state)
        assert left_to_do(state) == []
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
    folder: Path, network: LocalNetwork, base: Path, rows: AllRows, damage: Damage
) -> None:
    path = damaged(base, folder / "copy", damage)
    asked = network.pds_requests()
    with opened(path, InstantTime().effects()) as state:
        try:
            await finish(state)
        except StateError as error:
            assert "`backfill repair`" in str(error)
            assert not damage.heals
        problems = verify_backfill(state)
        assert network.pds_requests() == asked, "nothing is fetched around a hole"
        if damage.heals:
            assert problems == []
            assert by_uri(all_rows(state)) == rows
            assert await repair(state) == Repaired()
        else:
            assert problems, "it is named until it is mended"
