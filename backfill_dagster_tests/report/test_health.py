"""The health of a shard: what counts as tried, failed, unaccounted, and who is worst."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from backfill_dagster.model import HOST_DOWN, Outcome, RepoOutcome, Wanted
from backfill_dagster.plan import PlanStore
from backfill_dagster.report import health_markdown, shard_health
from backfill_dagster.report.health import DRIFT_MAX, WORST_MAX, ShardHealth, is_failed
from backfill_dagster.scope import load_selection
from backfill_dagster.state import BackfillState
from backfill_dagster_tests.net.virtual_time import InstantTime
from backfill_dagster_tests.road import opened, run_all
from backfill_dagster_tests.worker.tiny import only_shard, state_of, tiny


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    async with tiny(repos=6, states={"deactivated": 2}) as network:
        with state_of(folder, network) as state:
            await run_all(state)
    return folder


@pytest.fixture
def state(finished: Path, tmp_path: Path) -> Iterator[BackfillState]:
    shutil.copytree(finished, tmp_path / "copy")
    with opened(tmp_path / "copy" / "study.yaml", InstantTime().effects()) as state:
        yield state


def health_of(state: BackfillState, **wanted: int) -> ShardHealth:
    plan = PlanStore(state.store).read()
    scope = load_selection(state.config).scope
    return shard_health(state, plan, only_shard(state), Wanted(scope, wanted.get("refresh", plan.refresh)))


def test_a_finished_shard(state: BackfillState) -> None:
    health = health_of(state)
    assert health.outcomes == {Outcome.COMPLETE: 4, Outcome.DEACTIVATED: 2}
    assert (health.dids, health.tried, health.failed, health.error_rate) == (6, 6, 0, 0.0)
    assert (health.drift, health.unaccounted) == ([], [])
    assert [one.outcome for one in health.worst] == [Outcome.DEACTIVATED] * 2


def test_a_log_that_is_damaged_is_drift_and_the_ledger_is_counted_all_the_same(state: BackfillState) -> None:
    root = Path(str(state.config.state_path))
    entry = sorted((root / "log" / only_shard(state)).glob("*.json"))[-1]
    entry.chmod(0o644)
    entry.write_text("{}")
    health = health_of(state)
    assert any(entry.name in line for line in health.drift)
    assert len(health.drift) <= DRIFT_MAX
    assert health.unaccounted == []
    assert health.outcomes == {Outcome.PENDING: 6}


def test_what_is_a_failure() -> None:
    one = RepoOutcome(did="did:plc:a", outcome=Outcome.PENDING)
    failures = {o for o in Outcome if is_failed(replace(one, outcome=o))}
    assert failures == {Outcome.HTTP_ERROR, Outcome.INVALID_REPO, Outcome.TOO_LARGE, Outcome.REFUSED_HOST}
    assert is_failed(replace(one, error_code=HOST_DOWN))
    assert not is_failed(replace(one, error_code="RateLimited")), "a 429 is never a failure"


def test_the_tables_hold_what_a_stranger_wrote_in_one_line() -> None:
    bad = RepoOutcome(
        did="did:plc:a",
        outcome=Outcome.HTTP_ERROR,
        attempts=3,
        error_code="X",
        error_detail="<script>|\nnew line" + "x" * 500,
    )
    text = health_markdown(ShardHealth(shard="a~0000", dids=1, worst=[bad] * WORST_MAX))
    rows = [line for line in text.splitlines() if "did:plc:a" in line]
    assert len(rows) == WORST_MAX
    assert "<script>" not in text
    assert max(map(len, rows)) < 300
