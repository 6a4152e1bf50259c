"""What a partial repo proves about the rows of the last fetch: which stand, which are replaced, which are gone. Pure.

A `since` answer leaves out what the host says is not newer: subtrees (gaps), and records (as they were if their CID
is). What is listed is so, and a key that would have to be listed and isn't is gone. An absent subtree is what it was if
its hash can be made of old rows, or is one of the old marks. Whatever can't be told from that is not proven, and only
the whole repo will do.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from typing import Protocol

from backfill_dagster.atproto.at_uri import author_of
from backfill_dagster.atproto.cid import cid_bytes, cid_text
from backfill_dagster.atproto.mst import Gap
from backfill_dagster.atproto.mst_build import find_subtree
from backfill_dagster.errors import BackfillError
from backfill_dagster.records.selection import Selection
from backfill_dagster.records.tree_marks import ListedTree, TreeMark, mark_name


class UnprovenError(BackfillError):
    """The answer to a `since` doesn't prove all that was asked for: only the whole repo will do."""


class PartialRepo(ListedTree, Protocol):
    """A checked repo of which the CAR has a part (`atproto.repo.Repo`)."""

    @property
    def did(self) -> str:
        """The account."""
        ...


@dataclass(frozen=True, slots=True)
class OldKey:
    """A row of the last fetch: its key `<collection>/<rkey>` and the text of its CID."""

    key: str
    cid: str


@dataclass(frozen=True, slots=True)
class Standing:
    """Which old rows stand beside what a partial repo has.

    Attributes:
        dropped: keys of the rows that don't: replaced, or gone.
        gap_rows: of each gap, how many rows are in it.
    """

    dropped: set[str]
    gap_rows: list[int]


def standing_rows(
    repo: PartialRepo,
    old: Sequence[OldKey],
    selection: Selection,
    *,
    marks: Mapping[str, TreeMark],
    purged: frozenset[str] = frozenset(),
) -> Standing:
    """Tell the old rows that stand from those that don't.

    Args:
        repo: the partial repo; what it has in `entries` becomes new rows.
        old: every row of the DID that the last fetch left, quarantined ones too, fetched under the same selection.
        selection: which records are wanted.
        marks: the last fetch's, by name.
        purged: AT URIs that may not be stored.

    Raises:
        UnprovenError: something is neither provably as it was nor in the CAR.
    """
    proof = _Proof(repo.did, selection, purged, {one.key: one.cid for one in old}, marks)
    for collection, rkey, cid in repo.absent:
        proof.check_absent(collection, rkey, cid_text(cid))
    in_gaps = [proof.standing_in(gap) for gap in repo.gaps]
    listed = (f"{collection}/{rkey}" for collection, rkey, _ in repo.absent)
    dropped = proof.known.keys() - set(chain(listed, *in_gaps))
    return Standing(dropped, [len(keys) for keys in in_gaps])


def has_holes(did: str, selection: Selection, purged: frozenset[str]) -> bool:
    """Whether records of wanted collections are left out: then what is between two rows isn't known."""
    return bool(selection.has_time_range or selection.filters or any(author_of(uri) == did for uri in purged))


class _Proof:
    """What the old rows, the old marks and a partial repo prove together. `known`: key -> CID of every old row."""

    def __init__(
        self,
        did: str,
        selection: Selection,
        purged: frozenset[str],
        known: Mapping[str, str],
        marks: Mapping[str, TreeMark],
    ) -> None:
        self.known = known
        self._did = did
        self._selection = selection
        self._purged = purged
        self._marks = marks
        self._keys = sorted(known)
        self._has_holes = has_holes(did, selection, purged)

    def check_absent(self, collection: str, rkey: str, cid: str) -> None:
        """A listed record without its block has to be the very one of the old row, or one that is not wanted."""
        key = f"{collection}/{rkey}"
        uri = f"at://{self._did}/{key}"
        if not self._selection.wants_collection(collection) or uri in self._purged:
            return
        # Time range and the other filters look at content, and a record that had no row can be a new one: of content
        # that the host had elsewhere before, or one whose block it forgot. URI lists judge without it.
        lists = [one.uris for one in self._selection.filters_on(collection) if one.match == "uri"]
        row = self.known.get(key)
        if row == cid or (row is None and any(uri not in uris for uris in lists)):
            return
        raise UnprovenError(f"the partial CAR lists {key} with another content than before and leaves it out")

    def standing_in(self, gap: Gap) -> Sequence[str]:
        """The old rows of a gap that are in its subtree.

        A subtree is a run of the old tree's keys without a hole, between two keys of a higher level. Such a key can
        have bordered it and be gone now, with everything on its other side, and nothing in the new tree shows that.
        """
        if not self._selection.touches(gap.after, gap.before):
            return ()
        keys = self._between(gap)
        mark = self._marks.get(mark_name(gap.cid))
        if mark is not None and mark[1] in (0, len(keys)):
            return keys if mark[1] else ()
        for run in [] if self._has_holes else self._runs(keys):
            entries = [(key.encode(), cid_bytes(self.known[key])) for key in run]
            found = find_subtree(entries, gap.cid, gap.level)
            if found is not None:
                return run[slice(*found)]
        raise UnprovenError(f"it can't be told what is in the subtree after {gap.after or 'the beginning'}")

    def _between(self, gap: Gap) -> Sequence[str]:
        first = bisect_right(self._keys, gap.after) if gap.after else 0
        return self._keys[first : None if gap.before is None else bisect_left(self._keys, gap.before)]

    def _runs(self, keys: Sequence[str]) -> list[Sequence[str]]:
        """The keys cut where a record that isn't wanted could be between them."""
        return [list(run) for _, run in groupby(keys, key=self._selection.span_of)]
