"""The attributes of a ledger item: all names of the design, the old table's too, and back again."""

from __future__ import annotations

import pytest

from backfill_dagster.ledger import item_attributes, item_from_attributes
from backfill_dagster.model import LedgerItem
from backfill_dagster_tests.ledger.contract import FULL, item

NAMES = """backfill shard did seq handle pds_endpoint outcome scope rev commit_cid last_complete_rev signature_checked
    repo_bytes records_total records_by_type records_seen_by_collection undated quarantined attempts http_status
    error_code error_detail error_headers error_body_sha256 refresh fetched_at finished_at run_id config_hash
    code_version bluesky_handle types total_records total_records_by_type pds_service_endpoint timestamp"""


def test_all_names_are_there() -> None:
    assert set(item_attributes(item("did:plc:a", 1))) == {*NAMES.split(), "rows_scope"}


def test_the_old_tables_names() -> None:
    attributes = item_attributes(LedgerItem(backfill="study", shard="s~0000", seq=1, result=FULL))
    assert attributes["outcome"] == "http_error"
    assert type(attributes["outcome"]) is str
    assert {name: attributes[name] for name in NAMES.split()[-6:]} == {
        "bluesky_handle": "alice.example",
        "types": "like,post",
        "total_records": 7,
        "total_records_by_type": '{"like":4,"post":3}',
        "pds_service_endpoint": "https://pds.example",
        "timestamp": "2026-11-23-19:00:01",
    }


def test_an_empty_handle_is_unknown_to_the_old_readers() -> None:
    attributes = item_attributes(item("did:plc:a", 1))
    assert (attributes["handle"], attributes["bluesky_handle"], attributes["timestamp"]) == ("", "<unknown>", "")


def test_back_again() -> None:
    full = LedgerItem(backfill="study", shard="s~0000", seq=1, result=FULL)
    assert item_from_attributes(item_attributes(full)) == full
    with pytest.raises(KeyError):
        item_from_attributes({"backfill": "study"})
