"""Planners at once, gate by gate in any order, while source, hosts and settings change: what no plan may do."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from backfill_dagster.model import UNROUTABLE_SHARD, LedgerItem, Outcome, RepoOutcome, Shard
from backfill_dagster.plan import Plan, PlanStore
from backfill_dagster.report import verify_backfill
from backfill_dagster.state import BackfillState
from backfill_dagster_tests.net.virtual_time import InstantTime
from backfill_dagster_tests.plan.plan_rules import PlanRules
from backfill_dagster_tests.plan.planners import GONE, Directory, Planner, with_shard_size, with_source
from backfill_dagster_tests.road import opened, write_config

DIDS = [f"did:plc:{letter * 24}" for letter in "abcdefgh"]
HOSTS = ["a.example", "b.example"]
EXAMPLES = int(os.environ.get("BACKFILL_TEST_PLAN_RACES", "20"))
PLANNERS_MAX = 3


class World:
    """A source, a directory and planners on one state; every generation is checked when it is committed."""

    def __init__(self, state: BackfillState) -> None:
        self.state = state
        self.directory = Directory(dict.fromkeys(DIDS, HOSTS[0]))
        self.rules = PlanRules()
        self.shard_size = 2
        self.planners: list[Planner] = []
        self.seq = 0
        self.list(DIDS[:3])

    def list(self, dids: list[str]) -> None:
        self.source = dids
        with_source(self.state, dids)
        self.rules.source_is(dids)

    def move(self, dids: list[str], host: str) -> None:
        self.directory.hosts |= dict.fromkeys(dids, host)

    def silence(self, dids: list[str]) -> None:
        self.directory.silent = set(dids)

    def resize(self, shard_size: int) -> None:
        self.shard_size = shard_size

    def runs_find_who_has_moved(self) -> None:
        self.seq += 1
        self.state.ledger.put(
            [
                LedgerItem(
                    backfill="study", shard=one.shard, seq=self.seq, result=RepoOutcome(did=did, outcome=Outcome.MOVED)
                )
                for did, one in self.rules.current.items()
                if one.shard != UNROUTABLE_SHARD and Shard.parse(one.shard).host != self.directory.hosts[did]
            ]
        )

    def start(self, refresh: bool = False, dies: str = "") -> Planner:
        size = self.shard_size
        planner = Planner(
            with_shard_size(self.state, size),
            self.directory,
            refresh=refresh,
            dies=dies,
            on_commit=lambda data: self.rules.committed(data, size),
        )
        self.planners = [*self.planners, planner][-PLANNERS_MAX:]
        return planner

    def go_on(self, number: int, gates: int) -> None:
        waiting = [planner for planner in self.planners if not planner.is_done]
        for _ in range(gates if waiting else 0):
            waiting[number % len(waiting)].go_on()

    def plan(self, refresh: bool = False) -> Plan:
        """From beginning to end, whatever others are at: nothing changes on the way, so it is up to date."""
        plan = self.start(refresh).finish().plan
        assert self.rules.listed == frozenset(self.source)
        assert {one.did: one for one in plan.rows()} == self.rules.current
        assert plan == PlanStore(self.state.store).read()
        return plan


@contextmanager
def world() -> Iterator[World]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = {"type": "file", "path": str(folder / "dids.txt"), "format": "text"}
        path = write_config(folder, "http://localhost:1", [], source=source)
        with opened(path, InstantTime().effects()) as state:
            made = World(state)
            try:
                yield made
            finally:
                for planner in made.planners:
                    planner.kill()


@dataclass(frozen=True)
class Step:
    """One thing that somebody does."""

    method: str
    arguments: tuple[object, ...]

    def __call__(self, made: World) -> None:
        getattr(made, self.method)(*self.arguments)


LISTS = st.lists(st.sampled_from(DIDS), min_size=1, unique=True)


def steps(method: str, *arguments: st.SearchStrategy[object]) -> st.SearchStrategy[Step]:
    return st.builds(Step, st.just(method), st.tuples(*arguments))


CHANGES = st.one_of(
    steps("list", LISTS),
    steps("list", st.permutations(DIDS)),
    steps("move", LISTS, st.sampled_from([*HOSTS, *HOSTS, GONE])),
    steps("silence", st.lists(st.sampled_from(DIDS), max_size=3)),
    steps("resize", st.integers(1, 4)),
    steps("runs_find_who_has_moved"),
)
START = steps("start", st.booleans(), st.sampled_from(["", "", "", "before", "after"]))
GO_ON = steps("go_on", st.integers(0, PLANNERS_MAX - 1), st.integers(1, 4))
PLAN = steps("plan", st.booleans())
ROUNDS = st.tuples(START, GO_ON, CHANGES, CHANGES, st.one_of(GO_ON, PLAN), st.one_of(GO_ON, START))


@pytest.mark.parametrize("gates", [0, 1, 2, 3])
def test_whom_a_quicker_plan_has_listed_a_slower_one_does_not_delist(gates: int) -> None:
    with world() as made:
        made.plan()
        made.list(DIDS[1:4])
        slow = made.start()
        for _ in range(gates):
            slow.go_on()
        made.list(DIDS[2:6])
        made.plan()
        result = slow.finish()
        assert made.rules.listed == frozenset(DIDS[2:6])
        assert (result.new, result.delisted, result.rerouted) == (0, 0, 0)


@pytest.mark.parametrize("changed_at", [0, 1, 2, 3])
def test_a_plan_is_of_the_source_as_it_was_after_the_plan_before(changed_at: int) -> None:
    with world() as made:
        slow = made.start()
        for _ in range(changed_at):
            slow.go_on()
        made.list(DIDS[1:5])
        slow.finish()
        assert made.rules.listed == frozenset(DIDS[1:5] if changed_at < 3 else DIDS[:3])
        made.plan()


def test_shards_that_everybody_has_left_are_neither_skipped_nor_filled_before_the_last_one() -> None:
    with world() as made:
        made.list(DIDS)
        made.resize(1)
        made.plan()
        made.move(DIDS[2:], HOSTS[1])
        made.plan(refresh=True)
        made.plan(refresh=True)
        made.move(DIDS[6:], HOSTS[0])
        plan = made.plan(refresh=True)
        a_example = [key for key in plan.shards() if key.startswith(HOSTS[0])]
        assert [plan.shards()[key] for key in a_example] == [1, 1, 0, 0, 0, 0, 0, 1, 1]


def test_the_directorys_silence_moves_nobody_and_a_source_in_another_order_neither() -> None:
    with world() as made:
        made.list(DIDS)
        made.plan()
        made.move(DIDS[:4], HOSTS[1])
        made.plan(refresh=True)
        before = {did: one.shard for did, one in made.rules.current.items()}
        made.silence(DIDS)
        made.list(list(reversed(DIDS)))
        made.plan(refresh=True)
        assert {did: one.shard for did, one in made.rules.current.items()} == before


@pytest.mark.parametrize("dies", ["before", "after"])
def test_a_planner_that_is_killed_at_the_commit_leaves_all_of_its_generation_or_nothing(dies: str) -> None:
    with world() as made:
        killed = made.start(dies=dies)
        while killed.go_on():
            pass
        assert made.rules.listed == (frozenset(DIDS[:3]) if dies == "after" else frozenset())
        plan = made.plan()
        assert plan.generation == 1


def test_a_slow_planner_does_not_have_the_last_word_on_the_reserved_shard() -> None:
    """It has committed its generation and not booked it yet when a quicker one commits and books the next."""
    with world() as made:
        made.silence(DIDS[:1])
        slow = made.start()
        commit = slow.on_commit

        def overtaken(data: bytes) -> None:
            commit(data)
            made.silence([])
            made.move(DIDS[:1], GONE)
            made.plan()

        slow.on_commit = overtaken
        assert slow.finish().unroutable == {Outcome.PENDING: 1}, "what it found itself"
        result, _ = made.state.log(UNROUTABLE_SHARD).read().dids[DIDS[0]]
        item = made.state.ledger.item(UNROUTABLE_SHARD, DIDS[0])
        assert item is not None
        assert result.outcome is item.result.outcome is Outcome.UNRESOLVABLE
        assert verify_backfill(made.state) == []


# Shrinking would take minutes; the steps are few enough to be read as they are.
@pytest.mark.timeout(300)
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)
@given(rounds=st.lists(ROUNDS, min_size=3, max_size=5))
def test_planners_in_any_order(rounds: list[tuple[Step, ...]]) -> None:
    with world() as made:
        for round_ in rounds:
            for step in round_:
                step(made)
        for planner in made.planners:
            while planner.go_on():
                pass
        made.plan()
        assert [said for said in verify_backfill(made.state) if said.startswith(UNROUTABLE_SHARD)] == []
