"""A time range with `fetch: auto` asks for less than the whole repo and has the same rows; how little is believed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from backfill_dagster.config import load_config
from backfill_dagster.localnet import Fault, LocalNetwork
from backfill_dagster.worker.repo import synthetic_since
from backfill_dagster_tests.road import run_all, write_config
from backfill_dagster_tests.worker.tiny import Rows, assert_sound, fold_of, rows_in, state_of, tiny

LATE = {"start_date": "2025-09-01", "end_date": "2025-12-31"}
AFTER_ALL = {"start_date": "2026-06-01"}
LATEST_COMMIT = "com.atproto.sync.getLatestCommit"


async def fetched(folder: Path, network: LocalNetwork, fetch: str, **changes: Any) -> tuple[Rows, int, dict[str, int]]:
    """Rows, bytes on the wire, DID -> rows."""
    processing = changes.pop("processing", {}) | {"fetch": fetch}
    with state_of(folder, network, name=f"by_{fetch}", processing=processing, **changes) as state:
        came = await run_all(state)
        assert set(came.outcomes.values()) == {"complete"}
        assert_sound(state)
        size = sum(result.numbers.bytes_fetched for result in came.done.results.values())
        return rows_in(state), size, {did: one.records_total for did, (one, _) in fold_of(state).dids.items()}


@pytest.mark.parametrize("verify", ["full", "structure", "off"])
async def test_the_same_rows_for_fewer_bytes(folder: Path, verify: str) -> None:
    async with tiny(repos=5, median=50) as network:
        options = {"time_range": LATE, "processing": {"verify": verify}}
        some, few_bytes, counts = await fetched(folder, network, "auto", **options)
        whole, all_bytes, _ = await fetched(folder, network, "full", **options)
        assert some == whole
        assert some
        assert few_bytes < all_bytes / 2
        assert sum(counts.values()) == len(some)


async def test_what_is_said_of_a_part_of_a_repo(folder: Path) -> None:
    async with tiny(repos=2, median=50) as network:
        for fetch in ("auto", "full"):
            with state_of(folder, network, name=f"by_{fetch}", time_range=LATE, processing={"fetch": fetch}) as state:
                await run_all(state)
                result = fold_of(state).dids[network.dids[0]][0]
                assert (result.records_seen_by_collection is None) is (fetch == "auto")
                assert result.signature_checked
                assert result.rev == result.last_complete_rev


async def test_nothing_since_is_confirmed_and_complete(folder: Path) -> None:
    async with tiny(repos=2) as network:
        with state_of(folder, network, time_range=AFTER_ALL) as state:
            came = await run_all(state)
            assert set(came.outcomes.values()) == {"complete"}
            asked = network.requests()[network.hosts[0].url]
            assert asked == {"com.atproto.sync.getRepo": 2, LATEST_COMMIT: 2}
            for did, (result, _) in fold_of(state).dids.items():
                expected = network.control.describe(did)
                assert (result.commit_cid, result.rev) == (expected["commit"], expected["rev"])
                assert result.last_complete_rev == result.rev
                assert result.records_total == 0
                assert not result.signature_checked
            assert rows_in(state) == set()
            assert_sound(state)
            (result,) = came.done.results.values()
            assert result.numbers.requests == 4


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        ({"kind": "status", "status": 500}, "http_error"),
        ({"kind": "malformed_json"}, "http_error"),
        ({"kind": "status", "status": 400, "body": '{"error":"RepoDeactivated","message":"x"}'}, "deactivated"),
    ],
    ids=["fault", "no JSON", "deactivated"],
)
async def test_nothing_since_that_is_not_confirmed(folder: Path, answer: dict[str, Any], outcome: str) -> None:
    async with tiny(repos=2) as network:
        headers = {"content-type": "application/json"}
        await network.set_faults([Fault(**answer, headers=headers, path=LATEST_COMMIT, did=network.dids[0])])
        with state_of(folder, network, time_range=AFTER_ALL) as state:
            came = await run_all(state)
            assert came.outcomes == {network.dids[0]: outcome, network.dids[1]: "complete"}
            assert_sound(state)


@pytest.mark.parametrize("said", ["another commit", "a newer rev"])
async def test_an_empty_car_that_the_latest_commit_contradicts_is_fetched_whole(folder: Path, said: str) -> None:
    """The account may just have written: whatever the reason, only the whole repo settles it."""
    async with tiny(repos=1) as network:
        did = network.dids[0]
        root = network.control.describe(did)["commit"]
        other = "bafyreib2rxk3rybk3aobmv5cjuql3bm2twh4jo5uxgf5kpqcsgz7soitae"
        latest = {"another commit": (other, "3lqzbpg2lws2x"), "a newer rev": (root, "3zzzzzzzzzzzz")}[said]
        body = json.dumps(dict(zip(("cid", "rev"), latest, strict=True)))
        headers = {"content-type": "application/json"}
        await network.set_faults(
            [Fault(kind="status", status=200, body=body, headers=headers, path=LATEST_COMMIT, host=0)]
        )
        with state_of(folder, network, time_range=AFTER_ALL) as state:
            assert (await run_all(state)).outcomes == {did: "complete"}
            (result, _) = fold_of(state).dids[did]
            assert (result.commit_cid, result.signature_checked) == (root, True)
            assert network.requests()[network.hosts[0].url] == {"com.atproto.sync.getRepo": 2, LATEST_COMMIT: 1}
            assert_sound(state)


async def test_rows_of_before_are_gone_when_nothing_is_since(folder: Path) -> None:
    async with tiny(repos=2) as network:
        with state_of(folder, network) as state:
            await run_all(state)
            assert rows_in(state)
        with state_of(folder, network, time_range=AFTER_ALL) as state:
            await run_all(state)
            assert rows_in(state) == set()
            assert state.store.list("records/") == []
            assert_sound(state)


def given_cars(network: LocalNetwork, folder: Path) -> tuple[Path, ...]:
    """The network's repos as CAR files with their documents: served whole, whatever `since` says."""
    paths = []
    for number, did in enumerate(network.dids):
        path = folder / f"{number}.repo.car"
        path.write_bytes(network.world.shelf.get(did).car())
        document = network.world.document(network.account(did))
        (folder / f"{number}.did.json").write_text(json.dumps(document))
        paths.append(path)
    return tuple(paths)


