"""A store and a ledger that die at a chosen step, as a process under `kill -9` does: after it nothing is written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, BinaryIO

from backfill_dagster.state import BackfillState


class KilledError(BaseException):
    """The process is gone."""


class Life:
    """So many changes of the disk, then no more."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.taken = 0

    @property
    def is_over(self) -> bool:
        return self.taken > self.steps

    def step(self) -> None:
        self.taken += 1
        if self.is_over:
            raise KilledError


class MortalStore:
    """Every change is one step; `publish` is one for each key."""

    def __init__(self, store: Any, life: Life) -> None:
        self._store = store
        self._life = life

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        self._life.step()
        return bool(self._store.put_if_absent(key, data))

    def put(self, key: str, data: bytes) -> None:
        self._life.step()
        self._store.put(key, data)

    def stage(self, key: str) -> AbstractContextManager[BinaryIO]:
        self._life.step()
        staged: AbstractContextManager[BinaryIO] = self._store.stage(key)
        return staged

    def publish(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._life.step()
            self._store.publish([key])

    def delete(self, key: str) -> None:
        self._life.step()
        self._store.delete(key)

    def discard_staged(self, key: str) -> None:
        self._life.step()
        self._store.discard_staged(key)


class MortalLedger:
    """Items, marks and summaries are steps; leases are not: a dead owner's are taken anyway."""

    def __init__(self, ledger: Any, life: Life) -> None:
        self._ledger = ledger
        self._life = life

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ledger, name)

    def put(self, items: Any, **options: bool) -> None:
        self._life.step()
        self._ledger.put(items, **options)

    def mark_for_retry(self, shard: str, did_seqs: Mapping[str, int]) -> None:
        self._life.step()
        self._ledger.mark_for_retry(shard, did_seqs)

    def clear_marks(self, shard: str, dids: Iterable[str]) -> None:
        self._life.step()
        self._ledger.clear_marks(shard, dids)

    def put_summary(self, shard: str, summary: Any) -> None:
        self._life.step()
        self._ledger.put_summary(shard, summary)


def mortal(state: BackfillState, steps: int) -> tuple[BackfillState, Life]:
    """The state with a life of so many steps."""
    life = Life(steps)
    return replace(state, store=MortalStore(state.store, life), ledger=MortalLedger(state.ledger, life)), life
