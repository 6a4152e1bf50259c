"""Tests of ledgers and leases."""
