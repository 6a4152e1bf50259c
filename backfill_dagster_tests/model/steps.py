"""All that can happen in a world: the next durable call of any writer, or its death before it.

Each call is one atomic step; what a writer computes between two calls is part of the later one. Any two writers' steps
interleave in any order, so a stalled writer (a zombie) is simply one that isn't chosen for long.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from backfill_dagster_tests.model import committing, putting, starting
from backfill_dagster_tests.model.actions import Action, Step
from backfill_dagster_tests.model.rules import Rules
from backfill_dagster_tests.model.world import At, World, Writer

CALLS: dict[At, Callable[[World, Writer, Rules], Iterator[Step]]] = {
    At.OFF: starting.take_lease,
    At.READING: starting.read_log,
    At.SEALING: starting.seal,
    At.RECOVERING: starting.publish_live_parts,
    At.MENDING: starting.mend_ledger,
    At.SWEEPING: starting.sweep,
    At.WORKING: committing.work,
    At.APPENDING: committing.append,
    At.UNSURE: putting.read_back,
    At.PUBLISHING: committing.publish,
    At.BOOKING: committing.book,
    At.DELETING: committing.delete,
}


def steps(world: World, rules: Rules) -> Iterator[Step]:
    """Every step that is possible in this world; of a writer's the first is the one that nothing disturbs."""
    for me in world.writers:
        yield from CALLS[me.at](world, me, rules)
        if me.at is At.WORKING:
            yield from committing.keep_snapshot(world, me, rules)
        if me.at is not At.OFF:
            yield Step(Action.CRASH, me.epoch, world.then(me, me.off()))


def run_alone(world: World, rules: Rules) -> World:
    """One whole run that nobody disturbs, by a process of its own; the writers of `world` are left out."""
    world = world._replace(writers=(Writer(starts_left=1),), finished=None)
    for _ in range(100):
        following = next(steps(world, rules), None)
        if following is None:
            return world
        world = following.world
    raise AssertionError("a run without an end")
