"""Terminating a run from the UI: what is in hand is committed, leases are let go, the run is CANCELED at once."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import pytest

from backfill_dagster.localnet import Fault, LocalnetOptions
from backfill_dagster.orchestration.webserver import RunInfo
from backfill_dagster_tests.live.living import LiveDagster, until
from backfill_dagster_tests.orchestration.network import threaded_network

pytestmark = [pytest.mark.live, pytest.mark.timeout(600)]

OPTIONS = LocalnetOptions(hosts=1, repos=6, median_records=15, max_records=40, states={})
ANSWERED = 2


@dataclass
class Came:
    """What came of the scene."""

    stopped: RunInfo
    stopped_after_seconds: float
    queued: RunInfo
    leases_are_free: bool
    ledger: dict[str, tuple[Any, ...]]
    asked_later: int
    later: RunInfo
    ledger_later: dict[str, tuple[Any, ...]]


def scene(live: LiveDagster) -> Came:
    with threaded_network(OPTIONS) as net:
        backfill = live.add("stop", net, processing={"shard_size": 6, "batch_size": 100, "concurrent_requests": 1})
        [key] = backfill.plan()
        backfill.faults(Fault(kind="stall", host=0, after=ANSWERED))
        run_id = backfill.launch(key)
        until(lambda: net.network.pds_requests() > ANSWERED)
        waits = backfill.launch(key)  # in the queue: its host is busy
        asked_at = time.time()
        live.web.terminate([waits, run_id])
        runs = {run.run_id: run for run in backfill.wait(run_id, waits)}
        ledger, is_free = backfill.ledger(), backfill.lease_is_free(key)
        backfill.faults()
        before = net.network.pds_requests()
        [later] = backfill.wait(backfill.launch(key))
        return Came(
            stopped=runs[run_id],
            stopped_after_seconds=(runs[run_id].ended_at or 0) - asked_at,
            queued=runs[waits],
            leases_are_free=is_free,
            ledger=ledger,
            asked_later=net.network.pds_requests() - before,
            later=later,
            ledger_later=backfill.ledger(),
        )


def test_it_is_canceled_within_five_seconds(came: Came) -> None:
    assert came.stopped.status == "CANCELED"
    assert came.stopped_after_seconds < 5


def test_its_leases_are_free(came: Came) -> None:
    assert came.leases_are_free


def test_a_run_that_waits_in_the_queue_is_canceled_too(came: Came) -> None:
    assert came.queued.status == "CANCELED"


def test_the_batch_in_hand_was_committed(came: Came) -> None:
    assert [item[0] for item in came.ledger.values()] == ["complete"] * ANSWERED


def test_the_next_run_fetches_the_rest_only(came: Came) -> None:
    assert came.later.status == "SUCCESS"
    assert came.asked_later == 6 - ANSWERED
    assert [item[0] for item in came.ledger_later.values()] == ["complete"] * 6
