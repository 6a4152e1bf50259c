"""A local network of many accounts with next to nothing in them, in a process of its own.

`python -m benchmarks.tiny_network FOLDER HOSTS REPOS` is that process. Ten thousand accounts stand in half a second:
a repo is made when it is asked for, and the DIDs come from a SQLite file, so the YAML stays small.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from backfill_dagster.localnet import LocalnetOptions
from backfill_dagster.localnet.serve import run_localnet

START_TRIES = 300
STOP_SECONDS = 10


@contextmanager
def tiny_network(folder: Path, *, hosts: int, repos: int) -> Iterator[dict[str, Any]]:
    """Start the process and stop it at the end; gives what its `localnet.json` says."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.tiny_network", str(folder), str(hosts), str(repos)],
        cwd=Path(__file__).parents[1],  # `benchmarks` is not installed
    )
    try:
        yield wait_for_description(folder / "localnet.json")
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(STOP_SECONDS)


def wait_for_description(path: Path) -> dict[str, Any]:
    """What a network says of itself, once it answers."""
    for _ in range(START_TRIES):
        if path.exists():
            said: dict[str, Any] = json.loads(path.read_bytes())
            return said
        time.sleep(0.1)
    raise SystemExit("the local network did not start")


def main(folder: str, hosts: str, repos: str) -> None:
    """Be the network until SIGTERM: every account active, with one record or a few."""
    options = LocalnetOptions(hosts=int(hosts), repos=int(repos), median_records=1, max_records=3, states={})
    run_localnet(Path(folder), options)


if __name__ == "__main__":
    main(*sys.argv[1:])
