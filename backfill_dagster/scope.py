"""Which records a config wants, as one value: its record types, time range and the filters with their lists read in.

What a selection does to records, and its hash (the scope), belong to `records.selection`.
"""

from __future__ import annotations

from backfill_dagster.config import BackfillConfig
from backfill_dagster.records.selection import RecordFilter, Selection
from backfill_dagster.sources import load_uris


def load_selection(config: BackfillConfig) -> Selection:
    """Read the filters' lists and put the selection together.

    Raises:
        SourceError: a filter's list can't be read or is empty.
        UsageError: a filter's source is of a type that this version doesn't have.
    """
    time_range = config.time_range
    return Selection(
        record_types=config.record_types,
        start_us=None if time_range is None else time_range.start_us,
        end_us=None if time_range is None else time_range.end_us,
        filters=tuple(
            RecordFilter(one.record_type, one.match, load_uris(one.source, config.resolve)) for one in config.filters
        ),
    )
