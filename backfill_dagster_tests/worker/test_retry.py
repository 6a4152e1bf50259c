"""`backfill retry`: what it reopens, and that the next run (or plan) answers every mark once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from backfill_dagster.localnet import Fault
from backfill_dagster.model import UNROUTABLE_SHARD, Outcome
from backfill_dagster.plan import PlanStore
from backfill_dagster.records.purges import PurgeLog
from backfill_dagster.worker.retry import RETRIED_BY_DEFAULT, mark_for_retry
from backfill_dagster_tests.road import expected_rows, rows_by_author, run_all
from backfill_dagster_tests.worker.refreshes import left_to_do, run
from backfill_dagster_tests.worker.telling import Heard, heard, marks, scope_of
from backfill_dagster_tests.worker.tiny import (
    assert_sound,
    fold_of,
    item_of,
    only_shard,
    rows_in,
    shard_keys,
    state_of,
    tiny,
)


async def test_a_complete_did_is_fetched_again_and_its_rows_are_replaced(folder: Path) -> None:
    async with tiny(repos=3) as network:
        with state_of(folder, network) as state:
            await run_all(state)
            before = {did: item_of(state, did).seq for did in network.dids}
            post = {"collection": "app.bsky.feed.post", "record": {"text": "since then"}}
            await network.control.add({"did": network.dids[0], "records": [post]})
            plan = PlanStore(state.store).read()
            assert mark_for_retry(state, plan, outcomes={Outcome.COMPLETE}, hosts=()) == {Outcome.COMPLETE: 3}
            assert state.ledger.retry_marks(only_shard(state)) == before
            assert item_of(state, network.dids[0]).result.outcome is Outcome.COMPLETE
            came = await run_all(state)
            (result,) = came.done.results.values()
            assert result.numbers.requests == 3
            assert rows_by_author(state.config) == expected_rows(network)
            assert state.ledger.retry_marks(only_shard(state)) == {}
            assert_sound(state)
            assert (await run_all(state)).done.results == {}


async def test_by_default_what_is_not_there_and_could_be(folder: Path) -> None:
    states = {"deactivated": 1, "deleted": 1, "unknown": 1, "not_a_did": 1}
    async with tiny(repos=5, states=states) as network:
        with state_of(folder, network) as state:
            first = await run_all(state)
            bad = {did for did, outcome in first.outcomes.items() if outcome != "complete"}
            assert len(bad) == 4
            for did in bad & set(network.world.accounts):
                await network.control.status({"did": did, "status": "active"})
            assert (await run_all(state)).done.results == {}, "terminal outcomes stay"
            plan = PlanStore(state.store).read()
            marked = mark_for_retry(state, plan, outcomes=RETRIED_BY_DEFAULT, hosts=())
            assert marked == {
                Outcome.DEACTIVATED: 1,
                Outcome.NOT_FOUND: 1,
                Outcome.UNRESOLVABLE: 1,
                Outcome.INVALID_DID: 1,
            }
            again = await run_all(state)
            assert again.outcomes == {did: entry["outcome"] for did, entry in network.expected.items()}
            assert sorted(again.outcomes.values()) == ["complete"] * 5 + ["invalid_did"]
            assert again.planned.rerouted == 1
            assert state.ledger.retry_marks(only_shard(state)) == {}
            assert_sound(state)
            assert mark_for_retry(state, again.planned.plan, outcomes=RETRIED_BY_DEFAULT, hosts=()) == {
                Outcome.INVALID_DID: 1
            }


async def test_an_unroutable_one_that_stays_so_gets_a_new_entry_and_no_mark_is_left(folder: Path) -> None:
    async with tiny(repos=2, states={"tombstoned": 1}) as network:
        with state_of(folder, network) as state:
            first = await run_all(state)
            (did,) = (did for did, outcome in first.outcomes.items() if outcome == "unresolvable")
            seq = item_of(state, did, UNROUTABLE_SHARD).seq
            requests = sum(network.requests()[network.plc_url].values())
            marked = mark_for_retry(state, first.planned.plan, outcomes={Outcome.UNRESOLVABLE}, hosts=())
            assert marked == {Outcome.UNRESOLVABLE: 1}
            await run_all(state)
            assert sum(network.requests()[network.plc_url].values()) == requests + 1
            assert item_of(state, did, UNROUTABLE_SHARD).seq > seq
            assert state.ledger.retry_marks(UNROUTABLE_SHARD) == {}
            assert_sound(state)


async def test_only_one_host_and_never_delisted_or_purged_ones(folder: Path) -> None:
    async with tiny(repos=7, hosts=2, states={"unknown": 1}) as network:
        with state_of(folder, network) as state:
            await run_all(state)
        host = shard_keys(state)[0].split("~")[0]
        gone = next(iter(PlanStore(state.store).read().dids(shard_keys(state)[0]))).did
        rest = [did for did in network.dids if did != gone]
        with state_of(folder, network, rest) as state:
            planned = (await run_all(state)).planned
            outcomes = set(Outcome)
            marked = mark_for_retry(state, planned.plan, outcomes=outcomes, hosts={host})
            there = [one.did for one in planned.plan.dids(shard_keys(state)[0]) if not one.delisted]
            assert marked == {Outcome.COMPLETE: len(there)}
            assert set(state.ledger.retry_marks(shard_keys(state)[0])) == set(there)
            assert state.ledger.retry_marks(shard_keys(state)[1]) == {}
            assert state.ledger.retry_marks(UNROUTABLE_SHARD) == {}


async def test_a_mark_on_an_older_word_is_already_answered(folder: Path) -> None:
    async with tiny(repos=1) as network:
        with state_of(folder, network) as state:
            await run_all(state)
            did, shard = network.dids[0], only_shard(state)
            state.ledger.mark_for_retry(shard, {did: item_of(state, did).seq - 1})
            assert (await run_all(state)).done.results == {}
            assert fold_of(state).dids[did][0].outcome is Outcome.COMPLETE


async def test_what_is_purged_stays_so_whoever_marks_it(folder: Path) -> None:
    async with tiny(repos=2) as network:
        with state_of(folder, network) as state:
            await run(state)
            did, shard = network.dids[0], only_shard(state)
            PurgeLog(state.store).append([did], [], at="", by="", reason="")
            await run(state)
            item = item_of(state, did)
            state.ledger.mark_for_retry(shard, {did: item.seq})
            assert left_to_do(state) == []
            ran = await run(state, refresh=True)
            assert (ran.outcomes, ran.requests) == ({did: "purged", network.dids[1]: "unchanged"}, 1)
            assert item_of(state, did) == item
            assert did not in rows_by_author(state.config)
            assert_sound(state)


async def test_a_void_mark_without_a_host_asks_nobody(folder: Path) -> None:
    async with tiny(repos=2, states={"tombstoned": 1}) as network:
        with state_of(folder, network) as state:
            first = await run(state)
            (did,) = (did for did, outcome in first.outcomes.items() if outcome == "unresolvable")
            item = item_of(state, did, UNROUTABLE_SHARD)
            state.ledger.mark_for_retry(UNROUTABLE_SHARD, {did: item.seq - 1})
            before = network.requests()
            for _ in range(2):
                assert (await run(state)).outcomes == first.outcomes
            assert network.requests() == before
            assert item_of(state, did, UNROUTABLE_SHARD) == item


NOBODY_HOME = {"processing": {"max_retries": 0}}
IN_RANGE = {"time_range": {"start_date": "2000-01-01"}}


@pytest.mark.parametrize(
    ("changes", "troubles", "expected"),
    [
        # config; what the host does at each run after the mark; all that is heard of the DID
        ({}, [None], [(2, "complete", True), (4, "complete", True)]),
        (IN_RANGE, [None], [(2, "complete", True), (4, "complete", True)]),
        (
            NOBODY_HOME,
            [{"kind": "status"}, None],
            [(2, "complete", True), (4, "http_error", False), (7, "complete", True)],
        ),
        (
            NOBODY_HOME,
            [{"kind": "status", "status": 401}, {"kind": "rate_limit", "seconds": 1}, None],
            [(2, "complete", True), (4, "http_error", False), (7, "pending", False), (9, "complete", True)],
        ),
    ],
    ids=["plain", "synthetic since", "an error first", "errors and rate limits first"],
)
async def test_a_reopened_repo_is_fetched_whole_however_long_it_takes(
    folder: Path, changes: Mapping[str, Any], troubles: list[dict[str, Any] | None], expected: list[Heard]
) -> None:
    """Whoever reopens what is complete doesn't trust it: only a whole repo answers that, not what is newer than it."""
    async with tiny(repos=2) as network:
        did = network.dids[0]
        with state_of(folder, network, **changes) as state:
            await run(state)
            mark_for_retry(state, PlanStore(state.store).read(), outcomes={Outcome.COMPLETE})
            for trouble in troubles:
                await network.set_faults([] if trouble is None else [Fault(did=did, **trouble)])
                await run(state)
            assert heard(state)[did] == expected
            assert marks(state, {did: did}) == {}
            assert_sound(state)
            ran = await run(state, refresh=True)
            assert set(ran.outcomes.values()) == {"unchanged"}


async def test_retry_refresh_and_another_scope_are_one_fetch(folder: Path) -> None:
    async with tiny(repos=4) as network:
        with state_of(folder, network) as state:
            await run(state)
            mark_for_retry(state, PlanStore(state.store).read(), outcomes={Outcome.COMPLETE})
            assert marks(state, {did: did for did in network.dids}) == dict.fromkeys(network.dids, 2)
        likes = {"record_types": ["app.bsky.feed.like"]}
        with state_of(folder, network, **likes) as state:
            ran = await run(state, refresh=True)
            assert ran.requests == 4
            assert heard(state) == {
                did: [Heard(2, "complete", True), Heard(4, "complete", True)] for did in network.dids
            }
            assert {(one.scope, one.refresh) for one in ran.results.values()} == {(scope_of(state), 1)}
            assert marks(state, {}) == {}
            assert left_to_do(state) == []
            assert {kind for _, _, kind in rows_in(state)} == {"like"}
            assert_sound(state)
