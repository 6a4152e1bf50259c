"""Marks that are set while a run is going on: each is answered by a fetch that began after it, and by one only."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backfill_dagster.localnet import Fault, LocalNetwork
from backfill_dagster.localnet.accounts import HostStatus
from backfill_dagster.model import Outcome
from backfill_dagster.plan import PlanStore
from backfill_dagster.records.purges import PurgeLog
from backfill_dagster.state import BackfillState
from backfill_dagster.worker.planning import plan_backfill
from backfill_dagster.worker.result import RunNumbers
from backfill_dagster.worker.retry import mark_for_retry
from backfill_dagster_tests.worker.mortal import KilledError
from backfill_dagster_tests.worker.refreshes import left_to_do, run
from backfill_dagster_tests.worker.telling import Heard, heard, marks
from backfill_dagster_tests.worker.tiny import assert_sound, rows_in, run_one, state_of, tiny

ONE_AFTER_THE_OTHER = {"concurrent_requests": 1, "batch_size": 2, "max_retries": 0}

COMMITTED, COMMITTED_TOO, IN_HAND = range(3)
"""Where the first DIDs are when the third of a run has ended; nobody has asked for the two after them."""

WHOLE, SAME = ("complete", True), ("unchanged", False)
AWAY, BROKEN = ("deactivated", False), ("http_error", False)


async def run_and_mark(
    state: BackfillState, outcomes: set[Outcome], *, meanwhile: Callable[[], None] = lambda: None
) -> Counter[Outcome]:
    """Run the only shard, and mark when its third DID has ended; returns how many were marked."""
    found: Counter[Outcome] = Counter()

    def mark(numbers: RunNumbers) -> None:
        if numbers.dids_done == 3:
            meanwhile()
            found.update(mark_for_retry(state, PlanStore(state.store).read(), outcomes=outcomes))

    await run_one(state, on_progress=mark)
    return found


def names(network: LocalNetwork) -> dict[str, int]:
    return {did: number for number, did in enumerate(network.dids)}


def attempts(state: BackfillState, network: LocalNetwork) -> list[list[tuple[str, bool]]]:
    """Of each DID, what came of each attempt."""
    said = heard(state)
    return [[(one.outcome, one.whole) for one in said[did]] for did in network.dids]


async def the_next_run(state: BackfillState, requests: int) -> None:
    """Answers what is left, and leaves nothing."""
    assert (await run(state)).requests == requests
    assert marks(state, {}) == {}
    assert left_to_do(state) == []
    assert_sound(state)


async def test_during_the_first_run(folder: Path) -> None:
    """Who has no outcome yet is being fetched anyway."""
    async with tiny(repos=5) as network:
        with state_of(folder, network, processing=ONE_AFTER_THE_OTHER) as state:
            await plan_backfill(state, run_id="plan")
            assert await run_and_mark(state, {Outcome.COMPLETE}) == {Outcome.COMPLETE: 2}
            assert set(marks(state, names(network))) == {COMMITTED, COMMITTED_TOO}
            await the_next_run(state, requests=2)
            assert attempts(state, network) == [[WHOLE, WHOLE], [WHOLE, WHOLE], [WHOLE], [WHOLE], [WHOLE]]


async def test_complete_ones_during_a_refresh(folder: Path) -> None:
    """The run in hand asks for what is newer; what the mark asks for, the whole repo, is the next one's to get."""
    async with tiny(repos=5) as network:
        with state_of(folder, network, processing=ONE_AFTER_THE_OTHER) as state:
            await run(state)
            await plan_backfill(state, run_id="plan", refresh=True)
            marked = await run_and_mark(state, {Outcome.COMPLETE, Outcome.UNCHANGED})
            assert marked == {Outcome.COMPLETE: 3, Outcome.UNCHANGED: 2}
            assert marks(state, names(network)) == {COMMITTED: 6, COMMITTED_TOO: 6, IN_HAND: 7, 3: 7, 4: 8}
            await the_next_run(state, requests=5)
            assert attempts(state, network) == [[WHOLE, SAME, WHOLE]] * 5


