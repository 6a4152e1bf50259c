"""A repo that changes, and what a refresh that gets a part of it may conclude: the truth is always at hand.

Rows are (key, CID) here: what a record's columns are doesn't matter. `Refresher` is the judge of every conclusion.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property

from backfill_dagster.atproto.cid import cid_of, cid_text
from backfill_dagster.atproto.repo import Repo, open_repo
from backfill_dagster.localnet.tree import Entry, write_tree
from backfill_dagster.records.delta import OldKey, Standing, has_holes, standing_rows
from backfill_dagster.records.selection import Selection
from backfill_dagster.records.tree_marks import TreeMark, by_name, mark_name, tree_marks
from backfill_dagster_tests.atproto.build_repo import DID, Blocks, K256Signer, car_of, level
from backfill_dagster_tests.atproto.plain_tree import PlainTree, read_tree

Records = Mapping[str, bytes]
"""Key -> block."""

Rows = dict[str, str]
"""Key -> text of the CID."""

Judge = Callable[[str, bytes], bool]
"""Whether a record of a wanted collection is wanted, by its key and block: a selection in the tests' own words."""

COLLECTIONS = (
    "app.bsky.actor.profile",
    "app.bsky.feed.like",
    "app.bsky.feed.like-not",  # sorts, as the next one does, before `app.bsky.feed.like/`
    "app.bsky.feed.like.more",
    "app.bsky.feed.post",
    "app.bsky.graph.block",
    "app.bsky.graph.follow",
    "app.bsky.graphs.other",
    "com.example.first",
    "com.example.second",
)
KEYS_PER_LEVEL = (5, 3, 2, 1)

SELECTIONS: Mapping[str, Selection] = {
    "one collection": Selection(("app.bsky.feed.like",)),
    "first and last": Selection(("app.bsky.actor.profile", "com.example.second")),
    "every other": Selection(COLLECTIONS[::2]),
    "a wildcard": Selection(("app.bsky.graph.*",)),
    "a wildcard and names": Selection(("app.bsky.graph.*", "app.bsky.graph.block", "com.example.first")),
    "everything": Selection(("app.bsky.*", "com.*")),
    "nothing that is there": Selection(("app.bsky.zzz",)),
}


@cache
def keys_of_all_levels() -> tuple[str, ...]:
    """Some keys of each collection, in order: a tree of a few of them is high and changes its form at every step."""
    found: list[str] = []
    for collection in COLLECTIONS:
        left = list(KEYS_PER_LEVEL)
        number = 0
        while any(left):
            key = f"{collection}/{number:03x}"
            number += 1
            on = level(key)
            if on < len(left) and left[on]:
                left[on] -= 1
                found.append(key)
    return tuple(sorted(found))


@dataclass(frozen=True)
class Moment:
    """A repo at one moment."""

    records: Records

    @cached_property
    def root(self) -> bytes:
        """CID of the commit."""
        return self._commit[0]

    @cached_property
    def data(self) -> bytes:
        """CID of the tree's root node."""
        return self._nodes[0]

    @cached_property
    def blocks(self) -> Mapping[bytes, bytes]:
        """All blocks by CID, the commit's too."""
        return dict([*self._nodes[1], *((cid_of(block), block) for block in self.records.values()), self._commit])

    @cached_property
    def rows(self) -> Rows:
        """Every record as a row."""
        return {key: cid_text(cid_of(block)) for key, block in self.records.items()}

    @cached_property
    def tree(self) -> PlainTree:
        """The tree, read the plain way."""
        return read_tree(self.blocks, self.data)

    @cached_property
    def _commit(self) -> tuple[bytes, bytes]:
        made = Blocks()
        cid = made.put_commit(self.data, K256Signer())
        return cid, made.by_cid[cid]

    @cached_property
    def _nodes(self) -> tuple[bytes, list[tuple[bytes, bytes]]]:
        entries = [Entry(key.encode(), cid_of(self.records[key]), 0) for key in sorted(self.records)]
        data, nodes = write_tree(entries, empty_rev_us=0)
        return data, [(node.cid, node.block) for node in nodes]

    def opened(self, sent: Collection[bytes] | None = None, extra: Sequence[bytes] = ()) -> Repo:
        """What a CAR says that has its root, those blocks of it that are sent (None: all), and strange ones."""
        own = [(cid, block) for cid, block in self.blocks.items() if sent is None or cid == self.root or cid in sent]
        car = car_of(self.root, [*own, *((cid_of(block), block) for block in extra)])
        return open_repo(car, did=DID, signing_key=None, verify="structure", partial=True)


