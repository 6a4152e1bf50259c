"""What a partial repo proves about the rows of the last fetch: which stand, which are replaced, which are gone. Pure.

A `since` answer leaves out what the host says is not newer: subtrees (gaps), and records (as they were if their CID
is). What is listed is so, and a key that would have to be listed and isn't is gone. Whatever can't be told from that,
or from a few records more, is not proven, and only the whole repo will do.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

from backfill_dagster.atproto.at_uri import author_of
from backfill_dagster.atproto.cid import cid_bytes, cid_text
from backfill_dagster.atproto.mst import Gap, key_depth
from backfill_dagster.atproto.mst_build import find_subtree
from backfill_dagster.errors import BackfillError
from backfill_dagster.records.rows import Entry
from backfill_dagster.records.selection import Selection
from backfill_dagster.records.timestamps import rkey_micros


class UnprovenError(BackfillError):
    """The answer to a `since` doesn't prove all that was asked for: only the whole repo will do."""


class PartialRepo(Protocol):
    """A checked repo of which the CAR has a part (`atproto.repo.Repo`)."""

    @property
    def did(self) -> str:
        """The account."""
        ...

    @property
    def entries(self) -> Sequence[Entry]:
        """Listed keys whose block is there, ascending."""
        ...

    @property
    def absent(self) -> Sequence[Entry]:
        """Listed keys whose block isn't there."""
        ...

    @property
    def gaps(self) -> Sequence[Gap]:
        """Absent subtrees, ascending."""
        ...


@dataclass(frozen=True, slots=True)
class OldKey:
    """A row of the last fetch: its key `<collection>/<rkey>` and the text of its CID."""

    key: str
    cid: str


class WitnessesNeededError(BackfillError):
    """Some records have to be shown to be in the repo still; then all between them are.

    Attributes:
        records: key -> text of the CID that it has to have.
    """

    def __init__(self, records: Mapping[str, str]) -> None:
        super().__init__(f"{len(records)} records have to be shown to be in the repo still")
        self.records = records


WITNESSES_MAX = 8
"""Records that are asked for one by one; with more of them the whole repo is less to ask for."""


def dropped_keys(
    repo: PartialRepo,
    old: Sequence[OldKey],
    selection: Selection,
    *,
    purged: frozenset[str] = frozenset(),
    witnessed: Collection[str] = (),
) -> set[str]:
    """The keys of old rows that don't stand any more: replaced by what the CAR has, or gone.

    Args:
        repo: the partial repo; what it has in `entries` becomes new rows.
        old: every row of the DID that the last fetch left, quarantined ones too, fetched under the same selection.
        selection: which records are wanted.
        purged: AT URIs that may not be stored.
        witnessed: keys that have been shown to be in this very commit, with the CID of their row.

    Raises:
        WitnessesNeededError: some more have to be.
        UnprovenError: something is neither provably as it was nor in the CAR.
    """
    proof = _Proof(repo.did, selection, purged, {one.key: one.cid for one in old})
    for collection, rkey, cid in repo.absent:
        proof.check_absent(collection, rkey, cid_text(cid))
    standing = {f"{collection}/{rkey}" for collection, rkey, _ in repo.absent}
    for gap in repo.gaps:
        standing.update(proof.standing_in(gap))
    if len(proof.witnesses) > WITNESSES_MAX:
        raise UnprovenError(f"{len(proof.witnesses)} records would have to be asked for one by one")
    missing = {key: cid for key, cid in proof.witnesses.items() if key not in witnessed}
    if missing:
        raise WitnessesNeededError(missing)
    return proof.known.keys() - standing


class _Proof:
    """What the old rows and a partial repo prove together.

    Attributes:
        known: key -> text of the CID, of every old row.
        witnesses: as of `WitnessesNeededError`, all that are needed so far.
    """

    def __init__(self, did: str, selection: Selection, purged: frozenset[str], known: Mapping[str, str]) -> None:
        self.known = known
        self.witnesses: dict[str, str] = {}
        self._did = did
        self._selection = selection
        self._purged = purged
        self._keys = sorted(known)
        self._cids = set(known.values())
        # Where rows are left out, what is between two of them is not known.
        has_holes = selection.has_time_range or selection.filters or any(author_of(uri) == did for uri in purged)
        self._has_holes = bool(has_holes)

    def check_absent(self, collection: str, rkey: str, cid: str) -> None:
        """A listed record without its block has to be the very one of the old row, or one that is not wanted."""
        key = f"{collection}/{rkey}"
        uri = f"at://{self._did}/{key}"
        if not self._selection.wants_collection(collection) or uri in self._purged:
            return
        row = self.known.get(key)
        if row == cid or (row is None and not self._may_be_wanted(collection, rkey, uri, cid)):
            return
        raise UnprovenError(f"the partial CAR lists {key} with another content than before and leaves it out")

    def _may_be_wanted(self, collection: str, rkey: str, uri: str, cid: str) -> bool:
        """Whether a record that had no row before could be wanted now, its content being one of before.

        Hosts keep a block under the rev that first had it, so a new record of old content is listed without one. Time
        range and filters look at content, which has been judged then, but for URI lists and the time in the key.
        """
        if cid in self._cids:
            return True
        filters = self._selection.filters_on(collection)
        if any(one.match == "uri" and uri not in one.uris for one in filters):
            return False
        if any(one.match != "uri" for one in filters):
            return False
        if not self._selection.has_time_range:
            return True
        instant = rkey_micros(rkey)
        return instant is not None and self._selection.wants_instant(instant)

    def standing_in(self, gap: Gap) -> Sequence[str]:
        """The old rows of a gap that are in its subtree.

        A subtree is a run of the old tree's keys without a hole, between two keys of a higher level. Such a key can
        have bordered it and be gone now, with everything on its other side, and nothing in the new tree shows that.
        """
        keys = self._between(gap)
        if not keys:
            return keys
        spans = self._spans([gap.after, *keys, gap.before or ""])
        if gap.level >= 0 and spans == 1 and gap.after and gap.before is not None and not self._has_holes:
            entries = [(key.encode(), cid_bytes(self.known[key])) for key in keys]
            found = find_subtree(entries, gap.cid, gap.level)
            if found is None:
                raise UnprovenError(f"the subtree after {gap.after} is left out and is not as it was")
            return keys[slice(*found)]
        if gap.level >= 0 and any(key_depth(key.encode()) > gap.level for key in keys):
            raise UnprovenError(f"records have gone after {gap.after or 'the beginning'}, and it can't be told which")
        # Rows of one span with nothing left out between them stand or fall together.
        together = gap.level >= 0 and not self._has_holes and self._spans(keys) == 1
        for key in {keys[0]} if together else {keys[0], keys[-1]}:
            self.witnesses[key] = self.known[key]
        return keys

    def _between(self, gap: Gap) -> Sequence[str]:
        first = bisect_right(self._keys, gap.after) if gap.after else 0
        return self._keys[first : None if gap.before is None else bisect_left(self._keys, gap.before)]

    def _spans(self, keys: Sequence[str]) -> int:
        """How many stretches of keys there are in which every record is wanted."""
        pairs = pairwise((key.partition("/")[0], key) for key in keys)
        breaks = sum(
            not (self._selection.wants_collection(one) if one == other else self._selection.wants_between(key, later))
            for (one, key), (other, later) in pairs
        )
        return breaks + 1
