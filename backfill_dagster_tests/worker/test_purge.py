"""Purges: what is named is gone everywhere, stays out whatever is run later, and everything else stays as it is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from backfill_dagster.localnet import LocalNetwork
from backfill_dagster.model import UNROUTABLE_SHARD, Outcome
from backfill_dagster.plan import PlanStore
from backfill_dagster.report import verify_backfill
from backfill_dagster.standing import all_standings, total_outcomes
from backfill_dagster.state import BackfillState
from backfill_dagster.worker import rewriting
from backfill_dagster_tests.road import run_all
from backfill_dagster_tests.worker.mortal import KilledError, mortal
from backfill_dagster_tests.worker.tiny import (
    POSTS_AND_LIKES,
    assert_sound,
    fold_of,
    item_of,
    only_shard,
    run_one,
    state_of,
    tiny,
)
from backfill_dagster_tests.worker.upkeep import (
    BROKEN,
    LIKE,
    STEPS_MAX,
    all_rows,
    all_uris,
    authors_on_disk,
    by_uri,
    carry_out_orders,
    copied,
    entries_of,
    finish,
    finished_in,
    held,
    left_to_do,
    never_asked,
    order,
    purge,
    refetch_all,
    scope_of,
    uris_of,
)

SETTINGS = {"record_types": POSTS_AND_LIKES, "processing": {"batch_size": 2, "concurrent_requests": 1}}
OTHER_SCOPE = {"record_types": ["app.bsky.feed.*"], "processing": {"batch_size": 2, "concurrent_requests": 1}}


pytestmark = pytest.mark.asyncio(loop_scope="module")


@asynccontextmanager
async def own_network() -> AsyncIterator[LocalNetwork]:
    async with tiny(repos=3, median=8) as network:
        for did in network.dids:
            await network.control.add({"did": did, "records": [LIKE, LIKE, BROKEN]})
        yield network


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running() -> AsyncIterator[LocalNetwork]:
    async with own_network() as network:
        yield network


@pytest.fixture
def network(running: LocalNetwork) -> LocalNetwork:
    """For tests that change nothing in it; the faults of the test before are gone."""
    running.faults.clear()
    return running


@pytest_asyncio.fixture(loop_scope="module")
async def changing() -> AsyncIterator[LocalNetwork]:
    """For tests that change accounts or records."""
    async with own_network() as network:
        yield network


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def base(tmp_path_factory: pytest.TempPathFactory, running: LocalNetwork) -> Path:
    """A finished backfill; tests work on copies."""
    return await finished_in(tmp_path_factory.mktemp("base"), running, **SETTINGS)


@pytest.fixture
def state(base: Path, folder: Path) -> Iterator[BackfillState]:
    with copied(base, folder / "copy") as state:
        yield state


async def test_an_account_is_gone_from_every_file_and_every_count(network: LocalNetwork, state: BackfillState) -> None:
    first, second, third = network.dids
    rows = by_uri(all_rows(state))
    fault = await never_asked(network, second)
    done = await purge(state, [second])
    assert list(done.done) == [only_shard(state)]
    assert authors_on_disk(state) == {first, third}
    others = {name: [row for row in some if row["author"] != second] for name, some in rows.items()}
    assert by_uri(all_rows(state)) == {name: some for name, some in others.items() if some}
    for result in (fold_of(state).dids[second][0].for_ledger, item_of(state, second).result):
        assert (result.outcome, result.records_total, result.quarantined) == (Outcome.PURGED, 0, 0)
        assert (result.rev, result.last_complete_rev, result.commit_cid, result.handle) == (None, None, None, "")
        assert result.records_seen_by_collection is None
    assert outcomes_of(state) == {Outcome.COMPLETE: 2, Outcome.PURGED: 1}
    summary = state.ledger.summaries()[only_shard(state)]
    assert summary.outcomes == {"complete": 2, "purged": 1}
    assert_sound(state)
    assert left_to_do(state) == []
    assert (await purge(state, [second])).done == {}, "a second order has nothing to do"
    assert fault.shown == 0


def outcomes_of(state: BackfillState) -> dict[Outcome, int]:
    return dict(total_outcomes(all_standings(state, PlanStore(state.store).read(), scope_of(state))))


async def test_a_purged_account_is_never_fetched_again(folder: Path, network: LocalNetwork) -> None:
    first, second, third = network.dids
    with state_of(folder, network, **SETTINGS) as state:
        await run_all(state)
        await purge(state, [second])
        fault = await never_asked(network, second)
        assert (await run_all(state, refresh=True)).outcomes[second] == "purged"
        refetch_all(state)
        assert (await run_all(state)).outcomes[second] == "purged"
        assert_sound(state)
    with state_of(folder, network, **OTHER_SCOPE) as state:
        came = await run_all(state)
        assert came.outcomes == {first: "complete", second: "purged", third: "complete"}
        assert outcomes_of(state) == {Outcome.COMPLETE: 2, Outcome.PURGED: 1}
        assert authors_on_disk(state) == {first, third}
        assert left_to_do(state) == []
        assert_sound(state)
    assert fault.shown == 0


async def test_delisted_and_listed_again(folder: Path, network: LocalNetwork) -> None:
    first, second, third = network.dids
    with state_of(folder, network, **SETTINGS) as state:
        await run_all(state)
    with state_of(folder, network, [first, third], **SETTINGS) as state:
        await run_all(state)
        assert second in authors_on_disk(state), "delisting deletes nothing"
        await purge(state, [second], uris_of(state, first, "like")[:1])
        assert second not in authors_on_disk(state)
        assert_sound(state)
    fault = await never_asked(network, second)
    with state_of(folder, network, **SETTINGS) as state:
        assert (await run_all(state)).outcomes[second] == "purged"
        assert_sound(state)
    assert fault.shown == 0


async def test_single_records_go_and_the_rest_stays(network: LocalNetwork, state: BackfillState) -> None:
    first, second, third = network.dids
    rows, before = by_uri(all_rows(state)), fold_of(state).dids
    (like, *_), (broken,) = uris_of(state, first, "like"), uris_of(state, second, None)
    never_there = f"at://{third}/app.bsky.feed.like/nothing"
    await purge(state, [], [like, broken, never_there])
    assert by_uri(all_rows(state)) == {
        name: kept for name, some in rows.items() if (kept := [row for row in some if row["uri"] not in (like, broken)])
    }
    after = fold_of(state)
    assert after.purged == {like, broken, never_there}
    one, two = after.dids[first][0], after.dids[second][0]
    likes = before[first][0].records_by_type["like"]
    assert one.records_by_type == before[first][0].records_by_type | {"like": likes - 1}
    assert before[first][0].tree
    assert not one.tree, "it says how many rows there were"
    assert (one.outcome, one.rev, one.quarantined) == (Outcome.COMPLETE, before[first][0].rev, 1)
    assert (two.quarantined, two.records_by_type) == (0, before[second][0].records_by_type)
    assert after.dids[third] == before[third], "of which nothing was there"
    assert item_of(state, first).result == one.for_ledger
    assert_sound(state)
    assert left_to_do(state) == []


async def test_a_purged_record_never_comes_back(folder: Path, changing: LocalNetwork) -> None:
    """By a delta, a retry, a new scope; not when it was edited since either."""
    first, second, third = changing.dids
    with state_of(folder, changing, **SETTINGS) as state:
        await run_all(state)
        kept, edited = uris_of(state, first, "like")[:2]
        (broken,) = uris_of(state, second, None)
        purged = {kept, edited, broken}
        await purge(state, [], [kept, edited, broken])

        await changing.control.add({"did": first, "records": [LIKE]})
        body = {"did": first, "collection": "app.bsky.feed.like", "rkey": edited.rpartition("/")[2]}
        await changing.control.edit(body | {"record": LIKE["record"] | {"createdAt": "2026-01-01T00:00:00Z"}})
        await changing.control.add({"did": second, "records": [LIKE]})
        came = await run_all(state, refresh=True)
        assert came.outcomes == {first: "complete", second: "complete", third: "unchanged"}
        assert not purged & all_uris(state)
        assert_sound(state)

        refetch_all(state)
        assert set((await run_all(state)).outcomes.values()) == {"complete"}
        assert not purged & all_uris(state)
        assert len(uris_of(state, first, "like")) == fold_of(state).dids[first][0].records_by_type["like"]
        assert_sound(state)
    with state_of(folder, changing, **OTHER_SCOPE) as state:
        assert set((await run_all(state)).outcomes.values()) == {"complete"}
        assert not purged & all_uris(state)
        assert fold_of(state).dids[second][0].quarantined == 0
        assert_sound(state)


async def test_named_before_they_are_known(folder: Path, changing: LocalNetwork) -> None:
    """An order about strangers stands: they are kept out from the first fetch on."""
    first, second, third = changing.dids
    with state_of(folder, changing, [first], **SETTINGS) as state:
        await run_all(state)
        record = f"at://{third}/app.bsky.feed.like/3kpurged"
        await changing.control.add({"did": third, "records": [LIKE | {"rkey": "3kpurged"}]})
        assert (await purge(state, [second], [record])).done == {}
    fault = await never_asked(changing, second)
    with state_of(folder, changing, **SETTINGS) as state:
        assert (await run_all(state)).outcomes == {first: "complete", second: "purged", third: "complete"}
        assert authors_on_disk(state) == {first, third}
        assert record not in all_uris(state)
        assert_sound(state)
        assert left_to_do(state) == []
    assert fault.shown == 0


async def test_accounts_without_a_host(folder: Path) -> None:
    """Known when they are purged, or only later: nobody but the planner works on their shard."""
    async with tiny(repos=3, median=4, states={"tombstoned": 1, "unknown": 1}) as network:
        homeless = [did for did in network.dids if network.expected[did]["outcome"] == "unresolvable"]
        gone, later = homeless
        others = [did for did in network.dids if did not in homeless]
        with state_of(folder, network, [*others, gone], **SETTINGS) as state:
            await run_all(state)
            done = await purge(state, [gone, later], [f"at://{later}/app.bsky.feed.like/3k"])
            assert list(done.done) == [UNROUTABLE_SHARD]
            assert item_of(state, gone, UNROUTABLE_SHARD).result.outcome is Outcome.PURGED
            assert_sound(state)
        with state_of(folder, network, [*others, *homeless], **SETTINGS) as state:
            came = await run_all(state)
            assert [came.outcomes[did] for did in homeless] == ["purged", "purged"]
            assert came.planned.unroutable == {Outcome.PURGED: 2}
            assert_sound(state)
            assert outcomes_of(state)[Outcome.PURGED] == 2
            seq = fold_of(state, UNROUTABLE_SHARD).seq
            await run_all(state, refresh=True)
            assert fold_of(state, UNROUTABLE_SHARD).seq == seq, "there is nothing more to say of them"
            assert_sound(state)


async def test_an_order_alone_is_work_and_the_next_run_does_it(network: LocalNetwork, state: BackfillState) -> None:
    """Whoever purges dies right after the order: that is where it stands."""
    first, second, _ = network.dids
    shard = only_shard(state)
    order(state, [second], uris_of(state, first, "like")[:1])
    assert verify_backfill(state) == [
        f"{shard}: a purge has not been carried out here; the next run does it, or `backfill purge`"
    ]
    assert left_to_do(state) == [shard]
    asked = network.pds_requests()
    await finish(state)
    assert network.pds_requests() == asked
    assert second not in authors_on_disk(state)
    assert_sound(state)
    assert left_to_do(state) == []


async def test_while_somebody_works_on_the_shard_it_waits(network: LocalNetwork, state: BackfillState) -> None:
    second = network.dids[1]
    shard = only_shard(state)
    with held(state, shard) as owner:
        done = await purge(state, [second])
    assert done.done == {}
    assert owner in done.held[shard]
    assert second in authors_on_disk(state)
    assert left_to_do(state) == [shard]
    await finish(state)
    assert second not in authors_on_disk(state)
    assert_sound(state)


async def test_an_order_given_during_a_run_is_carried_out_by_it(folder: Path, changing: LocalNetwork) -> None:
    """Of one account that has just been fetched, one that is still to come, and a record of each."""
    first, second, third = changing.dids
    keys = [f"at://{did}/app.bsky.feed.like/3kpurged" for did in (first, third)]
    for did in (first, third):
        await changing.control.add({"did": did, "records": [LIKE | {"rkey": "3kpurged"}]})
    with state_of(folder, changing, **SETTINGS) as state:
        await run_all(state)
        refetch_all(state)
        given = []

        def give(numbers: object) -> None:
            if not given:
                given.append(order(state, [second], keys))

        await run_one(state, on_progress=give)
        assert given
        assert authors_on_disk(state) == {first, third}
        assert not set(keys) & all_uris(state)
        assert_sound(state)
        assert left_to_do(state) == []


async def test_killed_at_every_step_a_retry_mark_lives(folder: Path, network: LocalNetwork) -> None:
    """The new counts of an account answer no mark: who asked for its repo again gets it."""
    first = network.dids[0]
    likes = folder / "likes"
    likes.mkdir()
    with state_of(likes, network, **(SETTINGS | {"record_types": ["app.bsky.feed.like"]})) as state:
        await run_all(state)
        like, *_ = uris_of(state, first, "like")
        shard, seq = only_shard(state), item_of(state, first).seq
        state.ledger.mark_for_retry(shard, {first: seq})
        order(state, [], [like])
    for steps in range(STEPS_MAX):
        with copied(likes, folder / f"copy-{steps}") as state:
            doomed, life = mortal(state, steps)
            try:
                await carry_out_orders(doomed)
            except KilledError:
                assert life.is_over
            result = (await finish(state)).results[shard]
            assert result.numbers.repos_fetched == 1, steps
            assert like not in all_uris(state)
            assert_sound(state)
        if not life.is_over:
            # seal, mark; a part staged, entry, published; items, marks twice; the old part deleted; summary
            assert steps == 2 + 3 + 3 + 1 + 1
            return
    raise AssertionError("a purge without an end")


async def test_many_are_purged_in_several_entries(
    network: LocalNetwork, state: BackfillState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rewriting, "PURGED_PER_ENTRY", 2)
    first, second, third = network.dids
    before = fold_of(state).seq
    uris = [*uris_of(state, first, "like"), *uris_of(state, third, None)]
    strangers = [f"at://{third}/app.bsky.feed.like/{number}" for number in range(5)]
    await purge(state, [second], [*uris, *strangers])
    entries = [entry for entry in entries_of(state, only_shard(state), before) if entry.purged]
    names = len(uris) + len(strangers)
    assert [len(entry.purged) for entry in entries] == [1, *[2] * (names // 2), *[1] * (names % 2)]
    assert {name for entry in entries for name in entry.purged} == {second, *uris, *strangers}
    assert not set(uris) & all_uris(state)
    assert_sound(state)