@dataclass(frozen=True)
class Known:
    """What a refresh begins with: the rows of the last complete fetch, and its marks."""

    rows: Rows
    marks: TreeMark = ()


@dataclass(frozen=True)
class Refresher:
    """Fetches and refreshes by one selection, and checks each conclusion.

    Attributes:
        selection: which records are wanted.
        judge: its judgement of single records; by default all of its collections' are wanted.
        purged: URIs that may not be stored.
    """

    selection: Selection
    judge: Judge = lambda key, block: True
    purged: frozenset[str] = field(default_factory=frozenset)

    def wanted(self, moment: Moment) -> Rows:
        """The rows that a whole fetch gives."""
        return {key: cid for key, cid in moment.rows.items() if self._wants(key, moment.records[key])}

    def fetch(self, moment: Moment) -> Known:
        """A whole fetch."""
        return Known(self.wanted(moment), self._marks(moment.opened(), (), {}))

    def refresh(
        self, known: Known, moment: Moment, sent: Collection[bytes] | None, extra: Sequence[bytes] = ()
    ) -> Known:
        """A refresh that gets some of the repo's blocks; what it concludes has to be the truth.

        Raises:
            UnprovenError: it concludes nothing.
            InvalidRepoError: what it gets is wrong.
        """
        repo = moment.opened(sent, extra)
        old = [OldKey(key, cid) for key, cid in known.rows.items()]
        marks = by_name(known.marks)
        found = standing_rows(repo, old, self.selection, marks=marks, purged=self.purged)
        assert found.dropped <= known.rows.keys()
        kept = {key: cid for key, cid in known.rows.items() if key not in found.dropped}
        given = {f"{one}/{rkey}": cid_text(cid) for one, rkey, cid in repo.entries}
        new = {key: cid for key, cid in given.items() if self._wants(key, moment.records[key])}
        assert not kept.keys() & new.keys()
        assert kept | new == self.wanted(moment)
        _check_gap_rows(repo, found, kept)
        after = self._marks(repo, found.gap_rows, marks)
        self.check_marks(after, moment)
        return Known(kept | new, after)

    def check_marks(self, marks: TreeMark, moment: Moment) -> None:
        """Each mark is a node of the tree, with as many rows as are below it."""
        rows = {
            mark_name(one.cid): sum(self._wants_key(key.decode()) for key, _ in moment.tree.entries_of(one))
            for one in moment.tree.subtrees
        }
        named = by_name(marks)
        assert {name: mark[1] for name, mark in named.items()} == {name: rows.get(name) for name in named}

    def _marks(self, repo: Repo, gap_rows: Sequence[int], old: Mapping[str, TreeMark]) -> TreeMark:
        if has_holes(DID, self.selection, self.purged):
            return ()
        return tree_marks(repo, self.selection, gap_rows, old)

    def _wants(self, key: str, block: bytes) -> bool:
        return self._wants_key(key) and f"at://{DID}/{key}" not in self.purged and self.judge(key, block)

    def _wants_key(self, key: str) -> bool:
        collection = key.partition("/")[0]
        return any(
            collection.startswith(name[:-1]) if name.endswith("*") else collection == name
            for name in self.selection.record_types
        )


def _check_gap_rows(repo: Repo, found: Standing, kept: Rows) -> None:
    inside = [sum(gap.after < key and (gap.before is None or key < gap.before) for key in kept) for gap in repo.gaps]
    assert found.gap_rows == inside
