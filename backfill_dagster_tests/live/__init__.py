"""Everything that takes a running Dagster: one code server, webserver and daemon for the whole session.

The daemon wakes for backfills every 30 s only, so the modules here live side by side: each has a `scene`, a day with a
backfill of its own, and tests that look at what came of it. All scenes begin when the first test wants Dagster.
"""
