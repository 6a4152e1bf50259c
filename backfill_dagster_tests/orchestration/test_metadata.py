"""Numbers for the catalog's plots, and the columns that it shows."""

from __future__ import annotations

import dataclasses

import dagster as dg

from backfill_dagster.model import LedgerItem, Outcome, RepoOutcome
from backfill_dagster.orchestration.columns import LEDGER_COLUMNS, record_types_of
from backfill_dagster.orchestration.metadata import numbers, outcomes_metadata, records_metadata, shard_text
from backfill_dagster.orchestration.ops import host_failure, retry_time
from backfill_dagster.worker import ShardResult
from backfill_dagster.worker.result import RunNumbers

RUN = RunNumbers(
    dids_total=12, dids_done=10, repos_fetched=7, records_total=90, bytes_fetched=4096, requests=15, seconds=4.0
)
RESULT = ShardResult(
    shard="a.example~0000",
    host="a.example",
    dids=12,
    outcomes={
        Outcome.COMPLETE: 6,
        Outcome.UNCHANGED: 1,
        Outcome.DEACTIVATED: 2,
        Outcome.HTTP_ERROR: 1,
        Outcome.PENDING: 2,
    },
    rows={"post": 50, "reply": 30, "app.bsky.graph.list": 7, "follow": 3},
    numbers=RUN,
    stopped="the host stopped answering",
    host_down=True,
)


def test_an_entry_takes_all_types_of_its_collection() -> None:
    types = ["post", "reply", "like", "follow", "app.bsky.graph.list", "app.bsky.graphics.x"]
    assert record_types_of("app.bsky.feed.post", types) == ["post", "reply"]
    assert record_types_of("app.bsky.feed.like", types) == ["like"]
    assert record_types_of("app.bsky.graph.*", types) == ["follow", "app.bsky.graph.list"]
    assert record_types_of("app.bsky.feed.*", types) == ["post", "reply", "like"]


def test_rows_of_each_asset() -> None:
    def rows(entry: str) -> object:
        return records_metadata(RESULT, entry)["dagster/partition_row_count"].value

    assert rows("app.bsky.feed.post") == 80
    assert rows("app.bsky.graph.*") == 10
    assert rows("app.bsky.feed.like") == 0


def test_numbers_of_a_shard() -> None:
    metadata = outcomes_metadata(RESULT)
    plain = {name: value.value for name, value in metadata.items() if name != "summary"}
    assert plain["dagster/partition_row_count"] == 12
    assert (plain["repos_complete"], plain["repos_failed"], plain["repos_left"]) == (7, 1, 3)
    assert plain["repos_unavailable"] == 2, "deactivated accounts are no failures"
    assert (plain["outcome_deactivated"], plain["outcome_moved"]) == (2, 0)
    assert plain["records_per_second"] == 22.5
    assert {f"outcome_{outcome.value}" for outcome in Outcome} <= set(plain)


def test_numbers_keep_their_kind() -> None:
    found = numbers({"whole": 1, "broken": 0.5})
    assert isinstance(found["whole"], dg.IntMetadataValue)
    assert isinstance(found["broken"], dg.FloatMetadataValue)


def test_a_run_of_no_time_divides_by_nothing() -> None:
    idle = dataclasses.replace(RESULT, numbers=RunNumbers())
    assert outcomes_metadata(idle)["records_per_second"].value == 0.0


def test_the_summary_is_a_headline_and_tables() -> None:
    text = shard_text(RESULT)
    assert text.startswith("**a.example~0000**: 10 of 12 pending DIDs done in 4.0 s, 90 records of all types written")
    assert "Stopped early: the host stopped answering" in text
    assert "| deactivated | 2 |" in text
    assert "| reply | 30 |" in text
    assert "moved" not in text


def test_a_records_asset_speaks_of_its_own_rows() -> None:
    text = str(records_metadata(RESULT, "app.bsky.graph.*")["summary"].value)
    assert "| follow | 3 |" in text
    assert "reply" not in text


def test_a_dead_host_says_when_to_try_again() -> None:
    asked = dataclasses.replace(RESULT, retry_after_seconds=90)
    assert retry_time(asked, 0.0) == "1970-01-01T00:01:30Z"
    assert host_failure(asked, "1970-01-01T00:01:30Z").description == (
        "a.example~0000: the host stopped answering. 3 of 12 DIDs are left; "
        "run the partition again after 1970-01-01T00:01:30Z, as the host asks"
    )
    later = host_failure(RESULT, retry_time(RESULT, 0.0))
    assert later.description == (
        "a.example~0000: the host stopped answering. 3 of 12 DIDs are left; "
        "run the partition again after 1970-01-01T00:10:00Z"
    )
    assert later.allow_retries is False
    assert later.metadata["retry_after"].value == "1970-01-01T00:10:00Z"


def test_every_field_of_a_ledger_item_has_a_column() -> None:
    fields = {f.name for f in dataclasses.fields(LedgerItem)} - {"result"}
    fields |= {f.name for f in dataclasses.fields(RepoOutcome)}
    assert {name for name, _, _ in LEDGER_COLUMNS} == fields - {"tree"}, (
        "what only a later fetch needs stays in the log"
    )
