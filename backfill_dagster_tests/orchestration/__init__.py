"""Tests of everything Dagster."""
