"""One look of the sensor `new_shards_<name>`: which partitions are missing, which shards a plan wants launched.

Launching goes in waves: a wave begins when a refresh that was to launch has gone well, or, with `auto_launch`, when a
plan has put DIDs somewhere; each tick launches the next few of it. Whoever can't be launched in their turn, because a
run is at work on them or their host rests, is remembered apart, so that nobody waits for them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import dagster as dg
from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked_dataclass

from backfill_dagster.model import Shard
from backfill_dagster.orchestration import names
from backfill_dagster.orchestration.launching import LAUNCHES_MAX, Launch, find_launch, turn
from backfill_dagster.plan import Plan
from backfill_dagster.state import BackfillState

LATER_MAX = 2000
"""Shards remembered for later; beyond that they are left to `resume_<name>`."""


@checked_dataclass(frozen=True)
class Memory:
    """What the sensor remembers from tick to tick.

    Attributes:
        state_id: of the state that all this is about.
        generation: of the plan as it was when the last wave began or was found needless.
        refresh_run: the last plan's run that asked for a launch and got its wave.
        wave: name of the wave that goes on; empty when none does.
        since: of that wave: only shards that later generations have put DIDs into; -1: all.
        after: of that wave: partition keys up to this one, in launching order, have had their turn.
        later: partitions that could not be launched in their turn.
    """

    state_id: str = ""
    generation: int = 0
    refresh_run: str = ""
    wave: str = ""
    since: int = -1
    after: str = ""
    later: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """ValueError when a partition key is none."""
        for key in (*self.later, *([self.after] if self.after else [])):
            Shard.parse(key)

    @property
    def cursor(self) -> str:
        """As Dagster keeps it."""
        return _MEMORY.dump_json(self).decode()

    @classmethod
    def from_cursor(cls, cursor: str | None) -> Memory:
        """Read it back; one that somebody has set by hand and can't be read is no memory."""
        try:
            return _MEMORY.validate_json(cursor or "{}")
        except ValidationError:
            return cls()


_MEMORY = TypeAdapter(Memory)


@dataclass(frozen=True)
class Tick:
    """What one look came to.

    Attributes:
        missing: partitions to register.
        launch: partitions to launch, in order.
        wave: names the launch; the same wave launches a partition once.
        memory: for the next tick.
        text: one sentence for a tick that launches nothing.
    """

    missing: list[str]
    launch: list[str]
    wave: str
    memory: Memory
    text: str


def tick(
    instance: dg.DagsterInstance, state: BackfillState, plan: Plan, memory: Memory, limit: int = LAUNCHES_MAX
) -> Tick:
    """Look once.

    Args:
        instance: Dagster's.
        state: the opened state.
        plan: as it is now.
        memory: of the last tick.
        limit: runs to ask for, at most.
    """
    name = state.config.name
    known = set(instance.get_dynamic_partitions(names.partitions(name)))
    shards = plan.shards()
    missing = sorted((key for key in shards if key not in known), key=turn)
    registered = f"{len(missing):,} partitions registered" if missing else "all shards of the plan are partitions"
    state_id = state.ledger.state_id() or ""
    if memory.state_id != state_id:
        # A state that began anew counts its generations anew.
        memory = Memory(state_id=state_id, refresh_run=memory.refresh_run)
    memory = _next_wave(instance, plan, memory, name, auto_launch=state.config.auto_launch)
    if not memory.wave and not memory.later:
        return Tick(missing, [], "", memory, f"{registered}; nothing asks for a launch")
    wanted = set[str]() if not memory.wave else set(shards if memory.since < 0 else plan.shards_since(memory.since))

    def has_its_turn(key: str) -> bool:
        is_next = not memory.after or turn(key) > turn(memory.after)
        return key in memory.later or (key in wanted and is_next)

    launch = find_launch(instance, state, plan, wants=has_its_turn, limit=limit)
    wave = f"{state_id}:{memory.wave or f'later:{plan.generation}'}"
    return Tick(missing, launch.keys, wave, _after(memory, launch), f"{registered}; {launch.text}")


def _after(memory: Memory, launch: Launch) -> Memory:
    """The memory after a launch: the wave ends when everybody has had a turn."""
    later = (*launch.at_work, *launch.resting)[:LATER_MAX]
    if launch.more:
        not_looked_at = (key for key in memory.later if key not in {*launch.keys, *later})
        later = (*later, *not_looked_at)[:LATER_MAX]
        last = max((key for key in (memory.after, launch.last) if key), key=turn, default="")
        return replace(memory, after=last, later=later)
    return replace(memory, wave="", since=-1, after="", later=later)


def _next_wave(instance: dg.DagsterInstance, plan: Plan, memory: Memory, name: str, *, auto_launch: bool) -> Memory:
    """The memory with the wave that goes on or begins now, if there is one."""
    if memory.wave:
        return memory
    asked = _asked_to_launch(instance, name)
    if asked and asked != memory.refresh_run:
        later = replace(memory, generation=plan.generation, refresh_run=asked)
        return replace(later, wave=f"refresh:{asked}", since=-1, after="")
    if plan.generation <= memory.generation:
        return memory
    later = replace(memory, generation=plan.generation)
    return replace(later, wave=f"plan:{plan.generation}", since=memory.generation) if auto_launch else later


def _asked_to_launch(instance: dg.DagsterInstance, name: str) -> str:
    """The newest run of a plan that went well and was to launch what is pending; empty when there is none."""
    wanted = dg.RunsFilter(
        job_name=names.plan_job(name),
        statuses=[dg.DagsterRunStatus.SUCCESS],
        tags={names.LAUNCH_TAG: "pending"},
    )
    return next((run.run_id for run in instance.get_runs(wanted, limit=1)), "")
