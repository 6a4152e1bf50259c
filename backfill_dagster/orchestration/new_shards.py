"""One look of the sensor `new_shards_<name>`: which partitions are missing, which shards a plan wants launched.

Launching goes in waves: a wave begins when a refresh that was to launch has gone well, or, with `auto_launch`, when a
plan has put DIDs somewhere; each tick launches the next few of it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace

import dagster as dg

from backfill_dagster.orchestration import names
from backfill_dagster.orchestration.launching import LAUNCHES_MAX, Launch, find_launch, turn
from backfill_dagster.plan import Plan
from backfill_dagster.state import BackfillState


@dataclass(frozen=True)
class Memory:
    """What the sensor remembers from tick to tick.

    Attributes:
        generation: of the plan as it was when the last wave began or was found needless.
        refresh_run: the last plan's run that asked for a launch and got its wave.
        wave: name of the wave that goes on; empty when none does.
        since: of that wave: only shards that later generations have put DIDs into; -1: all.
        after: of that wave: partition keys up to this one, in launching order, have had their turn.
        later: of that wave: partitions that were at work when their turn came, by an older plan.
    """

    generation: int = 0
    refresh_run: str = ""
    wave: str = ""
    since: int = -1
    after: str = ""
    later: tuple[str, ...] = ()

    @property
    def cursor(self) -> str:
        """As Dagster keeps it."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_cursor(cls, cursor: str | None) -> Memory:
        """Read it back; one that somebody has set by hand and can't be read is no memory."""
        try:
            values = json.loads(cursor or "{}")
            return cls(**(values | {"later": tuple(values.get("later", ()))}))
        except (ValueError, TypeError, AttributeError):
            return cls()


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
    missing = [key for key in shards if key not in known]
    memory = _next_wave(instance, plan, memory, name, auto_launch=state.config.auto_launch)
    registered = f"{len(missing):,} partitions registered" if missing else "all shards of the plan are partitions"
    if not memory.wave:
        return Tick(missing, [], "", memory, f"{registered}; nothing asks for a launch")
    wanted = set(shards if memory.since < 0 else plan.shards_since(memory.since))

    def has_its_turn(key: str) -> bool:
        is_next = not memory.after or turn(key) > turn(memory.after)
        return key in wanted and (is_next or key in memory.later)

    launch = find_launch(instance, state, plan, wants=has_its_turn, limit=limit)
    text = f"{registered}; {launch.text}"
    return Tick(missing, launch.keys, memory.wave, _after(memory, launch, list(shards)), text)


def _after(memory: Memory, launch: Launch, shards: list[str]) -> Memory:
    """The memory after a launch: the wave ends when everybody has had a turn."""
    if not launch.more and not launch.at_work:
        return Memory(generation=memory.generation, refresh_run=memory.refresh_run)
    reached = [launch.last] if launch.more else shards
    last = max((key for key in [memory.after, *reached] if key), key=turn, default="")
    return replace(memory, after=last, later=tuple(launch.at_work))


def _next_wave(instance: dg.DagsterInstance, plan: Plan, memory: Memory, name: str, *, auto_launch: bool) -> Memory:
    """The memory with the wave that goes on or begins now, if there is one."""
    if memory.wave:
        return memory
    asked = _asked_to_launch(instance, name)
    if asked and asked != memory.refresh_run:
        return replace(memory, generation=plan.generation, refresh_run=asked, wave=f"refresh:{asked}")
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
