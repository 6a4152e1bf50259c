"""Tests of `report/`."""
