"""What hosts answer to `since`: how little it may be, and what is never believed without the whole repo."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from backfill_dagster.localnet import Fault, LocalnetOptions, LocalNetwork
from backfill_dagster_tests.localnet.plain_reader import sections_of
from backfill_dagster_tests.worker.refreshes import EVERYTHING, HAS_THE_REPO, Hand, Refreshes, refreshing
from backfill_dagster_tests.worker.tiny import tiny

POST, LIKE = "app.bsky.feed.post", "app.bsky.feed.like"
ONE, TWO = f"{POST}/3lqabcdefgh2a", f"{POST}/3lqabcdefgh2b"
FIRST, SECOND = {"text": "first"}, {"text": "second"}
TWO_TYPES = {"record_types": [POST, LIKE]}
CONFIGS = {"everything": EVERYTHING, "a namespace": {}, "two collections": TWO_TYPES}
HEADER_BYTES_MAX = 100
"""59 bytes, and what gzip adds to them."""


def large() -> LocalNetwork:
    """One repo of 2,000 records."""
    return LocalNetwork(LocalnetOptions(hosts=1, repos=1, seed=4, median_records=50_000, max_records=2_000, states={}))


def with_config(test: Any) -> Any:
    return pytest.mark.parametrize("config", CONFIGS.values(), ids=list(CONFIGS))(test)


@with_config
async def test_one_record_more_takes_less_than_a_tenth_of_the_repo(folder: Path, config: dict[str, Any]) -> None:
    async with large() as network:
        hand = Hand(network, network.dids[0])
        assert len(hand.held()) == 2_000
        with refreshing(folder, network, **config) as one:
            first = await one.begin()
            await hand.add(POST, FIRST)
            ran = await one.refresh()
            assert ran.outcomes == {hand.did: "complete"}
            assert ran.requests == 1
            assert 0 < ran.bytes_fetched < first.bytes_fetched / 10


STEPS: dict[str, Callable[[Hand], Awaitable[object]]] = {
    "edited": lambda hand: hand.put(hand.held(LIKE)[300], FIRST),
    "deleted": lambda hand: hand.delete(hand.held(LIKE)[300]),
    "twenty deleted": lambda hand: hand.delete(*hand.held(LIKE)[300:320]),
    "twenty added": lambda hand: hand.add(LIKE, *({"n": number} for number in range(20))),
    "the profile": lambda hand: hand.put("app.bsky.actor.profile/self", {"displayName": "now"}),
    "an empty commit": Hand.rotate_key,
}


async def test_what_is_fetched_is_in_proportion_to_the_change(folder: Path) -> None:
    async with large() as network:
        hand = Hand(network, network.dids[0])
        with refreshing(folder, network) as one:
            first = await one.begin()
            asked = {}
            for name, step in STEPS.items():
                await step(hand)
                ran = await one.refresh()
                asked[name] = (ran.requests, ran.bytes_fetched < first.bytes_fetched / 5)
            assert asked == dict.fromkeys(STEPS, (1, True))


@with_config
async def test_nothing_new_is_one_request_of_a_header(folder: Path, config: dict[str, Any]) -> None:
    async with tiny(repos=3) as network:
        with refreshing(folder, network, **config) as one:
            before = (await one.begin()).results
            for number in range(2):
                ran = await one.refresh()
                assert set(ran.outcomes.values()) == {"unchanged"}, number
                assert ran.requests == 3
                assert ran.bytes_fetched <= 3 * HEADER_BYTES_MAX
            for did, result in ran.results.items():
                assert result.rev == before[did].rev == result.last_complete_rev
                assert result.refresh == 2
            await Hand(network, network.dids[0]).put(ONE, FIRST)
            ran = await one.refresh()
            assert [ran.outcomes[did] for did in network.dids] == ["complete", "unchanged", "unchanged"]
            assert ran.requests == 3


async def test_fetch_full_asks_for_whole_repos(folder: Path) -> None:
    async with tiny(repos=2) as network:
        with refreshing(folder, network, processing={"fetch": "full"}) as one:
            first = await one.begin()
            ran = await one.refresh()
            assert set(ran.outcomes.values()) == {"complete"}
            assert (ran.requests, ran.bytes_fetched) == (2, first.bytes_fetched)


async def test_another_form_of_the_record_asks_for_whole_repos(folder: Path) -> None:
    async with tiny(repos=2) as network:
        with refreshing(folder, network) as one:
            first = await one.begin()
        with refreshing(folder, network, records={"raw": "cbor"}) as one:
            ran = await one.refresh()
            assert set(ran.outcomes.values()) == {"complete"}
            assert (ran.requests, ran.bytes_fetched) == (2, first.bytes_fetched)
            ran = await one.refresh()
            assert set(ran.outcomes.values()) == {"unchanged"}


async def test_another_scope_asks_for_whole_repos(folder: Path) -> None:
    """There and back: the rows of the scope that comes back are gone, whatever rev they had."""
    async with tiny(repos=2) as network:
        sizes = []
        for number in range(3):
            with refreshing(folder, network, **(TWO_TYPES if number == 1 else {})) as one:
                ran = await one.refresh()
                assert set(ran.outcomes.values()) == {"complete"}
                sizes.append((ran.requests, ran.bytes_fetched))
        assert sizes == [sizes[0]] * 3


async def test_a_signature_that_was_not_checked_takes_a_whole_fetch(folder: Path) -> None:
    async with tiny(repos=2) as network:
        with refreshing(folder, network, processing={"verify": "structure"}) as one:
            await one.begin()
        await Hand(network, network.dids[0]).put(ONE, FIRST)
        with refreshing(folder, network, processing={"verify": "full"}) as one:
            ran = await one.refresh()
            assert set(ran.outcomes.values()) == {"complete"}
            assert {result.signature_checked for result in ran.results.values()} == {True}


async def change(hand: Hand) -> None:
    """Enough that the partial CAR has nodes of several levels, new records and an edited one."""
    await hand.put(ONE, SECOND)
    await hand.delete(*hand.held(LIKE)[:3])
    await hand.add(POST, *({"text": f"number {number}"} for number in range(6)))
    await hand.put("app.bsky.actor.profile/self", {"displayName": "now"})


async def changed_after_the_first_run(one: Refreshes, hands: Sequence[Hand]) -> list[int]:
    """All write, are fetched, and write again; how many blocks each has in store for `since`."""
    for hand in hands:
        await hand.put(ONE, FIRST)
    await one.begin()
    blocks = []
    for hand in hands:
        before = hand.network.control.describe(hand.did)["rev"]
        await change(hand)
        blocks.append(len(sections_of(hand.network.world.shelf.get(hand.did).car(before))[1]))
    return blocks


FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "cut in half": ({"kind": "truncate_body"}, "invalid_repo"),
    "cut in its header": ({"kind": "truncate_body", "bytes": 40}, "invalid_repo"),
    "a flipped byte": ({"kind": "flip_byte"}, "invalid_repo"),
    "garbage at its end": ({"kind": "trailing_garbage"}, "invalid_repo"),
    "of another account": ({"kind": "wrong_repo"}, "invalid_repo"),
    "a header alone": ({"kind": "empty_car"}, "invalid_repo"),
    "without its last block": ({"kind": "drop_block"}, "invalid_repo"),
    "a page": ({"kind": "html"}, "http_error"),
    "500": ({"kind": "status", "status": 500}, "http_error"),
    "503": ({"kind": "status", "status": 503}, "http_error"),
    "400": ({"kind": "status", "status": 400}, "http_error"),
    "broken off": ({"kind": "truncate_chunked"}, "http_error"),
    "gzip broken off": ({"kind": "truncate_gzip"}, "http_error"),
    "reset": ({"kind": "reset"}, "http_error"),
    "429": ({"kind": "rate_limit", "seconds": 5}, "pending"),
    "429 and no more": ({"kind": "rate_limit_html"}, "pending"),
    "the whole repo": ({"kind": "whole_repo"}, "complete"),
    "as it should be": ({"kind": "status", "times": 0}, "complete"),
}


@pytest.mark.parametrize("config", [{}, TWO_TYPES], ids=["a namespace", "two collections"])
async def test_answers_that_are_none(folder: Path, config: dict[str, Any]) -> None:
    async with tiny(repos=len(FAULTS), median=30, seed=9) as network:
        hands = [Hand(network, did) for did in network.dids]
        with refreshing(folder, network, **config) as one:
            one.names = dict(zip(network.dids, FAULTS, strict=True))
            await changed_after_the_first_run(one, hands)
            faults = {hand.did: fault for hand, (fault, _) in zip(hands, FAULTS.values(), strict=True)}
            await network.set_faults([Fault(did=did, **fault) for did, fault in faults.items()])
            ran = await one.refresh()
            said = {one.names[did]: outcome for did, outcome in ran.outcomes.items()}
            assert said == {name: outcome for name, (_, outcome) in FAULTS.items()}
            await network.set_faults([])
            ran = await one.refresh()
            assert set(ran.outcomes.values()) <= set(HAS_THE_REPO)


async def test_answers_that_are_none_once(folder: Path) -> None:
    """What follows may be the whole repo, or nothing more in this refresh; it is never another row."""
    async with tiny(repos=len(FAULTS), median=30, seed=9) as network:
        hands = [Hand(network, did) for did in network.dids]
        with refreshing(folder, network, **TWO_TYPES) as one:
            one.names = dict(zip(network.dids, FAULTS, strict=True))
            await changed_after_the_first_run(one, hands)
            faults = {hand.did: fault | {"times": 1} for hand, (fault, _) in zip(hands, FAULTS.values(), strict=True)}
            await network.set_faults([Fault(did=did, **fault) for did, fault in faults.items()])
            ran = await one.refresh()
            assert set(ran.outcomes.values()) <= {"complete", "invalid_repo", "http_error"}
            await network.set_faults([])
            assert set((await one.refresh()).outcomes.values()) <= set(HAS_THE_REPO)


@with_config
@pytest.mark.parametrize("times", [1, None], ids=["once", "for ever"])
async def test_any_one_block_left_out(folder: Path, config: dict[str, Any], times: int | None) -> None:
    """A node that has changed, a record that is new: left out, each looks like what `since` leaves out."""
    async with tiny(repos=28, median=60) as network:
        hands = [Hand(network, did) for did in network.dids]
        with refreshing(folder, network, **config) as one:
            blocks = await changed_after_the_first_run(one, hands)
            assert max(blocks) > len(blocks) / 2
            left_out = [number % count for number, count in enumerate(blocks)]
            one.names = {hand.did: f"without block {number}" for hand, number in zip(hands, left_out, strict=True)}
            await network.set_faults(
                [
                    Fault(kind="drop_block", did=hand.did, block=number, times=times)
                    for hand, number in zip(hands, left_out, strict=True)
                ]
            )
            ran = await one.refresh()
            found = set(ran.outcomes.values())
            # A block of nothing that is wanted may not be missed; without its commit a CAR is no repo's at all.
            assert ("complete" if times else "invalid_repo") in found
            assert found <= {"complete", "invalid_repo"}


@with_config
async def test_a_header_alone_although_there_is_more(folder: Path, config: dict[str, Any]) -> None:
    async with tiny(repos=2, median=30) as network:
        hand = Hand(network, network.dids[0])
        with refreshing(folder, network, **config) as one:
            await changed_after_the_first_run(one, [hand])
            await network.set_faults([Fault(kind="empty_car", did=hand.did, times=1)])
            ran = await one.refresh()
            assert ran.outcomes[hand.did] == "complete"
            assert ran.requests == 3


async def test_a_flipped_byte_anywhere(folder: Path) -> None:
    async with tiny(repos=40, median=12) as network:
        hands = [Hand(network, did) for did in network.dids]
        with refreshing(folder, network, **TWO_TYPES) as one:
            await one.begin()
            faults = []
            for number, hand in enumerate(hands):
                before = network.control.describe(hand.did)["rev"]
                await hand.put(ONE, FIRST)
                size = len(network.world.shelf.get(hand.did).car(before))
                at = size * number // len(hands)
                one.names[hand.did] = f"byte {at} of {size}"
                faults.append(Fault(kind="flip_byte", did=hand.did, bytes=at, times=1))
            await network.set_faults(faults)
            ran = await one.refresh()
            assert set(ran.outcomes.values()) <= {"complete", "invalid_repo"}


async def test_a_host_that_knows_no_since(folder: Path) -> None:
    async with tiny(repos=3, median=30) as network:
        await network.set_faults([Fault(kind="whole_repo")])
        hand = Hand(network, network.dids[0])
        with refreshing(folder, network) as one:
            await changed_after_the_first_run(one, [hand])
            for _ in range(2):
                ran = await one.refresh()
                assert set(ran.outcomes.values()) <= set(HAS_THE_REPO)
                assert ran.requests == 3


@pytest.mark.parametrize("then", ["nothing", "another write"])
async def test_a_host_that_was_restored_from_a_backup(folder: Path, then: str) -> None:
    """The rev that was seen last is gone there, or is that of another commit."""
    async with tiny(repos=2, median=30) as network:
        hand = Hand(network, network.dids[0])
        await hand.put(ONE, FIRST)
        backup = network.world.shelf.get(hand.did)
        await hand.put(ONE, SECOND)
        seen = network.world.shelf.get(hand.did)
        with refreshing(folder, network) as one:
            await one.begin()
            network.world.shelf.pin(hand.did, backup)
            if then == "another write":
                await hand.put(TWO, FIRST)
                assert network.world.shelf.get(hand.did).rev == seen.rev
            assert (await one.refresh()).outcomes[hand.did] == "complete"
            await hand.put(TWO, SECOND)
            assert (await one.refresh()).outcomes[hand.did] == "complete"
