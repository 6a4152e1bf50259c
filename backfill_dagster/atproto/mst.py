"""The Merkle search tree: all records of a repo by key, read in order with every rule of its form checked.

One set of entries has exactly one tree, so anything else is refused: a lax reader accepts duplicate keys, shared
subtrees and negative prefixes. Nothing here knows commits or decodes records; building trees lives in `mst_build`.
Source: https://atproto.com/specs/repository#mst-structure
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass
from hashlib import sha256
from typing import Protocol, TypeAlias

from backfill_dagster.atproto.car import BlockIndex, Car
from backfill_dagster.atproto.cid import DAG_CBOR_CID_PREFIX, cid_text
from backfill_dagster.atproto.dag_cbor import cbor_head, decode_dag_cbor
from backfill_dagster.errors import InvalidRepoError

KEY_MAX_BYTES = 1024

MAX_LEVEL = 128
"""No key is on a higher level: a sha256 has 128 pairs of bits."""

KEY_SYNTAX = re.compile(rb"[a-zA-Z0-9_~.:-]+/[a-zA-Z0-9_~.:-]+")
"""The syntax of a key, but for its length."""

# The canonical form of a node: NODE_START, the head of its list, its entries, NODE_LEFT, link or null.
NODE_START, NODE_LEFT = b"\xa2\x61e", b"\x61l"
NULL = b"\xf6"
LINK_HEAD = b"\xd8\x2a\x58\x25\x00" + DAG_CBOR_CID_PREFIX
"""Of a link to a DAG-CBOR block; what follows is the CID without its prefix."""

INT_HEADS = tuple(cbor_head(0, number) for number in range(KEY_MAX_BYTES + 1))
BYTES_HEADS = tuple(cbor_head(2, number) for number in range(KEY_MAX_BYTES + 1))
ENTRY_FORMAT = b"\xa4\x61k%b%b\x61p%b\x61t%b\x61v" + LINK_HEAD.replace(b"%", b"%%") + b"%b"
"""`{"k": <rest>, "p": <prefix>, "t": <right>, "v": <value>}`, the head of `rest` apart, `value` without its prefix."""

NodeEntry: TypeAlias = tuple[bytes, bytes, bytes | None]
"""Key, CID of the record, CID of the subtree between this key and the next."""


class HasBlocks(Protocol):
    """A CAR, or a repo out of one."""

    @property
    def blocks(self) -> BlockIndex:
        """The blocks that there are."""
        ...


@dataclass(frozen=True, slots=True)
class Gap:
    """A subtree that a partial CAR lacks: nothing in it is newer than what the CAR was asked for.

    Not every key that once was between `after` and `before` is in it: see `mst_build.find_subtree`.

    Attributes:
        after: all its keys are above this one; empty when none comes before it.
        before: all its keys are below this one; None when none comes after it.
        cid: of its root node (36 bytes); `mst_build.subtree_cid` says whether given entries are its whole content.
        level: of its root node; -1 (unknown) when the whole tree is absent.
    """

    after: str
    before: str | None
    cid: bytes
    level: int


def key_depth(key: bytes) -> int:
    """The level a key lives on, counted from the leaves: pairs of leading zero bits of its sha256."""
    digest = sha256(key).digest()
    if digest[0] >= 0x40:
        return 0
    return (256 - int.from_bytes(digest, "big").bit_length()) // 2


def walk_mst(car: Car, data_cid: bytes, partial: bool = False) -> list[tuple[str, bytes]]:
    """All entries under a root node, as `iter_mst` yields them."""
    return list(iter_mst(car, data_cid, partial))


def iter_mst(
    car: Car, data_cid: bytes, partial: bool = False, gaps: list[Gap] | None = None
) -> Iterator[tuple[str, bytes]]:
    """Walk a tree in key order.

    Checked on the way: exact fields and types, canonical encoding, key syntax (two parts in the characters of record
    keys; whether they are an NSID and a record key is for the reader of the record), keys strictly ascending, prefixes
    maximal, each key and node on the level that its hash says (which also bounds the depth), no empty subtree, each
    node referenced once, the sum of key bytes within the CAR's expansion limit.

    Args:
        car: where the nodes are.
        data_cid: CID of the root node (36 bytes).
        partial: leave out subtrees whose node isn't in the CAR, instead of refusing them.
        gaps: gets the subtrees left out, in key order.

    Yields:
        Key (`<collection>/<rkey>`) and CID of the record; that the record's block is there is not checked.

    Raises:
        InvalidRepoError: a node is missing or breaks a rule.
    """
    seen: set[bytes] = set()
    stack: list[tuple[Iterator[NodeEntry], int]] = []
    key_bytes_left = car.expansion_limit_bytes
    last_key = b""
    subtree: bytes | None = data_cid
    depth: int | None = None
    while True:
        while subtree is not None:
            if subtree in seen:
                raise _invalid(subtree, "it is referenced twice")
            seen.add(subtree)
            if partial and subtree not in car.blocks:
                if gaps is not None:
                    gaps.append(Gap(last_key.decode(), _next_key(stack), subtree, -1 if depth is None else depth))
                break
            left, entries = read_node(car, subtree)
            depth = _check_levels(subtree, left, entries, depth)
            stack.append((iter(entries), depth))
            subtree, depth = left, depth - 1
        if not stack:
            return
        rest_of_node, level = stack[-1]
        for key, value, subtree in rest_of_node:
            if key <= last_key:
                raise InvalidRepoError(f"the MST's keys are not ascending at {key.decode()}", error_code="InvalidMst")
            last_key = key
            key_bytes_left -= len(key)
            if key_bytes_left < 0:
                raise InvalidRepoError(
                    "the keys add up to more than a CAR of this size can honestly hold", error_code="TooMuchExpansion"
                )
            yield key.decode(), value
            if subtree is not None:
                depth = level - 1
                break
        else:
            stack.pop()
            subtree = None


def _next_key(stack: list[tuple[Iterator[NodeEntry], int]]) -> str | None:
    """The key that the walk comes to next when it goes into no subtree; it stays where it is."""
    for rest_of_node, _ in reversed(stack):
        for key, _, _ in copy(rest_of_node):
            return key.decode()
    return None


def _check_levels(cid: bytes, left: bytes | None, entries: list[NodeEntry], depth: int | None) -> int:
    """Check a node's level: `depth` when it is known from its parent, None for the root. Returns the level."""
    if not entries:
        if depth is None and left is None:
            return 0  # the empty repo
        if depth is None or left is None:
            raise _invalid(cid, "it is empty and could be left out")
    expected = key_depth(entries[0][0]) if depth is None else depth
    has_subtree = left is not None
    for key, _, right in entries:
        # Three of four keys are on the lowest level, where the first byte of the hash says it all.
        if key_depth(key) != expected if expected else sha256(key).digest()[0] < 0x40:
            raise _invalid(cid, f"key {key.decode()} doesn't belong on its level, {expected}")
        if right is not None:
            has_subtree = True
    if has_subtree and expected == 0:
        raise _invalid(cid, "it is on the lowest level and has a subtree")
    return expected


