"""One life: commands run one after the other on a state whose durable calls meet their fate, until one ends badly.

What the commands are is in `scenes.py`, what has to be there in the end in `picture.py`.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sqlite3
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backfill_dagster.config import BackfillConfig, load_config
from backfill_dagster.errors import BackfillError
from backfill_dagster.ledger import SqliteLedger, machine_lease_table
from backfill_dagster.state import BackfillState, open_state
from backfill_dagster.store.disk import Disk
from backfill_dagster_tests.net.virtual_time import InstantTime
from backfill_dagster_tests.torture.fate import Fate
from backfill_dagster_tests.torture.fated import FatedDisk, FatedLeases, FatedLedger, PromisingStore
from backfill_dagster_tests.torture.power import Journal
from backfill_dagster_tests.worker.mortal import KilledError

Command = Callable[[BackfillState], Awaitable[object]]

CONFIG = "study.yaml"
LOCKS = "locks"
SNAPSHOT_ENTRIES = 2
"""So that a log of a few entries has its snapshots, and sees old ones deleted."""


@dataclass
class Ended:
    """How a life ended: the commands that are left, the broken one first, and what broke it."""

    left: Sequence[Command]
    why: KilledError | BackfillError | None


class Life:
    """Commands in one folder, as processes that share a fate.

    Attributes:
        fate_of: makes their fate.
        disk, store: what they see of the disk; tests of the tests put worse ones here.
    """

    fate_of: Callable[..., Fate] = Fate
    disk: Callable[[Fate, Journal], FatedDisk] = FatedDisk
    store: Callable[[Path, Disk], PromisingStore] = PromisingStore

    @classmethod
    def begin(cls, base: Path, folder: Path) -> None:
        """Copy what there is at a base."""
        shutil.copytree(base, folder)

    def __init__(self, folder: Path, fate: Fate) -> None:
        self.folder = folder
        self.fate = fate
        self.config = load_config(folder / CONFIG)
        self.root = Path(str(self.config.state_path))
        self._journal = Journal(folder / "morgue")
        self._store: PromisingStore | None = None

    def run(self, commands: Sequence[Command]) -> Ended:
        """Run the commands until one breaks; what a dead process leaves behind is as it would be."""
        for number, command in enumerate(commands):
            try:
                with self.opened() as state:
                    asyncio.run(_awaited(command(state)))
            except (KilledError, BackfillError) as why:
                return Ended(commands[number:], why)
            finally:
                self._bury()
        return Ended([], None)

    @contextmanager
    def opened(self) -> Iterator[BackfillState]:
        """The state as one of its processes sees it."""
        with open_state(
            self.config,
            effects=InstantTime().effects(),
            environ={"BACKFILL_LOCK_DIR": str(self.folder / LOCKS)},
            **self.means(),
        ) as state:
            yield state

    def means(self) -> dict[str, Any]:
        """What `open_state` takes for everything durable to meet its fate."""

        def open_store(config: BackfillConfig) -> PromisingStore:
            kept = self._store.kept if self._store else {}
            self._store = self.store(self.root, self.disk(self.fate, self._journal))
            self._store.kept.update(kept)
            return self._store

        def open_ledger(config: BackfillConfig, *, read_only: bool = False) -> FatedLedger:
            return FatedLedger(SqliteLedger(config.ledger_path, config.name), self.fate)

        def host_leases(config: BackfillConfig, environ: Mapping[str, str]) -> tuple[FatedLeases, ...]:
            return (FatedLeases(machine_lease_table(environ), self.fate, "host_lease"),)

        return {"open_store": open_store, "open_ledger": open_ledger, "host_lease_tables": host_leases}

    def plant(self) -> None:
        """Leave behind what else a dead writer of this kind of life can have left behind."""

    def strays(self) -> set[str]:
        """Published files that no entry has ever named: rows that a plain glob sees and nobody has committed."""
        named: set[str] = set()
        for path in self.root.glob("log/*/*.json"):
            with suppress(ValueError):  # a torn entry names nothing
                named.update(part["path"] for part in json.loads(path.read_bytes())["adds"])
        files = [path for name in ("records", "quarantine") for path in self.root.glob(f"{name}/**/*.parquet")]
        return {str(path.relative_to(self.root)) for path in files} - named

    def cut_power(self, *, names_stay: bool) -> list[str]:
        """Take away what is not durable; returns what had been promised and is gone or changed."""
        self._journal.cut(self.root, names_stay=names_stay)
        promised = self._store.kept if self._store else {}
        return sorted(path for path, content in promised.items() if _content(self.root / path) != content)

    def _bury(self) -> None:
        """A process has ended: the leases that it didn't let go are a dead one's, as its pid's next owner sees them."""
        for path in self._lease_files():
            if path.is_file():
                with closing(sqlite3.connect(path, timeout=30)) as database, database:
                    database.execute(
                        "UPDATE leases SET pid_started = pid_started - 1 WHERE pid = ? AND NOT released", (os.getpid(),)
                    )

    def _lease_files(self) -> Sequence[Path]:
        return self.config.ledger_path, self.folder / LOCKS / "hosts.sqlite"


async def _awaited(work: Awaitable[object]) -> None:
    await work


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None
