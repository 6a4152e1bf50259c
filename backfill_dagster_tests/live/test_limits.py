"""`max_concurrent_pds` of one config holds, and a long queue of one keeps out neither plans nor the other configs."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from backfill_dagster.localnet import LocalnetOptions
from backfill_dagster.orchestration.webserver import RunInfo
from backfill_dagster_tests.live.living import LiveDagster, most_at_once
from backfill_dagster_tests.orchestration.network import threaded_network

pytestmark = [pytest.mark.live, pytest.mark.timeout(600)]

OPTIONS = LocalnetOptions(hosts=3, repos=9, median_records=10, max_records=30, states={})
WIDE = LocalnetOptions(hosts=9, repos=27, median_records=10, max_records=30, states={})
SLOW = {"requests_per_second": 1, "concurrent_requests": 1}
"""Three DIDs at one a second: runs that are long enough to meet each other."""


@dataclass
class Came:
    """What came of the scene."""

    narrow: list[RunInfo]
    wide: list[RunInfo]
    plan: RunInfo


def scene(live: LiveDagster) -> Came:
    with threaded_network(OPTIONS) as net, threaded_network(WIDE) as other:
        narrow = live.add("narrow", net, processing=SLOW | {"max_concurrent_pds": 1})
        wide = live.add("wide", other, processing=SLOW)
        keys, many = narrow.plan(), wide.plan()
        first = [wide.launch(key) for key in many]
        later = [narrow.launch(key) for key in keys]
        plan = live.web.launch_job("plan_narrow")
        runs = {run.run_id: run for run in wide.wait(*first, *later, plan)}
        return Came(narrow=[runs[run_id] for run_id in later], wide=[runs[run_id] for run_id in first], plan=runs[plan])


def test_all_went_well(came: Came) -> None:
    assert {run.status for run in [*came.narrow, *came.wide, came.plan]} == {"SUCCESS"}


def test_no_more_at_once_than_each_allows(came: Came) -> None:
    assert len({run.tags["backfill/pds_host"] for run in came.narrow}) == 3, "the host limit was not what held them"
    assert most_at_once(came.narrow) == 1
    assert most_at_once(came.wide) <= 3, "one place of four is the others'"


def test_who_comes_after_a_long_queue_need_not_wait_for_its_end(came: Came) -> None:
    """Nine shards of one config are queued first, and the local instance has four places for shards."""
    # Its end, not the start of its last run: processes that are launched in one pass of the queue start in any order.
    end_of_wide = max(run.ended_at or 0 for run in came.wide)
    assert min(run.started_at or 0 for run in came.narrow) < end_of_wide
    assert (came.plan.started_at or 0) < end_of_wide
