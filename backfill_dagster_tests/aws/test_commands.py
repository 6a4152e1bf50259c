"""Every command on S3 and DynamoDB, beside the same one on a folder with SQLite."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backfill_dagster_tests.aws.conftest import PROCESSING, RECORD_TYPES, rows_of
from backfill_dagster_tests.aws.place import Place
from backfill_dagster_tests.cli.conftest import Command, Ran
from backfill_dagster_tests.orchestration.network import ThreadedNetwork
from backfill_dagster_tests.road import write_config

pytestmark = [pytest.mark.usefixtures("aws_environ", "no_backoff"), pytest.mark.timeout(300)]

CONFIG = object()
"""Stands for the config among the words of a command."""

OF_THE_PLACE = {
    *("source", "records_path", "seconds", "generated_at", "config_hash", "run_id", "fetched_at", "finished_at"),
    *("timestamp", "started_at", "at", "seq"),
}
"""Keys of JSON that differ with the place or the moment."""

Both = Callable[..., Ran]


def comparable(found: Any) -> Any:
    """JSON without what differs with the place or the moment."""
    if isinstance(found, dict):
        return {key: comparable(value) for key, value in found.items() if key not in OF_THE_PLACE}
    return [comparable(one) for one in found] if isinstance(found, list) else found


@pytest.fixture
def both(tmp_path: Path, network: ThreadedNetwork, place: Place, backfill: Command) -> Both:
    """Runs a command on a folder and in the cloud; they have to agree. Gives what it came to in the cloud."""
    place.put_list(network.network.dids)
    configs = []
    for name, blocks in (("disk", {}), ("cloud", place.blocks())):
        (tmp_path / name).mkdir()
        configs.append(
            write_config(
                tmp_path / name,
                network.network.plc_url,
                network.network.dids,
                record_types=RECORD_TYPES,
                processing=PROCESSING,
                **blocks,
            )
        )

    def run(*words: object) -> Ran:
        disk, cloud = (backfill(*(config if word is CONFIG else word for word in words)) for config in configs)
        assert (cloud.code, bool(cloud.err)) == (disk.code, bool(disk.err)), f"{words}: {disk} against {cloud}"
        if "--json" in words and cloud.out:
            assert comparable(cloud.json) == comparable(disk.json), words
        return cloud

    backfill("ledger", "create", configs[1])
    return run


def test_every_command_comes_to_the_same(both: Both, network: ThreadedNetwork, place: Place, tmp_path: Path) -> None:
    net = network.network
    assert both("validate", "--source", CONFIG).code == 0
    assert both("status", CONFIG, "--json").json["dids"] == 0
    assert both("verify", CONFIG).code == 2, "nothing is planned"
    trial = both("run", CONFIG, "--limit", "3", "--json")
    assert (trial.code, trial.json["dids"]) == (0, 3)
    assert place.objects() == [], "a trial has a state of its own"
    planned = both("plan", CONFIG, "--json")
    assert (planned.code, planned.json["dids"], planned.json["shards"]) == (0, len(net.dids), 2)
    assert sum(planned.json["unroutable"].values()) == 2
    planned_status = both("status", CONFIG, "--json")
    shard = max(planned_status.json["shards"])
    assert planned_status.code == 3
    one = both("run", CONFIG, "--shard", shard, "--json")
    assert (one.code, one.json["shards"]) == (0, 1)
    ran = both("run", CONFIG, "--json")
    assert (ran.code, ran.json["records"], ran.json["left"]) == (0, rows_of(net), 0)
    assert both("report", CONFIG, "--json", "--out", tmp_path / "out").code == 0
    assert both("verify", CONFIG).out == "clean\n"
    for sql in (
        'SELECT count(*), count(DISTINCT p.uri), count(DISTINCT l.uri) FROM post p FULL JOIN "like" l USING (author)',
        "SELECT author, count(*) FROM (FROM post UNION ALL BY NAME FROM reply) GROUP BY 1 ORDER BY 1",
        "SELECT did, outcome, records_total, p.shard, delisted, (SELECT count(*) FROM quarantine), "
        "(SELECT sum(dids) FROM outcomes) FROM repos JOIN plan p USING (did) ORDER BY did",
    ):
        assert both("query", CONFIG, sql, "--json").code == 0
    assert both("query", CONFIG, "SELECT 1 AS one", "--csv").out == "one\r\n1\r\n"
    assert both("query", CONFIG, "SELECT nonsense").code != 0

    assert both("retry", CONFIG, "--outcome", "deactivated").out.startswith("reopened: 2 deactivated")
    assert both("status", CONFIG, "--json").json["left"] == 2
    assert both("run", CONFIG, "--json").json["requests"] == 2
    refreshed = both("plan", CONFIG, "--refresh", "--json")
    assert refreshed.json["refresh"] == 1
    assert both("run", CONFIG, "--json").json["outcomes"]["unchanged"] == len(net.active)
    parts = len(place.objects("records/"))
    assert both("compact", CONFIG).code == 0, "how many parts there are depends on who answers first"
    assert len(place.objects("records/")) < parts
    did = max(net.expected, key=lambda one: net.expected[one]["records"].get("post", 0))
    assert both("purge", CONFIG, "--did", did, "--reason", "asked for", "--json").code == 0
    assert len(both("purge", CONFIG, "--list", "--json").json["orders"]) == 1
    assert both("query", CONFIG, f"SELECT count(*) FROM post WHERE author = '{did}'", "--json").json["rows"] == [[0]]
    assert both("repair", CONFIG, "--json").code == 0
    assert both("ledger", "counts", CONFIG, "--json").json["outcomes"]["purged"] == 1
    assert both("ledger", "find", CONFIG, did, "--json").json["items"][0]["outcome"] == "purged"
    assert both("ledger", "leases", CONFIG, "--json").json == {"leases": []}
    assert both("verify", CONFIG).out == "clean\n"
    assert both("run", CONFIG, "--json").json["requests"] == 0
