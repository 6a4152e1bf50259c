"""The columns that the asset catalog shows: of the Parquet (by the records' own schema) and of the ledger."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache

import dagster as dg

from backfill_dagster.config.record_types import takes
from backfill_dagster.plan.generation import SCHEMA as PLAN_COLUMNS
from backfill_dagster.records.schema import SHORT_NAMES, Raw, collection_of, column_descriptions

LEDGER_COLUMNS = (
    ("backfill", "string", "name of the backfill"),
    ("shard", "string", "partition key of the DID's current shard: its host and a number, as in pds.example~0000"),
    ("did", "string", "the DID"),
    ("seq", "int", "entry of the shard's log that says so"),
    ("outcome", "string", "what became of the DID, one of a closed list"),
    ("scope", "string", "hash of what decides which records are wanted"),
    ("refresh", "int", "refresh round of the plan that was answered"),
    ("pds_endpoint", "string", "origin of the PDS that was asked"),
    ("handle", "string", "from the DID document, unverified"),
    ("rev", "string", "revision of the repo as fetched"),
    ("commit_cid", "string", "CID of the repo's commit"),
    ("last_complete_rev", "string", "revision of the last complete fetch"),
    ("signature_checked", "bool", "whether the commit's signature was checked"),
    ("repo_bytes", "int", "size of the CAR, bytes"),
    ("records_by_type", "map<string, int>", "record type -> live rows"),
    ("rows_scope", "string", "scope that the live rows were fetched under"),
    ("records_seen_by_collection", "map<string, int>", "collection -> records in the repo (full fetches only)"),
    ("undated", "int", "records left out for want of a readable date"),
    ("quarantined", "int", "records set aside because they break their row contract"),
    ("attempts", "int", "requests it took"),
    ("http_status", "int", "last status code, null when no answer came"),
    ("error_code", "string", "short reason"),
    ("error_detail", "string", "the reason in words, at most 1 KiB"),
    ("error_headers", "map<string, string>", "headers of the answer that are evidence"),
    ("error_body_sha256", "string", "digest of the answer's body"),
    ("fetched_at", "string", "ISO 8601 UTC"),
    ("finished_at", "string", "ISO 8601 UTC"),
    ("run_id", "string", "run that wrote the item"),
    ("config_hash", "string", "hash of the config as it was"),
    ("code_version", "string", "version of this project"),
)
"""(name, type, meaning) of a ledger item."""


def record_types_of(entry: str, record_types: list[str]) -> list[str]:
    """Those of the record types that an entry of `record_types` (an NSID or a wildcard) takes.

    `app.bsky.feed.post` takes `post` and `reply`.
    """
    return [one for one in record_types if takes(entry, collection_of(one))]


@cache
def records_schema(entry: str, raw: Raw) -> dg.TableSchema:
    """Columns of an entry's Parquet; for a wildcard those that every type has."""
    columns = column_descriptions(SHORT_NAMES.get(entry, entry), raw)
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                column.name,
                column.type,
                description=column.description,
                constraints=dg.TableColumnConstraints(nullable=column.nullable),
            )
            for column in columns
        ]
    )


def ledger_schema() -> dg.TableSchema:
    """Columns of a ledger item."""
    return _schema(LEDGER_COLUMNS)


def source_schema(keep_columns: Sequence[str]) -> dg.TableSchema:
    """Columns of the list of DIDs, as far as they are read."""
    kept = [(name, "string", "of the source, carried into plan and reports") for name in keep_columns]
    return _schema([("did", "string", "a DID, or a handle that is resolved to one"), *kept])


def plan_schema() -> dg.TableSchema:
    """Columns of the plan."""
    fields = [PLAN_COLUMNS.field(name) for name in PLAN_COLUMNS.names]
    return _schema([(one.name, str(one.type), one.metadata[b"description"].decode()) for one in fields])


def network_schema() -> dg.TableSchema:
    """What a PDS host says of a repo (https://docs.bsky.app/docs/api/com-atproto-sync-list-repos)."""
    return _schema(
        [
            ("did", "string", "the account"),
            ("head", "string", "CID of the repo's newest commit"),
            ("rev", "string", "revision of the repo, a TID"),
            ("active", "bool", "whether the host serves it"),
            ("status", "string", "why it doesn't: takendown, suspended, deactivated, ..."),
        ]
    )


def coverage_schema() -> dg.TableSchema:
    """Columns of the coverage report's table of hosts."""
    return _schema(
        [
            ("host", "string", "PDS host as partition keys write it; _unroutable for DIDs without one"),
            ("outcome", "string", "what became of the DIDs"),
            ("dids", "int", "how many"),
        ]
    )


def _schema(columns: Iterable[tuple[str, str, str]]) -> dg.TableSchema:
    """A schema from (name, type, meaning)."""
    return dg.TableSchema(columns=[dg.TableColumn(name, kind, description=text) for name, kind, text in columns])
