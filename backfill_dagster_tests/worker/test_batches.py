"""Where batches are cut, and what a commit that fails leaves behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backfill_dagster.errors import FencedError, StateError
from backfill_dagster.model import Outcome
from backfill_dagster.records.log import ENTRY_MAX_BYTES
from backfill_dagster.state import BackfillState
from backfill_dagster.worker import batch, body
from backfill_dagster.worker.planning import plan_backfill
from backfill_dagster.worker.result import RunNumbers
from backfill_dagster_tests.road import expected_rows, rows_by_author, run_all
from backfill_dagster_tests.worker.tiny import (
    assert_released,
    assert_sound,
    fold_of,
    only_shard,
    rows_in,
    run_one,
    state_of,
    tiny,
)


def log_sizes(state: BackfillState) -> list[int]:
    return [info.size for info in state.store.list(f"log/{only_shard(state)}/")]


@pytest.mark.parametrize(("batch_size", "commits"), [(1, 5), (2, 3), (5, 1), (100, 1)])
async def test_cut_by_dids(folder: Path, batch_size: int, commits: int) -> None:
    async with tiny(repos=5) as network:
        with state_of(folder, network, processing={"batch_size": batch_size}) as state:
            came = await run_all(state)
            (result,) = came.done.results.values()
            assert result.numbers.commits == commits
            assert fold_of(state).seq == 1 + commits
            assert rows_by_author(state.config) == expected_rows(network)
            assert_sound(state)


async def test_cut_by_the_weight_of_rows(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "BATCH_MAX_BYTES", 1)
    async with tiny(repos=3) as network:
        with state_of(folder, network) as state:
            came = await run_all(state)
            assert [result.numbers.commits for result in came.done.results.values()] == [3]
            assert_sound(state)


async def test_cut_before_the_entry_is_too_large(folder: Path) -> None:
    """Accounts that write into as many collections with as long names as they may: parts weigh most of an entry."""
    async with tiny(repos=4, median=1) as network:
        for number, did in enumerate(network.dids):
            names = [f"com.example.{'x' * 60}.{'y' * 60}.{'z' * 40}.a{number}b{n}{'w' * 40}" for n in range(205)]
            records = [{"collection": name, "rkey": "self", "record": {"text": "hi"}} for name in names]
            await network.control.add({"did": did, "records": records})
        with state_of(folder, network, record_types=["com.example.*"], processing={"batch_size": 100}) as state:
            came = await run_all(state)
            assert set(came.outcomes.values()) == {"complete"}
            assert fold_of(state).dids[network.dids[0]][0].quarantined == 205 - 200
            assert len(log_sizes(state)) > 2
            assert max(log_sizes(state)) < ENTRY_MAX_BYTES
            seen = fold_of(state).dids[network.dids[0]][0].records_seen_by_collection
            assert seen is not None
            assert len(seen) == body.SEEN_COLLECTIONS_MAX + 1
            assert sum(seen.values()) == sum(network.expected[network.dids[0]]["records"].values())
            assert len(fold_of(state).parts) == 4 * 200 + len(log_sizes(state)) - 1


class Refusing:
    """A store that refuses one method after so many calls."""

    def __init__(self, store: Any, method: str, after: int, error: Exception) -> None:
        self._store, self._method, self._left, self._error = store, method, after, error

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if name != self._method:
            return found

        def call(*arguments: Any) -> Any:
            self._left -= 1
            if self._left < 0:
                raise self._error
            return found(*arguments)

        return call


FULL = StateError("no space left on the disk; make room and run again")


@pytest.mark.parametrize(
    ("method", "after"),
    [("stage", 0), ("stage", 3), ("publish", 1), ("publish", 2), ("put_if_absent", 0), ("put_if_absent", 2)],
)
async def test_the_disk_refuses(folder: Path, method: str, after: int) -> None:
    async with tiny(repos=4) as network:
        with state_of(folder, network, processing={"batch_size": 2, "concurrent_requests": 1}) as state:
            await plan_backfill(state, run_id="plan")
            broken: Any = Refusing(state.store, method, after, FULL)
            with pytest.raises(StateError, match="no space left"):
                await run_one(replace(state, store=broken))
            assert_released(state)
            await run_all(state)
            assert rows_by_author(state.config) == expected_rows(network)
            assert_sound(state)


async def test_the_ledger_refuses_after_the_commit_point(folder: Path) -> None:
    async with tiny(repos=4) as network:
        with state_of(folder, network) as state:
            await plan_backfill(state, run_id="plan")
            broken: Any = Refusing(state.ledger, "put", 0, StateError("the ledger is locked; try again"))
            with pytest.raises(StateError, match="the ledger is locked"):
                await run_one(replace(state, ledger=broken))
            assert set(fold_of(state).dids) == set(network.dids)
            came = await run_all(state)
            assert [result.numbers.requests for result in came.done.results.values()] == [0]
            assert rows_by_author(state.config) == expected_rows(network)
            assert_sound(state)


class LosingPublish:
    """Publishes one part of the first batch, then the disk is gone for the rest of the run."""

    def __init__(self, store: Any) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def publish(self, keys: Iterable[str]) -> None:
        keys = list(keys)
        self._store.publish(keys[:1])
        if len(keys) > 1:
            raise StateError("can't publish: input/output error; see what is wrong with the disk and run again")


async def test_parts_that_were_committed_and_not_published_are_not_thrown_away(folder: Path) -> None:
    async with tiny(repos=4) as network:
        with state_of(folder, network) as state:
            await plan_backfill(state, run_id="plan")
            broken: Any = LosingPublish(state.store)
            with pytest.raises(StateError, match="can't publish"):
                await run_one(replace(state, store=broken))
            live = set(fold_of(state).parts)
            assert len(live) > 1
            assert {info.key for info in state.store.staged()} == set(sorted(live)[1:])
            await run_all(state)
            assert rows_by_author(state.config) == expected_rows(network)
            assert_sound(state)


class LostReply:
    """The reply to the entry that has the parts is lost, and the store says nothing more until the run is over."""

    def __init__(self, store: Any, *, arrives: bool) -> None:
        self._store, self._arrives, self._silent = store, arrives, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        if not key.endswith("00000002.json"):
            return bool(self._store.put_if_absent(key, data))
        self._silent = True
        if self._arrives:
            self._store.put_if_absent(key, data)
        raise StateError("no answer from the store; run again")

    def get(self, key: str) -> Any:
        if self._silent:
            raise StateError("no answer from the store; run again")
        return self._store.get(key)


@pytest.mark.parametrize("arrives", [True, False])
async def test_a_commit_nobody_knows_the_end_of(folder: Path, arrives: bool) -> None:
    async with tiny(repos=4) as network:
        with state_of(folder, network) as state:
            await plan_backfill(state, run_id="plan")
            broken: Any = LostReply(state.store, arrives=arrives)
            with pytest.raises(FencedError, match="may or may not have been written"):
                await run_one(replace(state, store=broken))
            assert bool(fold_of(state).parts) is arrives
            assert state.store.staged() != []
            assert rows_in(state) == set()
            came = await run_all(state)
            assert [result.numbers.requests for result in came.done.results.values()] == [0 if arrives else 4]
            assert rows_by_author(state.config) == expected_rows(network)
            assert_sound(state)


async def test_a_fenced_run_publishes_nothing_and_its_successor_has_it_all(folder: Path) -> None:
    async with tiny(repos=4) as network:
        with state_of(folder, network, processing={"batch_size": 2, "concurrent_requests": 1}) as state:
            await plan_backfill(state, run_id="plan")
            log = state.log(only_shard(state))

            def take_over(numbers: RunNumbers) -> None:
                if numbers.dids_done == 3:
                    log.seal(log.read(), epoch=log.read().epoch + 5, run_id="another")

            with pytest.raises(FencedError, match="is another run's"):
                await run_one(state, on_progress=take_over)
            assert set(fold_of(state).dids) == set(network.dids[:2])
            assert set(rows_by_author(state.config)) == set(network.dids[:2])
            await run_all(state)
            assert fold_of(state).epoch > 6
            assert rows_by_author(state.config) == expected_rows(network)
            assert_sound(state)


async def test_a_run_that_lost_its_lease_commits_nothing(folder: Path) -> None:
    async with tiny(repos=2) as network:
        with state_of(folder, network, processing={"lease_seconds": 1}) as state:
            await plan_backfill(state, run_id="plan")
            name = f"study/{only_shard(state)}"
            lost = threading.Event()

            def lose(numbers: RunNumbers) -> None:
                """Another takes the lease; the heartbeat of this run notices."""
                while not lost.is_set():
                    record = state.ledger.leases.read(name)
                    assert record is not None
                    taken = replace(record, token="another's", owner_text="another", epoch=record.epoch + 1)
                    if state.ledger.leases.compare_and_set(name, record, taken):
                        lost.set()
                        time.sleep(0.4)

            with pytest.raises(FencedError, match=r"the lease on .* (was lost|could not be confirmed)"):
                await run_one(state, on_progress=lose)
            assert fold_of(state).dids == {}
            assert rows_in(state) == set()


async def test_nothing_to_commit_is_no_entry(folder: Path) -> None:
    async with tiny(repos=1) as network:
        with state_of(folder, network) as state:
            await run_all(state)
            seq = fold_of(state).seq
            await run_one(state)
            assert fold_of(state).seq == seq + 1, "the seal alone"
            assert fold_of(state).dids[network.dids[0]][0].outcome is Outcome.COMPLETE
            assert_sound(state)
