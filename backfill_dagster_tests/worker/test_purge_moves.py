"""Purges of accounts that move from host to host: gone in every shard they were ever in, and kept out of the next."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from backfill_dagster.errors import StateError
from backfill_dagster.localnet import Fault, LocalNetwork
from backfill_dagster.model import Outcome
from backfill_dagster.state import BackfillState
from backfill_dagster_tests.road import run_all
from backfill_dagster_tests.worker.tiny import assert_sound, fold_of, item_of, rows_in, shard_keys, state_of, tiny
from backfill_dagster_tests.worker.upkeep import (
    BROKEN,
    LIKE,
    all_uris,
    authors_on_disk,
    cut_short,
    entries_of,
    left_to_do,
    never_asked,
    purge,
    remove,
    repair,
    uris_of,
)

SETTINGS = {"record_types": ["app.bsky.feed.like"], "identity": {"cache_days": 0}}


@pytest_asyncio.fixture
async def network() -> AsyncIterator[LocalNetwork]:
    async with tiny(repos=4, hosts=2, median=4) as network:
        for did in network.dids:
            await network.control.add({"did": did, "records": [LIKE, LIKE, BROKEN]})
        yield network


def keys_of(state: BackfillState, network: LocalNetwork, did: str) -> tuple[str, str]:
    """The shard that the account is in, and the one that it moves to."""
    ports = [host.url.rpartition(":")[2] for host in sorted(network.hosts, key=lambda host: did not in host.dids)]
    old, new = (next(key for key in shard_keys(state) if key.startswith(f"localhost_{port}~")) for port in ports)
    return old, new


async def moved(network: LocalNetwork, did: str) -> None:
    to = next(host.url for host in network.hosts if did not in host.dids)
    await network.control.move({"did": did, "to": to})


async def test_a_purged_record_does_not_move_along(folder: Path, network: LocalNetwork) -> None:
    did = network.dids[0]
    with state_of(folder, network, **SETTINGS) as state:
        await run_all(state)
        old, new = keys_of(state, network, did)
        (like, *others), (broken,) = uris_of(state, did, "like"), uris_of(state, did, None)
        await purge(state, [], [like, broken])
        await moved(network, did)
        came = await run_all(state, refresh=True)
        assert came.outcomes[did] == "complete"
        assert uris_of(state, did, "like") == others
        assert not {like, broken} & all_uris(state)
        assert fold_of(state, old).dids[did][0].records_total == 0
        assert fold_of(state, new).purged == {like, broken}
        assert item_of(state, did, new).result.records_by_type == {"like": len(others)}
        assert_sound(state)
        assert left_to_do(state) == []


async def test_a_purged_account_stays_purged_on_its_new_host(folder: Path, network: LocalNetwork) -> None:
    did = network.dids[0]
    with state_of(folder, network, **SETTINGS) as state:
        await run_all(state)
        old, new = keys_of(state, network, did)
        await purge(state, [did])
        await moved(network, did)
        fault = await never_asked(network, did)
        came = await run_all(state, refresh=True)
        assert came.outcomes[did] == "purged"
        for key in (old, new):
            assert item_of(state, did, key).result.outcome is Outcome.PURGED
        assert did not in authors_on_disk(state)
        assert_sound(state)
        assert left_to_do(state) == []
        assert fault.shown == 0


async def half_way(state: BackfillState, network: LocalNetwork, did: str) -> None:
    """The account has moved, and its new host doesn't answer: the old rows are all there is."""
    await run_all(state)
    await moved(network, did)
    await network.set_faults([Fault(kind="status", status=500, did=did)])
    assert (await run_all(state, refresh=True)).outcomes[did] == "http_error"
    assert did in authors_on_disk(state)


async def test_an_account_is_purged_in_the_shard_that_it_left(folder: Path, network: LocalNetwork) -> None:
    did = network.dids[0]
    with state_of(folder, network, **SETTINGS) as state:
        await run_all(state)
        old, new = keys_of(state, network, did)
        await half_way(state, network, did)
        done = await purge(state, [did])
        assert sorted(done.done) == sorted([old, new])
        assert did not in authors_on_disk(state)
        assert_sound(state)
        await network.set_faults([])
        assert (await run_all(state)).outcomes[did] == "purged"
        assert did not in authors_on_disk(state)
        assert_sound(state)


async def test_a_record_is_purged_in_the_shard_that_its_account_left(folder: Path, network: LocalNetwork) -> None:
    did = network.dids[0]
    with state_of(folder, network, **SETTINGS) as state:
        await run_all(state)
        old, _ = keys_of(state, network, did)
        await half_way(state, network, did)
        like, *others = uris_of(state, did, "like")
        await purge(state, [], [like])
        assert uris_of(state, did, "like") == others
        assert fold_of(state, old).dids[did][0].records_by_type == {"like": len(others)}
        assert_sound(state)
        await network.set_faults([])
        assert (await run_all(state)).outcomes[did] == "complete"
        assert uris_of(state, did, "like") == others
        assert like not in all_uris(state)
        assert_sound(state)
        assert left_to_do(state) == []


async def test_a_shard_that_is_damaged_keeps_no_other_from_its_purge(folder: Path, network: LocalNetwork) -> None:
    one, other = (host.dids[0] for host in network.hosts)
    with state_of(folder, network, **SETTINGS) as state:
        await run_all(state)
        damaged = min(shard_keys(state))
        kept = one if one in fold_of(state, damaged).dids else other
        cut_short(state, state.log(damaged).key(2))
        with pytest.raises(StateError, match=r"00000002\.json can't be read"):
            await purge(state, [one, other])
        assert authors_on_disk(state) == set(network.dids) - ({one, other} - {kept})
        assert (await repair(state)).left > 0
        await run_all(state)
        assert authors_on_disk(state) == set(network.dids) - {one, other}
        assert_sound(state)


@pytest.mark.parametrize("loses", ["entry", "part"])
async def test_what_the_old_shard_loses_is_nobody_s_to_fetch(folder: Path, network: LocalNetwork, loses: str) -> None:
    """The account is another shard's by now: a repair says so, and nothing is left to do for it here."""
    did = network.dids[0]
    with state_of(folder, network, **SETTINGS, processing={"batch_size": 1}) as state:
        await run_all(state)
        old, _ = keys_of(state, network, did)
        await half_way(state, network, did)
        others = {row for row in rows_in(state) if did not in row[0]}
        if loses == "entry":
            cut_short(state, state.log(old).key(fold_of(state, old).dids[did][1]))
        else:
            (brought,) = [entry for entry in entries_of(state, old) if did in entry.dids and entry.adds]
            remove(state, next(part.path for part in brought.adds if part.record_type == "like"))
        done = await repair(state)
        mended = done.shards[old]
        assert did in mended.gone
        assert did not in mended.reopened
        await network.set_faults([])
        assert (await run_all(state)).outcomes[did] == "complete"
        assert others <= rows_in(state)
        assert_sound(state)
        assert left_to_do(state) == []
