"""What the commands say and do when all is well."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from backfill_dagster.ledger import Lease
from backfill_dagster_tests.cli.conftest import Command
from backfill_dagster_tests.cli.network import Network
from backfill_dagster_tests.road import opened


def host_of(network: Network, number: int) -> str:
    return f"localhost_{network.host_urls[number].rpartition(':')[2]}"


def test_init_writes_a_config_that_is_valid(folder: Path, backfill: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    ran = backfill("init", "my_study")
    assert (ran.code, ran.err) == (0, "")
    assert "backfill validate configs/my_study.yaml" in ran.out
    assert backfill("validate", "configs/my_study.yaml").out.startswith("configs/my_study.yaml: valid (my_study)\n")


def test_init_twice_keeps_the_first(folder: Path, backfill: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKFILL_CONFIG_DIR", str(folder / "here"))
    assert backfill("init").code == 0
    path = folder / "here" / "my_backfill.yaml"
    path.write_text("edited")
    ran = backfill("init")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == f"backfill: {path} exists already; choose another name or edit that file\n"
    assert path.read_text() == "edited"


def test_init_where_nothing_can_be_written(folder: Path, backfill: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "file").touch()
    monkeypatch.setenv("BACKFILL_CONFIG_DIR", str(folder / "file"))
    ran = backfill("init")
    assert (ran.code, ran.err.count("\n")) == (1, 1)
    assert "set BACKFILL_CONFIG_DIR" in ran.err
    assert backfill("init", "Bad-Name").code == 2


def test_plan_says_what_it_will_cost(config: Path, network: Network, backfill: Command) -> None:
    ran = backfill("plan", config)
    assert (ran.code, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert lines[0] == f"source: {network.dids_sqlite} (SELECT did FROM dids)"
    assert lines[1] == "plan:   24 DIDs in 2 shards (24 new, 0 rerouted, 0 delisted)"
    assert lines[2].startswith("cost:   24 DIDs on 2 hosts: about 24 requests")
    assert "24 DIDs in 2 shards (0 new" in backfill("plan", config).out


def test_run_says_how_everything_stands(
    config: Path, folder: Path, backfill: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    ran = backfill("run", config)
    assert (ran.code, ran.err) == (0, "")
    assert "Outcomes" in ran.out
    assert "Live rows" in ran.out
    assert "records: data/study/records\n" in ran.out
    assert "cost:" not in ran.out
    status = backfill("status", config)
    assert status.code == 0
    assert "Shards with work" not in status.out
    assert "records: data/study/records\n" in status.out


def test_one_shard_and_then_the_rest(config: Path, network: Network, backfill: Command) -> None:
    key = f"{host_of(network, 0)}~0000"
    ran = backfill("run", config, "--shard", key, "--json")
    assert (ran.code, ran.json["left"], ran.json["shards"]) == (0, 0, 1)
    assert ran.json["outcomes"]["pending"] > 0
    status = backfill("status", config, "--json")
    assert status.code == 3
    assert status.json["shards"][key]["pending"] == 0
    assert status.json["left"] == ran.json["outcomes"]["pending"]
    said = backfill("status", config)
    assert "Shards with work" in said.out
    assert f"`backfill run {config}` goes on" in said.out
    assert backfill("run", config).code == 0


def test_a_trial_touches_nothing_else(config: Path, folder: Path, backfill: Command) -> None:
    ran = backfill("run", config, "--limit", "3", "--json")
    assert (ran.code, ran.json["dids"]) == (0, 3)
    assert ran.json["records_path"] == str(folder / "data" / "study__trial" / "records")
    assert backfill("plan", config, "--limit", "3", "--json").json["new"] == 0
    assert [path.name for path in (folder / "data").iterdir()] == ["study__trial"]


def test_retry_reopens_by_outcome(config: Path, backfill: Command) -> None:
    backfill("run", config)
    nothing = backfill("retry", config, "--outcome", "too_large")
    assert (nothing.code, nothing.err) == (0, "")
    assert nothing.out == f"no DID matches; `backfill status {config}` shows the outcomes there are\n"
    assert backfill("status", config).code == 0
    ran = backfill("retry", config, "--outcome", "deactivated")
    assert (ran.code, ran.out) == (0, f"reopened: 1 deactivated; `backfill run {config}` tries them again\n")
    status = backfill("status", config, "--json")
    assert (status.code, status.json["left"]) == (3, 1)
    again = backfill("run", config, "--json")
    assert (again.code, again.json["requests"], again.json["outcomes"]) == (0, 1, status.json["outcomes"])


def test_retry_on_one_host_without_outcomes(config: Path, network: Network, backfill: Command) -> None:
    first = backfill("run", config, "--json")
    not_there = first.json["dids"] - first.json["outcomes"]["complete"]
    assert backfill("retry", config).code == 0
    assert backfill("status", config, "--json").json["left"] == not_there
    assert backfill("run", config).code == 0
    for number in (0, 1):
        assert backfill("retry", config, "--host", host_of(network, number)).code == 0
    assert backfill("status", config, "--json").json["left"] == not_there


def test_a_directory_that_goes_down_leaves_the_rest_pending(config: Path, network: Network, backfill: Command) -> None:
    network.set_faults({"kind": "status", "status": 503, "host": "plc", "after": 9})
    plan = backfill("plan", config, "--json")
    assert (plan.code, plan.err) == (3, "")
    unresolved = plan.json["unresolved"]
    assert 0 < unresolved <= 15
    assert plan.json["unroutable"] == {"pending": unresolved}
    assert "waiting, as their directory did not answer" in backfill("plan", config).out

    ran = backfill("run", config, "--json")
    assert ran.code == 3
    assert ran.json["outcomes"]["pending"] == ran.json["left"] == unresolved
    assert ran.json["outcomes"]["complete"] > 0
    assert "left to retry: run the same command again" in backfill("run", config).out

    network.set_faults()
    healed = backfill("plan", config, "--json")
    assert (healed.code, healed.json["unresolved"], healed.json["rerouted"]) == (0, 0, unresolved)
    whole = backfill("run", config, "--json")
    assert (whole.code, whole.json["outcomes"], whole.json["records"]) == (0, network.outcomes(), network.records())


def test_a_moved_did_is_fetched_by_the_next_run(folder: Path, network: Network, backfill: Command) -> None:
    did = next(did for did in network.said["hosts"][0]["dids"] if network.said["expected"][did]["records"])
    config = network.write_config(folder, source={"type": "inline", "dids": [did]})
    network.control("/move", {"did": did, "to": 1, "when": "on_get_repo"})
    try:
        ran = backfill("run", config)
        assert ran.code == 0
        assert "1 DID moved to another host: run the same command again to fetch them there" in ran.out
        assert backfill("run", config, "--json").json["outcomes"] == {"complete": 1}
    finally:
        network.control("/move", {"did": did, "to": 0})


def test_what_somebody_else_holds_is_left_out_and_named(config: Path, network: Network, backfill: Command) -> None:
    backfill("plan", config)
    with opened(config) as state:
        lease = Lease.acquire(
            state.host_leases[0], host_of(network, 1), owner="somebody else", run_id="1", lease_seconds=60
        )
        try:
            as_json, said = backfill("run", config, "--json"), backfill("run", config)
        finally:
            lease.release()
    key = f"{host_of(network, 1)}~0000"
    assert (as_json.code, as_json.err) == (3, "")
    assert list(as_json.json["held"]) == [key]
    assert "somebody else" in as_json.json["held"][key]
    assert as_json.json["left"] == as_json.json["outcomes"]["pending"] > 0
    assert (said.code, said.err) == (3, "")
    assert f"left out {key}: " in said.out
    assert backfill("run", config).code == 0


def test_a_quota_ends_a_run_and_a_refresh_is_left(folder: Path, network: Network, backfill: Command) -> None:
    config = network.write_config(folder)
    assert backfill("run", config).code == 0
    plan = backfill("plan", config, "--refresh", "--json")
    assert (plan.code, plan.json["refresh"]) == (0, 1)
    network.write_config(folder, processing={"quota": {"requests": 2}})
    ran = backfill("run", config)
    assert ran.code == 3
    assert "stopped early" in ran.out
    status = backfill("status", config, "--json")
    assert status.code == 3
    assert status.json["left"] > 0
    assert "pending" not in status.json["outcomes"]
    network.write_config(folder)
    assert backfill("run", config).code == 0
    assert backfill("verify", config).out == "clean\n"


def test_a_report_is_written_and_said(
    config: Path, folder: Path, backfill: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    backfill("run", config)
    ran = backfill("report", config, "--out", folder / "out" / "deep")
    assert (ran.code, ran.err) == (0, "")
    assert "written: data/study/reports/coverage.html\n" in ran.out
    assert "written: out/deep/report.html\n" in ran.out or f"written: {folder}/out/deep/report.html\n" in ran.out
    as_json = backfill("report", config, "--json").json
    written = json.loads((folder / "out" / "deep" / "report.json").read_text())
    assert {**written, "generated_at": ""} == {**as_json, "generated_at": ""}
    assert "<html" in (folder / "out" / "deep" / "report.html").read_text()


def test_plans_register_their_partitions_where_there_is_a_dagster(
    config: Path, folder: Path, network: Network, backfill: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dagster import DagsterInstance

    home = folder / "dagster"
    home.mkdir()
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    assert backfill("plan", config, "--limit", "2").code == 0
    with DagsterInstance.from_config(str(home)) as instance:
        assert list(instance.get_dynamic_partitions("did_shards__study")) == []
    assert backfill("plan", config).code == 0
    with DagsterInstance.from_config(str(home)) as instance:
        keys = list(instance.get_dynamic_partitions("did_shards__study"))
    assert keys == sorted(f"{host_of(network, number)}~0000" for number in (0, 1))


def test_a_broken_dagster_does_not_break_the_plan(
    config: Path, folder: Path, backfill: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = folder / "dagster"
    home.mkdir()
    (home / "dagster.yaml").write_text("nonsense: true\n")
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    ran = backfill("plan", config, "--json")
    assert (ran.code, ran.json["dids"]) == (0, 24)
    assert f"could not be registered with Dagster in {home}" in ran.err
    assert ran.err.count("\n") == 1
