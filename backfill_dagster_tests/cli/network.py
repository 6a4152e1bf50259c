"""A local network as a child process, as a user starts it, and what the tests ask of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from backfill_dagster_tests.road import write_config

BACKFILL = [sys.executable, "-c", "from backfill_dagster.cli.main import main; main()"]
"""The command as a process; in-process it is `run_command`."""

OWN_NAMES = frozenset({"post", "reply", "repost", "like", "follow", "block"})


@dataclass(frozen=True)
class Network:
    """A running `backfill localnet`: its localnet.json, and its control endpoint."""

    said: Mapping[str, Any]

    @property
    def plc_url(self) -> str:
        return str(self.said["plc_url"])

    @property
    def dids_sqlite(self) -> str:
        return str(self.said["dids_sqlite"])

    @property
    def host_urls(self) -> list[str]:
        return [host["url"] for host in self.said["hosts"]]

    def control(self, route: str, body: Mapping[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = Request(self.said["control_url"] + route, data, {"Content-Type": "application/json"})
        with urlopen(request, timeout=30) as answer:
            return json.loads(answer.read())

    def set_faults(self, *faults: Mapping[str, Any]) -> None:
        self.control("/faults", {"faults": list(faults), "replace": True})

    def pds_requests(self) -> int:
        """Requests to any PDS host since the last reset."""
        counts = self.control("/requests")["requests"]
        return sum(sum(counts.get(url, {}).values()) for url in self.host_urls)

    def outcomes(self) -> dict[str, int]:
        return dict(Counter(entry["outcome"] for entry in self.said["expected"].values()))

    def records(self) -> dict[str, int]:
        total: Counter[str] = Counter()
        for entry in self.said["expected"].values():
            total.update(entry["records"])
        return {name: count for name, count in total.items() if count}

    def record_types(self) -> list[str]:
        """A wildcard for every namespace that a repo has records in."""
        others = {".".join(name.split(".")[:2]) + ".*" for name in self.records() if name not in OWN_NAMES}
        return sorted({"app.bsky.*", *others})

    def write_config(self, folder: Path, **changes: Any) -> Path:
        """The YAML of a backfill of all of it, `changes` merged in."""
        source = {"type": "sqlite", "path": self.dids_sqlite}
        return write_config(
            folder, self.plc_url, [], **({"source": source, "record_types": self.record_types()} | changes)
        )


@contextmanager
def network_process(folder: Path, **options: int | str) -> Iterator[Network]:
    """`backfill localnet` for the block; an option `median_records=60` becomes `--median-records 60`."""
    named = [text for name, value in options.items() for text in (f"--{name.replace('_', '-')}", str(value))]
    process = subprocess.Popen(
        [*BACKFILL, "localnet", "--state", str(folder), *named],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    try:
        assert process.stdout is not None and process.stderr is not None
        ready = process.stdout.readline()
        assert ready.startswith("ready: "), process.stderr.read()
        yield Network(json.loads((folder / "localnet.json").read_text()))
    finally:
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, "", "")


def wait_until(is_so: Any, *, seconds: float = 30) -> None:
    """Poll a condition about another process."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, "it did not come to that in time"
        time.sleep(0.02)
