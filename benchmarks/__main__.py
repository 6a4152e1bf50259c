"""`make bench`: every benchmark, one table."""

from __future__ import annotations

from itertools import chain

from benchmarks import dagster_sizes, dynamodb, logs, repos, road
from benchmarks.table import print_table


def main() -> None:
    """Run them all and print the table; the short ones first."""
    print_table(chain.from_iterable(module.figures() for module in (repos, logs, dynamodb, road, dagster_sizes)))


if __name__ == "__main__":
    main()
