"""`dagster job execute` and `dagster asset materialize` know no queue: the host's lease keeps them apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from backfill_dagster.localnet import Fault, LocalnetOptions
from backfill_dagster.model import Shard
from backfill_dagster.orchestration.webserver import RunInfo
from backfill_dagster_tests.live.living import LiveDagster, fetchings, overlaps, until
from backfill_dagster_tests.orchestration.network import threaded_network

pytestmark = [pytest.mark.live, pytest.mark.timeout(600)]

OPTIONS = LocalnetOptions(hosts=1, repos=9, median_records=15, max_records=40, states={})


@dataclass
class Came:
    """What came of the scene."""

    refused_execute: str
    refused_materialize: str
    queued: RunInfo
    runs: list[RunInfo]
    ledger: dict[str, tuple[Any, ...]]
    overlaps: list[Any]


def scene(live: LiveDagster) -> Came:
    with threaded_network(OPTIONS) as net:
        backfill = live.add("round", net)
        first, second, third = backfill.plan()
        # No answer to one DID, and a retry that waits: the queue's run has the host until we heal it.
        backfill.faults(Fault(kind="stall", host=0))
        before = net.network.pds_requests()
        run_id = backfill.launch(first)
        until(lambda: net.network.pds_requests() > before)
        refused_execute = backfill.execute_by_cli(second, expect=1)
        refused_materialize = backfill.materialize_by_cli(third, expect=1)
        backfill.faults()
        live.web.terminate([run_id])
        backfill.wait(run_id)
        again = backfill.launch(first)
        [queued] = backfill.wait(again)
        backfill.execute_by_cli(second)
        backfill.materialize_by_cli(third)
        runs = backfill.runs()
        return Came(
            refused_execute, refused_materialize, queued, runs, backfill.ledger(), overlaps(fetchings(live, runs))
        )


def test_what_meets_the_host_in_other_hands_says_whose(came: Came) -> None:
    for said in (came.refused_execute, came.refused_materialize):
        assert "is held by" in said
        assert "wait for it to end, or stop it, and start again" in said


def test_both_ran_when_the_host_was_free(came: Came) -> None:
    assert came.queued.status == "SUCCESS"
    newest: dict[str, RunInfo] = {}
    for run in came.runs:
        newest.setdefault(run.partition_key or "", run)
    assert {run.status for run in newest.values()} == {"SUCCESS"}
    assert sorted(run.job for run in newest.values()) == ["__ASSET_JOB", "backfill_round", "backfill_round"]


def test_they_tagged_themselves(came: Came) -> None:
    assert len(came.runs) == 6
    for run in came.runs:
        assert run.tags["backfill/pds_host"] == Shard.parse(run.partition_key or "").host
        assert run.tags["backfill/name"] == "round"


def test_no_two_of_them_fetched_at_the_same_time(came: Came) -> None:
    assert came.overlaps == []


def test_in_the_end_the_ledger_is_whole(came: Came) -> None:
    assert [item[0] for item in came.ledger.values()] == ["complete"] * 9
