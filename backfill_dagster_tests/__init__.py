"""Tests of backfill_dagster; the tree mirrors the package."""
