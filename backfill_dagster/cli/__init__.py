"""The `backfill` command: a terminal's rim around plan, worker and report."""
