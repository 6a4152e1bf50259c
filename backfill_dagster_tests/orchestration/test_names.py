"""The naming contract."""

from __future__ import annotations

import pytest

from backfill_dagster.orchestration import names


@pytest.mark.parametrize(
    ("entry", "asset"),
    [
        ("app.bsky.feed.post", "app_bsky_feed_post"),
        ("app.bsky.graph.*", "app_bsky_graph_all"),
        ("com.my-site.thing.recordName", "com_my__site_thing_recordName"),
    ],
)
def test_records_asset(entry: str, asset: str) -> None:
    assert names.records_asset(entry) == asset


def test_names_of_a_backfill() -> None:
    assert names.plan_job("x") == "plan_x"
    assert names.backfill_job("x") == "backfill_x"
    assert names.report_job("x") == "report_x"
    assert names.partitions("x") == "did_shards__x"
    assert names.partition_set("x") == "backfill_x_partition_set"


def test_backfill_of_job() -> None:
    assert names.backfill_of_job("backfill_study_users") == "study_users"
    assert names.backfill_of_job("plan_study_users") is None
