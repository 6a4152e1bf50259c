"""`backfill query`: SQL over the live rows, as a table, JSON or CSV."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import BinaryIO

import click

from backfill_dagster.cli.opening import config_argument, json_option, looked_at
from backfill_dagster.cli.query_forms import csv_file, json_file, print_rows, top_rows
from backfill_dagster.errors import UsageError
from backfill_dagster.report.query import run_query

STDIN = "-"


@click.command()
@config_argument
@click.argument("sql", metavar="SQL")
@json_option
@click.option("--csv", "as_csv", is_flag=True, help="Print all rows as CSV (RFC 4180), names first.")
def query(config_path: Path, sql: str, as_json: bool, as_csv: bool) -> None:
    """Ask the live rows in SQL.

    SQL is DuckDB's; `-` reads it from stdin. Of several statements the last one's
    rows are shown. Changes nothing, and is exact while runs go on: rows that a
    newer fetch replaced are never seen beside the new ones.

    \b
    One view per record type: post, reply, repost, "like" (in quotes: LIKE is a
    word of SQL), follow, block; the others under their NSID in quotes, as in
    "app.bsky.actor.profile", or as Dagster writes it: app_bsky_actor_profile.
    quarantine  records that break their row contract
    repos       one row per current DID: shard, host, outcome, the evidence
    outcomes    one row per outcome that occurs: DIDs, reason, remedy
    plan        one row per DID: shard, host, handle, delisted, and the source's
                kept columns as JSON

    Shown is a table of the first 1,000 rows; --json and --csv print all.
    """  # noqa: D301 - click's mark for lines that stay as they are
    if as_json and as_csv:
        raise UsageError("--json and --csv exclude each other: choose one")
    statement = sys.stdin.read() if sql == STDIN else sql
    with looked_at(config_path) as state:
        if as_json or as_csv:
            _copy_out(run_query(state, statement, json_file if as_json else csv_file))
        else:
            print_rows(run_query(state, statement, top_rows))


def _copy_out(file: BinaryIO) -> None:
    out = sys.stdout.buffer
    try:
        with file:
            shutil.copyfileobj(file, out)
        out.flush()
    except BrokenPipeError:
        # Whoever reads has seen enough (`| head`); the interpreter's own flush at its end must not complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
