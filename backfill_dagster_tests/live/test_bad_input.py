"""What people get wrong in Dagster: unknown partitions on every path, a state that is gone, YAML files that clash."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from backfill_dagster.errors import BackfillError
from backfill_dagster.localnet import Fault, LocalnetOptions
from backfill_dagster_tests.live.living import ASSETS, Backfill, LiveDagster, failure_text, until
from backfill_dagster_tests.orchestration.network import threaded_network

pytestmark = [pytest.mark.live, pytest.mark.timeout(600)]

OPTIONS = LocalnetOptions(hosts=1, repos=6, median_records=10, max_records=30, states={})
UNKNOWN = "nowhere.example~0000"


def by_run(backfill: Backfill) -> str:
    [run] = backfill.wait(backfill.launch(UNKNOWN))
    assert run.status == "FAILURE"
    return failure_text(backfill.live, run.run_id)


def by_job_launch(backfill: Backfill) -> str:
    run_id = str(uuid.uuid4())
    backfill.launch_by_cli(UNKNOWN, run_id)
    [run] = backfill.wait(run_id)
    assert run.status == "FAILURE"
    return failure_text(backfill.live, run_id)


def by_page(backfill: Backfill) -> str:
    return refused(lambda: backfill.web.launch_partitions(backfill.job, [UNKNOWN]))


def by_catalog(backfill: Backfill) -> str:
    return refused(lambda: backfill.web.launch_assets([[backfill.name, asset] for asset in ASSETS], [UNKNOWN]))


def by_job_backfill(backfill: Backfill) -> str:
    return backfill.backfill_by_cli(UNKNOWN, expect=2)


def by_job_execute(backfill: Backfill) -> str:
    return backfill.execute_by_cli(UNKNOWN, expect=1)


def by_materialize(backfill: Backfill) -> str:
    return backfill.materialize_by_cli(UNKNOWN, expect=1)


PATHS = {
    one.__name__: one
    for one in (by_run, by_job_launch, by_page, by_catalog, by_job_backfill, by_job_execute, by_materialize)
}
OURS = ("by_run", "by_job_launch", "by_job_execute")
"""Paths on which Dagster takes any key, so that it is the op that says what is wrong."""


@dataclass
class Came:
    """What came of the scene."""

    keys: list[str] = field(default_factory=list)
    said: dict[str, str] = field(default_factory=dict)
    outcomes: list[str] = field(default_factory=list)
    state_gone: str = ""
    state_came_back: bool = False
    clashes: dict[str, Any] = field(default_factory=dict)
    jobs_before: set[str] = field(default_factory=set)
    jobs_after: set[str] = field(default_factory=set)


def scene(live: LiveDagster) -> Came:
    came = Came()
    with threaded_network(OPTIONS) as net:
        backfill = live.add("wrong", net)
        first, second = came.keys = backfill.plan()
        state_gone(came, backfill, first, second)
        for name, path in PATHS.items():
            came.said[name] = path(backfill)
        backfill.wait(*[backfill.launch(key) for key in came.keys])
        came.outcomes = [item[0] for item in backfill.ledger().values()]
        clash(came, live, backfill)
    return came


def state_gone(came: Came, backfill: Backfill, first: str, second: str) -> None:
    """The state's folder is moved away while a run waits in the queue for its host."""
    backfill.faults(Fault(kind="stall", host=0))
    before = backfill.net.network.pds_requests()
    has_the_host = backfill.launch(first)
    until(lambda: backfill.net.network.pds_requests() > before)
    waits = backfill.launch(second)
    # The one that has the host ends on its own state; what waits meets none.
    state = backfill.config.parent / "data" / backfill.name
    backfill.web.terminate([has_the_host])
    until(lambda: backfill.lease_is_free(first))
    shutil.move(state, state.with_name("elsewhere"))
    backfill.faults()
    backfill.wait(has_the_host, waits)
    came.state_gone = failure_text(backfill.live, waits)
    came.state_came_back = state.exists()
    shutil.move(state.with_name("elsewhere"), state)


def clash(came: Came, live: LiveDagster, backfill: Backfill) -> None:
    """A second file of the same name, and its end."""
    came.jobs_before = jobs(live)
    second = live.configs / "wrong_again.yaml"
    with live._loading:
        shutil.copy(backfill.config, second)
        live.reload()
        assets = [["wrong__config_error"], ["wrong_again__config_error"]]
        until(lambda: all(live.check_results(asset, "config_is_valid") for asset in assets), 120)
        came.clashes = {asset[0]: live.check_results(asset, "config_is_valid")[None] for asset in assets}
        came.jobs_before -= jobs(live)
        second.unlink()
        live.reload()
        came.jobs_after = jobs(live)


def jobs(live: LiveDagster) -> set[str]:
    document = """query($s:RepositorySelector!){repositoryOrError(repositorySelector:$s){
      ...on Repository{pipelines{name}}}}"""
    selector = {"repositoryName": "__repository__", "repositoryLocationName": "backfill_dagster"}
    found = live.web.query(document, s=selector)["repositoryOrError"]["pipelines"]
    return {one["name"] for one in found}


def refused(launch: Callable[[], str]) -> str:
    with pytest.raises(BackfillError) as caught:
        launch()
    return str(caught.value)


@pytest.mark.parametrize("path", PATHS)
def test_an_unknown_partition_is_named(came: Came, path: str) -> None:
    assert UNKNOWN in came.said[path]


@pytest.mark.parametrize("path", OURS)
def test_where_dagster_takes_any_key_the_known_ones_are_named(came: Came, path: str) -> None:
    assert all(key in came.said[path] for key in came.keys)


def test_nothing_was_lost_by_that(came: Came) -> None:
    assert came.outcomes == ["complete"] * 6


def test_a_state_that_is_gone_while_a_run_waits(came: Came) -> None:
    assert came.state_gone.startswith(f"{came.keys[1]}: there is no state in ")
    assert "bring it back, or launch plan_wrong to begin anew" in came.state_gone
    assert not came.state_came_back, "a run begins no state"


def test_two_files_of_one_name_have_failing_checks_and_take_nobody_down(came: Came) -> None:
    for evaluation in came.clashes.values():
        assert not evaluation.passed
        assert "backfill.name is the same as in" in evaluation.description
    assert came.jobs_before == {"plan_wrong", "backfill_wrong", "report_wrong"}, "the others stay"
    assert came.jobs_before <= came.jobs_after, "and they come back when the clash is gone"
