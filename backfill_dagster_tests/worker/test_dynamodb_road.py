"""A whole backfill whose ledger is in DynamoDB; two machines that share the table take turns at a host."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backfill_dagster.errors import LeaseHeldError
from backfill_dagster.ledger import outcome_counts
from backfill_dagster.localnet import Fault, LocalNetwork
from backfill_dagster.report import verify_backfill
from backfill_dagster.state import BackfillState
from backfill_dagster.worker.planning import plan_backfill
from backfill_dagster_tests.ledger.dynamodb_tables import REGION, client_of, table_name
from backfill_dagster_tests.road import expected_rows, rows_by_author, run_all
from backfill_dagster_tests.worker.test_leases import SOON, at_work, somebody
from backfill_dagster_tests.worker.tiny import assert_released, assert_sound, only_shard, run_one, state_of, tiny

pytestmark = pytest.mark.usefixtures("aws_environ", "no_backoff")


@pytest.fixture
def storage(ministack: str) -> dict[str, Any]:
    return {
        "type": "dynamodb",
        "table_name": table_name(),
        "region": REGION,
        "endpoint_url": ministack,
        "create_table": True,
    }


@contextmanager
def machine(
    name: str, folder: Path, network: LocalNetwork, monkeypatch: pytest.MonkeyPatch, **changes: Any
) -> Iterator[BackfillState]:
    """A state in a folder of its own, with locks of its own."""
    monkeypatch.setenv("BACKFILL_LOCK_DIR", str(folder / name / "locks"))
    (folder / name).mkdir()
    with state_of(folder / name, network, name=name, processing=SOON, **changes) as state:
        yield state


async def test_to_the_last_record(folder: Path, storage: dict[str, Any]) -> None:
    async with tiny(repos=9, hosts=2, states={"deactivated": 2}) as network:
        with state_of(folder, network, storage=storage, processing={"shard_size": 3}) as state:
            came = await run_all(state)
            assert sorted(came.outcomes.values()) == ["complete"] * 7 + ["deactivated"] * 2
            assert rows_by_author(state.config) == expected_rows(network)
            assert outcome_counts(state.ledger) == {"complete": 7, "deactivated": 2}
            assert state.ledger.leases.holders() == []
            assert_sound(state)
            again = await run_all(state)
            assert again.done.results == {}, "nothing is left"


async def test_verify_and_the_next_run_mend_a_late_item(folder: Path, storage: dict[str, Any], ministack: str) -> None:
    """A stalled writer's batch takes no condition: what it writes late is stale by its seq."""
    async with tiny(repos=2) as network:
        with state_of(folder, network, storage=storage) as state:
            await run_all(state)
            shard, did = only_shard(state), network.dids[0]
            item = state.ledger.item(shard, did)
            assert item is not None
            state.ledger.put([replace(item, seq=1)])
            [problem] = verify_backfill(state)
            assert f"the ledger has {did} at seq 1, the log at {item.seq}; the next run mends it" in problem
            state.ledger.mark_for_retry(shard, {network.dids[1]: item.seq})
            await run_one(state)
            assert_sound(state)


async def test_an_item_that_had_to_be_cut_differs_from_nothing(
    folder: Path, storage: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backfill_dagster.ledger.dynamodb_items.JSON_MAX_BYTES", 900)
    async with tiny(repos=3) as network:
        with state_of(folder, network, storage=storage) as state:
            await run_all(state)
            items = list(state.ledger.items(only_shard(state)))
            assert [one.result.records_seen_by_collection for one in items] == [{}] * 3
            assert sum(one.result.records_total for one in items) < len(expected_rows(network)), "counts too"
            assert_sound(state)
            state.ledger.put([replace(items[0], result=replace(items[0].result, attempts=9))])
            [problem] = verify_backfill(state)
            assert "the ledger's item of" in problem


async def test_a_lost_table_is_written_again_from_the_logs(
    folder: Path, storage: dict[str, Any], ministack: str
) -> None:
    async with tiny(repos=3) as network:
        with state_of(folder, network, storage=storage) as state:
            await run_all(state)
            before = list(state.ledger.items(only_shard(state)))
        client_of(ministack).delete_table(TableName=storage["table_name"])
        with state_of(folder, network, storage=storage) as state:
            await run_one(state)
            assert list(state.ledger.items(only_shard(state))) == before
            assert_sound(state)


async def test_two_machines_with_one_table(
    folder: Path, storage: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with tiny(repos=2) as network:
        await network.set_faults([Fault(kind="stall", did=network.dids[1])])
        with ExitStack() as stack:
            one, two = (
                stack.enter_context(machine(name, folder, network, monkeypatch, storage=storage))
                for name in ("one", "two")
            )
            for state in (one, two):
                await plan_backfill(state, run_id="plan")
            async with at_work(one, only_shard(one), 1):
                host = only_shard(one).split("~")[0]
                assert [table.read(host) is not None for table in two.host_leases] == [False, True]
                with pytest.raises(LeaseHeldError, match=rf"^{host} is held by run first of one, pid \d+ on .*; wait"):
                    await run_one(two)
                assert_released(two)
                assert [len(table.holders()) for table in two.host_leases] == [0, 1], "the machine's own is given back"
            await network.set_faults([])
            for state in (one, two):
                assert set((await run_all(state)).outcomes.values()) == {"complete"}
                assert_sound(state)
            assert [table.holders() for table in (*one.host_leases, *two.host_leases)] == [[]] * 4


async def test_a_host_that_is_held_on_the_machine_is_not_taken_in_the_table(
    folder: Path, storage: dict[str, Any]
) -> None:
    async with tiny(repos=1) as network:
        with state_of(folder, network, storage=storage, processing=SOON) as state:
            await plan_backfill(state, run_id="plan")
            host = only_shard(state).split("~")[0]
            own, table = state.host_leases
            with somebody(own, host), pytest.raises(LeaseHeldError, match="is held by somebody else"):
                await run_one(state)
            assert table.read(host) is None
