"""The tables of `ledger.sqlite`, for people with `sqlite3` too: `results` has one readable row per shard and DID."""

from __future__ import annotations

LEDGER_SCHEMA_VERSION = 1

RESULT_COLUMNS = {
    "backfill": "TEXT NOT NULL",
    "shard": "TEXT NOT NULL",
    "did": "TEXT NOT NULL",
    "seq": "INTEGER NOT NULL",
    "outcome": "TEXT NOT NULL",
    "handle": "TEXT NOT NULL",
    "pds_endpoint": "TEXT NOT NULL",
    "scope": "TEXT NOT NULL",
    "refresh": "INTEGER NOT NULL",
    "rev": "TEXT",
    "commit_cid": "TEXT",
    "last_complete_rev": "TEXT",
    "signature_checked": "INTEGER NOT NULL",
    "repo_bytes": "INTEGER NOT NULL",
    "records_total": "INTEGER NOT NULL",
    "records_by_type": "TEXT NOT NULL",
    "rows_scope": "TEXT NOT NULL",
    "records_seen_by_collection": "TEXT",
    "undated": "INTEGER NOT NULL",
    "quarantined": "INTEGER NOT NULL",
    "attempts": "INTEGER NOT NULL",
    "http_status": "INTEGER",
    "error_code": "TEXT",
    "error_detail": "TEXT",
    "error_headers": "TEXT NOT NULL",
    "error_body_sha256": "TEXT",
    "fetched_at": "TEXT",
    "finished_at": "TEXT",
    "run_id": "TEXT NOT NULL",
    "config_hash": "TEXT NOT NULL",
    "code_version": "TEXT NOT NULL",
    "bluesky_handle": "TEXT NOT NULL",
    "types": "TEXT NOT NULL",
    "total_records": "INTEGER NOT NULL",
    "total_records_by_type": "TEXT NOT NULL",
    "pds_service_endpoint": "TEXT NOT NULL",
    "timestamp": "TEXT NOT NULL",
    "attention": "TEXT",
}
"""Column -> its type; the names of `item_attributes`, and `attention`: the outcome where a person may want to look."""

MAP_COLUMNS = ("records_by_type", "records_seen_by_collection", "error_headers")
"""Columns whose maps are JSON texts."""

LEASE_TABLE = """\
CREATE TABLE IF NOT EXISTS leases (
    name TEXT PRIMARY KEY, epoch INTEGER NOT NULL, owner_text TEXT NOT NULL, run_id TEXT NOT NULL, token TEXT NOT NULL,
    beat INTEGER NOT NULL, lease_seconds REAL NOT NULL, pid INTEGER NOT NULL, boot_id TEXT NOT NULL,
    pid_namespace TEXT NOT NULL, pid_started INTEGER NOT NULL, released INTEGER NOT NULL)"""

_COLUMNS = ", ".join(f"{name} {kind}" for name, kind in RESULT_COLUMNS.items())

LEDGER_SCHEMA = f"""\
CREATE TABLE IF NOT EXISTS results ({_COLUMNS}, PRIMARY KEY (backfill, shard, did));
CREATE INDEX IF NOT EXISTS results_by_did ON results (did, finished_at);
CREATE INDEX IF NOT EXISTS results_by_attention ON results (backfill, attention, shard, did)
    WHERE attention IS NOT NULL;
CREATE TABLE IF NOT EXISTS shards (
    backfill TEXT NOT NULL, shard TEXT NOT NULL, seq INTEGER NOT NULL, outcomes TEXT NOT NULL, rows TEXT NOT NULL,
    PRIMARY KEY (backfill, shard));
CREATE TABLE IF NOT EXISTS retry_marks (
    backfill TEXT NOT NULL, shard TEXT NOT NULL, did TEXT NOT NULL, seq INTEGER NOT NULL,
    PRIMARY KEY (backfill, shard, did));
CREATE TABLE IF NOT EXISTS meta (
    backfill TEXT NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (backfill, name));
{LEASE_TABLE}"""
"""Statements end in a semicolon and a line break."""
