"""A Dagster project that turns a list of AT Protocol accounts into verified Parquet, a ledger, and a coverage report."""

__version__ = "0.1.0"
