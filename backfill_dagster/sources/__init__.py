"""Lists of accounts (and of URIs, for filters): where they come from, as trimmed text, each once."""

from backfill_dagster.sources.base import RowCounts, Source, SourceRow
from backfill_dagster.sources.open import open_source
from backfill_dagster.sources.uri_list import load_uris

__all__ = ["RowCounts", "Source", "SourceRow", "load_uris", "open_source"]
