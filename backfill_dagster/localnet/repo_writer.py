"""Signed repos as packed CAR bytes: writing one, cutting it by `since`, and committing changes to it.

Knows nothing of HTTP, accounts or record content. The order of blocks is the reference PDS's: newest rev first, so the
root is rarely the first block, and what `since` leaves is a prefix.
Source: https://atproto.com/specs/repository
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import libipld

from backfill_dagster.localnet.blocks import NULL, car_header, cid_of, data, link, section, text
from backfill_dagster.localnet.signing import SigningKey
from backfill_dagster.localnet.tids import tid
from backfill_dagster.localnet.tree import Block, Entry, write_tree

CID_BYTES = 36


@dataclass(frozen=True, slots=True)
class RepoBytes:
    """A repo at one commit, ready to be sent.

    Attributes:
        root: the commit's CID, 36 bytes.
        rev: the repo's rev by its host's word: the commit's, or a later one when the repo was imported as it was
            (`import_anew`); empty for a version 2 repo, which has none.
        header: the CAR header section.
        body: all block sections, newest rev first.
        revs_us: per section, the moment (us) of the commit that first had the block; descending.
        ends: per section, where it ends in `body`.
        clock_id: of all revs of this repo.
        verbatim: a file as it was given: `since` is ignored, as some PDSes do.
    """

    root: bytes
    rev: str
    header: bytes
    body: bytes
    revs_us: array[int]
    ends: array[int]
    clock_id: int
    verbatim: bool = False

    def car(self, since: str | None = None) -> bytes:
        """The CAR of all blocks with a rev later than `since` (a TID); only the header when there is none."""
        if since is None or self.verbatim:
            return self.header + self.body
        newer = bisect_left(self.revs_us, True, key=lambda micros: tid(micros, self.clock_id) <= since)
        return self.header + self.body[: self.ends[newer - 1]] if newer else self.header

    @property
    def size_bytes(self) -> int:
        """Memory that it takes, about."""
        return len(self.header) + len(self.body) + 16 * len(self.ends)


@dataclass(frozen=True, slots=True)
class NewRecord:
    """A record to be written: key `<collection>/<rkey>`, its DAG-CBOR block, the moment (us) of its commit."""

    key: str
    block: bytes
    rev_us: int


def write_repo(did: str, key: SigningKey, records: Iterable[NewRecord], *, created_us: int, clock_id: int) -> RepoBytes:
    """Write a repo whose records were committed one by one, and sign its last commit.

    Args:
        did: the account.
        key: what the commit is signed with.
        records: in any order; no key twice.
        created_us: moment of the first, empty commit.
        clock_id: of the revs.
    """
    entries: list[Entry] = []
    blocks: dict[bytes, Block] = {}
    for record in records:
        cid = cid_of(record.block)
        entries.append(Entry(record.key.encode(), cid, record.rev_us))
        known = blocks.get(cid)
        if known is None or record.rev_us < known.rev_us:
            blocks[cid] = Block(record.rev_us, cid, record.block)
    entries.sort()
    rev_us = max((entry.rev_us for entry in entries), default=created_us)
    root, nodes = write_tree(entries, empty_rev_us=created_us)
    return _pack(did, key, root, [*blocks.values(), *nodes], rev_us=rev_us, clock_id=clock_id)


def _pack(did: str, key: SigningKey, data_cid: bytes, blocks: list[Block], *, rev_us: int, clock_id: int) -> RepoBytes:
    """Sign the commit over a tree and lay the blocks out."""
    commit = signed_commit(did, key, data_cid, tid(rev_us, clock_id))
    root = cid_of(commit)
    return _lay_out(root, [*blocks, Block(rev_us, root, commit)], rev_us=rev_us, clock_id=clock_id)


def _lay_out(root: bytes, blocks: list[Block], *, rev_us: int, clock_id: int) -> RepoBytes:
    blocks = sorted(blocks, reverse=True)
    body = bytearray()
    ends = array("Q")
    for _, cid, block in blocks:
        body += section(cid, block)
        ends.append(len(body))
    revs_us = array("Q", (block.rev_us for block in blocks))
    return RepoBytes(root, tid(rev_us, clock_id), car_header(root), bytes(body), revs_us, ends, clock_id)


def signed_commit(did: str, key: SigningKey, data_cid: bytes, rev: str) -> bytes:
    """The block of a version 3 commit; `sig` covers the same map without it."""
    start = text("did") + text(did) + text("rev") + text(rev)
    rest = text("data") + link(data_cid) + text("prev") + NULL + text("version") + b"\x03"
    signature = key.sign(b"\xa5" + start + rest)
    return b"\xa6" + start + text("sig") + data(signature) + rest


def blocks_of(repo: RepoBytes) -> dict[bytes, Block]:
    """All blocks of a packed repo by CID (not for a verbatim one, whose layout is a stranger's)."""
    out = {}
    start = 0
    for rev_us, end in zip(repo.revs_us, repo.ends, strict=True):
        begin = start
        while repo.body[begin] & 0x80:
            begin += 1
        cid = repo.body[begin + 1 : begin + 1 + CID_BYTES]
        out[cid] = Block(rev_us, cid, repo.body[begin + 1 + CID_BYTES : end])
        start = end
    return out


def keys_of(root: bytes, blocks: Mapping[bytes, Any]) -> dict[str, bytes]:
    """Key -> record CID of a repo in key order; `blocks` has blocks (or decoded blocks) by CID.

    Raises:
        ValueError: a node is missing or isn't one.
    """
    out: dict[str, bytes] = {}
    stack: list[tuple[str, bytes] | bytes] = [_field(_decoded(blocks, root), "data")]
    while stack:
        top = stack.pop()
        if isinstance(top, tuple):
            out[top[0]] = top[1]
            continue
        node = _decoded(blocks, top)
        later: list[tuple[str, bytes] | bytes] = [node["l"]] if _field(node, "l") else []
        before = b""
        for entry in _field(node, "e"):
            before = before[: _field(entry, "p")] + _field(entry, "k")
            later.append((before.decode(), _field(entry, "v")))
            if _field(entry, "t"):
                later.append(entry["t"])
        stack.extend(reversed(later))
    return out


def _decoded(blocks: Mapping[bytes, Any], cid: bytes) -> Any:
    if cid not in blocks:
        raise ValueError(f"block {cid.hex()} is missing")
    found = blocks[cid]
    return libipld.decode_dag_cbor(found.block) if isinstance(found, Block) else found


def _field(data: Any, name: str) -> Any:
    if not isinstance(data, dict) or name not in data:
        raise ValueError(f"a node or commit without {name!r}")
    return data[name]


def commit_changes(
    repo: RepoBytes, did: str, key: SigningKey, changes: Mapping[str, bytes | None], *, rev_us: int
) -> RepoBytes:
    """The repo after one more commit.

    Args:
        repo: the repo before (not a verbatim one).
        did: the account.
        key: what the new commit is signed with.
        changes: key -> new block, or None to delete it. May be empty: a commit over the same tree.
        rev_us: moment of the commit, later than the one before.

    Raises:
        ValueError: a key to delete isn't there.
    """
    old = blocks_of(repo)
    keys = keys_of(repo.root, old)
    kept: dict[bytes, Block] = {}
    for path, block in changes.items():
        if block is None:
            if keys.pop(path, None) is None:
                raise ValueError(f"no record {path} to delete")
            continue
        keys[path] = cid_of(block)
        if keys[path] not in old:
            kept[keys[path]] = Block(rev_us, keys[path], block)
    for cid in keys.values():
        if cid in old:
            kept[cid] = old[cid]
    entries = sorted(Entry(path.encode(), cid, rev_us) for path, cid in keys.items())
    root, nodes = write_tree(entries, empty_rev_us=rev_us)
    for node in nodes:
        kept[node.cid] = old.get(node.cid, node)
    return _pack(did, key, root, list(kept.values()), rev_us=rev_us, clock_id=repo.clock_id)


def import_anew(repo: RepoBytes, did: str, key: SigningKey, *, rev_us: int, sign_again: bool) -> RepoBytes:
    """The same records as a PDS has them after importRepo: every block under one new rev, whatever it had before.

    Args:
        repo: the repo before (not a verbatim one).
        did: the account.
        key: what the new commit is signed with.
        rev_us: moment of the import, later than the last commit.
        sign_again: whether the account's first write follows, an empty one. Without it the commit is the imported one,
            whose own rev is older than that of its blocks: the reference PDS doesn't sign what it imports.
    """
    old = blocks_of(repo)
    blocks = [Block(rev_us, cid, block.block) for cid, block in old.items()]
    if not sign_again:
        return _lay_out(repo.root, blocks, rev_us=rev_us, clock_id=repo.clock_id)
    data_cid = _field(_decoded(old, repo.root), "data")
    tree = [block for block in blocks if block.cid != repo.root]
    return _pack(did, key, data_cid, tree, rev_us=rev_us, clock_id=repo.clock_id)
