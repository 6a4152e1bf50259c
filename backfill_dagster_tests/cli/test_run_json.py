"""`backfill run --json` against what the network says a full backfill has: every count, no DID unaccounted."""

from __future__ import annotations

from pathlib import Path

import pytest

from backfill_dagster.cli.main import DEBUG_FLAG
from backfill_dagster_tests.cli.conftest import Command, Ran
from backfill_dagster_tests.cli.network import network_process

RUN_KEYS = {
    "dids",
    "outcomes",
    "records",
    "bytes_fetched",
    "requests",
    "rate_limited",
    "records_fetched",
    "seconds",
    "left",
    "shards",
    "held",
    "stopped",
    "records_path",
}


def until_nothing_moved(backfill: Command, config: Path) -> Ran:
    """Run, and once more for the DIDs that turned out to live elsewhere: the next plan gives them a shard there."""
    first = backfill("run", config, "--json")
    assert (first.code, first.err) == (0, "")
    return backfill("run", config, "--json") if "moved" in first.json["outcomes"] else first


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_every_count_is_what_the_network_has(folder: Path, seed: int, backfill: Command) -> None:
    with network_process(folder / "net", hosts=3, repos=40, seed=seed, median_records=60) as network:
        config = network.write_config(folder)
        ran = until_nothing_moved(backfill, config)
        assert (ran.code, ran.err) == (0, "")
        assert set(ran.json) == RUN_KEYS
        assert ran.json["dids"] == len(network.said["expected"])
        assert ran.json["outcomes"] == network.outcomes()
        assert ran.json["records"] == network.records()
        assert (ran.json["left"], ran.json["held"], ran.json["stopped"]) == (0, {}, {})
        assert ran.json["records_path"] == str(folder / "data" / "study" / "records")

        network.control("/requests/reset", {})
        again = backfill("run", config, "--json")
        assert again.code == 0
        assert network.pds_requests() == 0
        nothing = {"bytes_fetched": 0, "requests": 0, "rate_limited": 0, "records_fetched": 0, "shards": 0}
        assert {name: again.json[name] for name in nothing} == nothing
        for name in ("dids", "outcomes", "records"):
            assert again.json[name] == ran.json[name]

        status = backfill("status", config, "--json")
        assert (status.code, status.err) == (0, "")
        assert {name: status.json[name] for name in ("dids", "outcomes", "records", "left")} == {
            name: ran.json[name] for name in ("dids", "outcomes", "records", "left")
        }
        assert sum(shard["dids"] for shard in status.json["shards"].values()) == ran.json["dids"]
        assert status.json["records_path"] == ran.json["records_path"]

        report = backfill("report", config, "--json", DEBUG_FLAG)
        assert (report.code, report.err) == (0, "")
        assert {name: report.json[name] for name in ("dids", "outcomes", "records")} == {
            name: ran.json[name] for name in ("dids", "outcomes", "records")
        }
        plan = backfill("plan", config, "--json")
        assert (plan.code, plan.err) == (0, "")
        assert (plan.json["dids"], plan.json["new"], plan.json["unresolved"]) == (ran.json["dids"], 0, 0)
        verify = backfill("verify", config)
        assert (verify.code, verify.out, verify.err) == (0, "clean\n", "")
