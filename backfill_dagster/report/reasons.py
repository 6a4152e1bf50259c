"""Why a DID has no complete repo, in one sentence, and what someone can do about it: one row per outcome."""

from __future__ import annotations

from backfill_dagster.model import Outcome

REASONS: dict[Outcome, tuple[str, str]] = {
    Outcome.COMPLETE: ("fetched, verified and committed", ""),
    Outcome.UNCHANGED: ("nothing new since the last fetch", ""),
    Outcome.DEACTIVATED: ("the owner has deactivated the account", "a refresh asks again"),
    Outcome.SUSPENDED: ("the host has suspended the account", "a refresh asks again"),
    Outcome.TAKEN_DOWN: ("the host has taken the account down", "a refresh asks again"),
    Outcome.NOT_FOUND: ("the host has no such repo, though the DID document names it", "a refresh asks again"),
    Outcome.MOVED: ("the account has moved to another host since the plan", "plan again: it gets a shard there"),
    Outcome.UNRESOLVABLE: ("no DID document, or one without a PDS", "a refresh looks it up again"),
    Outcome.INVALID_DID: ("the source's value is neither a DID nor a handle that resolves", "mend the source"),
    Outcome.INVALID_REPO: ("the repo failed a check: CAR, CID, structure or signature", "a refresh tries again"),
    Outcome.TOO_LARGE: (
        "the repo is over processing.max_repo_mib",
        "raise it, then `backfill retry`",
    ),
    Outcome.REFUSED_HOST: (
        "the host's address is private or no plain http(s) origin",
        "on a network of your own: processing.allow_private_hosts: true, then `backfill retry --outcome refused_host`",
    ),
    Outcome.PURGED: ("removed by `backfill purge`", ""),
    Outcome.HTTP_ERROR: ("the host failed again and again", "run again"),
    Outcome.PENDING: ("not fetched yet", "run (or plan, for DIDs whose directory was down)"),
}
