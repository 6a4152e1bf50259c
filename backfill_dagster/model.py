"""The nouns that cross stages: outcomes, shards, what is planned for a DID, what became of its repo.

Plain values and their text forms only: nothing here reads, writes, waits or knows a config.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

UNROUTABLE_SHARD = "_unroutable"
"""The reserved shard of DIDs that no PDS host could be found for; it is no Dagster partition."""

ERROR_DETAIL_MAX_BYTES = 1024

HOST_DOWN = "HostDown"
"""Error code of the DIDs that were in hand when their host was found dead; they stay pending."""


class Outcome(StrEnum):
    """What became of one DID. Closed: a DID always has exactly one of these (`docs/outcomes.md`)."""

    COMPLETE = "complete"
    UNCHANGED = "unchanged"
    DEACTIVATED = "deactivated"
    SUSPENDED = "suspended"
    TAKEN_DOWN = "taken_down"
    NOT_FOUND = "not_found"
    MOVED = "moved"
    UNRESOLVABLE = "unresolvable"
    INVALID_DID = "invalid_did"
    INVALID_REPO = "invalid_repo"
    TOO_LARGE = "too_large"
    REFUSED_HOST = "refused_host"
    PURGED = "purged"
    HTTP_ERROR = "http_error"
    PENDING = "pending"

    @property
    def is_terminal(self) -> bool:
        """Whether it ends the DID's work in this scope (until a refresh or `backfill retry`)."""
        return self not in _NOT_TERMINAL

    @property
    def is_retried_on_refresh(self) -> bool:
        """Whether a refresh tries the DID again on the same shard."""
        return self in _RETRIED_ON_REFRESH

    @property
    def is_failure(self) -> bool:
        """Whether the fetch went wrong, at either end; what an account's owner or host has decided is none."""
        return self in _FAILURES

    @property
    def needs_attention(self) -> bool:
        """Whether a person may want to look: everything but complete and unchanged."""
        return self not in (Outcome.COMPLETE, Outcome.UNCHANGED)


_NOT_TERMINAL = frozenset({Outcome.HTTP_ERROR, Outcome.PENDING})
_FAILURES = frozenset({Outcome.HTTP_ERROR, Outcome.INVALID_REPO, Outcome.TOO_LARGE, Outcome.REFUSED_HOST})
_RETRIED_ON_REFRESH = frozenset(
    {
        Outcome.COMPLETE,
        Outcome.UNCHANGED,
        Outcome.DEACTIVATED,
        Outcome.SUSPENDED,
        Outcome.TAKEN_DOWN,
        Outcome.NOT_FOUND,
        Outcome.UNRESOLVABLE,
        Outcome.INVALID_REPO,
    }
)

_PARTITION_KEY = re.compile(r"([a-z0-9][a-z0-9.\-]*(?:_[0-9]{1,5})?)~([0-9]{4,})")


