"""`backfill` commands as real processes, forked from a server that has imported everything.

Starting Python takes longer than what these tests run in it.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

from backfill_dagster.cli.main import run_command

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload([__name__, "backfill_dagster_tests.torture.zombie"])


def started(arguments: Sequence[object], *, said: Path, locks: Path) -> BaseProcess:
    """The command, started; what it says goes to the file `said`, its exit code to one beside it."""
    process = SERVER.Process(target=run_here, args=([str(one) for one in arguments], said, locks))
    process.start()
    return process


def run_here(arguments: Sequence[str], said: Path, locks: Path) -> None:
    """Run a command line in this process, which is there for nothing else."""
    file = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.environ["BACKFILL_LOCK_DIR"] = str(locks)
    code = run_command(arguments)
    code_file(said).write_text(str(code))


def exit_code(said: Path) -> int:
    """What a command that has ended by itself ended with: the server that forks has been seen to lose one."""
    return int(code_file(said).read_text())


def code_file(said: Path) -> Path:
    return said.with_suffix(".code")
