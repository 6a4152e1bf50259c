"""The reserved shard: logged once, logged again when something is new, never by two at once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from backfill_dagster.errors import LeaseHeldError
from backfill_dagster.ledger import Lease
from backfill_dagster.model import UNROUTABLE_SHARD, Outcome, PlannedDid, Wanted
from backfill_dagster.plan import unroutable
from backfill_dagster.plan.unroutable import log_unroutable
from backfill_dagster.records.log import ENTRY_MAX_BYTES
from backfill_dagster.state import BackfillState
from backfill_dagster_tests.net.virtual_time import InstantTime
from backfill_dagster_tests.road import opened, write_config

WANTED = Wanted("scope", 0)


@pytest.fixture
def state(folder: Path) -> Iterator[BackfillState]:
    path = write_config(folder, "http://localhost:1", ["did:web:a.example"], processing={"lease_seconds": 1})
    with opened(path, InstantTime().effects()) as state:
        yield state


def homeless(did: str, outcome: Outcome = Outcome.UNRESOLVABLE, detail: str = "", **more: bool) -> PlannedDid:
    return PlannedDid(
        did=did, shard=UNROUTABLE_SHARD, outcome=outcome, error_code="NoPds", error_detail=detail, delisted=bool(more)
    )


def log(state: BackfillState, *planned: PlannedDid, wanted: Wanted = WANTED) -> dict[Outcome, int]:
    return dict(log_unroutable(state, planned, wanted=wanted, run_id="run"))


def test_nobody_is_no_log(state: BackfillState) -> None:
    assert log(state) == {}
    assert state.store.list("log/") == []


def test_once_and_not_again(state: BackfillState) -> None:
    rows = homeless("a"), homeless("b", Outcome.PENDING), homeless("c", delisted=True)
    assert log(state, *rows) == {Outcome.UNRESOLVABLE: 1, Outcome.PENDING: 1}
    seq = state.log(UNROUTABLE_SHARD).read().seq
    assert seq == 2
    assert {item.result.did: item.seq for item in state.ledger.items(UNROUTABLE_SHARD)} == {"a": 2, "b": 2}
    assert state.ledger.summaries()[UNROUTABLE_SHARD].outcomes == {"unresolvable": 1, "pending": 1}
    assert log(state, *rows) == {Outcome.UNRESOLVABLE: 1, Outcome.PENDING: 1}
    assert state.log(UNROUTABLE_SHARD).read().seq == seq


@pytest.mark.parametrize(
    ("row", "wanted"),
    [
        (homeless("a", Outcome.REFUSED_HOST), WANTED),
        (homeless("a"), Wanted("another scope", 0)),
        (homeless("a"), Wanted("scope", 1)),
    ],
    ids=["outcome", "scope", "refresh"],
)
def test_again_when_something_is_new(state: BackfillState, row: PlannedDid, wanted: Wanted) -> None:
    log(state, homeless("a"), homeless("b"))
    log(state, row, wanted=wanted)
    fold = state.log(UNROUTABLE_SHARD).read()
    result, seq = fold.dids["a"]
    assert seq == fold.seq
    assert (result.outcome, result.scope, result.refresh) == (row.outcome, wanted.scope, wanted.refresh)
    assert fold.dids["b"][1] < seq


def test_a_lost_ledger_item_is_written_again(state: BackfillState) -> None:
    log(state, homeless("a"))
    state.ledger.close()
    ledger = state.config.ledger_path
    for suffix in ("", "-wal", "-shm"):
        Path(f"{ledger}{suffix}").unlink(missing_ok=True)
    assert state.ledger.item(UNROUTABLE_SHARD, "a") is None
    log(state, homeless("a"))
    assert state.ledger.item(UNROUTABLE_SHARD, "a") is not None


def test_many_with_long_reasons_are_several_entries(state: BackfillState) -> None:
    rows = [homeless(f"{number:04d}" + "x" * 1500, detail="é" * 500) for number in range(700)]
    log(state, *rows)
    sizes = [info.size for info in state.store.list("log/")]
    assert len(sizes) == 1 + 3
    assert unroutable.DIDS_PER_ENTRY == 300
    assert max(sizes) < ENTRY_MAX_BYTES
    assert len(state.log(UNROUTABLE_SHARD).read().dids) == 700
    assert len(state.ledger.seqs(UNROUTABLE_SHARD)) == 700


def test_two_planners(state: BackfillState) -> None:
    name = f"study/{UNROUTABLE_SHARD}"
    table = state.ledger.leases
    with (
        Lease.acquire(table, name, owner="another plan", run_id="other", lease_seconds=1),
        pytest.raises(LeaseHeldError, match="held by another plan"),
    ):
        log(state, homeless("a"))
    assert log(state, homeless("a")) == {Outcome.UNRESOLVABLE: 1}
    record = table.read(name)
    assert record is not None
    assert record.released


def test_odd_texts_are_kept_as_they_are(state: BackfillState) -> None:
    rows = [homeless(text) for text in ("", "<script>alert(1)</script>", "💥", "a|b", "x" * 2048)]
    log(state, *rows)
    assert set(state.log(UNROUTABLE_SHARD).read().dids) == {row.did for row in rows}
    assert {item.result.did for item in state.ledger.items(UNROUTABLE_SHARD)} == {row.did for row in rows}
