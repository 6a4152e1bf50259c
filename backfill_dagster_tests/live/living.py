"""The Dagster of the session: configs are added to it, runs are launched and looked at, ledgers are read."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.instance.ref import InstanceRef

from backfill_dagster.config import load_config
from backfill_dagster.model import Shard
from backfill_dagster.orchestration.live import LocalDagster
from backfill_dagster.orchestration.webserver import RunInfo, Webserver
from backfill_dagster.plan import PlanStore
from backfill_dagster.state import BackfillState, open_state
from backfill_dagster_tests.orchestration.network import ThreadedNetwork
from backfill_dagster_tests.road import write_config

RECORD_TYPES = ["app.bsky.feed.post", "app.bsky.graph.*"]
ASSETS = ["app_bsky_feed_post", "app_bsky_graph_all", "repo_outcomes"]
RUN_SECONDS = 240


@dataclass(frozen=True)
class LiveDagster:
    """Dagster with a folder of configs."""

    dagster: LocalDagster
    configs: Path
    _loading: threading.Lock = field(default_factory=threading.Lock)

    @property
    def web(self) -> Webserver:
        return self.dagster.webserver

    @property
    def environ(self) -> dict[str, str]:
        return self.dagster.environ

    def add(self, name: str, net: ThreadedNetwork, **changes: Any) -> Backfill:
        """A config of a network becomes jobs. One at a time: files that come during a load may be missed."""
        wanted = {"record_types": RECORD_TYPES, "source": {"type": "inline", "dids": net.network.dids}} | changes
        wanted["processing"] = {"shard_size": 3, "lease_seconds": 2} | wanted.get("processing", {})
        with self._loading:
            path = write_config(self.configs, net.network.plc_url, net.network.dids, name=name, **wanted)
            (self.configs / "workspace.yaml").unlink()  # a project's root would have one, a folder of configs has not
            self.reload()
        return Backfill(self, name, path, net)

    def reload(self) -> None:
        self.web.reload()
        until(lambda: self.web.location_error() is None)

    @contextmanager
    def instance(self) -> Iterator[dg.DagsterInstance]:
        """Its storage, to read from."""
        with dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(self.dagster.home))) as instance:
            yield instance

    def cli(self, *arguments: str, expect: int = 0) -> str:
        """Run `dagster ...`; returns all it said."""
        command = [sys.executable, "-m", "dagster", *arguments]
        done = subprocess.run(
            command, env=self.environ, cwd=self.dagster.home, capture_output=True, text=True, timeout=200
        )
        assert done.returncode == expect, done.stdout + done.stderr
        return done.stdout + done.stderr

    def turn_on(self, kind: str, name: str) -> None:
        """Start a schedule or sensor, as its switch in the UI does."""
        field_name, selector = {"schedule": ("startSchedule", "schedule"), "sensor": ("startSensor", "sensor")}[kind]
        document = (
            f"mutation($s:{selector.title()}Selector!){{{field_name}({selector}Selector:$s)"
            "{__typename ...on PythonError{message}}}"
        )
        chosen = {
            f"{selector}Name": name,
            "repositoryName": "__repository__",
            "repositoryLocationName": "backfill_dagster",
        }
        answer = self.web.query(document, s=chosen)[field_name]
        assert answer["__typename"] not in ("PythonError", "UnauthorizedError"), answer

    def check_results(self, asset: Sequence[str], check: str) -> dict[str | None, dg.AssetCheckEvaluation]:
        """Partition -> newest result of an asset check."""
        key = dg.AssetCheckKey(dg.AssetKey(list(asset)), check)
        found: dict[str | None, dg.AssetCheckEvaluation] = {}
        with self.instance() as instance:
            for record in instance.event_log_storage.get_asset_check_execution_history(key, limit=100):
                event = record.event.dagster_event if record.event else None
                data = event.event_specific_data if event else None
                if isinstance(data, dg.AssetCheckEvaluation):
                    found.setdefault(data.partition, data)
        return found


@dataclass(frozen=True)
class Backfill:
    """One config in the session's Dagster."""

    live: LiveDagster
    name: str
    config: Path
    net: ThreadedNetwork

    @property
    def web(self) -> Webserver:
        return self.live.web

    @property
    def job(self) -> str:
        return f"backfill_{self.name}"

    def plan(self) -> list[str]:
        """Plan through the queue; returns the partitions."""
        run = self.web.wait_for_run(self.web.launch_job(f"plan_{self.name}"), timeout_seconds=RUN_SECONDS)
        assert run.status == "SUCCESS"
        return self.web.partition_keys(self.job)

    def launch(self, key: str, *, job: str | None = None) -> str:
        """Launch one partition as a run of its own; returns the run id."""
        return self.web.launch_job(job or self.job, tags={"dagster/partition": key})

    def wait(self, *run_ids: str) -> list[RunInfo]:
        return self.web.wait_for_runs(
            lambda: self.web.runs(run_ids=list(run_ids)), count=len(run_ids), timeout_seconds=RUN_SECONDS
        )

    def wait_for_backfill(self, backfill_id: str, count: int) -> list[RunInfo]:
        return self.web.wait_for_backfill(backfill_id, count=count, timeout_seconds=RUN_SECONDS)

    def runs(self, *keys: str) -> list[RunInfo]:
        """Shard runs of this config, of these partitions or all; newest first."""
        found = [run for run in self.web.runs(tags={"backfill/name": self.name}) if run.partition_key]
        return [run for run in found if not keys or run.partition_key in keys]

    def wait_for_keys(self, keys: Iterable[str], *, times: int = 1) -> list[RunInfo]:
        """Wait until each partition has had so many runs, and all have ended."""
        wanted = sorted(keys)
        return self.web.wait_for_runs(
            lambda: self.runs(*wanted), count=len(wanted) * times, timeout_seconds=RUN_SECONDS
        )

    @contextmanager
    def state(self) -> Iterator[BackfillState]:
        with open_state(load_config(self.config), read_only=True, environ=self.live.environ) as state:
            yield state

    def ledger(self) -> dict[str, tuple[Any, ...]]:
        """DID -> what its ledger item says that doesn't depend on when and how it was fetched."""
        with self.state() as state:
            items = [item for shard in PlanStore(state.store).read().shards() for item in state.ledger.items(shard)]
        return {
            one.result.did: (
                one.result.outcome.value,
                one.result.rev,
                one.result.commit_cid,
                tuple(sorted(one.result.records_by_type.items())),
            )
            for one in items
        }

    def lease_is_free(self, key: str) -> bool:
        """Whether nobody holds the lease of a partition's host, nor its shard's."""
        with self.state() as state:
            leases = [state.host_leases[0].read(Shard.parse(key).host), state.ledger.leases.read(f"{self.name}/{key}")]
        return all(lease is not None and lease.released for lease in leases)

    def faults(self, *faults: Any) -> None:
        self.net.do(self.net.network.set_faults(list(faults)))

    def host_number(self, key: str) -> int:
        ports = [info.url.rsplit(":", 1)[1] for info in self.net.network.hosts]
        return ports.index(Shard.parse(key).host.split("_")[1])

    def launch_by_cli(self, key: str, run_id: str) -> None:
        tags = {"dagster/partition": key, "dagster/partition_set": f"{self.job}_partition_set"}
        workspace = ("-w", str(self.live.dagster.workspace), "-l", "backfill_dagster")
        self.live.cli("job", "launch", *workspace, "-j", self.job, "--run-id", run_id, "--tags", json.dumps(tags))

    def execute_by_cli(self, key: str, *, expect: int = 0) -> str:
        module = ("-m", "backfill_dagster.definitions")
        tags = json.dumps({"dagster/partition": key})
        return self.live.cli("job", "execute", *module, "-j", self.job, "--tags", tags, expect=expect)

    def materialize_by_cli(self, key: str, *, expect: int = 0) -> str:
        select = " or ".join(f'key:"{self.name}/{asset}"' for asset in ASSETS)
        module = ("-m", "backfill_dagster.definitions")
        return self.live.cli("asset", "materialize", *module, "--select", select, "--partition", key, expect=expect)

    def backfill_by_cli(self, *keys: str, expect: int = 0) -> str:
        workspace = ("-w", str(self.live.dagster.workspace), "-l", "backfill_dagster")
        partitions = ("--partitions", ",".join(keys))
        return self.live.cli("job", "backfill", *workspace, "-j", self.job, *partitions, "--noprompt", expect=expect)


