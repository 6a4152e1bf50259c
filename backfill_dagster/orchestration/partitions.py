"""Shards as Dagster's dynamic partitions: the definition, and keeping it in step with the plan.

What a shard holds is the plan's business; tags of shard runs are in `run_tags`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from operator import attrgetter
from pathlib import Path

import dagster as dg

from backfill_dagster.model import UNROUTABLE_SHARD, Shard
from backfill_dagster.orchestration import names

REGISTER_TRIES_MAX = 10
"""Planners that may be registering the same shards at the same moment; each one makes progress."""


def shard_partitions(name: str) -> dg.DynamicPartitionsDefinition:
    """The partitions of a backfill's shards: `did_shards__<name>`."""
    return dg.DynamicPartitionsDefinition(name=names.partitions(name))


def register_partitions(instance: dg.DagsterInstance, name: str, keys: Iterable[str]) -> int:
    """Register shards of a plan with a Dagster instance; idempotent, and nothing is ever taken away.

    Args:
        instance: the Dagster instance.
        name: the backfill.
        keys: partition keys; the reserved shard is left out.

    Returns:
        How many were new.

    Raises:
        ValueError: a key is no partition key. Dagster itself would take anything.
    """
    # A partition backfill goes by the order of registration: hosts by turns, since a host has one run at a time.
    shards = {Shard.parse(key) for key in keys if key != UNROUTABLE_SHARD}
    wanted = sorted(shards, key=attrgetter("turn"))
    for tries_left in reversed(range(REGISTER_TRIES_MAX)):
        known = set(instance.get_dynamic_partitions(names.partitions(name)))
        new = [shard.key for shard in wanted if shard.key not in known]
        if not new:
            break
        try:
            instance.add_dynamic_partitions(names.partitions(name), new)
        except Exception:
            # Dagster looks and inserts in two steps: of two planners with a key in common one gets an error of its
            # storage's own kind, and none of its keys. What the other one has added is known the next time round.
            if not tries_left:
                raise
        else:
            return len(new)
    return 0


def register_with_local_instance(
    name: str, keys: Iterable[str], environ: Mapping[str, str] | None = None
) -> int | None:
    """Register shards with the instance of `DAGSTER_HOME`, for plans made without Dagster.

    Returns:
        How many were new; None when there is no such instance (the variable isn't set, or names no folder).
    """
    home = (os.environ if environ is None else environ).get("DAGSTER_HOME")
    if not home or not Path(home).is_dir():
        return None
    with dg.DagsterInstance.from_config(str(Path(home).absolute())) as instance:
        return register_partitions(instance, name, keys)
