"""Writing a Merkle search tree: sorted keys in, node blocks with the rev that first made them out.

Source: https://atproto.com/specs/repository#mst-structure
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import NamedTuple

from backfill_dagster.localnet.blocks import NULL, cid_of, data, head, link

_EMPTY_NODE = b"\xa2\x61e\x80\x61l\xf6"


class Entry(NamedTuple):
    """A record in the tree: key `<collection>/<rkey>` in bytes, CID, moment (us) of the commit it came with."""

    key: bytes
    cid: bytes
    rev_us: int


class Block(NamedTuple):
    """One block of a repo with the moment (us) of the commit that first had it."""

    rev_us: int
    cid: bytes
    block: bytes


class _Item(NamedTuple):
    """An entry at its layer, or (layer -1, no key) the finished subtree between two entries."""

    layer: int
    key: bytes
    cid: bytes
    rev_us: int


def layer_of(key: bytes) -> int:
    """A key's layer: leading zero bits of its sha256, halved."""
    digest = hashlib.sha256(key).digest()
    if digest[0] >= 0x40:
        return 0
    return (256 - int.from_bytes(digest, "big").bit_length()) // 2


def write_tree(entries: Iterable[Entry], *, empty_rev_us: int) -> tuple[bytes, list[Block]]:
    """Write the tree of entries in ascending key order.

    A node gets the newest rev among its subtree's records and the two entries around it: by then it existed in this
    form, so `since` sends it to everyone who may lack it.

    Args:
        entries: in ascending order of key, no key twice.
        empty_rev_us: the rev of the one node that an empty repo has.

    Returns:
        The root node's CID and all nodes.
    """
    items = [_Item(layer_of(e.key), e.key, e.cid, e.rev_us) for e in entries]
    if not items:
        cid = cid_of(_EMPTY_NODE)
        return cid, [Block(empty_rev_us, cid, _EMPTY_NODE)]
    nodes: list[Block] = []
    for layer in range(max(item.layer for item in items) + 1):
        items = _close_layer(items, layer, nodes)
    return items[0].cid, nodes


def _close_layer(items: list[_Item], layer: int, nodes: list[Block]) -> list[_Item]:
    """Replace every run of items of this layer by its node."""
    out: list[_Item] = []
    run: list[_Item] = []
    left_us = 0
    for item in items:
        if item.layer <= layer:
            run.append(item)
            continue
        if run:
            out.append(_close_node(run, max(left_us, item.rev_us), nodes))
            run = []
        out.append(item)
        left_us = item.rev_us
    if run:
        out.append(_close_node(run, left_us, nodes))
    return out


def _close_node(run: list[_Item], around_us: int, nodes: list[Block]) -> _Item:
    """Write one node; its item stands for it one layer up."""
    rev_us = max(around_us, max(item.rev_us for item in run))
    left = NULL
    parts: list[bytes] = []
    count = 0
    before = b""
    last = len(run) - 1
    for index, item in enumerate(run):
        if item.layer < 0:
            if index == 0:
                left = link(item.cid)
            continue
        shared = _shared_prefix(before, item.key)
        right = link(run[index + 1].cid) if index < last and run[index + 1].layer < 0 else NULL
        parts += (
            b"\xa4\x61k",
            data(item.key[shared:]),
            b"\x61p",
            head(0, shared),
            b"\x61t",
            right,
            b"\x61v",
            link(item.cid),
        )
        count += 1
        before = item.key
    block = b"".join((b"\xa2\x61e", head(4, count), *parts, b"\x61l", left))
    cid = cid_of(block)
    nodes.append(Block(rev_us, cid, block))
    return _Item(-1, b"", cid, rev_us)


def _shared_prefix(before: bytes, key: bytes) -> int:
    """How many leading bytes two keys share."""
    length = min(len(before), len(key))
    different = int.from_bytes(before[:length], "big") ^ int.from_bytes(key[:length], "big")
    return length - (different.bit_length() + 7) // 8
