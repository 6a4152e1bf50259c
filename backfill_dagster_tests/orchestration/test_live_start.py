"""Starting Dagster's processes: what goes wrong, and that nothing is left behind."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from backfill_dagster.errors import BackfillError, UsageError
from backfill_dagster.orchestration.live import LocalDagster, free_port
from backfill_dagster.orchestration.webserver import RunInfo, Webserver


def test_any_free_port() -> None:
    port = free_port()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", port))


def test_a_taken_port_is_an_error_that_names_it() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"port {port} can't be used"):
            free_port(port)


def test_a_home_without_dagster_yaml_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"has no dagster\.yaml"), LocalDagster(tmp_path, config_dir=tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_ends_at_once_is_named_with_its_log(tmp_path: Path) -> None:
    (tmp_path / "dagster.yaml").touch()
    environ = {**os.environ, "PYTHONPATH": str(tmp_path)}
    (tmp_path / "dagster").mkdir()
    (tmp_path / "dagster" / "__init__.py").touch()
    (tmp_path / "dagster" / "__main__.py").write_text("raise SystemExit('no way')\n")
    with (
        pytest.raises(BackfillError, match=r"code_server ended at once; .*code_server\.log says why"),
        LocalDagster(tmp_path, config_dir=tmp_path, environ=environ),
    ):
        pass
    assert (tmp_path / "process_logs" / "code_server.log").read_text() == "no way\n"


def test_a_process_that_never_listens_is_given_up_and_killed(tmp_path: Path) -> None:
    (tmp_path / "dagster.yaml").touch()
    (tmp_path / "dagster").mkdir()
    (tmp_path / "dagster" / "__init__.py").touch()
    (tmp_path / "dagster" / "__main__.py").write_text(
        "import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(600)\n"
    )
    environ = {**os.environ, "PYTHONPATH": str(tmp_path)}
    with (
        pytest.raises(BackfillError, match="did not start in 1 s: the code server is starting"),
        LocalDagster(tmp_path, config_dir=tmp_path, environ=environ, start_seconds=1),
    ):
        pass
    pid = int((tmp_path / "process_logs" / "code_server.log").read_text().split()[0])
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_stopping_what_never_started_is_fine(tmp_path: Path) -> None:
    dagster = LocalDagster(tmp_path, config_dir=tmp_path)
    dagster.stop()
    dagster.check()


class StubWebserver(Webserver):
    """Knows three runs, of which one is queued and one works until it is asked to stop."""

    def __init__(self, *, is_dead: bool = False) -> None:
        super().__init__("http://127.0.0.1:1")
        self.asked: list[str] = []
        self._is_dead = is_dead

    def runs(self, **wanted: Any) -> list[RunInfo]:
        if self._is_dead:
            raise BackfillError("the Dagster webserver does not answer")
        status = "CANCELED" if self.asked else "STARTED"
        known = [
            RunInfo("done", "backfill_x", "SUCCESS", {}, 1.0, 2.0),
            RunInfo("queued", "backfill_x", "QUEUED", {}, None, None),
            RunInfo("works", "backfill_x", status, {}, 1.0, None),
        ]
        statuses = wanted.get("statuses") or {run.status for run in known}
        return [run for run in known if run.run_id in wanted.get("run_ids", [run.run_id]) and run.status in statuses]

    def terminate(self, run_ids: Sequence[str]) -> None:
        self.asked.extend(run_ids)


def test_stopping_asks_runs_at_work_to_stop_and_waits_for_them(tmp_path: Path) -> None:
    dagster = LocalDagster(tmp_path, config_dir=tmp_path)
    dagster.webserver = stub = StubWebserver()
    dagster.stop_runs()
    assert stub.asked == ["works"], "without a daemon nothing comes out of the queue"


def test_a_webserver_that_died_does_not_keep_us_from_stopping(tmp_path: Path) -> None:
    dagster = LocalDagster(tmp_path, config_dir=tmp_path)
    dagster.webserver = stub = StubWebserver(is_dead=True)
    dagster.stop_runs()
    assert stub.asked == []


def test_logs_lie_where_dagsters_telemetry_does_not_take_them(tmp_path: Path) -> None:
    assert LocalDagster(tmp_path, config_dir=tmp_path).logs == tmp_path / "process_logs"
