"""The tables that several commands print: outcomes, rows, shards."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rich.console import Console
from rich.table import Table

from backfill_dagster.model import Outcome


def print_counts(console: Console, title: str, counts: Mapping[str, int], *, unit: str) -> None:
    """A two-column table, largest first."""
    table = Table(title=title, title_justify="left", show_edge=False)
    table.add_column("")
    table.add_column(unit, justify="right")
    for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        table.add_row(name, f"{count:,}")
    console.print(table)


def outcome_names(outcomes: Mapping[Outcome, int]) -> dict[str, int]:
    """Outcome counts under their names, zeroes left out, in the order of the enum."""
    return {outcome.value: outcomes[outcome] for outcome in Outcome if outcomes.get(outcome)}


def print_lines(console: Console, lines: Iterable[str]) -> None:
    """Plain lines, no markup."""
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
