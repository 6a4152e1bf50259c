"""What a fetch keeps of the form of a repo's tree, so that the next one can prove that a part of it is as it was.

A subtree between two keys of one wanted collection can be hashed again from its rows. One that could hold wanted
records and others can't: of these the log keeps the root nodes' hashes, each with how many rows it has. They are the
few nodes on the way to where the wanted collections begin and end. A selection that leaves out records within a
collection knows no subtree from its rows, and keeps no marks.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, chain
from typing import Any, Protocol, TypeAlias

from backfill_dagster.atproto.car import BlockIndex
from backfill_dagster.atproto.mst import Gap, read_node
from backfill_dagster.records.rows import Entry
from backfill_dagster.records.selection import Selection

TreeMark: TypeAlias = Sequence[Any]
"""A node: its name, the rows in its subtree, then the marks below it. As JSON has it: a list of text, number, lists."""

MARKS_MAX = 256
"""A selection of more collections than that keeps no marks: repos that have changed are fetched whole."""

_NAME_BYTES = 12
"""Of a sha256: nobody finds another node with the same 96 bits."""


class ListedTree(Protocol):
    """What is known of the keys of a checked repo, whole or in part."""

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


class MarkedRepo(ListedTree, Protocol):
    """A checked repo, whole or in part (`atproto.repo.Repo`)."""

    @property
    def data(self) -> bytes:
        """CID of the tree's root node."""
        ...

    @property
    def blocks(self) -> BlockIndex:
        """The blocks that there are."""
        ...


def mark_name(cid: bytes) -> str:
    """The name of a node in the marks: the beginning of its hash."""
    return urlsafe_b64encode(cid[4 : 4 + _NAME_BYTES]).decode()


def by_name(mark: TreeMark) -> dict[str, TreeMark]:
    """Every node of the marks; of no marks (an empty list), none."""
    found: dict[str, TreeMark] = {}
    waiting = [mark] if mark else []
    while waiting:
        one = waiting.pop()
        found[one[0]] = one
        waiting.extend(one[2:])
    return found


def tree_marks(
    repo: MarkedRepo, selection: Selection, gap_rows: Sequence[int] = (), old: Mapping[str, TreeMark] | None = None
) -> TreeMark:
    """The marks of a repo, from its root on; empty when there are too many.

    Args:
        repo: a whole repo, or a partial one whose gaps have been proven to be as they were.
        selection: which records are wanted; none of a wanted collection may be left out.
        gap_rows: of each gap, how many rows are in it.
        old: the marks of the fetch before, by name.
    """
    rows = _Rows(repo, selection, gap_rows)
    root: list[Any] = []
    count = 0
    waiting: list[tuple[bytes, str, str | None, list[Any]]] = [(repo.data, "", None, root)]
    while waiting and count <= MARKS_MAX:
        cid, after, before, above = waiting.pop()
        name = mark_name(cid)
        mark: list[Any] = [name, rows.between(after, before)]
        if cid not in repo.blocks:
            # What is in an unchanged subtree is unchanged too.
            above.append((old or {}).get(name, mark))
            count += len(by_name(above[-1]))
            continue
        above.append(mark)
        count += 1
        for subtree, low, high in _subtrees(repo, cid, after, before):
            if selection.cuts(low, high):
                waiting.append((subtree, low, high, mark))
    return root[0] if count <= MARKS_MAX else ()


def _subtrees(repo: MarkedRepo, cid: bytes, after: str, before: str | None) -> Iterator[tuple[bytes, str, str | None]]:
    """The subtrees of a node, each with the keys that bound it."""
    left, entries = read_node(repo, cid)
    keys = [key.decode() for key, _, _ in entries]
    links = [left, *(link for _, _, link in entries)]
    for link, low, high in zip(links, [after, *keys], [*keys, before], strict=True):
        if link is not None:
            yield link, low, high


class _Rows:
    """How many rows lie between two keys: listed ones, and those of the gaps, each of which follows a key."""

    def __init__(self, repo: ListedTree, selection: Selection, gap_rows: Sequence[int]) -> None:
        listed = chain(repo.entries, repo.absent)
        places = [(f"{one}/{rkey}", False, 1) for one, rkey, _ in listed if selection.wants_collection(one)]
        if repo.gaps or repo.absent:
            places += [(gap.after, True, rows) for gap, rows in zip(repo.gaps, gap_rows, strict=True)]
            places.sort()
        self._places = [place[:2] for place in places]
        self._sums = [0, *accumulate(place[2] for place in places)]

    def between(self, after: str, before: str | None) -> int:
        """Rows of keys above `after` (empty: from the beginning) and below `before` (None: to the end)."""
        first = bisect_right(self._places, (after, False)) if after else 0
        stop = len(self._places) if before is None else bisect_left(self._places, (before, False))
        return self._sums[stop] - self._sums[first]
