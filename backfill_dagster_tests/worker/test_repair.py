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
from backfill_dagster.state import BackfillState
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
    own_locks,
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
    with own_locks(folder):
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
async def test_damaged_run_and_repaired(
    folder: Path, network: LocalNetwork, base: Path, whole: Whole, damage: Damage
) -> None:
    """A run that comes before the repair refuses or heals, or has nothing to do: it fetches nothing around a hole."""
    with opened(damaged(base, folder / "copy", damage), InstantTime().effects()) as state:
        problems = verify_backfill(state)
        for said in damage.said:
            assert any(said in problem for problem in problems), problems

        asked = network.pds_requests()
        try:
            await finish(state)
        except StateError as error:
            assert "`backfill repair`" in str(error)
        assert network.pds_requests() == asked
        assert (verify_backfill(state) == []) is damage.heals
        if damage.heals:
            assert by_uri(all_rows(state)) == whole.rows
        else:
            await assert_mended(state, network, whole, {whole.dids[number] for number in damage.lost})
        assert_sound(state)
        assert await repair(state) == Repaired(), "there is nothing to mend any more"


async def assert_mended(state: BackfillState, network: LocalNetwork, whole: Whole, lost: set[str]) -> None:
    """A repair reopens who has lost something and nobody else, and the next run fetches these and nobody else."""
    kept = set(whole.dids) - lost
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
    assert network.pds_requests() - asked == len(lost)
    assert_same_rows(by_uri(all_rows(state)), whole.rows)
    assert {item_of(state, did, whole.shard).result.outcome for did in whole.dids} == {Outcome.COMPLETE}


@pytest.mark.parametrize(
    "damage", [damage for damage in DAMAGES if not damage.heals and "gone" in damage.name], ids=lambda one: one.name
)
async def test_repaired_at_once(folder: Path, network: LocalNetwork, base: Path, whole: Whole, damage: Damage) -> None:
    """Before a run has put a seal where a lost entry was."""
    with opened(damaged(base, folder / "copy", damage), InstantTime().effects()) as state:
        await assert_mended(state, network, whole, {whole.dids[number] for number in damage.lost})
        assert_sound(state)


def rows_of(rows: AllRows, dids: set[str]) -> AllRows:
    return by_uri(
        {name: kept for name, some in rows.items() if (kept := [row for row in some if row["author"] in dids])}
    )


def assert_same_rows(some: AllRows, others: AllRows) -> None:
    """But for the time of the fetch."""

    def without_time(rows: AllRows) -> AllRows:
        return {name: [row | {"fetched_at": None} for row in of_type] for name, of_type in rows.items()}

    assert without_time(some) == without_time(others)
