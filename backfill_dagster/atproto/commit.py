"""Commits, the signed root blocks of repos: versions 3 and 2, read strictly. Checking the signature lives in `repo`.

Source: https://atproto.com/specs/repository#commit-objects
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from backfill_dagster.atproto.cid import CID_LENGTH, DAG_CBOR_CID_PREFIX
from backfill_dagster.atproto.dag_cbor import Link, cbor_head, decode_dag_cbor, encode_dag_cbor
from backfill_dagster.atproto.did import is_did
from backfill_dagster.atproto.keys import SIGNATURE_LENGTH
from backfill_dagster.atproto.tid import is_tid
from backfill_dagster.errors import InvalidRepoError

_FIELDS = {
    2: frozenset({"did", "version", "data", "prev", "sig"}),
    3: frozenset({"did", "version", "data", "rev", "prev", "sig"}),
}


@dataclass(frozen=True, slots=True)
class Commit:
    """One commit.

    Attributes:
        did: whose repo it is.
        version: 2 or 3.
        data: CID of the MST's root node (36 bytes).
        rev: TID, None in version 2.
        prev: CID of the commit before (36 bytes) or None.
        sig: r and s (64 bytes), not yet verified.
        signed_bytes: what `sig` signs: the block without its field `sig`.
    """

    did: str
    version: int
    data: bytes
    rev: str | None
    prev: bytes | None
    sig: bytes
    signed_bytes: bytes


def read_commit(block: bytes) -> Commit:
    """Read a commit block.

    Raises:
        InvalidRepoError: not a commit of version 2 or 3 with exactly its fields, in canonical DAG-CBOR.
    """
    try:
        fields = decode_dag_cbor(block)
    except ValueError as error:
        raise _invalid(f"it is not DAG-CBOR ({error})") from error
    if type(fields) is not dict:
        raise _invalid("it is not an object")
    version = fields.get("version")
    if type(version) is not int or version not in _FIELDS:
        raise _invalid(f"its version is {str(version)[:20]}; known are 2 and 3")
    if fields.keys() != _FIELDS[version]:
        raise _invalid(
            f"a commit of version {version} has the fields {', '.join(sorted(_FIELDS[version]))} and no others"
        )
    _check_types(fields)
    return Commit(
        did=fields["did"],
        version=version,
        data=fields["data"],
        rev=fields.get("rev"),
        prev=fields["prev"],
        sig=fields["sig"],
        signed_bytes=_cut_signature(block, fields),
    )


def _check_types(fields: dict[str, Any]) -> None:
    if type(fields["did"]) is not str or not is_did(fields["did"]):
        raise _invalid("its did is not a DID")
    if "rev" in fields and (type(fields["rev"]) is not str or not is_tid(fields["rev"])):
        raise _invalid("its rev is not a TID")
    if not _is_cid(fields["data"]):
        raise _invalid("its data is not a link to a DAG-CBOR block")
    if fields["prev"] is not None and not _is_cid(fields["prev"]):
        raise _invalid("its prev is neither null nor a link to a DAG-CBOR block")
    if type(fields["sig"]) is not bytes or len(fields["sig"]) != SIGNATURE_LENGTH:
        raise _invalid(f"its sig is not {SIGNATURE_LENGTH} bytes")


def _cut_signature(block: bytes, fields: dict[str, Any]) -> bytes:
    """The block's own bytes without the field `sig`.

    The block is compared with the one canonical encoding of its values, so what is cut out of it stands where it must.
    """
    links = {name: Link(fields[name]) for name in ("data", "prev") if fields[name] is not None}
    if encode_dag_cbor({**fields, **links}) != block:
        raise _invalid("it is not in canonical form")
    # No value before `sig` in canonical order (did, rev) can hold these bytes: neither syntax has an `@`.
    field = b"\x63sig" + cbor_head(2, SIGNATURE_LENGTH) + fields["sig"]
    before, after = block[1:].split(field, 1)
    return cbor_head(5, len(fields) - 1) + before + after


def _is_cid(value: object) -> bool:
    return type(value) is bytes and len(value) == CID_LENGTH and value.startswith(DAG_CBOR_CID_PREFIX)


def _invalid(problem: str) -> InvalidRepoError:
    return InvalidRepoError(f"the repo's commit is invalid: {problem}", error_code="InvalidCommit")
