"""One entry of a shard's log: what one commit adds, removes and says about DIDs, and its exact bytes.

How entries add up is in `fold.py`, how they are appended and checked against each other in `log.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import orjson

from backfill_dagster.model import RepoOutcome
from backfill_dagster.records.canonical import canonical_json, digest

ENTRY_MAX_BYTES = 1024 * 1024
"""Bytes of one entry, at most: a log has to stay quick to read and one PUT on S3."""

_SHA256_HEX_LENGTH = 64


@dataclass(frozen=True, slots=True)
class Part:
    """One Parquet file.

    Attributes:
        path: key in the store; carries shard, seq, epoch and a unique id, and is never used twice.
        record_type: the type of its rows; None for a quarantine part.
        rows: how many.
        bytes: size of the file.
        sha256: hex digest of the file.
    """

    path: str
    record_type: str | None
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEntry:
    """One entry. An entry without adds, removes and DIDs is a seal: it only says that a new epoch has begun.

    Attributes:
        seq: its number, 1 for the first, without gaps.
        epoch: the writer's epoch; never falls from one entry to the next.
        nonce: unique per attempt to append, so that a writer knows its own entry after a lost reply.
        run_id: the run that wrote it.
        scope: the config's scope that `dids` answer to.
        refresh: the plan's refresh number that `dids` answer to.
        adds: parts that become live.
        removes: paths of parts that stop being live.
        dids: outcome by DID.
        supersedes: DIDs whose rows in parts of a lower seq are dead from here on.
        purged: DIDs and AT URIs that may never be stored again.
        voids: seqs of entries that can't be read and count as empty (`backfill repair`).
        rewritten: with this entry every row that was superseded up to this seq is out of the live parts; 0: it says
            nothing about that.
        prev: `own` of the entry before; empty for the first, and after an entry that can't be read.
        own: sha256 (hex) of this entry's JSON without `own`.
    """

    seq: int
    epoch: int
    nonce: str
    run_id: str
    scope: str = ""
    refresh: int = 0
    adds: Sequence[Part] = ()
    removes: Sequence[str] = ()
    dids: Mapping[str, RepoOutcome] = field(default_factory=dict)
    supersedes: Sequence[str] = ()
    purged: Sequence[str] = ()
    voids: Sequence[int] = ()
    rewritten: int = 0
    prev: str = ""
    own: str = ""

    @property
    def is_seal(self) -> bool:
        """Whether it carries nothing but its epoch."""
        content = (self.adds, self.removes, self.dids, self.supersedes, self.purged, self.voids, self.rewritten)
        return not any(content)

    def sealed(self) -> LogEntry:
        """The same entry with `own` set."""
        return replace(self, own=digest(_fields(self)))

    def to_bytes(self) -> bytes:
        """Canonical JSON: keys sorted, no spaces, UTF-8. Texts that UTF-8 can't say get `?` for the odd characters."""
        return canonical_json(_fields(self) | {"own": self.own})

    @classmethod
    def from_bytes(cls, data: bytes) -> LogEntry:
        """Read an entry back and check its hash; fields of later versions count for the hash and are ignored.

        Raises:
            ValueError: no JSON object, a field is missing or of the wrong type, or the hash is wrong.
        """
        content = orjson.loads(data)
        if not isinstance(content, dict):
            raise ValueError("it is no JSON object")
        own = content.pop("own", None)
        if own != digest(content):
            raise ValueError("its sha256 is not the one it carries")
        try:
            return cls(own=own, **_checked(content))
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"a field is missing or of the wrong type ({error!r})") from error


def outcome_bytes(result: RepoOutcome) -> int:
    """Bytes that one DID adds to an entry, exactly."""
    return len(canonical_json({result.did: result.to_json()})) - len("{}") + len(",")


def entry_bytes(
    *,
    adds: Sequence[Part] = (),
    removes: Sequence[str] = (),
    dids: Mapping[str, RepoOutcome] | None = None,
    supersedes: Sequence[str] = (),
    run_id: str = "",
    scope: str = "",
) -> int:
    """Upper bound of the bytes of an entry with this content, for whoever has to cut a batch below the maximum."""
    nonce_and_numbers = 256
    entry = LogEntry(
        seq=0,
        epoch=0,
        nonce="",
        run_id=run_id,
        scope=scope,
        adds=adds,
        removes=removes,
        dids=dids or {},
        supersedes=supersedes,
        prev="0" * _SHA256_HEX_LENGTH,
        own="0" * _SHA256_HEX_LENGTH,
    )
    return len(entry.to_bytes()) + nonce_and_numbers


def _fields(entry: LogEntry) -> dict[str, Any]:
    content = {f.name: getattr(entry, f.name) for f in fields(entry) if f.name != "own"}
    return content | {
        "adds": [asdict(part) for part in entry.adds],
        "removes": list(entry.removes),
        "dids": {did: result.to_json() for did, result in entry.dids.items()},
        "supersedes": list(entry.supersedes),
        "purged": list(entry.purged),
        "voids": list(entry.voids),
    }


def _checked(content: Mapping[str, Any]) -> dict[str, Any]:
    """The fields by name, each of its type; TypeError, KeyError or ValueError otherwise."""
    return {
        "seq": _number(content["seq"]),
        "epoch": _number(content["epoch"]),
        "nonce": _text(content["nonce"]),
        "run_id": _text(content["run_id"]),
        "scope": _text(content["scope"]),
        "refresh": _number(content["refresh"]),
        "adds": [part_from_json(part) for part in content["adds"]],
        "removes": _texts(content["removes"]),
        "dids": {did: RepoOutcome.from_json(did, result) for did, result in content["dids"].items()},
        "supersedes": _texts(content["supersedes"]),
        "purged": _texts(content["purged"]),
        "voids": [_number(seq) for seq in content["voids"]],
        "rewritten": _rewritten(content),
        "prev": _text(content["prev"]),
    }


def part_from_json(content: Mapping[str, Any]) -> Part:
    """Read a part back from its JSON form; KeyError or TypeError when it isn't one."""
    record_type = content["record_type"]
    return Part(
        path=_text(content["path"]),
        record_type=None if record_type is None else _text(record_type),
        rows=_number(content["rows"]),
        bytes=_number(content["bytes"]),
        sha256=_text(content["sha256"]),
    )


def _rewritten(content: Mapping[str, Any]) -> int:
    """Entries of the first version say it by having removes: they rewrote everything in one entry."""
    if "rewritten" in content:
        return _number(content["rewritten"])
    return _number(content["seq"]) if content["removes"] else 0


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _texts(value: object) -> list[str]:
    if not isinstance(value, list):
        raise TypeError(f"{value!r} is no list")
    return [_text(item) for item in value]


def _number(value: object) -> int:
    if type(value) is not int or value < 0:
        raise TypeError(f"{value!r} is no whole number")
    return value
