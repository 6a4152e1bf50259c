"""`fetch: auto` asks the reference PDS for less than the whole repo, and gives the rows that `full` gives."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from backfill_dagster.report import verify_backfill
from backfill_dagster_tests.reference.accounts import Account, Xrpc
from backfill_dagster_tests.reference.judge import (
    Records,
    as_records,
    as_written,
    listed_values,
    parquet_rows,
    results,
)
from backfill_dagster_tests.reference.servers import ReferenceServers
from backfill_dagster_tests.reference.writes import POST, THING
from backfill_dagster_tests.road import opened, run_all, write_config

OLD_RECORDS, NEW_RECORDS = 200, 40


@dataclass
class Halves:
    """Accounts that wrote before and after a moment.

    Attributes:
        moment: in between.
        wanted: what the PDS lists of the time since the moment, by what was written when.
        both, old, new: who wrote when.
    """

    servers: ReferenceServers
    moment: datetime
    wanted: Records
    both: Account
    old: Account
    new: Account

    @property
    def dids(self) -> list[str]:
        return [self.both.did, self.old.did, self.new.did]


def now() -> datetime:
    return datetime.now(UTC)


def a_moment_between() -> datetime:
    """A moment apart from what was and will be written: revs, keys and this come from one clock."""
    time.sleep(0.05)
    moment = now()
    time.sleep(0.05)
    return moment


def text_of(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def write_posts(account: Account, count: int) -> None:
    posts = [{"text": f"post {number}", "createdAt": text_of(now())} for number in range(count)]
    account.create_all(POST, posts)


@pytest.fixture(scope="module")
def halves(servers: ReferenceServers) -> Halves:
    both, old = Account(servers, "both"), Account(servers, "old")
    write_posts(both, OLD_RECORDS)
    write_posts(old, OLD_RECORDS)
    edited = both.create(POST, {"text": "to be edited", "createdAt": text_of(now())})["uri"]
    moment = a_moment_between()
    before = set(listed_values(both.xrpc, [both.did, old.did]))
    new = Account(servers, "new")
    write_posts(new, NEW_RECORDS)
    write_posts(both, NEW_RECORDS)
    both.create(THING, {"text": "a thing without a date"})
    # Rewritten since, and still of a time before: not wanted.
    both.put(POST, edited.rpartition("/")[2], {"text": "edited", "createdAt": "2024-01-01T00:00:00Z"})
    both.create(POST, {"text": "dated back", "createdAt": "2024-01-01T00:00:00Z"})
    now_listed = listed_values(both.xrpc, [both.did, old.did, new.did])
    wanted = {
        uri: one
        for uri, one in now_listed.items()
        if uri not in before and not one["value"].get("createdAt", "").startswith("2024-01")
    }
    assert len(wanted) == 2 * NEW_RECORDS + 1
    return Halves(servers, moment, as_records(wanted), both, old, new)


async def run_since(folder: Path, halves: Halves, fetch: str) -> tuple[Records, dict[str, int]]:
    """Rows and the bytes of each repo, of a range that begins at the moment."""
    path = write_config(
        folder,
        halves.servers.plc_url,
        halves.dids,
        name=f"range_{fetch}",
        record_types=["app.bsky.*", "com.example.*"],
        time_range={"start_date": text_of(halves.moment)},
        processing={"fetch": fetch, "since_slack_days": 0},
    )
    with opened(path) as state:
        came = await run_all(state)
        assert came.outcomes == dict.fromkeys(halves.dids, "complete")
        assert verify_backfill(state) == []
        sizes = {did: result.repo_bytes for did, result in results(state, came).items()}
        return as_written(parquet_rows(state)), sizes


async def test_a_range_fetched_in_full_has_what_was_written_in_it(folder: Path, halves: Halves) -> None:
    halves.servers.take_get_repos()
    rows, _ = await run_since(folder, halves, "full")
    assert rows == halves.wanted
    assert all("since" not in asked for asked in halves.servers.take_get_repos())


async def test_a_partial_fetch_gives_the_same_rows(folder: Path, halves: Halves) -> None:
    _, whole = await run_since(folder, halves, "full")
    halves.servers.take_get_repos()
    rows, sizes = await run_since(folder, halves, "auto")
    assert rows == halves.wanted
    assert all("since" in asked for asked in halves.servers.take_get_repos()[:3])
    assert sizes[halves.old.did] < 100  # the header alone: nothing since
    assert sizes[halves.new.did] == whole[halves.new.did]


async def test_a_partial_fetch_is_smaller_and_its_signature_checked(folder: Path, halves: Halves) -> None:
    path = write_config(
        folder,
        halves.servers.plc_url,
        halves.dids,
        record_types=["app.bsky.*"],
        time_range={"start_date": text_of(halves.moment)},
        processing={"since_slack_days": 0},
    )
    with opened(path) as state:
        came = await run_all(state)
        items = results(state, came)
    xrpc = Xrpc(halves.servers.pds_url)
    for did in halves.dids:
        latest = xrpc.get("com.atproto.sync.getLatestCommit", did=did)
        assert (items[did].commit_cid, items[did].rev) == (latest["cid"], latest["rev"])
    # The third account has written nothing before: what is newer is all of its repo.
    seen = [items[did].records_seen_by_collection for did in halves.dids]
    assert seen == [None, None, {"app.bsky.feed.post": NEW_RECORDS}]
    assert [items[did].signature_checked for did in halves.dids] == [True, False, True]
    assert [items[did].records_by_type for did in halves.dids] == [{"post": NEW_RECORDS}, {}, {"post": NEW_RECORDS}]
    _, whole = await run_since(folder, halves, "full")
    assert items[halves.both.did].repo_bytes < whole[halves.both.did] / 3


async def test_a_range_that_has_not_begun_is_complete_without_rows(folder: Path, halves: Halves) -> None:
    tomorrow = text_of(now() + timedelta(days=1))
    changes = {"time_range": {"start_date": tomorrow}, "processing": {"since_slack_days": 0}}
    with opened(write_config(folder, halves.servers.plc_url, halves.dids, **changes)) as state:
        came = await run_all(state)
        assert came.outcomes == dict.fromkeys(halves.dids, "complete")
        assert came.rows == {}
        assert verify_backfill(state) == []


async def test_a_new_record_with_an_old_block_is_not_lost(folder: Path, servers: ReferenceServers) -> None:
    account, same = Account(servers, "same-twice"), {"text": "without a date: its key says when it was written"}
    account.create(THING, same)
    start = text_of(a_moment_between())
    uri = account.create(THING, same)["uri"]
    changes = {"time_range": {"start_date": start}, "processing": {"since_slack_days": 0}}
    path = write_config(folder, servers.plc_url, [account.did], record_types=["com.example.*"], **changes)
    with opened(path) as state:
        await run_all(state)
        assert [row["uri"] for row in parquet_rows(state)] == [uri]
