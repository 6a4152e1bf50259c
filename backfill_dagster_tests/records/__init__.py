"""Tests of `backfill_dagster.records`."""
