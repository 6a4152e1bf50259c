"""A process that is stopped before a chosen durable call of `backfill run`, and goes on when somebody says so.

What it does with its time until then is `backfill run`'s business; who takes over meanwhile the test's.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path

from backfill_dagster.cli import opening
from backfill_dagster.state import open_state
from backfill_dagster.worker import writer
from backfill_dagster_tests.torture.fate import Blow, Fate
from backfill_dagster_tests.torture.forked import SERVER, exit_code, run_here
from backfill_dagster_tests.torture.life import CONFIG, LOCKS, SNAPSHOT_ENTRIES, Life

SAID = "said.txt"
STOPPED_AT = "stopped_at.txt"


class Sleep(Fate):
    """Stops its process before a call, once; the call is made when the process goes on."""

    def __init__(self, at: int, note: Path) -> None:
        super().__init__(Blow.DEATH, at)
        self._note = note

    def strike(self, blow: Blow, half: Callable[[], object]) -> None:
        self._note.write_text(f"{self.calls[-1].kind} {self.calls[-1].where}")
        with self.quiet:  # stopped in a transaction of SQLite it would hold up everybody, and nobody could take over
            # To this thread: a signal to the process may stop another one first, and this one makes the call meanwhile.
            signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)


def run_and_stop(folder: Path, at: int, life: type[Life], environ: Mapping[str, str]) -> None:
    """`backfill run` on the folder's config, stopped before its call number `at`."""
    os.environ.update(environ)
    writer.SNAPSHOT_ENTRIES = SNAPSHOT_ENTRIES
    means = life(folder, Sleep(at, folder / STOPPED_AT)).means()
    vars(opening)[open_state.__name__] = partial(open_state, **means)
    run_here(["run", str(folder / CONFIG)], folder / SAID, folder / LOCKS)


@contextmanager
def stopped_run(
    folder: Path, at: int, life: type[Life] = Life, environ: Mapping[str, str] | None = None
) -> Iterator[BaseProcess]:
    """The process, when it stands still; killed at the end if it is still there."""
    process = SERVER.Process(target=run_and_stop, args=(folder, at, life, environ or {}))
    process.start()
    try:
        wait_until_stopped(process)
        yield process
    finally:
        process.kill()
        process.join()


def wait_until_stopped(process: BaseProcess, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while state_of(process) != "T":
        assert process.is_alive(), "it ended before the call that it was to be stopped at"
        assert time.monotonic() < deadline, "it did not come to the call in time"
        time.sleep(0.01)


def state_of(process: BaseProcess) -> str:
    """The kernel's letter for what the process does; `T` is stopped."""
    try:
        stat = Path(f"/proc/{process.pid}/stat").read_text()
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[0]


def go_on(process: BaseProcess, folder: Path) -> int:
    """Wake it up; its exit code when it has ended."""
    assert process.pid is not None
    os.kill(process.pid, signal.SIGCONT)
    process.join(60)
    assert not process.is_alive(), "it did not end"
    return exit_code(folder / SAID)
