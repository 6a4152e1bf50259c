"""What becomes of an account that is not simply there: gone, hidden, or under another key than the document says."""

from __future__ import annotations

from pathlib import Path

import pytest

from backfill_dagster.report import verify_backfill
from backfill_dagster.worker.planning import plan_backfill
from backfill_dagster_tests.reference.accounts import Account, Xrpc, admin, move, take_down
from backfill_dagster_tests.reference.judge import as_records, as_written, listed_values, parquet_rows, results
from backfill_dagster_tests.reference.servers import ReferenceServers
from backfill_dagster_tests.reference.writes import THING
from backfill_dagster_tests.road import opened, run_all, write_config

NEVER_MADE = "did:plc:" + "a" * 24


def new_account(servers: ReferenceServers, name: str) -> Account:
    account = Account(servers, name)
    account.create(THING, {"of": name})
    return account


def config_for(folder: Path, servers: ReferenceServers, dids: list[str]) -> Path:
    return write_config(folder, servers.plc_url, dids, record_types=["com.example.*"])


async def test_accounts_that_are_gone_or_hidden(folder: Path, servers: ReferenceServers) -> None:
    names = ("there", "deactivated", "hidden", "deleted", "ended")
    accounts = {name: new_account(servers, name) for name in names}
    accounts["deactivated"].xrpc.post("com.atproto.server.deactivateAccount", {})
    take_down(servers, {"did": accounts["hidden"].did})
    admin(servers).post("com.atproto.admin.deleteAccount", {"did": accounts["deleted"].did})
    servers.tombstone(accounts["ended"].did)
    outcomes = {
        accounts["there"].did: "complete",
        accounts["deactivated"].did: "deactivated",
        accounts["hidden"].did: "taken_down",
        accounts["deleted"].did: "not_found",
        accounts["ended"].did: "unresolvable",
        NEVER_MADE: "unresolvable",
        "did:plc:too-short": "invalid_did",
    }
    with opened(config_for(folder, servers, list(outcomes))) as state:
        came = await run_all(state)
        assert came.outcomes == outcomes
        assert came.rows == {THING: 1}
        codes = {did: result.error_code for did, result in results(state, came).items()}
        assert verify_backfill(state) == []
    assert codes == {
        accounts["there"].did: None,
        accounts["deactivated"].did: "RepoDeactivated",
        accounts["hidden"].did: "RepoTakendown",
        accounts["deleted"].did: "RepoNotFound",
    }


async def test_an_account_that_comes_back_is_there_after_a_refresh(folder: Path, servers: ReferenceServers) -> None:
    account = new_account(servers, "back")
    account.xrpc.post("com.atproto.server.deactivateAccount", {})
    with opened(config_for(folder, servers, [account.did])) as state:
        assert (await run_all(state)).outcomes == {account.did: "deactivated"}
        account.xrpc.post("com.atproto.server.activateAccount")
        assert (await run_all(state)).outcomes == {account.did: "deactivated"}
        came = await run_all(state, refresh=True)
        assert (came.outcomes, came.rows) == ({account.did: "complete"}, {THING: 1})


@pytest.mark.parametrize("curve", ["k256", "p256"])
async def test_a_key_rotated_after_the_plan_is_looked_up_again(
    folder: Path, servers: ReferenceServers, curve: str
) -> None:
    account = new_account(servers, f"rotated-{curve}")
    with opened(config_for(folder, servers, [account.did])) as state:
        await run_all(state)
        key = servers.rotate_key(account.did, curve)
        account.create(THING, {"signed": curve})
        # The document in the identity cache still has the old key.
        came = await run_all(state, refresh=True)
        result = results(state, came)[account.did]
        planned = came.planned.plan.dids(next(iter(came.planned.plan.shards())))
        assert planned[0].signing_key != key
        assert (result.outcome, result.signature_checked, result.records_total) == ("complete", True, 2)
        assert as_written(parquet_rows(state)) == as_records(listed_values(Xrpc(servers.pds_url), [account.did]))
        assert verify_backfill(state) == []


async def test_a_commit_that_the_published_key_has_not_signed_is_invalid(
    folder: Path, servers: ReferenceServers
) -> None:
    account = new_account(servers, "unsigned")
    servers.publish_foreign_key(account.did)
    with opened(config_for(folder, servers, [account.did])) as state:
        came = await run_all(state)
        result = results(state, came)[account.did]
        assert (result.outcome, result.signature_checked) == ("invalid_repo", False)
        assert "signature" in (result.error_detail or "")
        assert came.rows == {}
        assert verify_backfill(state) == []


@pytest.mark.parametrize("when", ["before its first fetch", "after it was complete"])
async def test_an_account_that_moved_is_found_at_its_new_host(
    folder: Path, servers: ReferenceServers, when: str
) -> None:
    account = new_account(servers, f"moved-{when.split()[0]}")
    stays = new_account(servers, f"stays-{when.split()[0]}")
    dids = [account.did, stays.did]
    with opened(config_for(folder, servers, dids)) as state:
        if when == "after it was complete":
            await run_all(state)
        else:
            await plan_backfill(state, run_id="plan")
        move(servers, account, servers.second_pds())
        account.create(THING, {"written": "at the new host"})
        first = await run_all(state, refresh=when == "after it was complete")
        nothing_new = "unchanged" if when == "after it was complete" else "complete"
        assert first.outcomes == {account.did: "moved", stays.did: nothing_new}
        came = await run_all(state)
        assert came.outcomes == {account.did: "complete", stays.did: nothing_new}
        result = results(state, came)[account.did]
        assert (result.pds_endpoint, result.signature_checked) == (servers.second_pds(), True)
        listed = listed_values(account.xrpc, [account.did]) | listed_values(stays.xrpc, [stays.did])
        assert as_written(parquet_rows(state)) == as_records(listed)
        assert came.rows == {THING: 3}
        assert verify_backfill(state) == []
