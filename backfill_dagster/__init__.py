"""A Dagster project: a list of AT Protocol accounts becomes verified Parquet, a ledger and a coverage report."""

__version__ = "0.1.0"
