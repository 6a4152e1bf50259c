"""`make bench`: every benchmark, one table."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from benchmarks import logs, repos, road
from benchmarks.measure import Figure


def main() -> None:
    """Run them all and print the table."""
    table = Table(title="benchmarks", title_justify="left", show_edge=False)
    for name in ("what", "how much", "seconds", "a second"):
        table.add_column(name, justify="left" if name == "what" else "right")
    console = Console()
    for module in (repos, logs, road):
        for figure in module.figures():
            console.print(f"… {figure.what}", style="dim")
            _add(table, figure)
    console.print(table)


def _add(table: Table, figure: Figure) -> None:
    rate = figure.amount / figure.seconds
    table.add_row(figure.what, f"{figure.amount:,} {figure.unit}", f"{figure.seconds:.3f}", f"{rate:,.0f}")


if __name__ == "__main__":
    main()
