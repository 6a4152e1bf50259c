"""What may never be stored again: a log of its own for the whole backfill, `purges/<number:06d>.json`, put-if-absent.

A purge is committed by its entry here, before any row is touched, and is the audit of who wanted what gone and when.
Every shard carries it out in its own log: now, or with its next run; a DID that moves finds it in the new shard too.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import orjson

from backfill_dagster.atproto.at_uri import author_of
from backfill_dagster.errors import StateError
from backfill_dagster.records.entry import canonical_json
from backfill_dagster.records.fold import Fold
from backfill_dagster.store.base import ObjectStore

PREFIX = "purges/"

_KEY = re.compile(r"purges/([0-9]{6,})\.json")

_RACE_TRIES_MAX = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Purge:
    """One order to remove.

    Attributes:
        number: its place in the log, 1 for the first.
        dids: accounts of which nothing may be stored.
        uris: AT URIs (`at://<did>/<collection>/<rkey>`) of single records.
        at: when, ISO 8601 UTC.
        by: who, for people: user and machine.
        reason: why, in the words of whoever asked; may be empty.
    """

    number: int = 0
    dids: Sequence[str] = ()
    uris: Sequence[str] = ()
    at: str = ""
    by: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Purges:
    """All orders together.

    Attributes:
        dids: accounts of which nothing may be stored.
        uris: AT URIs of single records.
    """

    dids: frozenset[str] = frozenset()
    uris: frozenset[str] = frozenset()
    _by_author: Mapping[str, frozenset[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, orders: Iterable[Purge]) -> Purges:
        """Add orders up."""
        dids: set[str] = set()
        by_author: dict[str, set[str]] = defaultdict(set)
        for order in orders:
            dids.update(order.dids)
            for uri in order.uris:
                by_author[author_of(uri)].add(uri)
        frozen = {author: frozenset(uris) for author, uris in by_author.items()}
        return cls(frozenset(dids), frozenset().union(*frozen.values()), frozen)

    def uris_of(self, did: str) -> frozenset[str]:
        """The purged records of an account."""
        return self._by_author.get(did, frozenset())

    def open_dids(self, fold: Fold, members: Iterable[str]) -> list[str]:
        """Purged accounts that a shard's log says nothing of yet. `members`: DIDs that its plan or log knows."""
        return sorted((self.dids & set(members)) - fold.purged)

    def open_uris(self, fold: Fold, members: Iterable[str]) -> list[str]:
        """Purged records of a shard's accounts that its log says nothing of yet."""
        if not self.uris:
            return []
        known = set(members) & self._by_author.keys()
        return sorted(uri for did in known for uri in self._by_author[did] - fold.purged)


class PurgeLog:
    """Reads and appends the orders of one backfill."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def read(self) -> list[Purge]:
        """All orders, oldest first.

        Raises:
            StateError: one is missing or can't be read.
        """
        found = (_KEY.fullmatch(info.key) for info in self._store.list(PREFIX))
        last = max((int(match[1]) for match in found if match), default=0)
        return [self._load(number) for number in range(1, last + 1)]

    def append(self, dids: Sequence[str], uris: Sequence[str], *, at: str, by: str, reason: str) -> Purge:
        """Commit an order. Raises StateError when the store refuses."""
        for _ in range(_RACE_TRIES_MAX):
            order = Purge(number=len(self.read()) + 1, dids=dids, uris=uris, at=at, by=by, reason=reason)
            if self._store.put_if_absent(purge_key(order.number), canonical_json(asdict(order))):
                return order
        raise StateError(f"{self._store.uri}: {_RACE_TRIES_MAX} other purges were quicker; purge again")

    def _load(self, number: int) -> Purge:
        key = purge_key(number)
        remedy = "bring it back from a backup of the state folder: without it, purged rows would be fetched again"
        try:
            content: dict[str, Any] = orjson.loads(self._store.get(key))
            order = Purge(**content)
            good = order.number == number and all(isinstance(one, str) for one in (*order.dids, *order.uris))
        except (ValueError, TypeError) as error:
            raise StateError(f"{self._store.path(key)} can't be read ({error}): {remedy}") from error
        if not good:
            raise StateError(f"{self._store.path(key)} is not order {number}: {remedy}")
        return order


def purge_key(number: int) -> str:
    """Key of an order's object."""
    return f"{PREFIX}{number:06d}.json"
