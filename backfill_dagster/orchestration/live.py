"""Dagster on one machine: code server, webserver and daemon as child processes, on loopback, with logs in files.

For `backfill demo`, `make ui` and the live tests. What they are asked to do goes through `webserver`.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType

import yaml

from backfill_dagster.errors import BackfillError, UsageError
from backfill_dagster.orchestration.webserver import AT_WORK, LOCATION, Webserver

LOOPBACK = "127.0.0.1"
LOG_FOLDER = "process_logs"
"""Not `logs`: Dagster takes whatever lies there for its telemetry, moves it away and sends it out."""

STOP_SECONDS = 15.0


class LocalDagster:
    """Code server, webserver and daemon over one `DAGSTER_HOME`; a context manager that starts and stops them.

    A code server of its own (not a `python_module` workspace) because the daemon would start one after the other.
    The processes are in sessions of their own: a Ctrl-C in the terminal reaches only us, and we stop them in order.

    Args:
        home: `DAGSTER_HOME`, with a dagster.yaml in it.
        config_dir: folder of YAML files, `BACKFILL_CONFIG_DIR`.
        environ: of the processes; default: ours.
        ui_port: of the webserver; 0: any free one.
        log_folder: default: `<home>/process_logs`.
        module: what the code server loads.
        start_seconds: how long starting may take.
        monotonic: seconds.
        sleep: waits, seconds.

    Attributes:
        webserver: the client of the running webserver.
    """

    webserver: Webserver

    def __init__(
        self,
        home: Path,
        *,
        config_dir: Path,
        environ: Mapping[str, str] | None = None,
        ui_port: int = 0,
        log_folder: Path | None = None,
        module: str = "backfill_dagster.definitions",
        start_seconds: float = 90,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.home = home.absolute()
        self.logs = (log_folder or self.home / LOG_FOLDER).absolute()
        self.environ = {
            **(os.environ if environ is None else environ),
            "DAGSTER_HOME": str(self.home),
            "BACKFILL_CONFIG_DIR": str(config_dir.absolute()),
        }
        self._ui_port = ui_port
        self._module = module
        self._start_seconds = start_seconds
        self._monotonic = monotonic
        self._sleep = sleep
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def workspace(self) -> Path:
        """The workspace file for `dagster ... -w`, while it runs."""
        return self.home / "workspace.yaml"

    def __enter__(self) -> LocalDagster:
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _start(self) -> None:
        if not (self.home / "dagster.yaml").is_file():
            raise UsageError(f"{self.home} has no dagster.yaml: copy deploy/local/dagster.yaml there")
        self.logs.mkdir(parents=True, exist_ok=True)
        code_port, ui_port = free_port(), free_port(self._ui_port)
        self.webserver = Webserver(f"http://{LOOPBACK}:{ui_port}", monotonic=self._monotonic, sleep=self._sleep)
        server = {"host": LOOPBACK, "port": code_port, "location_name": LOCATION}
        self.workspace.write_text(yaml.safe_dump({"load_from": [{"grpc_server": server}]}), encoding="utf-8")
        address = ("--host", LOOPBACK, "--port")
        module = ("--module-name", self._module, "--location-name", LOCATION)
        self._spawn("code_server", "dagster", "code-server", "start", *address, str(code_port), *module)
        self._wait("code_server", lambda: None if _listens(code_port) else "the code server is starting")
        workspace = ("--workspace", str(self.workspace))
        self._spawn("daemon", "dagster._daemon", "run", *workspace)
        self._spawn("webserver", "dagster_webserver", *address, str(ui_port), *workspace)
        self._wait("webserver", lambda: None if _listens(ui_port) else "the webserver is starting")
        self._wait("webserver", self.webserver.location_error)

    def _spawn(self, name: str, module: str, *arguments: str) -> None:
        with (self.logs / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(  # noqa: S603 - our own modules, no shell
                [sys.executable, "-m", module, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.environ,
                start_new_session=True,
            )

    def _wait(self, name: str, problem: Callable[[], str | None]) -> None:
        """Wait until `problem` has none; a process that has ended ends the wait."""
        deadline = self._monotonic() + self._start_seconds
        while (said := problem()) is not None:
            log = self.logs / f"{name}.log"
            if self._processes[name].poll() is not None:
                raise BackfillError(f"Dagster's {name} ended at once; {log} says why")
            if self._monotonic() >= deadline:
                raise BackfillError(f"Dagster did not start in {self._start_seconds:g} s: {said}; see {log}")
            self._sleep(0.2)

    def check(self) -> None:
        """Whether all three still run.

        Raises:
            BackfillError: one has ended.
        """
        for name, process in self._processes.items():
            if process.poll() is not None:
                raise BackfillError(f"Dagster's {name} has ended; {self.logs / f'{name}.log'} says why")

    def stop(self) -> None:
        """Stop everything: the daemon first, so that nothing new starts, the runs, then the servers."""
        self._end("daemon")
        if "webserver" in self._processes and self._processes["webserver"].poll() is None:
            self.stop_runs()
        self._end("webserver")
        self._end("code_server")

    def stop_runs(self) -> None:
        """Ask open runs to stop, and wait for those at work: they commit what is in hand and let their leases go."""
        try:
            # Not the queue: without a daemon nothing comes out of it, and to end thousands takes minutes.
            started = [run.run_id for run in self.webserver.runs(statuses=AT_WORK)]
            self.webserver.terminate(started)
            if started:
                self.webserver.wait_for_runs(
                    lambda: self.webserver.runs(run_ids=started), count=len(started), timeout_seconds=STOP_SECONDS
                )
        except BackfillError:
            # The servers below are stopped with everything under them; leases of dead processes lapse at once.
            return

    def _end(self, name: str) -> None:
        process = self._processes.pop(name, None)
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        try:
            os.killpg(process.pid, signal.SIGKILL)  # run workers of a code server that died before them
        except ProcessLookupError:
            return


def free_port(wanted: int = 0) -> int:
    """A loopback port nobody listens on: the wanted one, or any.

    Raises:
        UsageError: the wanted one is taken.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, wanted))
        except OSError as error:
            raise UsageError(f"port {wanted} can't be used ({error.strerror}): name another, or 0 for any") from None
        port: int = probe.getsockname()[1]
        return port


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((LOOPBACK, port)) == 0
