"""Tests of backfill_dagster.identity."""
