"""What a getRepo body turns out to be: a whole repo, a part of one that answers the question, or nothing new.

Which rows come of it is `batch`'s, what a part proves about old rows `delta`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from backfill_dagster.atproto.car import CAR_HEADER_BYTES, scan_car
from backfill_dagster.atproto.cid import cid_text
from backfill_dagster.atproto.repo import Repo, Verify, open_repo
from backfill_dagster.atproto.tid import is_tid
from backfill_dagster.errors import BackfillError
from backfill_dagster.model import Outcome, RepoOutcome
from backfill_dagster.records.delta import UnprovenError
from backfill_dagster.records.selection import Selection
from backfill_dagster.worker.repo import Fetched

SEEN_COLLECTIONS_MAX = 200
"""Collections counted one by one in the evidence of a DID; the rest is added up under `*`."""


class NothingSinceError(BackfillError):
    """A header-only CAR: the host says that nothing was written since the date asked for; to be confirmed."""

    def __init__(self, root: str) -> None:
        super().__init__("the CAR has a root and no blocks")
        self.root = root


def is_header_only(fetched: Fetched) -> bool:
    """Whether the host says that nothing is newer than what was asked for."""
    return len(fetched.body.data) == CAR_HEADER_BYTES


def read_body(fetched: Fetched, signing_key: str, verify: Verify, selection: Selection) -> Repo:
    """Check a repo, or the part of it that was asked for.

    Args:
        fetched: the body, and what the question was.
        signing_key: the account's key as did:key.
        verify: how far it is checked.
        selection: which records are wanted.

    Raises:
        InvalidRepoError: a check failed.
        NothingSinceError: the CAR is header-only, the answer to a synthetic `since` that nothing is newer than.
        UnprovenError: it is not the part that was asked for.
    """
    did, data, since = fetched.planned.did, fetched.body.data, fetched.since
    if since is None:
        return open_repo(data, did=did, signing_key=signing_key, verify=verify)
    if is_header_only(fetched):
        raise NothingSinceError(cid_text(scan_car(data).root))
    repo = open_repo(data, did=did, signing_key=signing_key, verify=verify, partial=True)
    if not repo.is_whole and (repo.rev is None or repo.rev < since):
        raise UnprovenError(f"the partial CAR is of the rev {repo.rev}, older than the {since} asked for")
    if fetched.base is None:
        _check_range(repo, since, selection)
    return repo


def _check_range(repo: Repo, since: str, selection: Selection) -> None:
    """With a synthetic `since`: every wanted record of that time has its block."""
    for collection, rkey, _ in repo.absent:
        if rkey >= since and is_tid(rkey) and selection.wants_collection(collection):
            raise UnprovenError(f"the partial CAR lists {collection}/{rkey} and leaves it out")


def unchanged(fetched: Fetched, base: RepoOutcome) -> RepoOutcome:
    """The outcome of a header-only CAR, whose root has to be the very commit of the last complete fetch.

    Raises:
        UnprovenError: it isn't.
    """
    root = cid_text(scan_car(fetched.body.data).root)
    if root != base.commit_cid:
        raise UnprovenError(f"the CAR has no blocks, and its root {root} is not the commit {base.commit_cid} we have")
    return replace(
        base,
        outcome=Outcome.UNCHANGED,
        rev=base.last_complete_rev,
        attempts=fetched.attempts,
        fetched_at=fetched.fetched_at,
        http_status=None,
        error_code=None,
        error_detail=None,
        error_headers={},
        error_body_sha256=None,
    )


def bounded_counts(counts: Mapping[str, int]) -> dict[str, int]:
    """Counts by collection, the smallest of too many added up under `*`."""
    if len(counts) <= SEEN_COLLECTIONS_MAX:
        return dict(counts)
    largest = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    kept = dict(largest[:SEEN_COLLECTIONS_MAX])
    return kept | {"*": sum(count for _, count in largest[SEEN_COLLECTIONS_MAX:])}
