"""`make bench`: every benchmark, one table."""

from __future__ import annotations

from itertools import chain

from benchmarks import dagster_sizes, dynamodb, logs, repos, road, sources
from benchmarks.table import print_table


def main() -> None:
    """Run them all and print the table; the short ones first."""
    modules = (repos, logs, sources, dynamodb, road, dagster_sizes)
    print_table(chain.from_iterable(module.figures() for module in modules))


if __name__ == "__main__":
    main()
