"""The Merkle search tree from its entries: which CID the root node of these keys and records has.

One set of entries has exactly one tree, so this proves that a subtree nobody sent is made of the entries one has.
Blocks are hashed and forgotten: nothing here writes repos. Reading trees, and their canonical form, live in `mst`.
Source: https://atproto.com/specs/repository#mst-structure
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from backfill_dagster.atproto.cid import CID_LENGTH, DAG_CBOR_CID_PREFIX, cid_of
from backfill_dagster.atproto.dag_cbor import cbor_head
from backfill_dagster.atproto.mst import (
    BYTES_HEADS,
    ENTRY_FORMAT,
    INT_HEADS,
    KEY_MAX_BYTES,
    KEY_SYNTAX,
    LINK_HEAD,
    MAX_LEVEL,
    NODE_LEFT,
    NODE_START,
    NULL,
    key_depth,
)


class _OpenNode:
    """The node of one level that the next keys may still belong to."""

    __slots__ = ("entries", "left")

    def __init__(self) -> None:
        self.left: bytes | None = None
        self.entries: list[tuple[bytes, bytes, bytes | None]] = []

    def put_subtree(self, cid: bytes) -> None:
        """Hang a finished node of the level below behind the last key, or before the first."""
        if self.entries:
            key, value, _ = self.entries[-1]
            self.entries[-1] = (key, value, cid)
        else:
            self.left = cid

    def close(self) -> bytes | None:
        """The node's CID, None when nothing is in it; it is empty again afterwards."""
        if self.left is None and not self.entries:
            return None
        cid = cid_of(_node_block(self.left, self.entries))
        self.left, self.entries = None, []
        return cid


def subtree_cid(entries: Sequence[tuple[bytes, bytes]], level: int) -> bytes | None:
    """The CID of the subtree that holds exactly these entries and has its root node on a level.

    A level without a key of its own still has a node there, with nothing but a link to the level below.

    Args:
        entries: key `<collection>/<rkey>` and CID of the record (36 bytes), keys ascending.
        level: of the root node, counted from the leaves.

    Returns:
        The CID (36 bytes); None when no tree has such a subtree: there are no entries, a key belongs on a level above,
        keys are not ascending, or something is no key or no CID of a record.
    """
    if not entries or not 0 <= level <= MAX_LEVEL:
        return None
    nodes = _open_nodes(entries)
    if nodes is None or len(nodes) > level + 1:
        return None
    nodes += [_OpenNode() for _ in range(level + 1 - len(nodes))]
    return _close(nodes)


def tree_cid(entries: Sequence[tuple[bytes, bytes]]) -> bytes:
    """The CID of the whole tree of these entries (as `subtree_cid` takes them): what a commit's `data` links to.

    Raises:
        ValueError: no tree can hold these entries.
    """
    if not entries:
        return cid_of(_node_block(None, []))
    nodes = _open_nodes(entries)
    cid = None if nodes is None else _close(nodes)
    if cid is None:
        raise ValueError("keys are not ascending, or something is no key or no CID of a record")
    return cid


def find_subtree(entries: Sequence[tuple[bytes, bytes]], cid: bytes, level: int) -> tuple[int, int] | None:
    """Find a subtree of a tree among its entries: what of a repo's former entries an absent subtree still holds.

    These can be fewer than all entries of the gap. A key above the subtree's level that borders it, and has nothing on
    its other side, can be deleted without a trace: the gap then reaches beyond it, up to the next key that is listed.

    Args:
        entries: all that the tree had between two keys (as `subtree_cid` takes them); any left out may hide it.
        cid: of the subtree's root node.
        level: of the subtree's root node; -1 when it isn't known, which costs a pass for each level.

    Returns:
        Start and stop of its entries; None when the subtree isn't there.
    """
    depths = [key_depth(key) for key, _ in entries]
    for wanted in range(max(depths, default=0), -1, -1) if level < 0 else (level,):
        borders = [-1, *(index for index, depth in enumerate(depths) if depth > wanted), len(entries)]
        for before, stop in pairwise(borders):
            if subtree_cid(entries[before + 1 : stop], wanted) == cid:
                return before + 1, stop
    return (0, 0) if level < 0 and cid == tree_cid([]) else None


def shared_prefix_bytes(before: bytes, key: bytes) -> int:
    """How many leading bytes two keys share."""
    length = min(len(before), len(key))
    different = int.from_bytes(before[:length], "big") ^ int.from_bytes(key[:length], "big")
    return length - (different.bit_length() + 7) // 8


def _open_nodes(entries: Sequence[tuple[bytes, bytes]]) -> list[_OpenNode] | None:
    """Put all entries in. Returns the nodes still open, by level up to the highest key's; None if no tree has them."""
    nodes = [_OpenNode()]
    last_key = b""
    for key, value in entries:
        if key <= last_key or len(key) > KEY_MAX_BYTES or KEY_SYNTAX.fullmatch(key) is None:
            return None
        if len(value) != CID_LENGTH or not value.startswith(DAG_CBOR_CID_PREFIX):
            return None
        last_key = key
        depth = key_depth(key)
        if depth:  # three of four keys are on the lowest level: nothing can be below them
            nodes += [_OpenNode() for _ in range(depth + 1 - len(nodes))]
            below = _close(nodes[:depth])
            if below is not None:
                nodes[depth].put_subtree(below)
        nodes[depth].entries.append((key, value, None))
    return nodes


def _close(nodes: list[_OpenNode]) -> bytes | None:
    """Close nodes from the lowest up. Returns the CID of the last, None when all were empty."""
    cid: bytes | None = None
    for node in nodes:
        if cid is not None:
            node.put_subtree(cid)
        cid = node.close()
    return cid


def _node_block(left: bytes | None, entries: list[tuple[bytes, bytes, bytes | None]]) -> bytes:
    encoded = [NODE_START, cbor_head(4, len(entries))]
    before = b""
    for key, value, right in entries:
        prefix = shared_prefix_bytes(before, key) if before else 0
        rest = key[prefix:]
        tree = NULL if right is None else LINK_HEAD + right[4:]
        encoded.append(ENTRY_FORMAT % (BYTES_HEADS[len(rest)], rest, INT_HEADS[prefix], tree, value[4:]))
        before = key
    encoded += (NODE_LEFT, NULL if left is None else LINK_HEAD + left[4:])
    return b"".join(encoded)
