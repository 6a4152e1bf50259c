"""`backfill retry` as people use it: what its options mean, what it says, and a run that is going on meanwhile."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from backfill_dagster_tests.cli.conftest import Command
from backfill_dagster_tests.cli.network import BACKFILL, Network, network_process, wait_until

GET_REPO = "com.atproto.sync.getRepo"


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """Large enough to have accounts of every state, with next to nothing in them."""
    with network_process(tmp_path_factory.mktemp("net"), hosts=2, repos=60, seed=5, median_records=3) as made:
        yield made


def host_of(network: Network, number: int) -> str:
    return f"localhost_{network.host_urls[number].rpartition(':')[2]}"


GONE = "2 deactivated, 1 invalid_did, 1 not_found, 1 suspended, 1 taken_down, 4 unresolvable"

REOPENED: list[tuple[list[str], str | None]] = [
    # what is asked for ("a" and "b" are the hosts), what is said to be reopened
    ([], GONE),
    (["--outcome", "complete"], "52 complete"),
    (["--outcome", "complete", "--outcome", "suspended"], "52 complete, 1 suspended"),
    (["--host", "a"], "1 deactivated, 1 not_found, 1 suspended, 1 taken_down"),
    (["--host", "a", "--host", "b"], "2 deactivated, 1 not_found, 1 suspended, 1 taken_down"),
    (["--error", "Tombstoned", "--error", "DidNotFound"], "2 unresolvable"),
    (["--error", "Tombstoned", "--host", "a"], None),
    (["--age", "0m"], GONE),
    (["--age", "1h"], None),
    (["--age", "999999w"], None),
    (["--age", "0m", "--outcome", "complete", "--host", "b"], "27 complete"),
    (["--age", "0m", "--error", "RepoSuspended", "--host", "a", "--outcome", "suspended"], "1 suspended"),
]


def test_what_each_option_reopens(config: Path, network: Network, backfill: Command) -> None:
    for _ in range(2):  # one account moves with its first getRepo
        assert backfill("run", config).code == 0
    hosts = {name: host_of(network, number) for number, name in enumerate("ab")}
    for arguments, reopened in REOPENED:
        ran = backfill("retry", config, *(hosts.get(one, one) for one in arguments))
        nothing = f"no DID matches; `backfill status {config}` shows the outcomes there are\n"
        said = f"reopened: {reopened}; `backfill run {config}` tries them again\n" if reopened else nothing
        assert (arguments, ran.code, ran.out, ran.err) == (arguments, 0, said, "")


def test_whoever_has_no_host_is_left_to_do_too(config: Path, backfill: Command) -> None:
    for _ in range(2):
        assert backfill("run", config).code == 0
    assert backfill("status", config, "--json").json["left"] == 0
    assert backfill("retry", config).code == 0
    status = backfill("status", config, "--json")
    assert (status.code, status.json["left"]) == (3, 10)
    assert backfill("report", config, "--json").json["left"] == 10
    again = backfill("run", config, "--json")
    assert (again.code, again.json["left"], again.json["requests"]) == (0, 0, 5)
    assert again.json["outcomes"] == status.json["outcomes"]
    assert backfill("status", config).code == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--age", "12"], "'12' is no span of time; write 30m, 12h, 7d or 2w"),
        (["--age", "-1h"], "'-1h' is no span of time"),
        (["--age", "1.5h"], "'1.5h' is no span of time"),
        (["--age", "1h30m"], "'1h30m' is no span of time"),
        (["--age", "12H"], "'12H' is no span of time"),
        (["--age", "٣h"], "'٣h' is no span of time"),
        (["--age", "1000000d"], "'1000000d' is no span of time"),
        (["--age", ""], "'' is no span of time"),
        (["--outcome", "purged"], "'purged' is not one of 'complete'"),
        (["--outcome", "pending"], "'pending' is not one of 'complete'"),
        (["--host", "example.com"], "unknown host 'example.com'; the plan has localhost_"),
        (["--host", "http://localhost:1"], "unknown host 'http://localhost:1'; the plan has localhost_"),
    ],
)
def test_what_can_t_be_asked_for(config: Path, backfill: Command, arguments: list[str], said: str) -> None:
    if "--host" in arguments:
        assert backfill("plan", config).code == 0
    ran = backfill("retry", config, *arguments)
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert said in ran.err


def test_nothing_is_planned_yet(config: Path, folder: Path, backfill: Command) -> None:
    ran = backfill("retry", config)
    assert (ran.code, ran.out) == (2, "")
    state = folder / "data" / "study"
    assert ran.err == f"backfill: nothing is planned yet in {state}: run `backfill plan {config}` first\n"
    assert not state.exists()


def test_during_a_run(folder: Path, network: Network, backfill: Command) -> None:
    """Two processes: one stands still at its fourth DID while the other reopens what was committed by then."""
    dids = [did for did in network.said["hosts"][0]["dids"] if network.said["expected"][did]["records"]][:6]
    processing = {"concurrent_requests": 1, "batch_size": 2, "max_retries": 8}
    config = network.write_config(folder, source={"type": "inline", "dids": dids}, processing=processing)
    network.set_faults({"kind": "stall", "did": dids[3], "times": 1})
    network.control("/requests/reset", {})
    run = subprocess.Popen([*BACKFILL, "run", config], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        wait_until(lambda: network.pds_requests() == 4)
        reopen = [*BACKFILL, "retry", config, "--outcome", "complete"]
        retry = subprocess.run(reopen, capture_output=True, text=True)
        # The only way out of a stall: the connection is cut, and the host is there again.
        network.set_faults({"kind": "down", "host": 0})
        network.set_faults()
        out, err = run.communicate(timeout=60)
    finally:
        run.kill()
    said = f"reopened: 2 complete; `backfill run {config}` tries them again\n"
    assert (retry.returncode, retry.stdout, retry.stderr) == (0, said, "")
    assert (run.returncode, err) == (3, "")
    assert "2 DIDs left to retry: run the same command again" in out
    assert backfill("verify", config).out == "clean\n"
    status = backfill("status", config, "--json")
    assert (status.code, status.json["left"], status.json["outcomes"]) == (3, 2, {"complete": 6})

    again = backfill("run", config, "--json")
    assert (again.code, again.json["requests"], again.json["left"]) == (0, 2, 0)
    assert again.json["records"] == status.json["records"]
    assert backfill("verify", config).out == "clean\n"
    assert backfill("run", config, "--json").json["requests"] == 0
