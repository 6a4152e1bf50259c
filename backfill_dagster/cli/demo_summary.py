"""What the demo ends with: outcomes, rows, throughput, where the Parquet lies, and three questions DuckDB answers."""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
from rich.console import Console
from rich.table import Table

from backfill_dagster.cli.summary import counted, outcome_names, print_counts, print_lines, shown_path
from backfill_dagster.config import BackfillConfig
from backfill_dagster.model import Outcome
from backfill_dagster.plan import PlanStore
from backfill_dagster.scope import load_selection
from backfill_dagster.standing import all_standings, total_outcomes, total_rows
from backfill_dagster.state import open_state
from backfill_dagster.store.duckdb_paths import literal_path

QUESTIONS = (
    (
        "posts per month, the last six",
        "SELECT strftime(created_at_ts, '%Y-%m') AS month, count(*) AS posts\n"
        "FROM read_parquet('{records}/record_type=post/*.parquet')\n"
        "GROUP BY month ORDER BY month DESC LIMIT 6",
    ),
    (
        "which languages are written",
        "SELECT lang, count(*) AS posts\n"
        "FROM (SELECT unnest(langs) AS lang FROM read_parquet('{records}/record_type=post/*.parquet'))\n"
        "GROUP BY lang ORDER BY posts DESC, lang LIMIT 5",
    ),
    (
        "who gets the most likes from this list",
        "SELECT split_part(subject_uri, '/', 3) AS liked, count(*) AS likes\n"
        "FROM read_parquet('{records}/record_type=like/*.parquet')\n"
        "GROUP BY liked ORDER BY likes DESC, liked LIMIT 5",
    ),
)


def print_demo_summary(config: BackfillConfig, *, seconds: float, failed: Sequence[str]) -> None:
    """Print the summary of a finished demo.

    Args:
        config: the demo's.
        seconds: what the whole demo took.
        failed: a line for each run that did not end well.
    """
    console = Console()
    with open_state(config, read_only=True) as state:
        standings = all_standings(state, PlanStore(state.store).read(), load_selection(config).scope)
        fetched = [item.result for one in standings for item in state.ledger.items(one.shard)]
        records = shown_path(state.store.path("records"))
        report = shown_path(state.store.path("reports/coverage.html"))
        filesystem = state.store.duckdb_filesystem()
    rows, megabytes = total_rows(standings), sum(result.repo_bytes for result in fetched) / 1e6
    outcomes = total_outcomes(standings)
    print_counts(console, "Outcomes", outcome_names(outcomes), unit="DIDs")
    print_counts(console, "Live rows", rows, unit="rows")
    lines = ["", f"{megabytes:,.1f} MB of repos, {rows.total():,} rows; everything took {seconds:,.0f} s"]
    times = [text for result in fetched for text in (result.fetched_at, result.finished_at) if text]
    if len(times) > 1:
        spent = _seconds_between(min(times), max(times))
        lines.append(f"throughput from the first fetch to the last commit: {rows.total() / spent:,.0f} rows/s")
    if outcomes[Outcome.MOVED]:
        moved = counted(outcomes[Outcome.MOVED], "DID")
        lines.append(f"{moved} moved to another host while this ran: the next plan gives them a shard there")
    lines += [f"Parquet: {records}", f"report:  {report}", *(f"failed run: {run}" for run in failed), ""]
    print_lines(console, lines)
    with duckdb.connect() as database:
        if filesystem is not None:
            database.register_filesystem(filesystem)
        in_sql = literal_path(records).replace("'", "''")
        for title, query in QUESTIONS:
            _answer(database, console, title, query.format(records=in_sql))


def _seconds_between(first: str, last: str) -> float:
    query = "SELECT epoch(CAST(? AS TIMESTAMPTZ)) - epoch(CAST(? AS TIMESTAMPTZ))"
    (seconds,) = duckdb.execute(query, [last, first]).fetchall()[0]
    return max(float(seconds), 0.001)


def _answer(database: duckdb.DuckDBPyConnection, console: Console, title: str, query: str) -> None:
    found = database.execute(query)
    names = [column[0] for column in found.description or ()]
    rows = found.fetchall()
    print_lines(console, [f"-- {title}", query])
    table = Table(show_edge=False)
    for name in names:
        table.add_column(name)
    for row in rows:
        table.add_row(*(str(value) for value in row))
    console.print(table)
    console.print()
