"""Fails when one of the packages that hold the data falls under 90 % of lines and branches; silent when all is well."""

from __future__ import annotations

import io
import sys

import coverage

BOUND_PERCENT = 90.0
PACKAGES = ("plan", "worker", "records", "ledger", "sources", "atproto")


def main() -> int:
    """Read the combined coverage data of the last test run; returns the exit code."""
    data = coverage.Coverage()
    data.load()
    failed = False
    for package in PACKAGES:
        percent = data.report(include=[f"*/backfill_dagster/{package}/*"], file=io.StringIO())
        if percent < BOUND_PERCENT:
            failed = True
            print(f"coverage of {package}: {percent:.1f} %, the bound is {BOUND_PERCENT:.0f} %")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
