"""The proof that a backfill's pieces agree: plan, shard logs, parts on disk, rows inside them, ledger.

Reads only, and says each difference in one line with its place. Mending is recovery's business.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import duckdb

from backfill_dagster.errors import StateError
from backfill_dagster.model import UNROUTABLE_SHARD, Outcome, PlannedDid
from backfill_dagster.plan import Plan, PlanStore
from backfill_dagster.progress import has_rewrites
from backfill_dagster.records.fold import Fold
from backfill_dagster.records.part_file import part_name, published_parts, shard_and_epoch, staged_parts
from backfill_dagster.records.purges import PurgeLog, Purges
from backfill_dagster.report.shard_drift import LOG_REMEDY, checking_database, log_problems, shard_problems
from backfill_dagster.standing import left_behind, logged_shards, overtaken
from backfill_dagster.state import BackfillState

PROBLEMS_MAX = 1000
"""Differences named one by one; after that `verify` says that there are more."""


def verify_backfill(state: BackfillState) -> list[str]:
    """Every difference found, at most `PROBLEMS_MAX`; empty when all agree.

    Raises:
        StateError: the plan itself can't be read.
    """
    problems: list[str] = []
    for problem in _problems(state):
        if len(problems) == PROBLEMS_MAX:
            problems.append(f"and more: only the first {PROBLEMS_MAX} are shown")
            break
        problems.append(problem)
    return problems


def _problems(state: BackfillState) -> Iterator[str]:
    with checking_database(state.store) as database:
        yield from _all_problems(state, database)


def _all_problems(state: BackfillState, database: duckdb.DuckDBPyConnection) -> Iterator[str]:
    plan = PlanStore(state.store).read()
    yield from PlanStore(state.store).damaged()
    if plan.generation == 0 and logged_shards(state):
        yield "plan/: the logs know DIDs, and there is no plan; bring plan/ back from a backup, or plan again"
    seqs = {shard: one.seq for shard, one in state.ledger.summaries().items()}  # before the logs: a run may be going on
    purges: Purges | None = None
    try:
        purges = Purges.of(PurgeLog(state.store).read())
    except StateError as error:
        yield str(error)
    live: set[str] = set()
    unknown: set[str] = set()
    strangers: set[str] = set()
    for shard, planned in _shards(state, plan):
        if damage := list(log_problems(state, shard)):
            yield from damage
            unknown.add(shard)
            continue
        try:
            fold = state.log(shard).read(whole=True)
        except StateError as error:
            yield str(error)
            unknown.add(shard)
            continue
        live.update(fold.parts)
        known = {one.did for one in planned}
        strangers |= {did for did, (result, _) in fold.dids.items() if did not in known and result.outcome.is_terminal}
        if seqs.get(shard, 0) > fold.seq:
            yield f"{shard}: its log ends at {fold.seq}, the ledger knows entry {seqs[shard]}; {LOG_REMEDY}"
        yield from shard_problems(state, database, shard, fold)
        yield from _plan_problems(state, plan, planned, shard, fold)
        if purges is not None:
            yield from _purge_problems(shard, fold, planned, purges)
    yield from _stranger_problems(plan, strangers)
    yield from _file_problems(state, live, unknown)


def _shards(state: BackfillState, plan: Plan) -> Iterator[tuple[str, list[PlannedDid]]]:
    """Every shard that has DIDs, then those that only have a log any more."""
    seen = set()
    for shard, planned in plan.by_shard():
        seen.add(shard)
        yield shard, planned
    for shard in sorted(logged_shards(state) - seen):
        yield shard, []


def _plan_problems(
    state: BackfillState, plan: Plan, planned: list[PlannedDid], shard: str, fold: Fold
) -> Iterator[str]:
    """Rows that are the past are gone, and the planner has said what became of every DID without a host."""
    if has_rewrites(fold):
        yield f"{shard}: rows that a newer fetch replaced are still in older parts; the next run takes them out"
    with suppress(StateError):  # the other shard's log can't be read: named on its own
        for did in left_behind(state, plan, planned, fold, shard):
            yield f"{shard}: {did} has moved, and its new shard has its repo; the next run takes its rows out here"
        for did in overtaken(state, planned, fold, shard):
            yield f"{shard}: {did} has come back, and another shard has newer rows; the next run takes these out"
    if shard == UNROUTABLE_SHARD:
        for one in planned:
            known = fold.dids.get(one.did)
            outcome = one.outcome or Outcome.PENDING
            said = None if known is None else known[0].outcome
            if not one.delisted and said not in (outcome, Outcome.PURGED):
                yield f"{shard}: {one.did} is {outcome.value} by the plan and not by the log; plan again"


def _purge_problems(shard: str, fold: Fold, planned: list[PlannedDid], purges: Purges) -> Iterator[str]:
    """Every order is carried out, and every purge has its order: without one, a new shard would fetch it again."""
    if purges.open_in(fold, [one.did for one in planned]):
        yield f"{shard}: a purge has not been carried out here; the next run does it, or `backfill purge`"
    for name in sorted(fold.purged - purges.dids - purges.uris):
        yield f"purges/: {shard} has purged {name}, and no order says so; bring purges/ back, or `backfill repair`"


def _stranger_problems(plan: Plan, strangers: set[str]) -> Iterator[str]:
    """Whom a log knows, the plan knows: as an account of this shard or, by now, of another."""
    if not strangers:
        return
    for did in sorted(strangers.difference(one.did for one in plan.rows())):
        yield f"plan/: the logs know {did}, and the plan doesn't; bring plan/ back from a backup, or plan again"


def _file_problems(state: BackfillState, live: set[str], unknown: set[str]) -> Iterator[str]:
    """Nothing lies around that no log knows; where a log can't be read, nobody can tell."""
    shards = logged_shards(state)
    names = {part_name(path) for path in live}  # never used twice, and folders may differ by case only
    for info in published_parts(state.store):
        if part_name(info.key) in names or any(f"/{shard}-" in info.key for shard in unknown):
            continue
        named = shard_and_epoch(info.key)
        is_ours = named is not None and named[0] in shards
        remedy = "the next run of its shard removes it, or `backfill repair`" if is_ours else "move it away"
        yield f"{info.key}: no log says that this part is live; {remedy}"
    for info in staged_parts(state.store):
        said = "is live and not published yet" if info.key in live else "was never committed"
        yield f"{info.key}, in staging, {said}; the next run of its shard sorts it out"
