"""Trees read the plain way, by recursion over libipld's values: what the package's reader and builder are judged by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import libipld

from backfill_dagster_tests.atproto.build_repo import level


@dataclass(frozen=True)
class Subtree:
    """One node with all below it: `entries[start:stop]` of its tree."""

    cid: bytes
    level: int
    start: int
    stop: int


@dataclass
class PlainTree:
    """All entries in order; all subtrees, each before those inside it, in order of their first key."""

    entries: list[tuple[bytes, bytes]] = field(default_factory=list)
    subtrees: list[Subtree] = field(default_factory=list)
    absent: set[bytes] = field(default_factory=set)

    def entries_of(self, subtree: Subtree) -> list[tuple[bytes, bytes]]:
        return self.entries[subtree.start : subtree.stop]

    def key_at(self, index: int) -> str | None:
        """The key of an entry, None before the first and after the last."""
        return self.entries[index][0].decode() if 0 <= index < len(self.entries) else None


def read_tree(blocks: Mapping[bytes, bytes], root: bytes) -> PlainTree:
    """Read a tree; nodes that `blocks` lacks are noted in `absent`, and subtrees around them are left out."""
    tree = PlainTree()
    _read_subtree(tree, blocks, root, None)
    tree.subtrees.sort(key=lambda subtree: (subtree.start, -subtree.level))
    return tree


def _read_subtree(tree: PlainTree, blocks: Mapping[bytes, bytes], cid: bytes, depth: int | None) -> bool:
    """Whether all of it is there."""
    if cid not in blocks:
        tree.absent.add(cid)
        return False
    node = libipld.decode_dag_cbor(blocks[cid])
    if depth is None:
        depth = level(node["e"][0]["k"].decode()) if node["e"] else 0
    start = len(tree.entries)
    is_whole = node["l"] is None or _read_subtree(tree, blocks, node["l"], depth - 1)
    key = b""
    for entry in node["e"]:
        key = key[: entry["p"]] + entry["k"]
        tree.entries.append((key, entry["v"]))
        if entry["t"] is not None:
            is_whole = _read_subtree(tree, blocks, entry["t"], depth - 1) and is_whole
    if is_whole:
        tree.subtrees.append(Subtree(cid, depth, start, len(tree.entries)))
    return is_whole
