"""One repo out of one CAR: framing, commit, signature and tree checked before anything of it is handed out.

So no row is ever made of a repo that turns out to be bad further on. Records stay undecoded blocks here (`records`).
Source: https://atproto.com/specs/repository
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from backfill_dagster.atproto.car import LENGTH_MASK, BlockIndex, Car, CarData, scan_car
from backfill_dagster.atproto.cid import cid_text
from backfill_dagster.atproto.commit import Commit, read_commit
from backfill_dagster.atproto.keys import check_signature, parse_did_key
from backfill_dagster.atproto.mst import Gap, iter_mst
from backfill_dagster.errors import InvalidRepoError, InvalidSignatureError

Verify: TypeAlias = Literal["full", "structure", "off"]
RepoEntry: TypeAlias = tuple[str, str, bytes]
"""Collection, record key and the record's CID (36 bytes)."""


@dataclass(frozen=True, slots=True)
class Repo:
    """A checked repo.

    Attributes:
        did: whose it is.
        rev: the commit's TID, None in version 2.
        commit_cid: text of the commit's CID.
        version: 2 or 3.
        signature_checked: whether the commit's signature was verified.
        entries: all records in key order; of a partial repo those whose block the CAR has. Collection and record key
            have the characters of keys but need not be an NSID and a record key.
        blocks: the CAR's blocks.
        absent: what a partial repo lists without having the block, in key order.
        gaps: the parts of the tree that a partial repo lacks, in key order.
        data: CID of the tree's root node (36 bytes).
    """

    did: str
    rev: str | None
    commit_cid: str
    version: int
    signature_checked: bool
    entries: list[RepoEntry]
    blocks: BlockIndex
    absent: list[RepoEntry] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    data: bytes = b""

    @property
    def is_whole(self) -> bool:
        """Whether `entries` are all records of the repo, which they may be even if it was read as a partial one."""
        return not self.gaps and not self.absent

    def block(self, cid: bytes) -> bytes:
        """The bytes of a record's block; KeyError when the CAR doesn't have it."""
        return self.blocks.block(cid)


def open_repo(
    data: CarData, *, did: str, signing_key: str | None, verify: Verify = "full", partial: bool = False
) -> Repo:
    """Read and check a whole repo.

    Args:
        data: the CAR.
        did: whose repo it has to be.
        signing_key: the account's `#atproto` key as did:key, empty or None when its DID document has none.
        verify: `full`; `structure` leaves out the signature; `off` also the sha256 of every block.
        partial: the CAR was asked for with `since`: absent subtrees and records are skipped, not refused.

    Raises:
        InvalidSignatureError: with `full`, there is no key or the signature isn't its.
        InvalidRepoError: anything else is wrong with it, or it lacks a block.
    """
    car = scan_car(data, verify_cids=verify != "off")
    if car.root not in car.blocks:
        raise InvalidRepoError("the CAR lacks its root, the commit: was it cut short?", error_code="MissingBlock")
    commit = read_commit(car.blocks.block(car.root))
    if commit.did != did:
        raise InvalidRepoError(f"the commit is of {commit.did[:100]}, not of {did}", error_code="DidMismatch")
    if verify == "full":
        _check_commit_signature(commit, signing_key)
    entries, absent, gaps = _read_entries(car, commit.data, partial)
    return Repo(
        did=did,
        rev=commit.rev,
        commit_cid=cid_text(car.root),
        version=commit.version,
        signature_checked=verify == "full",
        entries=entries,
        blocks=car.blocks,
        absent=absent,
        gaps=gaps,
        data=commit.data,
    )


def _check_commit_signature(commit: Commit, signing_key: str | None) -> None:
    if not signing_key:
        raise InvalidSignatureError(
            f"the DID document of {commit.did} has no usable #atproto key to check the commit with",
            error_code="NoSigningKey",
        )
    try:
        key = parse_did_key(signing_key)
    except ValueError as error:
        raise InvalidSignatureError(f"the signing key can't be read: {error}", error_code="NoSigningKey") from error
    check_signature(key, commit.signed_bytes, commit.sig)


def _read_entries(car: Car, data_cid: bytes, partial: bool) -> tuple[list[RepoEntry], list[RepoEntry], list[Gap]]:
    """Entries whose block is there, entries whose block isn't, absent subtrees."""
    entries: list[RepoEntry] = []
    absent: list[RepoEntry] = []
    gaps: list[Gap] = []
    places = car.blocks.places
    record_bytes = 0
    last_collection = ""
    for key, cid in iter_mst(car, data_cid, partial, gaps):
        collection, _, rkey = key.partition("/")
        if collection != last_collection:
            last_collection = collection
        entry = (last_collection, rkey, cid)  # one string for all of a collection's records
        place = places.get(cid)
        if place is not None:
            record_bytes += place & LENGTH_MASK
            entries.append(entry)
        elif partial:
            absent.append(entry)
        else:
            raise InvalidRepoError(f"the CAR lacks the record {key}: was it cut short?", error_code="MissingBlock")
    if record_bytes > car.expansion_limit_bytes:
        raise InvalidRepoError(
            f"its entries add up to {record_bytes} bytes of records, from a CAR of {car.size_bytes}",
            error_code="TooMuchExpansion",
        )
    return entries, absent, gaps
