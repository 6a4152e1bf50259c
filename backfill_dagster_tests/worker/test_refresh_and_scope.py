"""What a refresh and a change of scope do to rows; accounts that move, change their key, or lose their directory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from backfill_dagster.localnet import Fault, LocalNetwork
from backfill_dagster_tests.road import expected_rows, rows_by_author, run_all
from backfill_dagster_tests.worker.tiny import (
    Rows,
    assert_sound,
    fold_of,
    rows_in,
    state_of,
    tiny,
)

POST = "app.bsky.feed.post"


async def fresh_rows(folder: Path, network: LocalNetwork, name: str = "fresh", **changes: Any) -> Rows:
    """What a backfill that has never run before has with this config."""
    with state_of(folder, network, name=name, **changes) as state:
        await run_all(state)
        assert_sound(state)
        return rows_in(state)


async def test_a_refresh_has_exactly_the_rows_of_now(folder: Path) -> None:
    async with tiny(repos=4) as network:
        adds, edits, deletes, _same = network.dids
        record = {"collection": POST, "record": {"text": "first"}}
        edited = await network.control.add({"did": edits, "records": [record]})
        with state_of(folder, network) as state:
            await run_all(state)
            before = rows_in(state)
            await network.control.add({"did": adds, "records": [record, record]})
            rkey = edited["uris"][0].rpartition("/")[2]
            await network.control.edit({"did": edits, "collection": POST, "rkey": rkey, "record": {"text": "second"}})
            doomed = sorted(uri for uri, _, _ in before if uri.startswith(f"at://{deletes}/"))[:3]
            await network.control.delete({"did": deletes, "keys": [uri.split("/", 3)[3] for uri in doomed]})

            assert (await run_all(state)).done.results == {}, "no refresh, no work"
            came = await run_all(state, refresh=True)
            changed = dict.fromkeys((adds, edits, deletes), "complete")
            assert came.outcomes == dict.fromkeys(network.dids, "unchanged") | changed
            assert {one.refresh for one, _ in fold_of(state).dids.values()} == {1}
            now = rows_in(state)
            assert now == await fresh_rows(folder, network)
            assert len(now - before) == 3
            assert len(before - now) == 3 + 1
            assert rows_by_author(state.config) == expected_rows(network)
            assert came.rows == {t: sum(r.get(t, 0) for r in expected_rows(network).values()) for t in came.rows}
            assert_sound(state)
            assert (await run_all(state)).done.results == {}, "answered"


async def test_a_refresh_that_ends_without_a_repo_keeps_the_rows(folder: Path) -> None:
    async with tiny(repos=3) as network:
        did = network.dids[0]
        with state_of(folder, network) as state:
            await run_all(state)
            before, whole = rows_in(state), fold_of(state).dids[did][0]
            await network.control.status({"did": did, "status": "deactivated"})
            came = await run_all(state, refresh=True)
            assert came.outcomes[did] == "deactivated"
            result = fold_of(state).dids[did][0]
            assert (result.rev, result.last_complete_rev) == (None, whole.rev)
            assert result.records_by_type == whole.records_by_type
            assert result.rows_scope == whole.scope
            assert rows_in(state) == before
            assert_sound(state)

            await network.set_faults([Fault(kind="status", status=500, did=did)])
            await network.control.status({"did": did, "status": "active"})
            came = await run_all(state, refresh=True)
            assert came.outcomes[did] == "http_error"
            assert rows_in(state) == before
            assert fold_of(state).dids[did][0].last_complete_rev == whole.rev
            assert_sound(state)

            await network.set_faults([])
            await network.control.add({"did": did, "records": [{"collection": POST, "record": {"text": "back"}}]})
            came = await run_all(state)
            assert came.outcomes[did] == "complete"
            assert len(rows_in(state)) == len(before) + 1
            assert rows_by_author(state.config) == expected_rows(network)
            assert_sound(state)


async def test_what_a_refresh_tries_again(folder: Path) -> None:
    states = {"deactivated": 1, "suspended": 1, "takendown": 1, "deleted": 1}
    async with tiny(repos=5, states=states) as network:
        with state_of(folder, network) as state:
            first = await run_all(state)
            assert len(set(first.outcomes.values())) == 5
            again = await run_all(state, refresh=True)
            assert [result.numbers.dids_total for result in again.done.results.values()] == [5]
            found = {did: outcome.replace("complete", "unchanged") for did, outcome in first.outcomes.items()}
            assert again.outcomes == found
            assert_sound(state)


RANGE = {"time_range": {"start_date": "2024-06-01", "end_date": "2025-06-30"}}
FEWER = {"record_types": ["app.bsky.feed.like"]}
MORE = {"record_types": ["app.bsky.*", "chat.bsky.*", "com.whtwnd.*"]}


@pytest.mark.parametrize("change", [FEWER, MORE, RANGE, FEWER | RANGE], ids=["fewer", "more", "range", "both"])
async def test_a_change_of_scope_is_as_if_it_had_always_been_so(folder: Path, change: Mapping[str, Any]) -> None:
    async with tiny(repos=4, median=25) as network:
        with state_of(folder, network) as state:
            await run_all(state)
            old_scope = fold_of(state).dids[network.dids[0]][0].scope
        with state_of(folder, network, **change) as state:
            came = await run_all(state)
            assert set(came.outcomes.values()) == {"complete"}
            assert {one.scope for one, _ in fold_of(state).dids.values()} != {old_scope}
            rows = rows_in(state)
            assert rows == await fresh_rows(folder, network, **change)
            assert rows
            assert_sound(state)
        with state_of(folder, network) as state:
            await run_all(state)
            assert rows_by_author(state.config) == expected_rows(network)
            assert rows_in(state) != rows
            assert_sound(state)


async def test_filters_from_lists(folder: Path) -> None:
    async with tiny(repos=4, median=40) as network:
        with state_of(folder, network) as state:
            await run_all(state)
            likes = sorted(uri for uri, _, kind in rows_in(state) if kind == "like")
        wanted = folder / "likes.csv"
        wanted.write_text("uri\n" + "\n".join(likes[::3]) + "\n")
        narrowed = {
            "record_types": ["app.bsky.feed.like", "app.bsky.graph.follow"],
            "filters": [{"record_type": "app.bsky.feed.like", "source": {"type": "file", "path": str(wanted)}}],
        }
        with state_of(folder, network, **narrowed) as state:
            await run_all(state)
            rows = rows_in(state)
            assert sorted(uri for uri, _, kind in rows if kind == "like") == likes[::3]
            assert rows == await fresh_rows(folder, network, **narrowed)
            assert_sound(state)
            assert (await run_all(state)).done.results == {}
        wanted.write_text("uri\n" + "\n".join(likes[::2]) + "\n")
        with state_of(folder, network, **narrowed) as state:
            came = await run_all(state)
            assert len(came.done.results) == 1, "another list is another scope"
            assert sorted(uri for uri, _, kind in rows_in(state) if kind == "like") == likes[::2]
            assert_sound(state)


async def test_a_new_scope_that_fails_for_now_keeps_the_old_rows_until_it_ends(folder: Path) -> None:
    async with tiny(repos=2) as network:
        did = network.dids[0]
        with state_of(folder, network) as state:
            await run_all(state)
            before = {row for row in rows_in(state) if row[0].startswith(f"at://{did}/")}
            old_scope = fold_of(state).dids[did][0].scope
        await network.set_faults([Fault(kind="status", status=500, did=did)])
        with state_of(folder, network, **FEWER) as state:
            came = await run_all(state)
            assert came.outcomes[did] == "http_error"
            assert {row for row in rows_in(state) if row[0].startswith(f"at://{did}/")} == before
            assert fold_of(state).dids[did][0].rows_scope == old_scope
            assert_sound(state)
            await network.set_faults([])
            await run_all(state)
            assert rows_in(state) == await fresh_rows(folder, network, **FEWER)
            assert_sound(state)
