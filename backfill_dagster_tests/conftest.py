"""What every test gets: locks of its own, no configuration from outside, and skips that CI can refuse."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from backfill_dagster_tests.aws.servers import (  # noqa: F401 - fixtures
    aws_environ,
    aws_module_environ,
    bucket,
    dynalite,
    ministack,
    moto,
    no_backoff,
)
from backfill_dagster_tests.repository import ROOT
from backfill_dagster_tests.spreading import (  # noqa: F401 - hooks
    pytest_collection_modifyitems,
    pytest_xdist_make_scheduler,
)

# How fast examples come is the machine's business: in a fresh clone the first text waits for a table of all of Unicode.
settings.register_profile("any_machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any_machine")


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """After a run of everything with coverage: the figures that are bound, above the last line."""
    if config.pluginmanager.hasplugin("_cov") and not hasattr(config, "workerinput"):
        check = [sys.executable, str(ROOT / "tools" / "check_coverage.py"), "--print"]
        said = subprocess.run(check, cwd=config.rootpath, capture_output=True, text=True, check=False)
        terminalreporter.write(said.stdout or said.stderr)


@pytest.fixture(autouse=True)
def _own_surroundings(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKFILL_LOCK_DIR", str(tmp_path_factory.mktemp("locks")))
    for name in ("BACKFILL_ROOT", "BACKFILL_CONFIG_DIR", "DAGSTER_HOME"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder that is a project root of its own."""
    (tmp_path / "workspace.yaml").write_text("load_from: []\n")
    return tmp_path