@pytest.mark.xfail(strict=True, reason="a mark of during the run asks once more for what the run got after it")
async def test_failed_ones_while_they_are_tried_again(folder: Path) -> None:
    """What the mark asks for, another outcome, has come: nobody is asked twice."""
    async with tiny(repos=5) as network:
        with state_of(folder, network, processing=ONE_AFTER_THE_OTHER) as state:
            await network.set_faults([Fault(kind="status", status=401)])
            await run(state)
            await network.set_faults([])
            assert await run_and_mark(state, {Outcome.HTTP_ERROR}) == {Outcome.HTTP_ERROR: 3}
            assert marks(state, names(network)) == {}
            await the_next_run(state, requests=0)
            assert attempts(state, network) == [[BROKEN, WHOLE]] * 5


@pytest.mark.xfail(strict=True, reason="a mark on an outcome that was marked before the run is taken for that one")
async def test_accounts_that_come_back_while_they_are_tried_again(folder: Path) -> None:
    async with tiny(repos=5, states={"deactivated": 5}) as network:
        everybody = {Outcome.DEACTIVATED}
        with state_of(folder, network, processing=ONE_AFTER_THE_OTHER) as state:
            await run(state)
            mark_for_retry(state, PlanStore(state.store).read(), outcomes=everybody)

            def come_back() -> None:
                for did in network.dids:
                    network.account(did).status = HostStatus.ACTIVE

            assert await run_and_mark(state, everybody, meanwhile=come_back) == {Outcome.DEACTIVATED: 5}
            assert set(marks(state, names(network))) == {COMMITTED, COMMITTED_TOO, IN_HAND}
            await the_next_run(state, requests=3)
            again = [AWAY, AWAY, WHOLE]
            assert attempts(state, network) == [again, again, again, [AWAY, WHOLE], [AWAY, WHOLE]]


class Dying:
    """A ledger that ends the process where it should write what an entry says."""

    def __init__(self, ledger: Any) -> None:
        self._ledger = ledger

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ledger, name)

    def put(self, items: Any) -> None:
        if items:
            raise KilledError


async def test_a_purge_of_one_record_that_dies_half_way(folder: Path) -> None:
    """The entry that corrects the counts is newer than the mark, and answers nothing."""
    async with tiny(repos=2) as network:
        with state_of(folder, network) as state:
            await run(state)
            did = network.dids[0]
            doomed = min(uri for uri, _, _ in rows_in(state) if uri.startswith(f"at://{did}/"))
            mark_for_retry(state, PlanStore(state.store).read(), outcomes={Outcome.COMPLETE})
            PurgeLog(state.store).append([], [doomed], at="", by="", reason="")
            with pytest.raises(KilledError):
                await run_one(replace(state, ledger=Dying(state.ledger)))
            await the_next_run(state, requests=2)
            assert heard(state)[did] == [
                Heard(2, "complete", True),
                Heard(4, "complete", True),
                Heard(6, "complete", True),
            ]
            assert doomed not in {uri for uri, _, _ in rows_in(state)}


class Interrupted:
    """A ledger before whose first mark a whole run goes through."""

    def __init__(self, state: BackfillState) -> None:
        self._state = state
        self._ran = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._state.ledger, name)

    def mark_for_retry(self, shard: str, did_seqs: dict[str, int]) -> None:
        if not self._ran:
            self._ran = True
            asyncio.run(run_one(self._state))
        self._state.ledger.mark_for_retry(shard, did_seqs)


async def test_a_run_between_the_look_at_the_log_and_the_mark(folder: Path) -> None:
    async with tiny(repos=2) as network:
        with state_of(folder, network) as state:
            await run(state)
            await plan_backfill(state, run_id="plan", refresh=True)
            plan = PlanStore(state.store).read()
            outcomes = {Outcome.COMPLETE, Outcome.UNCHANGED}
            interrupted = replace(state, ledger=Interrupted(state))
            counts = await asyncio.to_thread(mark_for_retry, interrupted, plan, outcomes=outcomes)
            assert counts == {Outcome.COMPLETE: 2}
            assert marks(state, names(network)) == {0: 4, 1: 4}
            await the_next_run(state, requests=2)
            said = [Heard(2, "complete", True), Heard(4, "unchanged", False), Heard(6, "complete", True)]
            assert heard(state) == dict.fromkeys(network.dids, said)
