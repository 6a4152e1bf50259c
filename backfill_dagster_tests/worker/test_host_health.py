"""When silence is the host's and when it is one DID's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from backfill_dagster.localnet import Fault
from backfill_dagster.model import Outcome, PlannedDid, RepoOutcome
from backfill_dagster.worker.host_health import SUSPECTS_MAX, HostHealth
from backfill_dagster.worker.repo import Missed
from backfill_dagster_tests.road import run_all
from backfill_dagster_tests.worker.tiny import assert_sound, fold_of, shard_keys, state_of, tiny


def missed(number: int) -> Missed:
    did = f"did:plc:{number}"
    planned = PlannedDid(did=did, shard="host~0000")
    return Missed(planned, RepoOutcome(did=did, outcome=Outcome.HTTP_ERROR), host_level=True)


def test_an_answer_clears_the_suspects() -> None:
    health = HostHealth()
    assert health.verdict() == ([], True)
    health.failed(missed(1))
    health.failed(missed(2))
    assert not health.is_down
    assert health.answered() == [missed(1), missed(2)]
    assert health.answered() == []
    health.failed(missed(3))
    assert health.verdict() == ([missed(3)], False)


def test_a_host_that_never_answered_is_down() -> None:
    health = HostHealth()
    health.failed(missed(1))
    assert not health.is_down
    assert health.verdict() == ([missed(1)], True)


def test_so_many_in_a_row_are_the_host() -> None:
    health = HostHealth()
    health.answered()
    for number in range(SUSPECTS_MAX):
        assert not health.is_down
        health.failed(missed(number))
    assert health.is_down
    assert health.verdict() == ([missed(number) for number in range(SUSPECTS_MAX)], True)


async def test_a_stubborn_did_alone_is_no_dead_host(folder: Path) -> None:
    """Run after run: the first has neighbours that answer, the second asks for nobody else."""
    async with tiny(repos=5, median=3) as network:
        bad = network.dids[0]
        await network.set_faults([Fault(kind="status", status=503, did=bad, path="com.atproto.sync.getRepo")])
        with state_of(folder, network) as state:
            for _ in range(3):
                came = await run_all(state)
                assert {did for did, outcome in came.outcomes.items() if outcome == "http_error"} == {bad}
                assert not any(result.host_down or result.stopped for result in came.done.results.values())
            await network.set_faults([])
            assert set((await run_all(state)).outcomes.values()) == {"complete"}
            assert_sound(state)


@pytest.mark.parametrize("fault", [{"kind": "down"}, {"kind": "status", "status": 502}], ids=["refused", "bad gateway"])
async def test_a_dead_host_ends_its_shards_early_and_no_others(folder: Path, fault: dict[str, Any]) -> None:
    width = 4
    async with tiny(repos=30, hosts=2, median=3) as network:
        await network.set_faults([Fault(host=0, **fault)])
        with state_of(folder, network, processing={"shard_size": 14, "concurrent_requests": width}) as state:
            came = await run_all(state)
            dead = [key for key in shard_keys(state) if str(network.hosts[0].url).rpartition(":")[2] in key]
            assert len(dead) == 2
            (stopped,) = [result for result in came.done.results.values() if result.host_down]
            assert stopped.shard == dead[0]
            assert dead[1] not in came.done.results, "the host's next shard is not even begun"
            assert stopped.stopped is not None
            assert stopped.stopped.startswith("the host stopped answering: ")
            # Who failed while the last of the suspects did is booked as well: at most who was in flight beside it.
            assert SUSPECTS_MAX <= stopped.numbers.dids_done < SUSPECTS_MAX + width < stopped.dids
            booked = [one for one, _ in fold_of(state, dead[0]).dids.values()]
            assert {(one.outcome.value, one.error_code) for one in booked} == {("pending", "HostDown")}
            assert len(booked) == stopped.numbers.dids_done
            assert {d for d, o in came.outcomes.items() if o == "complete"} == set(network.hosts[1].dids)
            assert_sound(state)
            await network.set_faults([])
            assert set((await run_all(state)).outcomes.values()) == {"complete"}
            assert_sound(state)


async def test_a_host_that_dies_on_the_way(folder: Path) -> None:
    async with tiny(repos=14, median=3) as network:
        await network.set_faults([Fault(kind="status", status=503, host=0, after=3)])
        with state_of(folder, network, processing={"concurrent_requests": 1}) as state:
            came = await run_all(state)
            assert sorted(came.outcomes.values()) == ["complete"] * 3 + ["pending"] * 11
            assert next(iter(came.done.results.values())).host_down
            assert_sound(state)


async def test_silence_about_some_dids_between_answers_is_theirs(folder: Path) -> None:
    async with tiny(repos=6, median=3) as network:
        bad = network.dids[1::2]
        await network.set_faults([Fault(kind="status", status=503, did=did) for did in bad])
        with state_of(folder, network, processing={"concurrent_requests": 1}) as state:
            came = await run_all(state)
            assert came.outcomes == {did: "http_error" if did in bad else "complete" for did in network.dids}
            assert [result.stopped for result in came.done.results.values()] == [None]
            assert {fold_of(state).dids[did][0].http_status for did in bad} == {503}
            assert_sound(state)
