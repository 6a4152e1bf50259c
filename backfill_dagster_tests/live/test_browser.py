"""Dagster's own pages in a real browser, as somebody uses them who has never seen a terminal.

What is asserted is text and colour on the screen. The backfill daemon wakes every 30 s, hence the long waits.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

import pytest
from playwright.sync_api import Page, expect

from backfill_dagster.localnet import LocalnetOptions
from backfill_dagster.model import Shard
from backfill_dagster.plan import PlanStore
from backfill_dagster_tests.live.browser import (
    Window,
    expect_all,
    is_drawn,
    is_green,
    is_uncovered,
    need_chromium,
    open_window,
)
from backfill_dagster_tests.live.living import RUN_SECONDS, Backfill, LiveDagster
from backfill_dagster_tests.orchestration.network import threaded_network
from backfill_dagster_tests.road import expected_rows

pytestmark = [pytest.mark.live, pytest.mark.timeout(600)]

NAME = "bluesky_study"
JOB = f"backfill_{NAME}"
GROUP_PAGE = f"/locations/__repository__@backfill_dagster/asset-groups/{NAME}/lineage"
PARTITIONS_PAGE = f"/locations/__repository__@backfill_dagster/jobs/{JOB}/partitions"
POSTS_PAGE = f"/assets/{NAME}/app_bsky_feed_post"

COLUMNS = [
    ["did_list"],
    ["shard_plan", "pds_network"],
    ["app_bsky_feed_post", "app_bsky_feed_like", "app_bsky_graph_all", "repo_outcomes"],
    ["coverage_report"],
]
"""The assets from left to right."""

ZOOM_STEPS_MAX = 8

# Ports that are always the same make pictures that are; taken ones are replaced by free ones.
OPTIONS = LocalnetOptions(
    hosts=3,
    repos=24,
    median_records=60,
    max_records=200,
    states={"deactivated": 2},
    ports=(2582, 2581, 2583, 2584, 2585),
)
ROW_COUNT = "dagster/partition_row_count"


@dataclass(frozen=True)
class Came:
    """What the mouse has done.

    Attributes:
        keys: all partitions.
        chosen: the two that were launched.
        backfill_id: of their partition backfill.
        rows: record type -> records that the network has for the accounts of the first of them.
    """

    keys: list[str]
    chosen: list[str]
    backfill_id: str
    rows: dict[str, int]


def scene(live: LiveDagster) -> Came:
    """Two partitions of two hosts, chosen and launched on the job's page, and watched until they are done."""
    need_chromium()
    with threaded_network(OPTIONS) as net, open_own_window(live) as window:
        study = live.add(NAME, net, record_types=["app.bsky.feed.post", "app.bsky.feed.like", "app.bsky.graph.*"])
        keys = study.plan()
        first_of_hosts = {Shard.parse(key).host: key for key in sorted(keys, reverse=True)}
        chosen = sorted(first_of_hosts.values())[:2]
        backfill_id = launch_with_the_mouse(window, keys, chosen)
        return Came(keys, chosen, backfill_id, rows_of_the_network(study, chosen[0]))


def launch_with_the_mouse(window: Window, keys: list[str], chosen: list[str]) -> str:
    with window.page(PARTITIONS_PAGE) as page:
        expect_text(page, rf"{len(keys)}\s+Total partitions\s+{len(keys)}\s+Missing partitions")
        page.get_by_role("button", name="Materialize…").click()
        dialog = page.get_by_role("dialog").filter(has_text="Launch runs to materialize")
        dialog.get_by_text("Select a partition").click()
        for key in chosen:
            page.get_by_role("menuitem", name=key).click()
        dialog.get_by_text("Launch runs to materialize").click()  # closes the list
        expect(page.get_by_role("menuitem")).to_have_count(0)
        expect(dialog).to_contain_text("2 partitions")
        window.shoot(page, "launch-partitions")
        dialog.get_by_role("button", name="Launch backfill").click()
        created = page.get_by_role("region", name="Notifications")
        expect(created).to_contain_text("Created backfill")
        created.get_by_role("link", name="View").click()
        expect_text(page, r"Status\s+Succeeded", timeout_ms=RUN_SECONDS * 1000)
        return page.url.rpartition("/")[2]


def rows_of_the_network(study: Backfill, key: str) -> dict[str, int]:
    with study.state() as state:
        dids = [row.did for row in PlanStore(state.store).read().dids(key)]
    there = expected_rows(study.net.network)
    return {kind: sum(there.get(did, {}).get(kind, 0) for did in dids) for kind in ("post", "reply")}


