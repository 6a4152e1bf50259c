"""Paths as DuckDB's functions take them: `read_parquet` and the like read `*`, `?` and `[` as patterns."""

from __future__ import annotations

import re

_WILD = re.compile(r"([*?\[])")


def literal_path(path: str) -> str:
    """A pattern that matches this one path, or URI, and no other.

    https://duckdb.org/docs/stable/data/multiple_files/overview#multi-file-reads-and-globs
    """
    return _WILD.sub(r"[\1]", path)
