"""Breadth first through every world that can be reached, each once, until a promise is broken or all have been seen."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from backfill_dagster_tests.model.actions import Action, Step
from backfill_dagster_tests.model.invariants import OF_STEPS, OF_WORLDS, Promise
from backfill_dagster_tests.model.rules import Rules
from backfill_dagster_tests.model.steps import steps
from backfill_dagster_tests.model.traces import said
from backfill_dagster_tests.model.world import World


@dataclass
class Exploration:
    """What a search has found.

    Attributes:
        came_by: world -> the world before it on a shortest way, and the step; None at the start.
        actions: how many steps of each kind were possible, over all worlds.
        broken: the promises that the last step broke, by name; empty if all are kept everywhere.
        last: the step that broke them, and the world before it.
    """

    came_by: dict[World, tuple[World, Step] | None]
    actions: Counter[Action] = field(default_factory=Counter)
    broken: tuple[str, ...] = ()
    last: tuple[World, Step] | None = None

    def trace(self) -> list[str]:
        """A shortest way to the broken promise, step by step, for people."""
        way = []
        came = self.last
        while came is not None:
            way.append(came)
            came = self.came_by[came[0]]
        return [f"{number:2}. {said(before, step)}" for number, (before, step) in enumerate(reversed(way), start=1)]

    def __str__(self) -> str:
        return "\n".join(
            [f"{len(self.came_by)} worlds", *self.trace(), *(f"    broken: {name}" for name in self.broken)]
        )


def explore(start: World, rules: Rules, promises: Iterable[Promise] = (*OF_WORLDS, *OF_STEPS)) -> Exploration:
    """Look at every world that can be reached from `start`, nearest first; stop at the first broken promise."""
    asked = set(promises)
    of_worlds = [promise for promise in OF_WORLDS if promise in asked]
    of_steps = [promise for promise in OF_STEPS if promise in asked]
    found = Exploration({start: None})
    waiting = deque([start])
    while waiting:
        world = waiting.popleft()
        for step in steps(world, rules):
            found.actions[step.action] += 1
            broken = [promise.__name__ for promise in of_steps if not promise(world, step)]
            if step.world not in found.came_by:
                found.came_by[step.world] = world, step
                waiting.append(step.world)
                broken += [promise.__name__ for promise in of_worlds if not promise(step.world)]
            if broken:
                found.broken, found.last = tuple(broken), (world, step)
                return found
    return found