def open_own_window(live: LiveDagster) -> AbstractContextManager[Window]:
    return open_window(need_chromium(), live.web.url, scratch=live.dagster.home / "pictures")


@pytest.fixture(scope="module")
def window(live: LiveDagster) -> Iterator[Window]:
    """Another one: the scene's belongs to the thread that it was played in."""
    with open_own_window(live) as opened:
        yield opened


def expect_text(page: Page, pattern: str, *, timeout_ms: int | None = None) -> None:
    """Wait until a person can read it."""
    expect(page.locator("body")).to_contain_text(re.compile(pattern), use_inner_text=True, timeout=timeout_ms)


def test_the_asset_graph_runs_from_the_list_to_the_report(came: Came, window: Window) -> None:
    with window.page(GROUP_PAGE) as page:
        columns = [[page.get_by_text(asset, exact=True).first for asset in column] for column in COLUMNS]
        for name in [name for column in columns for name in column]:
            expect(name).to_be_attached()
            for _ in range(ZOOM_STEPS_MAX):
                if is_uncovered(name):
                    break
                page.get_by_role("button", name="zoom_out").click()
            assert is_uncovered(name), name
        lefts = [
            {name.evaluate("name => Math.round(name.getBoundingClientRect().x)") for name in column}
            for column in columns
        ]
        assert [len(column) for column in lefts] == [1, 1, 1, 1]
        assert lefts == sorted(lefts, key=min)
        expect(page.get_by_text(f"{200 // len(came.keys)}% filled")).to_have_count(len(COLUMNS[2]))
        window.shoot(page, "asset-graph")


def test_two_partitions_launched_with_the_mouse_turn_green(came: Came, window: Window) -> None:
    with window.page(PARTITIONS_PAGE) as page:
        expect_text(page, rf"{len(came.keys) - 2}\s+Missing partitions")
        expect_text(page, r"2 partitions[\s\S]+Succeeded")
        expect_all(page.get_by_title("Click to view per-asset status"), is_green, at_least=2, at_most=2)
        page.get_by_role("button", name="Show per-asset status").click()
        expect(page.get_by_text(f"{NAME}/repo_outcomes").first).to_be_visible()
        expect(page.get_by_text("Run duration")).to_be_visible()
        window.shoot(page, "partitions")


def test_the_page_of_the_partition_backfill_counts_its_runs(came: Came, window: Window) -> None:
    with window.page("/overview/backfills") as page:
        page.get_by_role("link", name=came.backfill_id).click()
        expect_text(page, r"100% completed\s+2\s+0\s+2\s+0")
        expect(page.get_by_role("link", name=JOB, exact=True)).to_be_visible()
        window.shoot(page, "partition-backfill")


def test_the_catalog_shows_what_a_partition_has_brought(came: Came, window: Window) -> None:
    key = came.chosen[0]
    posts, replies = came.rows["post"], came.rows["reply"]
    assert posts > 0
    with window.page(POSTS_PAGE) as page:
        page.get_by_role("tab", name="Partitions").click()
        expect(page.get_by_text("Materialized (2)")).to_be_visible()
        page.get_by_text(key).first.click()
        expect_text(page, rf"{key}\s+Materialized\s")
        expect(page.get_by_role("row").filter(has_text=ROW_COUNT).get_by_role("cell").nth(1)).to_have_text(
            str(posts + replies)
        )
        summary = page.get_by_role("row").filter(has=page.get_by_text("summary", exact=True))
        expect(summary.locator("strong").filter(has_text=key)).to_be_visible()
        expect(summary.get_by_role("row").filter(has_text=re.compile("^post"))).to_contain_text(str(posts))
        summary.scroll_into_view_if_needed()
        window.shoot(page, "materialization")


def test_the_catalog_plots_the_numbers_of_the_partitions(came: Came, window: Window) -> None:
    with window.page(POSTS_PAGE) as page:
        page.get_by_role("button", name="Plots").click()
        expect(page.locator("canvas").first).to_be_visible()
        heading = page.get_by_text(ROW_COUNT, exact=True).last  # the description names it too
        heading.evaluate("heading => heading.scrollIntoView({block: 'center'})")
        window.shoot(page, "plots")
        expect_all(page.locator("canvas"), is_drawn, at_least=6)


def test_the_pages_ask_nobody_else(came: Came, window: Window) -> None:
    assert window.outside == []