def read_node(car: HasBlocks, cid: bytes) -> tuple[bytes | None, list[NodeEntry]]:
    """Decode a node and check everything that can be seen in it alone.

    Returns:
        CID of its left subtree (36 bytes) or None, and its entries.

    Raises:
        InvalidRepoError: it is missing or breaks a rule.
    """
    if cid not in car.blocks:
        raise InvalidRepoError(f"the CAR lacks MST node {cid_text(cid)}: was it cut short?", error_code="MissingBlock")
    block = car.blocks.block(cid)
    try:
        fields = decode_dag_cbor(block)
    except ValueError as error:
        raise _invalid(cid, f"it is not DAG-CBOR ({error})") from error
    if type(fields) is not dict or list(fields) != ["e", "l"] or type(fields["e"]) is not list:
        raise _invalid(cid, "it is not an object of the fields e (a list) and l")
    left = fields["l"]
    if left is not None and type(left) is not bytes:
        raise _invalid(cid, "its field l is not a link")
    entries: list[NodeEntry] = []
    encoded = [NODE_START, cbor_head(4, len(fields["e"]))]
    key = b""
    for entry in fields["e"]:
        if type(entry) is not dict or len(entry) != 4:
            raise _invalid(cid, "an entry is not an object of the fields k, p, t and v")
        rest, prefix, right, value = entry.values()  # the decoder enforces the canonical order
        if type(rest) is not bytes or type(prefix) is not int or type(value) is not bytes:
            raise _invalid(cid, "an entry has a field of a wrong type")
        if right is not None and type(right) is not bytes:
            raise _invalid(cid, "an entry's field t is not a link")
        if not 0 <= prefix <= len(key):
            raise _invalid(cid, f"an entry's prefix length of {prefix} is out of range")
        if rest[:1] <= key[prefix : prefix + 1]:
            raise _invalid(cid, f"the key after {key.decode()} is not above it, or its prefix could be longer")
        key = key[:prefix] + rest
        if len(key) > KEY_MAX_BYTES or KEY_SYNTAX.fullmatch(key) is None:
            raise _invalid(cid, f"{key[:100]!r} is not a key <collection>/<rkey>")
        entries.append((key, value, right))
        tree = NULL if right is None else LINK_HEAD + right[4:]
        encoded.append(ENTRY_FORMAT % (BYTES_HEADS[len(rest)], rest, INT_HEADS[prefix], tree, value[4:]))
    encoded += (NODE_LEFT, NULL if left is None else LINK_HEAD + left[4:])
    # The decoder accepts what encodes the same values in other bytes (byte strings for links, long forms of integers);
    # this also covers the names of an entry's fields.
    if b"".join(encoded) != block:
        raise _invalid(cid, "it is not in canonical form, or links to something else than DAG-CBOR blocks")
    return left, entries


def _invalid(cid: bytes, problem: str) -> InvalidRepoError:
    return InvalidRepoError(f"MST node {cid_text(cid)} is invalid: {problem}", error_code="InvalidMst")
