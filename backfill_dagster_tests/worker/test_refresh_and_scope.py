"""What a refresh and a change of scope do to rows; accounts that move, change their key, or lose their directory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from backfill_dagster.localnet import Fault, LocalNetwork
from backfill_dagster.localnet.did_documents import did_document
from backfill_dagster.model import Outcome
from backfill_dagster.worker.planning import plan_backfill
from backfill_dagster_tests.road import expected_rows, rows_by_author, run_all
from backfill_dagster_tests.worker.tiny import (
    Rows,
    assert_sound,
    fold_of,
    item_of,
    only_shard,
    rows_in,
    shard_keys,
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
            assert set(came.outcomes.values()) == {"complete"}
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
            assert again.outcomes == first.outcomes
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


async def test_a_moved_account_takes_its_rows_along(folder: Path) -> None:
    async with tiny(repos=6, hosts=2) as network:
        did = network.dids[0]
        old, new = (next(k for k in network.hosts if (did in k.dids) is there).url for there in (True, False))
        with state_of(folder, network) as state:
            await run_all(state)
            before = rows_in(state)
            old_key = next(key for key in shard_keys(state) if key.startswith(f"localhost_{old.rpartition(':')[2]}"))
            new_key = next(key for key in shard_keys(state) if key.startswith(f"localhost_{new.rpartition(':')[2]}"))
            await network.control.move({"did": did, "to": new})

            came = await run_all(state, refresh=True)
            assert came.outcomes[did] == "moved"
            result = fold_of(state, old_key).dids[did][0]
            assert result.error_code == "Moved"
            assert new in (result.error_detail or "")
            assert rows_in(state) == before, "its old rows are all there is, until the new host has served it"
            assert_sound(state)

            await network.set_faults([Fault(kind="status", status=500, did=did)])
            came = await run_all(state)
            assert came.planned.rerouted == 1
            assert came.outcomes[did] == "http_error"
            assert rows_in(state) == before
            assert_sound(state)

            await network.set_faults([])
            came = await run_all(state)
            assert came.outcomes[did] == "complete"
            assert rows_in(state) == before
            assert rows_by_author(state.config) == expected_rows(network)
            assert came.rows == {t: sum(rows.get(t, 0) for rows in expected_rows(network).values()) for t in came.rows}
            assert fold_of(state, old_key).dids[did][0].records_total == 0
            assert item_of(state, did, new_key).result.outcome is Outcome.COMPLETE
            assert_sound(state)
            assert (await run_all(state)).done.results == {}


async def test_several_that_moved_are_let_go_batch_by_batch(folder: Path) -> None:
    async with tiny(repos=4, hosts=2) as network:
        with state_of(folder, network, identity={"cache_days": 0}, processing={"batch_size": 1}) as state:
            await run_all(state)
            before = rows_in(state)
            for did in network.hosts[0].dids:
                await network.control.move({"did": did, "to": 1})
            came = await run_all(state, refresh=True)
            assert came.planned.rerouted == 2
            assert set(came.outcomes.values()) == {"complete"}
            assert rows_in(state) == before
            assert_sound(state)
            assert (await run_all(state)).done.results == {}


async def test_moved_to_where_we_do_not_go(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with tiny(repos=1) as network:
        did = network.dids[0]
        with state_of(folder, network) as state:
            await run_all(state)
            before = rows_in(state)
            await network.control.status({"did": did, "status": "deactivated"})
            monkeypatch.setattr(network.world, "document", lambda one: did_document(one, "ftp://example.com"))
            assert (await run_all(state, refresh=True)).outcomes[did] == "moved"
            came = await run_all(state)
            assert came.outcomes[did] == "refused_host"
            assert rows_in(state) == before
            assert_sound(state)


@pytest.mark.parametrize(
    ("fault", "outcome", "code"),
    [
        ({"kind": "flood", "bytes": 2 * 1024 * 1024}, "unresolvable", "TooLarge"),
        ({"kind": "html"}, "http_error", "IdentityUnavailable"),
    ],
    ids=["flood", "html"],
)
async def test_a_directory_that_talks_nonsense_when_the_host_refuses(
    folder: Path, fault: dict[str, Any], outcome: str, code: str
) -> None:
    async with tiny(repos=1) as network:
        did = network.dids[0]
        with state_of(folder, network) as state:
            await plan_backfill(state, run_id="plan")
            await network.control.status({"did": did, "status": "deactivated"})
            await network.set_faults([Fault(host="plc", **fault)])
            assert (await run_all(state)).outcomes[did] == outcome
            assert fold_of(state).dids[did][0].error_code == code
            assert_sound(state)


async def test_an_account_that_moved_and_came_back(folder: Path) -> None:
    async with tiny(repos=4, hosts=2) as network:
        did = network.dids[0]
        old = next(host.url for host in network.hosts if did in host.dids)
        new = next(host.url for host in network.hosts if did not in host.dids)
        with state_of(folder, network) as state:
            await run_all(state)
            for there in (new, old):
                await network.control.move({"did": did, "to": there})
                post = {"collection": POST, "record": {"text": f"from {there}"}}
                await network.control.add({"did": did, "records": [post]})
                assert (await run_all(state, refresh=True)).outcomes[did] == "moved"
                assert (await run_all(state)).outcomes[did] == "complete"
                assert rows_by_author(state.config) == expected_rows(network)
                assert_sound(state)


async def test_an_account_that_came_back_before_the_next_plan(folder: Path) -> None:
    async with tiny(repos=2, hosts=2) as network:
        did = network.dids[0]
        old = next(host.url for host in network.hosts if did in host.dids)
        new = next(host.url for host in network.hosts if did not in host.dids)
        with state_of(folder, network) as state:
            await run_all(state)
            await network.control.move({"did": did, "to": new})
            assert (await run_all(state, refresh=True)).outcomes[did] == "moved"
            await network.control.move({"did": did, "to": old})
            came = await run_all(state)
            assert (came.planned.rerouted, came.outcomes[did]) == (0, "complete")
            assert rows_by_author(state.config) == expected_rows(network)
            assert_sound(state)


async def test_deactivated_where_it_was_and_alive_elsewhere_is_moved(folder: Path) -> None:
    """As the protocol has it: a migrated account stays at its old host, deactivated."""
    async with tiny(repos=2, hosts=2) as network:
        did = network.dids[0]
        account = network.account(did)
        with state_of(folder, network) as state:
            await network.control.status({"did": did, "status": "deactivated"})
            await plan_backfill(state, run_id="plan")
            account.named_host = 1 - account.host
            came = await run_all(state)
            assert came.outcomes[did] == "moved"
            account.host = account.named_host
            await network.control.status({"did": did, "status": "active"})
            assert (await run_all(state)).outcomes[did] == "complete"
            assert_sound(state)


@pytest.mark.parametrize("spelling", [lambda url: url.replace("localhost", "LocalHost"), lambda url: f"{url}//"])
async def test_an_origin_that_is_written_differently_is_no_move(
    folder: Path, spelling: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with tiny(repos=2, states={"deactivated": 1}) as network:
        world = network.world
        monkeypatch.setattr(world, "document", lambda one: did_document(one, spelling(world.host_urls[one.named_host])))
        with state_of(folder, network) as state:
            for _ in range(2):
                came = await run_all(state)
                assert sorted(came.outcomes.values()) == ["complete", "deactivated"]
                assert came.planned.rerouted == 0
                assert_sound(state)


async def test_a_directory_that_is_down_when_the_host_refuses(folder: Path) -> None:
    """What the host says can't be judged without the document: tried again, not believed."""
    async with tiny(repos=3) as network:
        did = network.dids[1]
        with state_of(folder, network) as state:
            await run_all(state)
            await network.control.status({"did": did, "status": "deactivated"})
            await network.set_faults([Fault(kind="down", host="plc")])
            came = await run_all(state, refresh=True)
            result = fold_of(state).dids[did][0]
            assert (came.outcomes[did], result.error_code) == ("http_error", "IdentityUnavailable")
            assert_sound(state)
            await network.set_faults([])
            assert (await run_all(state)).outcomes[did] == "deactivated"
            await network.control.status({"did": did, "status": "active"})
            assert (await run_all(state, refresh=True)).outcomes[did] == "complete"
            assert_sound(state)


