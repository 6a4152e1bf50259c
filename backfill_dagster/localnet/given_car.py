"""CAR files given with `--car`: whose they are, what they hold, and how a backfill of them should end.

A reader of its own, small and slow, so that what is expected does not come from the code that is tested.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import libipld
import orjson

from backfill_dagster.errors import UsageError
from backfill_dagster.localnet.given_signature import is_signed_by
from backfill_dagster.localnet.mix import is_reply, record_type
from backfill_dagster.localnet.repo_writer import RepoBytes, keys_of
from backfill_dagster.model import Outcome


@dataclass(frozen=True, slots=True)
class GivenCar:
    """One CAR file.

    Attributes:
        path: where it lies.
        did: of its commit.
        repo: its bytes, as they are.
        counts: record type -> count; empty when the structure is not a whole repo.
        structure: the outcome under `verify: structure`.
        document: the DID document beside the file, None when there is none.
        signature_ok: whether the commit is signed by that document's key; never without a document.
    """

    path: Path
    did: str
    repo: RepoBytes
    counts: Mapping[str, int]
    structure: Outcome
    document: Mapping[str, Any] | None
    signature_ok: bool


def read_given_car(path: Path) -> GivenCar:
    """Read a CAR file, and `<name>.did.json` if it lies beside it (`<name>` without `.car` or `.repo.car`).

    Raises:
        UsageError: unreadable, no CAR, or no commit with a DID in it.
    """
    try:
        raw = path.read_bytes()
        header, blocks = libipld.decode_car(raw)
        root = header["roots"][0]
        commit = blocks[root]
        did = commit["did"]
        assert isinstance(did, str)
    except OSError as error:
        raise UsageError(f"can't read the CAR file {path}: {error.strerror}") from error
    except (ValueError, KeyError, IndexError, TypeError, AssertionError) as error:
        raise UsageError(f"{path} is not the CAR file of a repo: {error}") from error
    rev = commit.get("rev")
    repo = RepoBytes(root, rev if isinstance(rev, str) else "", b"", raw, array("Q"), array("Q"), 0, verbatim=True)
    counts, structure = _contents(root, blocks)
    document = _document_beside(path)
    signature_ok = document is not None and is_signed_by(commit, document)
    return GivenCar(path, did, repo, counts, structure, document, signature_ok)


def _contents(root: bytes, blocks: Mapping[bytes, Any]) -> tuple[dict[str, int], Outcome]:
    try:
        keys = keys_of(root, blocks)
    except (ValueError, KeyError, TypeError):
        return {}, Outcome.INVALID_REPO
    counts: Counter[str] = Counter()
    for key, cid in keys.items():
        if cid not in blocks:
            return {}, Outcome.INVALID_REPO
        counts[record_type(key.partition("/")[0], is_reply=is_reply(blocks[cid]))] += 1
    return dict(counts), Outcome.COMPLETE


def _document_beside(path: Path) -> Mapping[str, Any] | None:
    name = path.name.removesuffix(".car").removesuffix(".repo")
    beside = path.with_name(f"{name}.did.json")
    if not beside.exists():
        return None
    try:
        document = orjson.loads(beside.read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        raise UsageError(f"can't read the DID document {beside}: {error}") from error
    if not isinstance(document, dict):
        raise UsageError(f"the DID document {beside} is not a JSON object")
    return document
