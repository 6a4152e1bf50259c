"""Accounts that move, lose their host or change their key between plan and run: whom the worker believes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from backfill_dagster.localnet import Fault
from backfill_dagster.localnet.did_documents import did_document
from backfill_dagster.model import Outcome
from backfill_dagster.worker.planning import plan_backfill
from backfill_dagster_tests.road import expected_rows, rows_by_author, run_all
from backfill_dagster_tests.worker.tiny import (
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
            stayed = {did: "unchanged" for did in network.hosts[1].dids if came.outcomes[did] == "unchanged"}
            assert came.outcomes == dict.fromkeys(network.dids, "complete") | stayed
            assert len(stayed) == 2
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
            assert (await run_all(state, refresh=True)).outcomes[did] == "unchanged"
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
