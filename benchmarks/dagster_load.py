"""How long a code location with many configs takes to load: the definitions alone, and what a user waits for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.remote_origin import GrpcServerCodeLocationOrigin
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import ModuleTarget

from backfill_dagster.orchestration.live import LOOPBACK, LocalDagster, free_port
from backfill_dagster.orchestration.webserver import LOCATION, REPOSITORY
from benchmarks.dagster_home import Home, temporary_home
from benchmarks.measure import ROUNDS, Figure, figure_of, seconds_of

CONFIGS = 50
ASKED = "< 5 s"
START_SECONDS = 60.0
STOP_SECONDS = 15.0


def figures() -> Iterator[Figure]:
    """A fresh process first, then a code server from its start, then a reload from the UI."""
    with temporary_home() as home:
        for number in range(CONFIGS):
            home.add_config(f"study_{number:02d}")
        yield figure_of("a process that only imports Dagster", _processes(home, "import dagster"))
        times = _processes(home, "import backfill_dagster.definitions")
        yield figure_of(f"a process that builds the definitions of {CONFIGS} configs", times)
        times = [_module_seconds(home) for _ in range(ROUNDS)]
        yield figure_of(f"code location of {CONFIGS} configs, as `dagster dev` loads it", times, ASKED)
        times = [_code_server_seconds(home) for _ in range(ROUNDS)]
        yield figure_of("the same behind a `dagster code-server`, from its start", times)
        with home.live() as dagster:
            times = [_reload_seconds(dagster) for _ in range(ROUNDS)]
        yield figure_of("the same reloaded from the UI", times)


def _processes(home: Home, code: str) -> list[float]:
    def run() -> None:
        subprocess.run([sys.executable, "-c", code], env=home.environ, check=True)

    return [seconds_of(run) for _ in range(ROUNDS)]


def _module_seconds(home: Home) -> float:
    """What a webserver does for a `python_module` of workspace.yaml: start its process, ask it for everything."""
    module = ModuleTarget("backfill_dagster.definitions", None, None, LOCATION)
    with _environment(home), dg.DagsterInstance.from_config(str(home.dagster)) as instance:
        started = time.monotonic()
        with WorkspaceProcessContext(instance, module, code_server_log_level="ERROR") as workspace:
            [location] = workspace.create_request_context().code_locations
            location.get_repository(REPOSITORY).get_all_jobs()
            return time.monotonic() - started


@contextmanager
def _environment(home: Home) -> Iterator[None]:
    """The home's environment as ours: the process that Dagster starts inherits it."""
    before = dict(os.environ)
    os.environ.update(home.environ)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _code_server_seconds(home: Home) -> float:
    """From the start of a code server until a client has loaded everything that a webserver loads of it."""
    with dg.DagsterInstance.from_config(str(home.dagster)) as instance:
        started = time.monotonic()
        with _code_server(home) as origin:
            while True:
                try:
                    origin.create_location(instance).cleanup()
                    return time.monotonic() - started
                except DagsterUserCodeUnreachableError:
                    if time.monotonic() - started > START_SECONDS:
                        raise
                    time.sleep(0.05)


@contextmanager
def _code_server(home: Home) -> Iterator[GrpcServerCodeLocationOrigin]:
    port = free_port()
    command = [sys.executable, "-m", "dagster", "code-server", "start", "--host", LOOPBACK, "--port", str(port)]
    module = ["--module-name", "backfill_dagster.definitions", "--location-name", LOCATION]
    process = subprocess.Popen(
        command + module, env=home.environ, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT, start_new_session=True
    )
    try:
        yield GrpcServerCodeLocationOrigin(host=LOOPBACK, port=port, location_name=LOCATION)
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _reload_seconds(dagster: LocalDagster) -> float:
    """The mutation of the UI's reload button, and whatever is to be waited for after it."""
    started = time.monotonic()
    dagster.webserver.reload()
    while dagster.webserver.location_error() is not None:
        time.sleep(0.05)
    return time.monotonic() - started