@pytest.mark.parametrize("time_range", [LATE, AFTER_ALL], ids=["some", "none"])
async def test_hosts_that_know_no_since(folder: Path, time_range: dict[str, str]) -> None:
    async with tiny(repos=3, median=40) as network:
        cars = given_cars(network, folder)
        expected, _, _ = await fetched(folder, network, "full", time_range=time_range)
    async with tiny(repos=0, cars=cars) as network:
        with state_of(folder, network, time_range=time_range) as state:
            came = await run_all(state)
            assert set(came.outcomes.values()) == {"complete"}
            assert {one.signature_checked for one, _ in fold_of(state).dids.values()} == {True}
            assert rows_in(state) == expected
            assert_sound(state)


async def test_an_old_repo_with_blocks_missing_is_no_answer_to_since(folder: Path) -> None:
    """Older than asked for, and not whole: neither the answer to `since` nor a repo."""
    async with tiny(repos=1, median=40) as network:
        await network.set_faults([Fault(kind="truncate_body", host=0)])
        with state_of(folder, network, time_range=LATE) as state:
            assert set((await run_all(state)).outcomes.values()) == {"invalid_repo"}
            assert rows_in(state) == set()
            assert_sound(state)


@pytest.mark.parametrize(
    ("time_range", "processing", "expected"),
    [
        (None, {}, None),
        ({"end_date": "2025-01-01"}, {}, None),
        ({"start_date": "2025-01-08"}, {"fetch": "full"}, None),
        ({"start_date": "2025-01-08"}, {}, "3lenax2ss2222"),
        ({"start_date": "2025-01-01"}, {"since_slack_days": 0}, "3lenax2ss2222"),
        ({"start_date": "1970-01-03"}, {}, None),
    ],
)
def test_the_rev_that_is_asked_for(
    folder: Path, time_range: dict[str, str] | None, processing: dict[str, Any], expected: str | None
) -> None:
    path = write_config(folder, "http://localhost:1", ["did:web:example.com"], processing=processing)
    if time_range is not None:
        path = write_config(
            folder, "http://localhost:1", ["did:web:example.com"], processing=processing, time_range=time_range
        )
    assert synthetic_since(load_config(path)) == expected
