"""`max_concurrent_pds` of one config holds, and hinders neither plans nor the other configs."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from backfill_dagster.localnet import LocalnetOptions
from backfill_dagster.orchestration.webserver import RunInfo
from backfill_dagster_tests.live.living import LiveDagster, most_at_once
from backfill_dagster_tests.orchestration.network import threaded_network

pytestmark = [pytest.mark.live, pytest.mark.timeout(600)]

OPTIONS = LocalnetOptions(hosts=3, repos=9, median_records=10, max_records=30, states={})
SLOW = {"requests_per_second": 1, "concurrent_requests": 1}
"""Three DIDs at one a second: runs that are long enough to meet each other."""


@dataclass
class Came:
    """What came of the scene."""

    narrow: list[RunInfo]
    wide: list[RunInfo]
    plan: RunInfo


def scene(live: LiveDagster) -> Came:
    with threaded_network(OPTIONS) as net, threaded_network(OPTIONS) as other:
        narrow = live.add("narrow", net, processing=SLOW | {"max_concurrent_pds": 1})
        wide = live.add("wide", other, processing=SLOW | {"max_concurrent_pds": 2})
        keys, more = narrow.plan(), wide.plan()
        run_ids = [backfill.launch(key) for key, backfill in [*((k, narrow) for k in keys), *((k, wide) for k in more)]]
        plan = live.web.launch_job("plan_narrow")
        runs = narrow.wait(*run_ids, plan)
        return Came(
            narrow=[run for run in runs if run.job == narrow.job],
            wide=[run for run in runs if run.job == wide.job],
            plan=next(run for run in runs if run.run_id == plan),
        )


def test_all_went_well(came: Came) -> None:
    assert {run.status for run in [*came.narrow, *came.wide, came.plan]} == {"SUCCESS"}


def test_no_more_at_once_than_each_allows(came: Came) -> None:
    assert len({run.tags["backfill/pds_host"] for run in came.narrow}) == 3, "the host limit was not what held them"
    assert most_at_once(came.narrow) == 1
    assert most_at_once(came.wide) <= 2


def test_another_config_goes_on_meanwhile(came: Came) -> None:
    assert most_at_once([*came.narrow, *came.wide]) > most_at_once(came.narrow)


def test_a_plan_goes_on_meanwhile(came: Came) -> None:
    assert came.plan.started_at is not None
    assert came.plan.started_at < max(run.ended_at or 0 for run in came.narrow)
