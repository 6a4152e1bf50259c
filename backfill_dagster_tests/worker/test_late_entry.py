"""A log entry that S3 refused at a later try, while the first one is still on its way: its parts are left alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from backfill_dagster.errors import FencedError
from backfill_dagster.localnet import LocalNetwork
from backfill_dagster.scope import load_selection
from backfill_dagster.state import BackfillState
from backfill_dagster.worker.compaction import compact_backfill
from backfill_dagster.worker.planning import plan_backfill
from backfill_dagster_tests.aws.proxy import Choose, Proxy, Seen, Trouble, proxied
from backfill_dagster_tests.road import run_all
from backfill_dagster_tests.worker.tiny import (
    POSTS_AND_LIKES,
    assert_sound,
    fold_of,
    only_shard,
    rows_in,
    run_one,
    state_of,
    tiny,
)

pytestmark = pytest.mark.usefixtures("no_backoff")


@pytest.fixture
def proxy(moto: str) -> Iterator[Proxy]:
    with proxied(moto) as made:
        yield made


@contextmanager
def state_on_s3(folder: Path, network: LocalNetwork, proxy: Proxy, bucket: str) -> Iterator[BackfillState]:
    """A planned state on S3 behind the proxy, whose ledger is a file."""
    place = {"path": f"s3://{bucket}/data", "region": "us-east-1", "endpoint_url": proxy.url}
    ledger = {"path": str(folder / "ledger.sqlite")}
    changes = {"record_types": POSTS_AND_LIKES, "processing": {"batch_size": 2}}
    with state_of(folder, network, state=place, storage=ledger, **changes) as state:
        yield state


def late_then_refused(entry: str) -> Choose:
    """The first try of a log entry is late, the second refused."""
    tries = [Trouble.DENIED, Trouble.LATE]

    def choose(seen: Seen) -> Trouble | None:
        return tries.pop() if tries and seen.method == "PUT" and seen.path.endswith(entry) else None

    return choose


def wanted_rows(network: LocalNetwork) -> int:
    types = ("post", "reply", "like")
    return sum(entry["records"].get(name, 0) for entry in network.expected.values() for name in types)


@pytest.mark.parametrize("arrives", ["before the next run", "after the next run"])
async def test_a_batch(folder: Path, proxy: Proxy, bucket: str, arrives: str) -> None:
    async with tiny() as network:
        with state_on_s3(folder, network, proxy, bucket) as state:
            await plan_backfill(state, run_id="plan")
            proxy.choose = late_then_refused("/00000003.json")
            with pytest.raises(FencedError, match="may or may not have been written"):
                await run_one(state)
            proxy.choose = lambda seen: None
            assert fold_of(state).seq == 2
            if arrives == "before the next run":
                assert proxy.deliver() == [200]
                assert fold_of(state).seq == 3
            result = await run_one(state)
            assert result.numbers.repos_fetched == (0 if arrives == "before the next run" else 2)
            assert proxy.deliver() == ([] if arrives == "before the next run" else [412])
            assert len(rows_in(state)) == wanted_rows(network)
            assert_sound(state)


async def test_a_rewrite(folder: Path, proxy: Proxy, bucket: str) -> None:
    """The old parts stay until somebody knows; then they are nobody's."""
    async with tiny() as network:
        with state_on_s3(folder, network, proxy, bucket) as state:
            came = await run_all(state)
            before, rows = fold_of(state), rows_in(state)
            scope = load_selection(state.config).scope
            proxy.choose = late_then_refused(f"/{before.seq + 2:08d}.json")
            done = await compact_backfill(state, came.planned.plan, scope, run_id="compact")
            assert "may or may not have been written" in done.held[only_shard(state)]
            proxy.choose = lambda seen: None
            assert fold_of(state).parts == before.parts
            assert proxy.deliver() == [200]
            assert set(fold_of(state).parts) != set(before.parts)
            await run_one(state)
            assert rows_in(state) == rows
            assert_sound(state)