@pytest.mark.parametrize("identity", ["tombstoned", "unknown", "no_pds"])
async def test_an_identity_that_is_gone_when_the_host_refuses(folder: Path, identity: str) -> None:
    async with tiny(repos=2) as network:
        did = network.dids[1]
        with state_of(folder, network) as state:
            await run_all(state)
            before = rows_in(state)
            await network.control.status({"did": did, "status": "deleted"})
            await network.control.status({"did": did, "status": identity})
            came = await run_all(state, refresh=True)
            assert came.outcomes[did] == "unresolvable"
            assert rows_in(state) == before
            assert_sound(state)


async def test_the_plans_key_still_fits(folder: Path) -> None:
    """A key that is new in the document and hasn't signed yet: nobody has to be asked."""
    async with tiny(repos=1) as network:
        with state_of(folder, network) as state:
            await plan_backfill(state, run_id="plan")
            await network.control.rotate_key({"did": network.dids[0], "sign_again": False})
            before = sum(network.requests()[network.plc_url].values())
            assert set((await run_all(state)).outcomes.values()) == {"complete"}
            assert sum(network.requests()[network.plc_url].values()) == before


@pytest.mark.parametrize("signed", [True, False])
async def test_a_key_that_was_rotated_after_the_plan(folder: Path, signed: bool) -> None:
    async with tiny(repos=2) as network:
        did = network.dids[0]
        with state_of(folder, network) as state:
            await plan_backfill(state, run_id="plan")
            await network.control.rotate_key({"did": did})
            if not signed:
                await network.control.rotate_key({"did": did, "sign_again": False})
            before = sum(network.requests()[network.plc_url].values())
            came = await run_all(state)
            result = fold_of(state).dids[did][0]
            assert came.outcomes[did] == ("complete" if signed else "invalid_repo")
            assert result.signature_checked is signed
            assert sum(network.requests()[network.plc_url].values()) == before + 1
            assert_sound(state)


async def test_a_bad_signature_of_an_account_that_lives_elsewhere_is_moved(folder: Path) -> None:
    """The old host may go on serving what it has, signed by a key that is no longer the account's."""
    async with tiny(repos=2, hosts=2) as network:
        did = network.dids[0]
        with state_of(folder, network) as state:
            await plan_backfill(state, run_id="plan")
            await network.control.rotate_key({"did": did, "sign_again": True})
            network.account(did).named_host = 1 - network.account(did).host
            came = await run_all(state)
            assert came.outcomes[did] == "moved"
            assert_sound(state)


async def test_the_directory_is_down_when_a_signature_fails(folder: Path) -> None:
    async with tiny(repos=1) as network:
        did = network.dids[0]
        with state_of(folder, network) as state:
            await plan_backfill(state, run_id="plan")
            await network.control.rotate_key({"did": did, "sign_again": True})
            await network.set_faults([Fault(kind="down", host="plc")])
            assert (await run_all(state)).outcomes[did] == "http_error"
            assert fold_of(state, only_shard(state)).dids[did][0].error_code == "IdentityUnavailable"
            await network.set_faults([])
            assert (await run_all(state)).outcomes[did] == "complete"
            assert_sound(state)
