"""What several commands print: tables of counts, paths, the number of DIDs left."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from rich.console import Console
from rich.table import Table

from backfill_dagster.model import Outcome
from backfill_dagster.standing import ShardStanding


def print_counts(console: Console, title: str, counts: Mapping[str, int], *, unit: str) -> None:
    """A blank line and a two-column table, largest first; nothing when there is nothing to count."""
    if not counts:
        return
    table = Table(title=title, title_justify="left", show_edge=False)
    table.add_column("")
    table.add_column(unit, justify="right")
    for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        table.add_row(name, f"{count:,}")
    console.print()
    console.print(table)


def outcome_names(outcomes: Mapping[Outcome, int]) -> dict[str, int]:
    """Outcome counts under their names, zeroes left out, in the order of the enum."""
    return {outcome.value: outcomes[outcome] for outcome in Outcome if outcomes.get(outcome)}


def print_lines(console: Console, lines: Iterable[str]) -> None:
    """Plain lines, no markup."""
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def counted(count: int, noun: str) -> str:
    """`1 request`, `2,000 requests`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def shown_path(path: str | Path) -> str:
    """A path for a person: relative when it lies below the current folder."""
    try:
        return str(Path(path).relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def dids_left(standings: Iterable[ShardStanding]) -> int:
    """DIDs that another run (or plan, for those whose directory was down) would try."""
    return sum(one.pending for one in standings)
