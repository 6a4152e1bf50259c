"""Bars on a terminal, silence elsewhere."""

from __future__ import annotations

import os
import pty
import subprocess
from pathlib import Path

import pytest
from rich.progress import Progress

from backfill_dagster.cli.progress import BARS_MAX, Bars, bars
from backfill_dagster.worker.result import RunNumbers
from backfill_dagster_tests.cli.network import BACKFILL, Network

HIDE_CURSOR, SHOW_CURSOR = b"\x1b[?25l", b"\x1b[?25h"


def terminal_output(arguments: list[str]) -> tuple[int, bytes, bytes]:
    """Run with stderr on a terminal: exit code, stdout, what the terminal got."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*BACKFILL, *arguments], stdout=subprocess.PIPE, stderr=theirs, env=os.environ | {"TERM": "xterm"}
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        shown += piece
    os.close(ours)
    assert process.stdout is not None
    out = process.stdout.read()
    process.stdout.close()
    return process.wait(30), out, shown


def test_bars_on_a_terminal_and_none_with_json(config: Path, network: Network) -> None:
    code, out, shown = terminal_output(["run", str(config)])
    assert code == 0
    assert b"resolving DIDs" in shown
    assert b"24/24" in shown
    assert b"~0000" in shown
    assert shown.count(HIDE_CURSOR) == shown.count(SHOW_CURSOR) == 1
    assert b"Outcomes" in out
    assert b"\x1b" not in out
    code, out, shown = terminal_output(["run", str(config), "--json"])
    assert (code, shown) == (0, b"")
    assert out.startswith(b"{")


def test_nothing_is_drawn_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    with bars() as shown:
        shown.resolved(1, 2)
        shown.shard("a~0000", RunNumbers(dids_total=3, dids_done=3))
    assert capsys.readouterr() == ("", "")


def test_a_shard_s_numbers() -> None:
    progress = Progress(disable=True)
    shown = Bars(progress)
    numbers = RunNumbers(dids_total=9, dids_done=2, records_total=1234, bytes_fetched=5_600_000)
    shown.shard("a~0000", numbers)
    numbers.rate_limited = 3
    shown.shard("b~0000", numbers)
    assert [(task.description, task.completed, task.total, task.fields["detail"]) for task in progress.tasks] == [
        ("a~0000", 2, 9, "1,234 records, 5.6 MB"),
        ("b~0000", 2, 9, "1,234 records, 5.6 MB, 3 × 429"),
    ]


def test_many_finished_bars_make_room() -> None:
    progress = Progress(disable=True)
    shown = Bars(progress)
    for number in range(100):
        shown.move(f"shard {number}", 1, 1, "")
    shown.move("last", 0, 1, "")
    visible = [task.description for task in progress.tasks if task.visible]
    assert len(visible) == BARS_MAX
    assert visible[-1] == "last"
