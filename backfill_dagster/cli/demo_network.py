"""The demo's AT network: `backfill localnet` as a child process, stopped at the end."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from backfill_dagster.errors import BackfillError

START_SECONDS_MAX = 60


@dataclass(frozen=True)
class DemoNetwork:
    """Where the network is: origin of its PLC directory, and the SQLite file that lists its DIDs."""

    plc_url: str
    dids_sqlite: Path


@contextmanager
def demo_network(folder: Path, *, hosts: int, repos: int, seed: int) -> Iterator[DemoNetwork]:
    """Run a network for the block.

    Raises:
        BackfillError: it didn't start; names its log.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log_path = folder / "localnet.log"
    numbers = ["--hosts", str(hosts), "--repos", str(repos), "--seed", str(seed)]
    with log_path.open("wb") as log:
        process = subprocess.Popen(  # noqa: S603 - our own module, no shell
            [sys.executable, "-m", "backfill_dagster.localnet", "--state", str(folder), *numbers],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield _wait(process, folder / "localnet.json", log_path)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen[bytes], description: Path, log_path: Path) -> DemoNetwork:
    deadline = time.monotonic() + START_SECONDS_MAX
    while not description.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            raise BackfillError(f"the local network did not start; {log_path} says why")
        time.sleep(0.1)
    said = json.loads(description.read_bytes())
    return DemoNetwork(said["plc_url"], Path(said["dids_sqlite"]))
