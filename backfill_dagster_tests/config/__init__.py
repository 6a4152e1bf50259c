"""Tests of backfill_dagster.config."""
