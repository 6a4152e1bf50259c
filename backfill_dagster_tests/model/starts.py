"""Where the searches start: an empty shard, or one with a finished run; and how many processes there are."""

from __future__ import annotations

from backfill_dagster_tests.model.rules import Rules
from backfill_dagster_tests.model.steps import run_alone
from backfill_dagster_tests.model.world import Row, World, Writer, in_order

TWO_DIDS: frozenset[Row] = frozenset({("a", 1), ("b", 1)})
THREE_DIDS: frozenset[Row] = frozenset({("a", 1), ("b", 1), ("c", 1)})
REFRESHED: frozenset[Row] = frozenset({("a", 2), ("b", 1), ("c", 1)})


def first_fetch(*starts: int) -> World:
    """Nothing is there, three DIDs are wanted, in two batches. `starts`: one process each, how often it may start."""
    return World((THREE_DIDS,), _processes(starts))


def refresh(*starts: int) -> World:
    """Two DIDs are there in one part; a new version of one is wanted, and a third DID: a batch, then a rewrite."""
    before = run_alone(World((TWO_DIDS,), ()), Rules())
    return before._replace(plans=(REFRESHED,), writers=_processes(starts))


def first_fetch_and_refresh(*starts: int) -> World:
    """Nothing is there; some runs go by a first plan, some by a newer one that asks for a refresh."""
    return World((THREE_DIDS, REFRESHED), _processes(starts))


def _processes(starts: tuple[int, ...]) -> tuple[Writer, ...]:
    return in_order(Writer(starts_left) for starts_left in starts)
