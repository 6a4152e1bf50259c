"""What may never be stored again: a log of its own for the whole backfill, `purges/<number:06d>.json`, put-if-absent.

A purge is committed by its entry here, before any row is touched, and is the audit of who wanted what gone and when.
Every shard carries it out in its own log: now, or with its next run; a DID that moves finds it in the new shard too.
An order carries its own sha256: a flipped bit must not purge somebody else.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields

from backfill_dagster.atproto.at_uri import author_of
from backfill_dagster.errors import ObjectMissingError, StateError
from backfill_dagster.records.canonical import hashed_json, read_hashed_json
from backfill_dagster.records.fold import Fold
from backfill_dagster.store.base import ObjectStore

PREFIX = "purges/"

_KEY = re.compile(r"purges/([0-9]{6,})\.json")
_NAMED = re.compile(r'"((?:did:|at://did:)[^"\\\s]+)"')

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

    def open_in(self, fold: Fold, planned: Iterable[str]) -> list[str]:
        """What has been purged and a shard's log doesn't say so yet: accounts, then single records."""
        members = [*planned]
        return [*self.open_dids(fold, members), *self.open_uris(fold, members)]

    def open_dids(self, fold: Fold, planned: Iterable[str]) -> list[str]:
        """Purged accounts that a shard's log says nothing of yet.

        Args:
            fold: the log; whoever it knows is the shard's, too.
            planned: the DIDs that the plan gives the shard, delisted ones too: they are to be kept out later as well.
        """
        if not self.dids:
            return []
        return sorted((self.dids & {*planned, *fold.dids}) - fold.purged)

    def open_uris(self, fold: Fold, planned: Iterable[str]) -> list[str]:
        """Purged records of a shard's accounts that its log says nothing of yet; arguments as of `open_dids`."""
        if not self.uris:
            return []
        known = {*planned, *fold.dids} & self._by_author.keys()
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
        return [self._good(number) for number in range(1, self._last() + 1)]

    def append(self, dids: Sequence[str], uris: Sequence[str], *, at: str, by: str, reason: str) -> Purge:
        """Commit an order. Raises StateError when the store refuses, or an earlier order can't be read."""
        for _ in range(_RACE_TRIES_MAX):
            order = Purge(number=len(self.read()) + 1, dids=dids, uris=uris, at=at, by=by, reason=reason)
            key, data = purge_key(order.number), _order_bytes(order)
            # A number that these very bytes have taken is one's own: the reply to an earlier try got lost.
            if self._store.put_if_absent(key, data) or self._store.get(key) == data:
                return order
        raise StateError(f"{self._store.uri}: {_RACE_TRIES_MAX} other purges were quicker; purge again")

    def damaged(self) -> dict[int, str]:
        """Number -> what is wrong with it, of the orders that are missing or can't be read. Raises StateError."""
        loaded = {number: self._load(number) for number in range(1, self._last() + 1)}
        return {number: found for number, found in loaded.items() if isinstance(found, str)}

    def legible(self, number: int) -> set[str]:
        """What can still be read of a damaged order: accounts and records that it seems to name."""
        try:
            text = self._store.get(purge_key(number)).decode("utf-8", "replace")
        except ObjectMissingError:
            return set()
        return set(_NAMED.findall(text))

    def put_again(self, order: Purge) -> None:
        """Write an order over one that can't be read. Raises StateError when the store refuses."""
        self._store.put(purge_key(order.number), _order_bytes(order))

    def _last(self) -> int:
        found = (_KEY.fullmatch(info.key) for info in self._store.list(PREFIX))
        return max((int(match[1]) for match in found if match), default=0)

    def _good(self, number: int) -> Purge:
        found = self._load(number)
        if isinstance(found, str):
            raise StateError(
                f"{self._store.path(purge_key(number))} {found}; bring it back from a backup, or let `backfill repair` "
                "write what the shards' logs know of it"
            )
        return found

    def _load(self, number: int) -> Purge | str:
        """The order, or what is wrong with it."""
        try:
            order = _order(self._store.get(purge_key(number)))
        except ObjectMissingError:
            return "is missing"
        except (ValueError, TypeError, KeyError) as error:
            return f"can't be read: {error}"
        return order if order.number == number else f"says that it is order {order.number}"


def purge_key(number: int) -> str:
    """Key of an order's object."""
    return f"{PREFIX}{number:06d}.json"


def _order_bytes(order: Purge) -> bytes:
    return hashed_json(asdict(order))


def _order(data: bytes) -> Purge:
    """Read an order back; fields of later versions are ignored."""
    content = read_hashed_json(data)
    return Purge(**{one.name: content[one.name] for one in fields(Purge)})