@dataclass(frozen=True, slots=True, order=True)
class Shard:
    """One host's Nth group of DIDs; `key` is the Dagster partition key `<host>~<NNNN>`.

    `host` is lower case (punycode), a port other than https' 443 is written `_<port>`: `localhost_2583`.
    """

    host: str
    number: int

    @property
    def key(self) -> str:
        """The partition key."""
        return f"{self.host}~{self.number:04d}"

    @property
    def turn(self) -> tuple[int, str]:
        """Its place where hosts go by turns: the first shard of each host, then the second of each."""
        return self.number, self.host

    @classmethod
    def parse(cls, key: str) -> Shard:
        """Read a partition key back; ValueError when it isn't one."""
        match = _PARTITION_KEY.fullmatch(key)
        if match is None:
            raise ValueError(f"{key!r} is not a partition key <host>~<NNNN>")
        return cls(match[1], int(match[2]))


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedDid:
    """What the plan says about one DID: where its repo is to be fetched.

    Attributes:
        did: the DID as it stands in the source (trimmed); may be an invalid one in the unroutable shard.
        shard: partition key, or `UNROUTABLE_SHARD`.
        pds_endpoint: origin of its PDS (`https://host[:port]`), empty when unroutable.
        handle: from the DID document's alsoKnownAs, unverified, empty when there is none.
        signing_key: the `#atproto` key as did:key, empty when the document has none.
        delisted: no longer in the source: not fetched, not deleted.
        outcome: for the unroutable ones, why; None for all others.
        error_code: short machine-readable reason that goes with `outcome`.
        error_detail: the reason in words.
        columns: the source's `keep_columns` as text, None for null.
    """

    did: str
    shard: str
    pds_endpoint: str = ""
    handle: str = ""
    signing_key: str = ""
    delisted: bool = False
    outcome: Outcome | None = None
    error_code: str = ""
    error_detail: str = ""
    columns: Mapping[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class RepoOutcome:
    """What became of one DID's repo in one attempt: the evidence that the log keeps and the ledger indexes.

    Times are ISO 8601 UTC text. `records_by_type` counts the DID's live rows (record type -> rows): after a refresh
    that failed these are the rows of the last complete fetch, and `rows_scope` is the scope they were fetched under.
    `records_seen_by_collection` counts everything the repo holds (full fetches only). `tree` are hashes of some of the
    repo's nodes as of the last complete fetch (`records.tree_marks`); the log keeps them, the ledger doesn't.
    """

    did: str
    outcome: Outcome
    scope: str = ""
    refresh: int = 0
    pds_endpoint: str = ""
    handle: str = ""
    rev: str | None = None
    commit_cid: str | None = None
    last_complete_rev: str | None = None
    signature_checked: bool = False
    repo_bytes: int = 0
    records_by_type: Mapping[str, int] = field(default_factory=dict)
    rows_scope: str = ""
    records_seen_by_collection: Mapping[str, int] | None = None
    undated: int = 0
    quarantined: int = 0
    attempts: int = 0
    http_status: int | None = None
    error_code: str | None = None
    error_detail: str | None = None
    error_headers: Mapping[str, str] = field(default_factory=dict)
    error_body_sha256: str | None = None
    fetched_at: str | None = None
    finished_at: str | None = None
    run_id: str = ""
    config_hash: str = ""
    code_version: str = ""
    tree: Sequence[Any] = ()

    @property
    def records_total(self) -> int:
        """Rows committed, all types together."""
        return sum(self.records_by_type.values())

    @property
    def has_rows(self) -> bool:
        """Whether rows of it are there, be it in quarantine."""
        return self.records_total > 0 or self.quarantined > 0

    @property
    def for_ledger(self) -> RepoOutcome:
        """What the ledger's item says: all but what only a later fetch needs."""
        return dataclasses.replace(self, tree=())

    @classmethod
    def purged(cls, did: str, wanted: Wanted, *, finished_at: str, run_id: str, config_hash: str) -> RepoOutcome:
        """The outcome that stays of a purged account: no evidence of what was there."""
        return cls(
            did=did,
            outcome=Outcome.PURGED,
            scope=wanted.scope,
            refresh=wanted.refresh,
            finished_at=finished_at,
            run_id=run_id,
            config_hash=config_hash,
        )

    def to_json(self) -> dict[str, Any]:
        """JSON form of the log entry: fields at their default are left out."""
        return {
            name: value
            for name, default in _REPO_OUTCOME_DEFAULTS.items()
            if name != "did" and (value := getattr(self, name)) != default
        }

    @classmethod
    def from_json(cls, did: str, data: Mapping[str, Any]) -> RepoOutcome:
        """Read the log entry's form back; fields of later versions are ignored."""
        known = {name: value for name, value in data.items() if name in _REPO_OUTCOME_DEFAULTS}
        return cls(**(known | {"did": did, "outcome": Outcome(known["outcome"])}))


_REPO_OUTCOME_DEFAULTS: dict[str, Any] = {
    f.name: (
        {} if f.default_factory is not dataclasses.MISSING else None if f.default is dataclasses.MISSING else f.default
    )
    for f in dataclasses.fields(RepoOutcome)
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerItem:
    """One ledger entry: the outcome of a DID in one shard of one backfill, at one seq of the shard's log."""

    backfill: str
    shard: str
    seq: int
    result: RepoOutcome


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a DID's log entry has to answer to: the scope of records, and the refresh round of the plan."""

    scope: str
    refresh: int


def cut_detail(text: str) -> str:
    """Cut an error text to `ERROR_DETAIL_MAX_BYTES` of UTF-8, on one line."""
    flat = " ".join(text.split())
    return flat.encode("utf-8", "replace")[:ERROR_DETAIL_MAX_BYTES].decode("utf-8", "ignore")
