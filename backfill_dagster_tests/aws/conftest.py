"""The command, a small network with accounts of many kinds, and a finished backfill on S3 and DynamoDB to copy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from backfill_dagster.cli.main import run_command
from backfill_dagster.localnet import LocalnetOptions, LocalNetwork
from backfill_dagster_tests.aws.place import Place, new_place
from backfill_dagster_tests.cli.conftest import backfill  # noqa: F401 - a fixture
from backfill_dagster_tests.orchestration.network import ThreadedNetwork, threaded_network
from backfill_dagster_tests.road import write_config

OPTIONS = LocalnetOptions(
    hosts=2,
    repos=10,
    seed=5,
    median_records=8,
    max_records=30,
    states={"deactivated": 2, "suspended": 1, "unknown": 1, "not_a_did": 1},
)

RECORD_TYPES = ["app.bsky.feed.post", "app.bsky.feed.like"]
ROWS = ("post", "reply", "like")
"""What they are in the folders."""

PROCESSING = {"shard_size": 100, "batch_size": 3, "lease_seconds": 15}


def rows_of(network: LocalNetwork) -> dict[str, int]:
    """Record type -> rows that a backfill of all of it has."""
    rows: Counter[str] = Counter()
    for entry in network.expected.values():
        rows.update({name: count for name, count in entry["records"].items() if name in ROWS and count})
    return dict(rows)


@pytest.fixture(scope="session")
def network() -> Iterator[ThreadedNetwork]:
    """One for all of these tests: whoever sets faults takes them away again."""
    with threaded_network(OPTIONS) as made:
        yield made


@pytest.fixture
def place(moto: str, ministack: str, aws_environ: None) -> Place:
    """A bucket with a list, a prefix for a state, a name for a table: all new."""
    return new_place(moto, ministack)


@pytest.fixture(scope="module")
def finished(
    network: ThreadedNetwork,
    moto: str,
    ministack: str,
    aws_module_environ: None,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Place, Path]:
    """A finished backfill, not to be changed, and its config."""
    made = new_place(moto, ministack)
    made.put_list(network.network.dids)
    folder = tmp_path_factory.mktemp("finished")
    config = write_config(
        folder,
        network.network.plc_url,
        [],
        record_types=RECORD_TYPES,
        processing=PROCESSING,
        **made.blocks(create_table=True),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BACKFILL_LOCK_DIR", str(folder / "locks"))
        assert run_command(["run", str(config)]) == 0
    return made, config
