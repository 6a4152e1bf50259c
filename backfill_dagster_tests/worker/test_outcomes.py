"""Every outcome but `unchanged` and `purged`, each provoked over real HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from backfill_dagster.localnet import Fault, LocalnetOptions, LocalNetwork
from backfill_dagster.model import UNROUTABLE_SHARD
from backfill_dagster.report import verify_backfill
from backfill_dagster_tests.net.virtual_time import InstantTime
from backfill_dagster_tests.road import opened, run_all, write_config

STATES = {
    "deactivated": 1,
    "suspended": 1,
    "takendown": 1,
    "deleted": 1,
    "moved": 1,
    "web": 1,
    "tombstoned": 1,
    "unknown": 1,
    "no_pds": 1,
    "other_method": 1,
    "not_a_did": 2,
}


@pytest.fixture
def options() -> LocalnetOptions:
    return LocalnetOptions(hosts=2, repos=16, seed=3, median_records=20, max_records=60, states=STATES)


async def test_each_account_state_has_its_outcome(folder: Path, options: LocalnetOptions) -> None:
    async with LocalNetwork(options) as network:
        with opened(write_config(folder, network.plc_url, network.dids)) as state:
            first = await run_all(state)
            expected = {did: entry["outcome"] for did, entry in network.expected.items()}
            moved = [did for did, outcome in first.outcomes.items() if outcome == "moved"]
            assert len(moved) == 1
            assert {d: o for d, o in first.outcomes.items() if d not in moved} == {
                d: o for d, o in expected.items() if d not in moved
            }
            again = await run_all(state)
            assert again.outcomes == expected
            assert again.planned.rerouted == 1
            assert set(expected.values()) == {
                "complete",
                "deactivated",
                "suspended",
                "taken_down",
                "not_found",
                "unresolvable",
                "invalid_did",
            }
            assert verify_backfill(state) == []


async def one_did(folder: Path, network: LocalNetwork, did: str, **changes: object) -> tuple[str, str]:
    """Outcome and error code of a run over one DID."""
    with opened(write_config(folder, network.plc_url, [did], **changes), InstantTime().effects()) as state:
        came = await run_all(state)
        shard = next(iter(came.planned.plan.shards()), UNROUTABLE_SHARD)
        item = state.ledger.item(shard, did)
        assert item is not None
        assert verify_backfill(state) == []
        return item.result.outcome.value, item.result.error_code or ""


@pytest.mark.parametrize(
    ("fault", "outcome", "code"),
    [
        ({"kind": "flip_byte"}, "invalid_repo", None),
        ({"kind": "truncate_body"}, "invalid_repo", None),
        ({"kind": "wrong_repo"}, "invalid_repo", "DidMismatch"),
        ({"kind": "status", "status": 500}, "http_error", "ServerFault"),
        ({"kind": "malformed_json"}, "http_error", "ServerFault"),
        ({"kind": "reset"}, "pending", "HostDown"),
        ({"kind": "truncate_chunked"}, "pending", "HostDown"),
        ({"kind": "truncate_gzip"}, "http_error", "Network"),
        ({"kind": "status", "status": 503}, "pending", "HostDown"),
        ({"kind": "down"}, "pending", "HostDown"),
        ({"kind": "rate_limit_html"}, "pending", "RateLimited"),
        ({"kind": "rate_limit", "seconds": 5}, "pending", "RateLimited"),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else None,
)
async def test_a_faulty_answer(folder: Path, fault: dict[str, Any], outcome: str, code: str | None) -> None:
    async with LocalNetwork(LocalnetOptions(hosts=1, repos=2, seed=5, median_records=20, states={})) as network:
        did = network.active[0]
        await network.set_faults([Fault(**fault, host=0)])
        came, said = await one_did(folder, network, did)
        assert came == outcome
        assert code is None or said == code


async def test_a_did_whose_neighbours_are_served_is_an_http_error(folder: Path) -> None:
    async with LocalNetwork(LocalnetOptions(hosts=1, repos=3, seed=5, median_records=20, states={})) as network:
        bad = network.dids[0]
        await network.set_faults([Fault(kind="reset", did=bad)])
        with opened(write_config(folder, network.plc_url, network.dids), InstantTime().effects()) as state:
            came = await run_all(state)
            assert came.outcomes == {did: "http_error" if did == bad else "complete" for did in network.dids}
            await network.set_faults([])
            came = await run_all(state)
            assert set(came.outcomes.values()) == {"complete"}


async def test_too_large(folder: Path) -> None:
    options = LocalnetOptions(hosts=1, repos=1, seed=5, median_records=8000, max_records=8000, states={})
    async with LocalNetwork(options) as network:
        outcome, code = await one_did(folder, network, network.active[0], processing={"max_repo_mib": 1})
        assert (outcome, code) == ("too_large", "TooLarge")


async def test_refused_host_by_address(folder: Path) -> None:
    async with LocalNetwork(LocalnetOptions(hosts=1, repos=1, seed=5, median_records=9, states={})) as network:
        outcome, _ = await one_did(folder, network, network.active[0], processing={"allow_private_hosts": False})
        assert outcome == "refused_host"


async def test_a_directory_that_is_down_leaves_dids_pending_until_it_is_back(folder: Path) -> None:
    async with LocalNetwork(LocalnetOptions(hosts=1, repos=3, seed=5, median_records=9, states={})) as network:
        await network.set_faults([Fault(kind="down", host="plc")])
        with opened(write_config(folder, network.plc_url, network.dids), InstantTime().effects()) as state:
            came = await run_all(state)
            assert came.planned.unresolved == 3
            assert set(came.outcomes.values()) == {"pending"}
            assert came.planned.plan.shards() == {}
            await network.set_faults([])
            came = await run_all(state)
            assert set(came.outcomes.values()) == {"complete"}
            assert came.planned.unroutable == {}
            assert verify_backfill(state) == []
