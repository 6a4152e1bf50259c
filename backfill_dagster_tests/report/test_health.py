"""The health of a shard: what counts as tried, failed, unaccounted, and who is worst."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from backfill_dagster.ledger import Lease
from backfill_dagster.model import HOST_DOWN, Outcome, RepoOutcome, Wanted
from backfill_dagster.plan import PlanStore
from backfill_dagster.report import health_markdown, shard_health
from backfill_dagster.report.health import DRIFT_MAX, WORST_MAX, ShardHealth, is_failed
from backfill_dagster.report.markdown import inert, table
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


def test_a_strangers_text_is_text_and_nothing_else() -> None:
    text = (
        "![pixel](https://evil.example/t.png) [log in](http://evil.example) www.evil.example <b>*`_#|\\ a&amp;b\nnext"
    )
    said = inert(text)
    assert said == (
        r"\!\[pixel\](https:\/\/evil.example/t.png) \[log in\](http:\/\/evil.example) www\.evil.example "
        r"\<b\>\*\`\_\#\|\\ a\&amp;b next"
    )
    assert inert("plain words, 7 of 8: a-b@c.d/e") == "plain words, 7 of 8: a-b@c.d/e"
    row = table(["a"], [[said]]).splitlines()[-1]
    assert row == f"| {said} |", "not escaped twice"


def test_a_look_in_a_run_reads_what_its_last_writer_has_made(state: BackfillState) -> None:
    root = Path(str(state.config.state_path))
    part = sorted((root / "records").glob("*/*.parquet"))[0]
    part.chmod(0o644)
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes(data)
    plan = PlanStore(state.store).read()
    wanted = Wanted(load_selection(state.config).scope, plan.refresh)
    assert any(part.name in line for line in shard_health(state, plan, only_shard(state), wanted, whole=False).drift)
    # A later writer that makes no part: of the older ones the sizes are looked at.
    log = state.log(only_shard(state))
    log.seal(log.read(), epoch=log.read().epoch + 1, run_id="later")
    assert shard_health(state, plan, only_shard(state), wanted, whole=False).drift == []
    assert shard_health(state, plan, only_shard(state), wanted, whole=True).drift
    part.write_bytes(data[:-1])
    [said] = [
        line for line in shard_health(state, plan, only_shard(state), wanted, whole=False).drift if part.name in line
    ]
    assert f"has {len(data) - 1} bytes, the log says {len(data)} bytes" in said
    part.unlink()
    [said] = [
        line for line in shard_health(state, plan, only_shard(state), wanted, whole=False).drift if part.name in line
    ]
    assert "is not there" in said


def about(part: Path, health: ShardHealth) -> list[str]:
    return [line for line in health.drift if part.name in line]


def test_who_is_at_work_is_said_beside_differences(state: BackfillState) -> None:
    shard = only_shard(state)
    assert health_of(state).at_work == ""
    did = next(iter(state.ledger.seqs(shard)))
    with sqlite3.connect(state.config.ledger_path) as connection:
        connection.execute("DELETE FROM results WHERE did = ?", [did])
    assert (len(health_of(state).drift), health_of(state).at_work) == (1, "")
    lease = Lease.acquire(
        state.ledger.leases, f"study/{shard}", owner="run 7 of study", run_id="7", lease_seconds=60, at_least_epoch=99
    )
    try:
        assert health_of(state).at_work == "run 7 of study"
    finally:
        lease.release()
    assert health_of(state).at_work == ""
