"""`backfill verify` names every kind of difference, each in one line, and nothing when there is none."""

from __future__ import annotations

import hashlib
import random
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest
import pytest_asyncio

from backfill_dagster.model import UNROUTABLE_SHARD, LedgerItem, Outcome, PlannedDid, RepoOutcome
from backfill_dagster.plan import PlanStore
from backfill_dagster.records.log import Part
from backfill_dagster.report import verify as verify_module
from backfill_dagster.report import verify_backfill
from backfill_dagster.state import BackfillState
from backfill_dagster_tests.net.virtual_time import InstantTime
from backfill_dagster_tests.road import opened, run_all
from backfill_dagster_tests.worker.tiny import fold_of, only_shard, state_of, tiny


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished backfill; tests work on copies."""
    folder = tmp_path_factory.mktemp("finished [2026]*")  # DuckDB would read it as a pattern
    async with tiny(repos=4, states={"unknown": 1}) as network:
        broken = {"collection": "app.bsky.feed.like", "record": {"subject": 7}}
        await network.control.add({"did": network.active[0], "records": [broken]})
        with state_of(folder, network, processing={"batch_size": 2}) as state:
            await run_all(state)
            assert verify_backfill(state) == []
    return folder


@pytest.fixture
def state(finished: Path, tmp_path: Path) -> Iterator[BackfillState]:
    copy = tmp_path / "copy [2026]?"
    shutil.copytree(finished, copy)
    with opened(copy / "study.yaml", InstantTime().effects()) as state:
        yield state


def root_of(state: BackfillState) -> Path:
    return Path(str(state.config.state_path))


def parts_of(state: BackfillState) -> list[Path]:
    return sorted(root_of(state).glob("records/*/*.parquet"))


def key_of(state: BackfillState, path: Path) -> str:
    return str(path.relative_to(root_of(state)))


def test_nothing_is_wrong(state: BackfillState) -> None:
    assert verify_backfill(state) == []


def test_a_byte_that_changed_anywhere_in_any_part(state: BackfillState) -> None:
    """Never an exception, always the part's name, and at least one line more when it can't be read."""
    dice = random.Random(7)
    paths = [*parts_of(state), *root_of(state).glob("quarantine/*.parquet")]
    for path in dice.sample(paths, 6):
        whole = path.read_bytes()
        for _ in range(4):
            place = dice.randrange(len(whole))
            changed = bytearray(whole)
            changed[place] ^= 1 << dice.randrange(8)
            path.write_bytes(changed)
            problems = verify_backfill(state)
            assert f"{key_of(state, path)}: {len(whole)} bytes with sha256" in problems[0]
        path.write_bytes(whole)
    assert verify_backfill(state) == []


@pytest.mark.parametrize("content", [b"", b"PAR1", b"not parquet at all", None])
def test_a_part_that_is_cut_or_something_else(state: BackfillState, content: bytes | None) -> None:
    path = parts_of(state)[0]
    path.write_bytes(path.read_bytes()[:-9] if content is None else content)
    problems = verify_backfill(state)
    assert problems[0].startswith(f"{key_of(state, path)}: ")
    assert any("can't be read" in problem for problem in problems)


def test_a_part_that_is_gone(state: BackfillState) -> None:
    path = parts_of(state)[0]
    path.unlink()
    assert verify_backfill(state) == [
        f"{key_of(state, path)}: the log says that this part is live, and it is not there; bring it back from a "
        "backup, or `backfill repair` reopens the accounts in it"
    ]


def test_a_part_that_no_log_knows(state: BackfillState) -> None:
    path = parts_of(state)[0]
    stranger, orphan = path.with_name("stranger.parquet"), path.with_name(f"{only_shard(state)}-00000001-1-ab.parquet")
    shutil.copy(path, stranger)
    shutil.copy(path, orphan)
    removed = "the next run of its shard removes it, or `backfill repair`"
    assert verify_backfill(state) == [
        f"{key_of(state, orphan)}: no log says that this part is live; {removed}",
        f"{key_of(state, stranger)}: no log says that this part is live; move it away",
    ]


def test_what_lies_in_staging(state: BackfillState) -> None:
    live = key_of(state, parts_of(state)[0])
    for key in (live, "records/record_type=post/never.parquet"):
        with state.store.stage(key) as file:
            file.write(b"x")
    assert verify_backfill(state) == [
        f"{live}, in staging, is live and not published yet; the next run of its shard sorts it out",
        "records/record_type=post/never.parquet, in staging, was never committed; "
        "the next run of its shard sorts it out",
    ]


def change_ledger(state: BackfillState, statement: str, *parameters: object) -> None:
    state.ledger.close()
    with sqlite3.connect(state.config.ledger_path) as database:
        assert database.execute(statement, parameters).rowcount == 1
    database.close()


def test_ledger_items_that_are_gone_changed_or_made_up(state: BackfillState) -> None:
    shard = only_shard(state)
    first, second, third = sorted(fold_of(state).dids)
    seq = fold_of(state).dids[third][1]
    change_ledger(state, "DELETE FROM results WHERE did = ? AND shard = ?", first, shard)
    change_ledger(state, "UPDATE results SET records_total = 0, rev = 'x' WHERE did = ? AND shard = ?", second, shard)
    change_ledger(state, "UPDATE results SET seq = 99 WHERE did = ? AND shard = ?", third, shard)
    state.ledger.put(
        [
            LedgerItem(
                backfill="study", shard=shard, seq=1, result=RepoOutcome(did="did:plc:nobody", outcome=Outcome.COMPLETE)
            )
        ]
    )
    remedy = "bring log/ back, or `backfill repair` reopens the accounts of what is lost"
    assert sorted(verify_backfill(state)) == sorted(
        [
            f"{shard}: the ledger lacks {first}; the next run mends it, or `backfill repair`",
            f"{shard}: the ledger's item of {second} differs from the log's; `backfill repair` writes it again",
            f"{shard}: the ledger has {third} at seq 99, the log at {seq}; {remedy}",
            f"{shard}: the ledger has did:plc:nobody, the log has not; {remedy}",
        ]
    )


def tamper(state: BackfillState, change: str) -> str:
    """Put one part more into the log that is made by SQL from a live one; returns the DID that it is about."""
    source = next(path for path in parts_of(state) if "record_type=like" in str(path))
    ((did,),) = duckdb.sql(f"SELECT author FROM read_parquet('{source}') ORDER BY author LIMIT 1").fetchall()
    shard, fold = only_shard(state), fold_of(state)
    key = f"records/record_type=like/{shard}-{fold.seq + 2:08d}-{fold.epoch + 1}-ab.parquet"
    target = root_of(state) / key
    select = f"SELECT * REPLACE ({change}) FROM read_parquet('{source}', hive_partitioning = false)"
    duckdb.execute(f"COPY ({select} WHERE author = '{did}' LIMIT 1) TO '{target}' (FORMAT parquet)")
    content = target.read_bytes()
    log = state.log(shard)
    sealed = log.seal(fold, epoch=fold.epoch + 1, run_id="tamper")
    part = Part(key, "like", 1, len(content), hashlib.sha256(content).hexdigest())
    log.append(sealed, epoch=sealed.epoch, run_id="tamper", scope="", refresh=0, adds=[part])
    return str(did)


def test_a_uri_that_is_there_twice(state: BackfillState) -> None:
    did = tamper(state, "uri AS uri")
    problems = verify_backfill(state)
    assert problems[0] == f"{only_shard(state)}: {did} has 1 URIs twice in like"
    assert f"{only_shard(state)}: {did} has rows " in problems[1]


def test_a_row_too_many(state: BackfillState) -> None:
    did = tamper(state, "uri || 'x' AS uri")
    (problem,) = verify_backfill(state)
    assert f"{only_shard(state)}: {did} has rows " in problem
    assert "its outcome says" in problem


def test_rows_of_somebody_without_an_outcome(state: BackfillState) -> None:
    tamper(state, "'did:plc:nobody' AS author")
    assert verify_backfill(state) == [f"{only_shard(state)}: did:plc:nobody has rows and no outcome"]


def test_quarantined_records_are_counted(state: BackfillState) -> None:
    shard, fold = only_shard(state), fold_of(state)
    (path,) = [one for one in fold.parts if one.startswith("quarantine/")]
    (did,) = [did for did, (result, _) in fold.dids.items() if result.quarantined]
    sealed = state.log(shard).seal(fold, epoch=fold.epoch + 1, run_id="tamper")
    state.log(shard).append(sealed, epoch=sealed.epoch, run_id="tamper", scope="", refresh=0, removes=[path])
    assert verify_backfill(state) == [
        f"{shard}: {did} has 0 records in quarantine, its outcome says 1",
        f"{path}: no log says that this part is live; the next run of its shard removes it, or `backfill repair`",
    ]


def test_a_log_that_can_not_be_read_does_not_hide_the_rest(state: BackfillState) -> None:
    shard = only_shard(state)
    path = root_of(state) / f"log/{shard}/00000002.json"
    path.write_bytes(path.read_bytes()[:-5])
    stranger = parts_of(state)[0].with_name("stranger.parquet")
    stranger.touch()
    log_problem, stranger_problem = verify_backfill(state)
    assert log_problem.startswith(f"log/{shard}/00000002.json can't be read")
    assert "bring it back from a backup" in log_problem
    assert stranger_problem.startswith(key_of(state, stranger)), "and nobody can tell whose the shard's parts are"


def test_rows_that_were_replaced_and_not_taken_out(state: BackfillState) -> None:
    shard, fold = only_shard(state), fold_of(state)
    did, (result, _) = next(iter(fold.dids.items()))
    log = state.log(shard)
    sealed = log.seal(fold, epoch=fold.epoch + 1, run_id="x")
    empty = RepoOutcome(did=did, outcome=Outcome.DEACTIVATED, scope=result.scope)
    done = log.append(
        sealed, epoch=sealed.epoch, run_id="x", scope=result.scope, refresh=0, dids={did: empty}, supersedes=[did]
    )
    state.ledger.put([LedgerItem(backfill="study", shard=shard, seq=done.seq, result=empty)])
    assert verify_backfill(state) == [
        f"{shard}: rows that a newer fetch replaced are still in older parts; the next run takes them out"
    ]


def test_the_planner_has_not_booked_somebody(state: BackfillState) -> None:
    plans = PlanStore(state.store)
    row = PlannedDid(did="nonsense", shard=UNROUTABLE_SHARD, outcome=Outcome.INVALID_DID)
    assert plans.append(plans.read(), [row], {"refresh": 0}) is not None
    assert verify_backfill(state) == [
        f"{UNROUTABLE_SHARD}: nonsense is invalid_did by the plan and not by the log; plan again"
    ]


def test_somebody_moved_and_the_old_rows_are_still_there(state: BackfillState) -> None:
    shard, other = only_shard(state), "else.example~0000"
    did, (result, _) = next(iter(fold_of(state).dids.items()))
    plans = PlanStore(state.store)
    plans.append(plans.read(), [PlannedDid(did=did, shard=other)], {"refresh": 0})
    assert verify_backfill(state) == [], "until the new shard has it, the old rows are all there is"
    log = state.log(other)
    sealed = log.seal(log.read(), epoch=1, run_id="x")
    there = RepoOutcome(did=did, outcome=Outcome.COMPLETE, scope=result.scope, fetched_at=result.fetched_at)
    done = log.append(sealed, epoch=1, run_id="x", scope=result.scope, refresh=0, dids={did: there})
    state.ledger.put([LedgerItem(backfill="study", shard=other, seq=done.seq, result=there)])
    assert verify_backfill(state) == [
        f"{shard}: {did} has moved, and its new shard has its repo; the next run takes its rows out here"
    ]


def test_very_many_differences_are_bounded(state: BackfillState, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify_module, "PROBLEMS_MAX", 3)
    for path in parts_of(state):
        path.unlink()
    problems = verify_backfill(state)
    assert len(problems) == 4
    assert problems[-1] == "and more: only the first 3 are shown"


def test_a_plan_that_is_gone(state: BackfillState) -> None:
    shutil.rmtree(root_of(state) / "plan")
    problems = verify_backfill(state)
    assert problems[0].startswith("plan/: the logs know DIDs, and there is no plan; ")


def test_a_log_that_ends_too_early(state: BackfillState) -> None:
    log = sorted((root_of(state) / "log" / only_shard(state)).iterdir())
    log[-1].unlink()
    ends, *lost = [problem for problem in verify_backfill(state) if "bring log/ back" in problem]
    assert f"its log ends at {len(log) - 1}, the ledger knows entry {len(log)}" in ends
    assert lost
    assert all("the log has not" in problem or "at seq" in problem for problem in lost)
