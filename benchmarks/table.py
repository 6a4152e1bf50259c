"""The table that benchmarks print: a line while each is at work, all rows at the end."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table

from benchmarks.measure import Figure

COLUMNS = ("what", "how much", "seconds", "longest", "asked for", "a second")
PLAIN_WIDTH = 140
"""Of what goes into a file or a pipe: one line a row."""


def print_table(figures: Iterable[Figure]) -> None:
    """Take the figures one by one and print them.

    What has been measured is printed though a later benchmark fails.
    """
    table = Table(title="benchmarks", title_justify="left", show_edge=False)
    for name in COLUMNS:
        table.add_column(name, justify="left" if name == "what" else "right")
    console = Console()
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    try:
        for figure in figures:
            console.print(f"… {figure.what}: {figure.seconds:.3f} s", style="dim", highlight=False)
            table.add_row(*_cells(figure))
    finally:
        console.print(table)


def _cells(figure: Figure) -> tuple[str, ...]:
    longest = "" if figure.longest_seconds is None else f"{figure.longest_seconds:.3f}"
    amount = f"{figure.amount:,} {figure.unit}"
    return figure.what, amount, f"{figure.seconds:.3f}", longest, figure.asked, _rate(figure.rate)


def _rate(rate: float | None) -> str:
    """Whole numbers, but of what is slow two digits."""
    if rate is None:
        return ""
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"
