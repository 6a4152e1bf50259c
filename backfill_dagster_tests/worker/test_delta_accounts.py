"""Accounts that go, come back, move or change their key between two fetches, and what they write meanwhile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from backfill_dagster.localnet import Fault, LocalNetwork
from backfill_dagster_tests.worker.refreshes import HAS_THE_REPO, Hand, refreshing
from backfill_dagster_tests.worker.tiny import tiny

POST = "app.bsky.feed.post"
ONE = f"{POST}/3lqabcdefgh2a"
FIRST, SECOND = {"text": "first"}, {"text": "second"}
SEES_NOW = {"identity": {"cache_days": 0}}


async def written(network: LocalNetwork, number: int = 0) -> Hand:
    hand = Hand(network, network.dids[number])
    await hand.put(ONE, FIRST)
    return hand


STATUSES = {
    "deactivated": "deactivated",
    "suspended": "suspended",
    "takendown": "taken_down",
    "deleted": "not_found",
    "throttled": "http_error",
}


async def test_gone_and_back(folder: Path) -> None:
    async with tiny(repos=2 * len(STATUSES), median=25) as network:
        hands = [await written(network, number) for number in range(len(network.dids))]
        writers, outcomes = hands[::2], [*STATUSES.values()] * 2
        with refreshing(folder, network) as one:
            await one.begin()
            for hand, status in zip(hands, [*STATUSES] * 2, strict=True):
                one.names[hand.did] = status
                await hand.status(status)
            ran = await one.refresh()
            assert [ran.outcomes[hand.did] for hand in hands] == outcomes
            for hand in writers:
                await hand.put(ONE, SECOND)
                await hand.delete(*hand.held("app.bsky.feed.like")[:2])
            ran = await one.refresh()
            assert [ran.outcomes[hand.did] for hand in hands] == outcomes
            for hand in hands:
                await hand.status("active")
            ran = await one.refresh()
            assert set(ran.outcomes.values()) <= set(HAS_THE_REPO)
            for hand in hands:
                await hand.add(POST, FIRST)
            ran = await one.refresh()
            assert set(ran.outcomes.values()) == {"complete"}


@pytest.mark.parametrize("status", ["deactivated", "tombstoned"])
async def test_written_to_and_gone(folder: Path, status: str) -> None:
    """What nobody has fetched stays unknown; what stood before stands."""
    async with tiny(repos=2) as network:
        hand = await written(network)
        with refreshing(folder, network, **SEES_NOW) as one:
            await one.begin()
            await hand.put(ONE, SECOND)
            await hand.status(status)
            assert (await one.refresh()).outcomes[hand.did] not in HAS_THE_REPO
            await hand.status("active")
            assert (await one.refresh()).outcomes[hand.did] in HAS_THE_REPO


@pytest.mark.parametrize("sees", [{}, SEES_NOW], ids=["cached document", "new document"])
async def test_a_rotated_key(folder: Path, sees: dict[str, Any]) -> None:
    async with tiny(repos=2) as network:
        hand = await written(network)
        with refreshing(folder, network, **sees) as one:
            await one.begin()
            await hand.rotate_key()
            assert (await one.refresh()).outcomes[hand.did] == "complete"
            await hand.rotate_key()
            await hand.put(ONE, SECOND)
            assert (await one.refresh()).outcomes[hand.did] == "complete"


@pytest.mark.parametrize("sees", [{}, SEES_NOW], ids=["cached document", "new document"])
async def test_a_key_rotated_without_a_new_commit(folder: Path, sees: dict[str, Any]) -> None:
    async with tiny(repos=2) as network:
        hand = await written(network)
        with refreshing(folder, network, **sees) as one:
            await one.begin()
            await hand.rotate_key(sign_again=False)
            ran = await one.refresh()
            assert ran.outcomes[hand.did] == "unchanged", "the commit is the one whose signature was good"
            await hand.put(ONE, SECOND)
            assert (await one.refresh()).outcomes[hand.did] == "complete"


async def test_a_delta_signed_by_a_stranger(folder: Path) -> None:
    async with tiny(repos=2) as network:
        hand = await written(network)
        with refreshing(folder, network, **SEES_NOW) as one:
            await one.begin()
            await hand.put(ONE, SECOND)
            await hand.rotate_key(sign_again=False)
            assert (await one.refresh()).outcomes[hand.did] == "invalid_repo"
            await hand.put(ONE, FIRST)
            assert (await one.refresh()).outcomes[hand.did] == "complete"


@pytest.mark.parametrize("sees", [{}, SEES_NOW], ids=["cached document", "new document"])
async def test_moved_and_back_with_changes_in_between(folder: Path, sees: dict[str, Any]) -> None:
    async with tiny(repos=4, hosts=2) as network:
        hand = await written(network)
        home = network.account(hand.did).host
        with refreshing(folder, network, **sees) as one:
            await one.begin()
            for number, host in enumerate((1 - home, home)):
                await hand.put(ONE, {"text": f"before move {number}"})
                await hand.move(host)
                await hand.add(POST, {"text": f"after move {number}"})
                if number % 2:
                    await hand.delete(hand.held("app.bsky.feed.like")[0])
                assert (await one.refresh()).outcomes[hand.did] == "complete"
                assert (await one.refresh()).outcomes[hand.did] in HAS_THE_REPO


async def test_moved_and_back_without_a_change(folder: Path) -> None:
    """The first shard has seen this very commit, and has not one row of it any more."""
    async with tiny(repos=4, hosts=2) as network:
        hand = await written(network)
        home = network.account(hand.did).host
        with refreshing(folder, network, **SEES_NOW) as one:
            await one.begin()
            for host in (1 - home, home):
                await hand.move(host)
                assert (await one.refresh()).outcomes[hand.did] == "complete"
            assert (await one.refresh()).outcomes[hand.did] in HAS_THE_REPO


async def test_moved_and_back_before_anybody_looked(folder: Path) -> None:
    async with tiny(repos=2, hosts=2) as network:
        hand = await written(network)
        home = network.account(hand.did).host
        with refreshing(folder, network, **SEES_NOW) as one:
            await one.begin()
            await hand.move(1 - home)
            await hand.put(ONE, SECOND)
            await hand.move(home)
            await hand.import_anew()
            assert (await one.refresh()).outcomes[hand.did] == "complete"


async def test_moved_to_a_host_that_does_not_answer_yet(folder: Path) -> None:
    async with tiny(repos=4, hosts=2) as network:
        hand = await written(network)
        home = network.account(hand.did).host
        with refreshing(folder, network, **SEES_NOW) as one:
            await one.begin()
            await hand.put(ONE, SECOND)
            await hand.move(1 - home)
            await network.set_faults([Fault(kind="status", status=500, did=hand.did)])
            assert (await one.refresh()).outcomes[hand.did] == "http_error"
            await hand.move(home)
            await network.set_faults([])
            assert (await one.refresh()).outcomes[hand.did] in HAS_THE_REPO
            await hand.add(POST, FIRST)
            assert (await one.refresh()).outcomes[hand.did] == "complete"
