"""A repo's records judged one by one: wanted or not, a row of its type or a row of the quarantine. Pure.

Which columns there are is in `schema.py`, a type's own values in `values.py`, Arrow in `columns.py`, files in
`parts.py`.
A record never changes what becomes of its neighbours: each is judged by itself, and a row is one tuple made at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from backfill_dagster.atproto.dag_cbor import decode_dag_cbor
from backfill_dagster.atproto.nsid import is_nsid
from backfill_dagster.atproto.record_key import is_record_key
from backfill_dagster.records.record_json import block_json, record_json
from backfill_dagster.records.schema import POST, SHORT_NAMES, Raw, record_type_of
from backfill_dagster.records.selection import Selection
from backfill_dagster.records.timestamps import created_at_micros, rkey_micros
from backfill_dagster.records.values import matched_text, values_of

Entry = tuple[str, str, bytes]
"""One key of a repo: collection, rkey, CID (36 bytes)."""

Row = tuple[Any, ...]
"""The values that `columns.py` makes a table of: `COMMON_VALUES`, then the type's own; or the quarantine's."""

COMMON_VALUES = ("author", "rkey", "cid", "created_at", "created_us", "rev", "fetched_us", "record")
"""What every row begins with, whatever its type."""

QUARANTINE_VALUES = ("author", "rkey", "cid", "collection", "rev", "reason", "record_json", "record_cbor", "fetched_us")
"""The whole of a quarantine's row."""

ROW_WEIGHT_BYTES = 256
"""What a row weighs beside its block's bytes, about."""

COLLECTION_MAX_BYTES = 243
"""Longer names don't fit into a folder name `record_type=<type>` of 255 bytes."""

TID_LENGTH = 13
"""Keys this long need no second look: a repo's keys have none but the allowed characters (`atproto/mst.py`)."""

COLLECTIONS_MAX = 200
"""Wanted collections of one repo that get parts of their own. A wildcard must not let one repo make 50,000 files."""


class VerifiedRepo(Protocol):
    """A repo all of whose blocks have been checked (`atproto.repo.Repo`)."""

    @property
    def did(self) -> str:
        """The account."""
        ...

    @property
    def entries(self) -> Sequence[Entry]:
        """All keys, ascending."""
        ...

    def block(self, cid: bytes) -> bytes:
        """The DAG-CBOR block of an entry."""
        ...


@dataclass(slots=True)
class RepoCounts:
    """What became of one repo's records.

    Attributes:
        records_by_type: rows by record type.
        seen_by_collection: every entry of the repo, wanted or not.
        undated: records left out because a time range can't judge them: no readable createdAt, no TID as key.
        quarantined: rows of the quarantine.
        kept: of all these rows, how many were there before.
    """

    records_by_type: dict[str, int] = field(default_factory=dict)
    seen_by_collection: dict[str, int] = field(default_factory=dict)
    undated: int = 0
    quarantined: int = 0
    kept: int = 0


@dataclass(frozen=True, slots=True)
class RepoFacts:
    """What all rows of one repo share."""

    repo: VerifiedRepo
    rev: str | None
    fetched_us: int


class CollectionRows:
    """Makes rows of one collection's records, for all repos of a batch.

    With a time range a record is judged by createdAt, else by the time in its key, else left out and counted as
    undated. Filters come first. All that holds for records that break their contract too; what can't be read passes no
    filter but the one by its own URI.

    Attributes:
        collection: its NSID, or what stands in its place in the repo's keys.
        record_types: the types that its records can be.
        problem: why none of its records can have a part; None when they can.
    """

    def __init__(self, collection: str, selection: Selection, raw: Raw) -> None:
        self.collection = collection
        self.problem = collection_problem(collection)
        self._selection = selection
        self._judges_time = selection.has_time_range
        self._uri_lists = [one.uris for one in selection.filters_on(collection) if one.match == "uri"]
        self._filters = [(one.match, one.uris) for one in selection.filters_on(collection) if one.match != "uri"]
        self._raw = raw
        self._needs_json = raw == "json" or collection == POST
        self._values_of = values_of(collection)
        self._record_type = SHORT_NAMES.get(collection, collection)
        self.record_types = ("post", "reply") if collection == POST else (self._record_type,)

    def rows(
        self, facts: RepoFacts, entries: Iterable[Entry], counts: RepoCounts, problem: str | None = None
    ) -> Iterator[tuple[str | None, Row, int]]:
        """Judge records.

        Args:
            facts: the repo.
            entries: its keys in this collection.
            counts: `undated` grows here.
            problem: why all of them go to the quarantine; None: each is judged by itself.

        Yields:
            Record type (None: quarantine), row, weight in bytes.
        """
        did, block_of, rev, fetched_us = facts.repo.did, facts.repo.block, facts.rev, facts.fetched_us
        judges_time, filters, needs_json = self._judges_time, self._filters, self._needs_json
        keeps_json, keeps_block, is_post = self._raw == "json", self._raw == "cbor", self.collection == POST
        record_type, is_known = self._record_type, self.collection in SHORT_NAMES
        for _, rkey, cid in self._listed(did, entries) if self._uri_lists else entries:
            block, broken = block_of(cid), problem
            if len(rkey) != TID_LENGTH and not is_record_key(rkey):
                broken = broken or "the record key breaks the protocol's syntax"
            try:
                record = decode_dag_cbor(block)
            except ValueError as error:
                record, broken = {}, broken or str(error)
            if type(record) is not dict:
                record, broken = {}, broken or "the record is not an object"
            created_at = record.get("createdAt")
            if type(created_at) is str:
                created_us = created_at_micros(created_at)
            else:
                created_us = None
                if created_at is not None and is_known:
                    broken = broken or "createdAt is not a string"
                created_at = None
            if filters and not self._passes(record):
                continue
            if judges_time and not self._is_in_time(created_us, rkey, counts):
                continue
            if broken is None:
                try:
                    text, in_json = record_json(record, block) if needs_json else (None, record)
                    values = self._values_of(record, in_json)
                except ValueError as error:
                    broken = str(error)
            weight = len(block) + ROW_WEIGHT_BYTES
            if broken is not None:
                row = did, rkey, cid, self.collection, rev, broken, block_json(block), block, fetched_us
                yield None, row, weight
                continue
            if is_post:
                record_type = record_type_of(POST, record)
            kept = text if keeps_json else block if keeps_block else None
            yield record_type, (did, rkey, cid, created_at, created_us, rev, fetched_us, kept, *values), weight

    def _listed(self, did: str, entries: Iterable[Entry]) -> Iterator[Entry]:
        for entry in entries:
            uri = f"at://{did}/{entry[0]}/{entry[1]}"
            if all(uri in uris for uris in self._uri_lists):
                yield entry

    def _passes(self, record: Mapping[str, Any]) -> bool:
        return all(matched_text(record, match) in uris for match, uris in self._filters)

    def _is_in_time(self, created_us: int | None, rkey: str, counts: RepoCounts) -> bool:
        instant = rkey_micros(rkey) if created_us is None else created_us
        if instant is None:
            counts.undated += 1
            return False
        return self._selection.wants_instant(instant)


def collection_problem(collection: str) -> str | None:
    """Why no part can be made for a collection's records; None when one can."""
    if not is_nsid(collection):
        return "the collection is not an NSID"
    if len(collection) > COLLECTION_MAX_BYTES:
        return f"the collection's name is longer than {COLLECTION_MAX_BYTES} bytes"
    return None
