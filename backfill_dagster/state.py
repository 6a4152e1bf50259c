"""Everything that stands under one config, opened together: the object store, the ledger, the marker that ties them.

Which DIDs there are (`plan`), what to do with them (`worker`) and what became of them (`report`) live elsewhere.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from backfill_dagster.config import BackfillConfig, unavailable
from backfill_dagster.effects import Effects
from backfill_dagster.errors import StateError, UsageError
from backfill_dagster.ledger import LeaseTable, Ledger, host_lease_tables, open_ledger
from backfill_dagster.records.fold import Fold
from backfill_dagster.records.log import ShardLog
from backfill_dagster.store import ObjectStore, ensure_state, has_content, open_store, read_state, restore_state


@dataclass(frozen=True)
class BackfillState:
    """One backfill's durable state, ready to be worked on.

    Attributes:
        config: the validated YAML.
        store: objects under `state.path`.
        ledger: the index over the shard logs, with leases and retry marks.
        host_leases: where a PDS host has to be leased, in turn: on this machine; with DynamoDB in its table too.
        effects: clocks, randomness, waiting.
    """

    config: BackfillConfig
    store: ObjectStore
    ledger: Ledger
    host_leases: tuple[LeaseTable, ...]
    effects: Effects = field(default_factory=Effects)

    def log(self, shard: str) -> ShardLog:
        """The shard's log."""
        return ShardLog(self.store, shard, nonce=self.effects.new_id)

    def lease_name(self, shard: str) -> str:
        """What the shard's lease is called in the ledger's table."""
        return f"{self.config.name}/{shard}"

    def whole_fold(self, shard: str) -> Fold:
        """The shard's log so far, for whoever is going to write: an index can't know more than what it indexes.

        A ledger item is written after its entry, so a ledger ahead of the log proves that entries were lost; writing
        on would use their numbers again, and nobody could tell old items from new ones.

        Raises:
            StateError: entries are missing at the log's end, or it can't be read.
        """
        newest = max(self.ledger.seqs(shard).values(), default=0)  # before the log: another writer may be at work
        fold = self.log(shard).read()
        if newest > fold.seq:
            raise StateError(
                f"{shard}: the ledger knows entry {newest} of its log, which ends at {fold.seq}; bring log/ back "
                f"from a backup of {self.store.uri}, or let `backfill repair` reopen the accounts of what is lost"
            )
        return fold


def has_state(config: BackfillConfig) -> bool:
    """Whether a state has begun under the config: folder or ledger know of one, intact or not. Creates nothing.

    Raises:
        UsageError, StateError: as `open_state`.
    """
    _refuse_unavailable(config)
    store = open_store(config)
    if read_state(store, config.name) is not None or has_content(store):
        return True
    ledger = open_ledger(config, read_only=True)
    try:
        return ledger.state_id() is not None
    finally:
        ledger.close()


def restore_marker(config: BackfillConfig, effects: Effects | None = None) -> bool:
    """Write a `state.json` again that is lost or can't be read, over a state that has content; whether it was.

    The id is the ledger's; where that one is lost too, nobody knows it any more, and a new one is as good.

    Raises:
        UsageError, StateError: as `open_state`.
    """
    _refuse_unavailable(config)
    store = open_store(config)
    ledger = open_ledger(config, read_only=True)
    try:
        state_id = ledger.state_id()
    finally:
        ledger.close()
    return restore_state(store, config.name, state_id or (effects or Effects()).new_id())


@contextmanager
def open_state(
    config: BackfillConfig,
    *,
    create: bool = True,
    read_only: bool = False,
    effects: Effects | None = None,
    environ: Mapping[str, str] | None = None,
    open_store: Callable[[BackfillConfig], ObjectStore] = open_store,
    open_ledger: Callable[..., Ledger] = open_ledger,
    host_lease_tables: Callable[[BackfillConfig, Mapping[str, str]], tuple[LeaseTable, ...]] = host_lease_tables,
) -> Iterator[BackfillState]:
    """Open (or begin) the state of a config; closes the ledger at the end.

    Args:
        config: the validated YAML.
        create: begin a state where there is none. Without it nothing is created just by opening.
        read_only: for commands that only look: implies `create=False`, and the ledger can't be written.
        effects: clocks, randomness, waiting.
        environ: environment variables; default: the process's.
        open_store: config -> its store.
        open_ledger: config and `read_only` -> its ledger.
        host_lease_tables: the leases on PDS hosts.

    Raises:
        UsageError: the config asks for something that this version doesn't have yet, or there is no state and none is
            to be created.
        StateError: the folder is unwritable, full, or belongs to another backfill; the ledger is foreign.
    """
    if (read_only or not create) and not has_state(config):
        raise UsageError(f"nothing is planned yet in {config.state_path}: run `backfill plan {config.path}` first")
    _refuse_unavailable(config)
    effects = effects or Effects()
    store = open_store(config)
    ledger = open_ledger(config, read_only=read_only)
    hosts: tuple[LeaseTable, ...] = ()
    try:
        bound = ledger.state_id()
        marker = ensure_state(store, config.name, effects.new_id, ledger_state_id=bound, read_only=read_only)
        if bound is not None or not read_only:
            ledger.bind_state(marker.state_id)
        hosts = host_lease_tables(config, os.environ if environ is None else environ)
        yield BackfillState(config=config, store=store, ledger=ledger, host_leases=hosts, effects=effects)
    finally:
        for table in hosts:
            table.close()
        ledger.close()


def _refuse_unavailable(config: BackfillConfig) -> None:
    missing = unavailable(config)
    if missing:
        raise UsageError("; ".join(missing))