@dataclass(frozen=True)
class Fetching:
    """When a run was at its fetching, by Dagster's own event log; seconds since the epoch."""

    run_id: str
    host: str
    began: float
    ended: float


def fetchings(live: LiveDagster, runs: Iterable[RunInfo]) -> list[Fetching]:
    """The fetching of each run that came to it and got its leases, by time."""
    found = []
    with live.instance() as instance:
        for run in runs:
            steps = [entry for entry in instance.all_logs(run.run_id) if (entry.step_key or "").endswith("fetch_repos")]
            begins = [entry.timestamp for entry in steps if entry.dagster_event and entry.dagster_event.is_step_start]
            if not begins or _failure(steps)[1] == "LeaseHeldError":
                continue
            ended = max(entry.timestamp for entry in steps)
            found.append(Fetching(run.run_id, run.tags["backfill/pds_host"], begins[0], ended))
    return sorted(found, key=lambda one: one.began)


def failure_text(live: LiveDagster, run_id: str) -> str:
    """What the failed step of a run said."""
    with live.instance() as instance:
        return _failure(instance.all_logs(run_id))[0]


def _failure(entries: Iterable[dg.EventLogEntry]) -> tuple[str, str]:
    """A failed step's text, and the name of our error; empty when no step failed on purpose."""
    for entry in entries:
        event = entry.dagster_event
        data = event.step_failure_data if event is not None and event.is_step_failure else None
        if data is not None and data.user_failure_data is not None:
            error = data.user_failure_data.metadata.get("error")
            return data.user_failure_data.description or "", str(error.value) if error is not None else ""
    return "", ""


def overlaps(found: Sequence[Fetching]) -> list[tuple[Fetching, Fetching]]:
    """Pairs of fetchings of one host that were going on at the same time."""
    return [
        (one, other)
        for index, one in enumerate(found)
        for other in found[index + 1 :]
        if one.host == other.host and other.began < one.ended
    ]


def most_at_once(runs: Iterable[RunInfo]) -> int:
    """The largest number of these runs that were at work at the same time."""
    times = [(run.started_at, run.ended_at) for run in runs if run.started_at and run.ended_at]
    return max((sum(a <= start < b for a, b in times) for start, _ in times), default=0)


def until(condition: Callable[[], object], seconds: float = 240, *, every: float = 0.3) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(every)
