"""A source written out in the YAML itself: a handful of accounts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

from backfill_dagster.sources.base import RowCounts, SourceRow, clean_rows


class InlineSource:
    """The texts of `source.dids` (or of a filter's `uris`)."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = tuple(texts)

    def rows(self, counts: RowCounts | None = None) -> Iterator[SourceRow]:
        """The texts; see `Source.rows`."""
        return clean_rows(((text, ()) for text in self._texts), (), counts)

    def describe(self) -> str:
        """How many there are."""
        return f"a list of {len(self._texts)} in the config"

    def version(self) -> str:
        """Digest of the list."""
        return "sha256:" + hashlib.sha256("\n".join(self._texts).encode("utf-8", "replace")).hexdigest()
