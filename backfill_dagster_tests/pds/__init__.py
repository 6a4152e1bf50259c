"""Tests of backfill_dagster.pds."""
