"""Tests of backfill_dagster.net."""
