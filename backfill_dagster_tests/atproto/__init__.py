"""Tests of backfill_dagster.atproto."""
