"""Which records are wanted: collections, a time range, lists of URIs; and the short hash that names the choice.

Pure values. Reading the lists of the filters is `scope.py`'s business; judging one record is `rows.py`'s.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from backfill_dagster.records.schema import SCHEMA_VERSION

Match = Literal["uri", "subject_uri", "parent_uri", "root_uri"]
"""What of a record is looked up in a filter's list: its own URI, what it likes or reposts, what it answers to."""

_SCOPE_LENGTH = 16

_ABOVE_ALL_KEYS = "\x7f"
"""Sorts behind every character that a repo's keys can have."""


@dataclass(frozen=True)
class RecordFilter:
    """Keep only those records of one collection whose URI (or subject, parent, root) is in a list.

    Attributes:
        record_type: NSID of the collection; `app.bsky.feed.post` means posts and replies alike.
        match: which URI is looked up.
        uris: the list; for follows and blocks `subject_uri` looks up the DID.

    Raises:
        ValueError: the list is empty, which would silently drop every record.
    """

    record_type: str
    match: Match
    uris: frozenset[str]

    def __post_init__(self) -> None:
        if not self.uris:
            raise ValueError(f"the filter on {self.record_type} has an empty list; leave it out or give it URIs")

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of the list's content, whatever its order."""
        return hashlib.sha256("\n".join(sorted(self.uris)).encode()).hexdigest()


@dataclass(frozen=True)
class Selection:
    """The records that a backfill keeps.

    Collections without a filter are kept whole. **A record has to pass every filter on its collection**, so two
    filters on one collection (say, by parent and by root) are an "and".

    Attributes:
        record_types: NSIDs of collections; `app.bsky.graph.*` takes everything below that name.
        start_us: first instant that is kept, microseconds since the epoch, UTC; None: no lower end.
        end_us: last instant that is kept (inclusive); None: no upper end.
        filters: see `RecordFilter`.
    """

    record_types: tuple[str, ...]
    start_us: int | None = None
    end_us: int | None = None
    filters: tuple[RecordFilter, ...] = ()

    @cached_property
    def _names(self) -> frozenset[str]:
        return frozenset(name for name in self.record_types if not name.endswith(".*"))

    @cached_property
    def _prefixes(self) -> tuple[str, ...]:
        return tuple(name[:-1] for name in self.record_types if name.endswith(".*"))

    @property
    def has_time_range(self) -> bool:
        """Whether records are judged by time at all."""
        return self.start_us is not None or self.end_us is not None

    def wants_collection(self, nsid: str) -> bool:
        """Whether records of this collection are wanted, before anything is known about them."""
        return nsid in self._names or nsid.startswith(self._prefixes)

    @cached_property
    def spans(self) -> tuple[str, ...]:
        """What wanted keys begin with: `app.bsky.feed.post/`, `app.bsky.graph.`; none begins with another one."""
        starts = sorted({*(f"{name}/" for name in self._names), *self._prefixes})
        return tuple(one for one in starts if not any(one != other and one.startswith(other) for other in starts))

    def span_of(self, key: str) -> str | None:
        """The span that a key `<collection>/<rkey>` is in: all keys between two of one span are wanted. Else None."""
        return next((span for span in self.spans if key.startswith(span)), None)

    def touches(self, after: str, before: str | None) -> bool:
        """Whether a wanted key could lie between these two (empty, None: no bound)."""
        return any((before is None or span < before) and span + _ABOVE_ALL_KEYS > after for span in self.spans)

    def cuts(self, after: str, before: str | None) -> bool:
        """Whether both a wanted key and one that isn't could lie between these two."""
        if not self.touches(after, before):
            return False
        span = self.span_of(after)
        return span is None or before is None or not before.startswith(span)

    def wants_instant(self, micros: int) -> bool:
        """Whether an instant (microseconds since the epoch) lies in the time range, both ends included."""
        if self.start_us is not None and micros < self.start_us:
            return False
        return self.end_us is None or micros <= self.end_us

    def filters_on(self, nsid: str) -> tuple[RecordFilter, ...]:
        """The filters that records of this collection have to pass."""
        return tuple(one for one in self.filters if one.record_type == nsid)

    @cached_property
    def scope(self) -> str:
        """16 hex digits over all that decides which records are wanted, and over the schema version.

        The order in which a config names its record types, filters and URIs doesn't matter.
        """
        content: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "record_types": sorted(set(self.record_types)),
            "start_us": self.start_us,
            "end_us": self.end_us,
            "filters": sorted({(one.record_type, one.match, one.digest) for one in self.filters}),
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:_SCOPE_LENGTH]
