"""How each shard of a backfill stands right now: plan, log and retry marks read together, nothing written."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from backfill_dagster.ledger import ShardSummary, items_behind
from backfill_dagster.model import UNROUTABLE_SHARD, Outcome, PlannedDid, RepoOutcome, Shard, Wanted
from backfill_dagster.plan import Plan
from backfill_dagster.progress import has_rewrites, live_rows, outcome_counts, pending_dids, waiting_dids
from backfill_dagster.records.fold import Fold
from backfill_dagster.records.part_file import part_name, published_parts, shard_and_epoch
from backfill_dagster.records.purges import PurgeLog, Purges
from backfill_dagster.state import BackfillState


@dataclass(frozen=True)
class ShardStanding:
    """One shard's account.

    Attributes:
        shard: partition key, or the reserved shard.
        dids: current DIDs.
        outcomes: outcome -> current DIDs.
        rows: record type -> live rows.
        pending: DIDs that a run would fetch; of the reserved shard, those that a plan would look up.
        left_behind: DIDs with rows here that have moved to another shard, which has them too.
        lost_parts: live parts that are missing or have another size than the log says.
        has_work: whether a run has something to do: pending DIDs, superseded or purged rows, to finish or sweep what
            the last one left, or to say that parts are lost.
    """

    shard: str
    dids: int
    outcomes: Counter[Outcome]
    rows: Counter[str]
    pending: int
    left_behind: int
    lost_parts: int
    has_work: bool


@dataclass(frozen=True)
class PartFiles:
    """The files of parts that there were a moment ago.

    They go by their names, which are never used twice: some file systems don't give folders back as they were written.

    Attributes:
        sizes: name -> bytes of the published ones.
        by_shard: shard -> names, of those in staging too.
        staged: shards that have some there.
    """

    sizes: Mapping[str, int]
    by_shard: Mapping[str, Sequence[str]]
    staged: frozenset[str]

    @classmethod
    def of(cls, state: BackfillState) -> PartFiles:
        """List them."""
        published = list(published_parts(state.store))
        staged = state.store.staged()
        by_shard: dict[str, list[str]] = defaultdict(list)
        for info in (*published, *staged):
            if (named := shard_and_epoch(info.key)) is not None:
                by_shard[named[0]].append(part_name(info.key))
        waiting = frozenset(named[0] for info in staged if (named := shard_and_epoch(info.key)) is not None)
        return cls({part_name(info.key): info.size for info in published}, by_shard, waiting)

    def has_strays(self, shard: str, fold: Fold) -> bool:
        """Whether a shard has files that are to be published or swept."""
        live = {part_name(path) for path in fold.parts}
        return shard in self.staged or any(name not in live for name in self.by_shard.get(shard, ()))


def shard_standing(
    state: BackfillState,
    plan: Plan,
    planned: Sequence[PlannedDid],
    wanted: Wanted,
    shard: str,
    summary: ShardSummary | None,
    purges: Purges,
    files: PartFiles,
) -> ShardStanding:
    """One shard's account: what the plan says of it, against its log, the ledger's summary and the files there are.

    A run writes the summary last: where it isn't as of the log's end, a run has died between its last entry and the
    files and items that belong to it, or the ledger is another.
    """
    fold = state.log(shard).read()
    marks = state.ledger.retry_marks(shard)
    if shard == UNROUTABLE_SHARD:
        pending = len(waiting_dids(planned, fold, marks))
    else:
        pending = len(pending_dids(planned, fold, marks, wanted))
    behind = left_behind(state, plan, planned, fold, shard)
    is_finished = (summary.seq if summary else 0) == fold.seq
    lost = lost_parts(state, shard, fold, files.sizes)
    is_clean = not (has_rewrites(fold) or files.has_strays(shard, fold))
    is_indexed = not items_behind(state.ledger, fold.dids, backfill=state.config.name, shard=shard)
    is_purged = not purges.open_in(fold, [one.did for one in planned])
    return ShardStanding(
        shard=shard,
        dids=sum(not one.delisted for one in planned),
        outcomes=outcome_counts(planned, fold, wanted),
        rows=live_rows(fold),
        pending=pending,
        left_behind=len(behind),
        lost_parts=lost,
        has_work=pending > 0 or bool(behind) or lost > 0 or not (is_clean and is_purged and is_finished and is_indexed),
    )


def lost_parts(state: BackfillState, shard: str, fold: Fold, sizes: Mapping[str, int]) -> int:
    """How many live parts are not there as the log says, by their sizes; `verify` looks into them.

    Args:
        state: the opened state.
        shard: partition key.
        fold: its log.
        sizes: name -> bytes of every file, listed a moment ago: a run can have published or replaced parts since.
    """
    suspects = [path for path, live in fold.parts.items() if sizes.get(part_name(path)) != live.part.bytes]
    if not suspects:
        return 0
    now = state.log(shard).read().parts
    staged = {info.key for info in state.store.staged()}
    return sum(
        path in now and path not in staged and state.store.size(path) != now[path].part.bytes for path in suspects
    )


def logged_shards(state: BackfillState) -> set[str]:
    """Every shard that has a log, also those that the plan doesn't name any more."""
    folders = {info.key.split("/")[1] for info in state.store.list("log/") if info.key.count("/") == 2}
    return {name for name in folders if name == UNROUTABLE_SHARD or _is_partition_key(name)}


def _is_partition_key(name: str) -> bool:
    try:
        Shard.parse(name)
    except ValueError:
        return False
    return True


def left_behind(state: BackfillState, plan: Plan, planned: Sequence[PlannedDid], fold: Fold, shard: str) -> list[str]:
    """DIDs whose rows in this shard are the past: the plan has given them another shard since, which has their repo.

    Until one has, the old rows stay: they are all there is. Asks nobody unless there are such rows.
    """
    current = {one.did for one in planned}
    away = [did for did, (result, _) in fold.dids.items() if did not in current and result.has_rows]
    asked = _shards_elsewhere(state, away, shard)
    # Before the logs: a run there answers a mark by an entry first. The other way round, its old word would count as
    # the answer to a mark that is gone, and rows would go here that nobody else has.
    marks = {other: state.ledger.retry_marks(other) for other in asked}
    elsewhere = _outcomes_elsewhere(state, asked)
    given = plan.given({did for results in elsewhere.values() for did in results})
    found: set[str] = set()
    for other, results in elsewhere.items():
        for did, (result, seq) in results.items():
            first, last = given.get((did, other), (0, 0))
            ours = given.get((did, shard), (0, 0))[1]
            if last <= ours:
                continue
            # Where it has been before, the word may be of its earlier stay: it has come back and waits, which a mark
            # says, or the times where marks are lost.
            old = fold.dids[did][0]
            if first < ours and (marks[other].get(did) == seq or _is_older(result, old)):
                continue
            if _replaces(result, old):
                found.add(did)
    return sorted(found)


def overtaken(state: BackfillState, planned: Sequence[PlannedDid], fold: Fold, shard: str) -> list[str]:
    """DIDs that have come back to this shard, which has older rows of them than the one they have been in meanwhile.

    The plan marks whom it brings back, so only those are looked at.
    """
    marks = state.ledger.retry_marks(shard)
    marked = [one.did for one in planned if one.did in marks and one.did in fold.dids]
    back = [did for did in marked if fold.dids[did][0].has_rows]
    found: set[str] = set()
    for results in _outcomes_elsewhere(state, _shards_elsewhere(state, back, shard)).values():
        for did, (result, _) in results.items():
            if result.has_rows and (result.fetched_at or "") > (fold.dids[did][0].fetched_at or ""):
                found.add(did)
    return sorted(found)


def _shards_elsewhere(state: BackfillState, dids: Iterable[str], shard: str) -> dict[str, list[str]]:
    """Other shard -> those of the DIDs that it has or had, by the ledger."""
    asked: dict[str, list[str]] = defaultdict(list)
    for did in dids:
        for item in state.ledger.find(did):
            if item.shard != shard:
                asked[item.shard].append(did)
    return asked


def _outcomes_elsewhere(
    state: BackfillState, asked: Mapping[str, Iterable[str]]
) -> dict[str, dict[str, tuple[RepoOutcome, int]]]:
    """Shard -> DID -> what its log says, and at which seq; of the DIDs that are asked for."""
    folds = {other: state.log(other).read().dids for other in asked}
    return {other: {did: folds[other][did] for did in some if did in folds[other]} for other, some in asked.items()}


def _is_older(result: RepoOutcome, old: RepoOutcome) -> bool:
    """Whether rows were fetched, or without rows the outcome was found, before the rows of `old` were."""
    time = result.fetched_at if result.has_rows else result.finished_at
    return (time or "") < (old.fetched_at or "")


def _replaces(result: RepoOutcome, old: RepoOutcome) -> bool:
    """Whether a later shard's outcome ends the rows that an earlier one has."""
    if result.outcome is Outcome.PURGED:
        return True
    if result.outcome.is_terminal and result.outcome is not Outcome.MOVED and result.scope != old.rows_scope:
        return True  # the attempt in another scope has ended
    return not result.outcome.needs_attention or result.has_rows


def all_standings(state: BackfillState, plan: Plan, scope: str) -> list[ShardStanding]:
    """Every shard's account by key, the reserved shard last; one pass over the plan."""
    wanted = Wanted(scope, plan.refresh)
    summaries = state.ledger.summaries()
    purges = Purges.of(PurgeLog(state.store).read())
    files = PartFiles.of(state)
    standings = {
        key: shard_standing(state, plan, planned, wanted, key, summaries.get(key), purges, files)
        for key, planned in plan.by_shard()
    }
    for emptied in [key for key in [*plan.shards(), UNROUTABLE_SHARD] if key not in standings]:
        summary = summaries.get(emptied)
        standings[emptied] = shard_standing(state, plan, [], wanted, emptied, summary, purges, files)
    reserved = standings.pop(UNROUTABLE_SHARD)
    return [*(standings[key] for key in sorted(standings)), reserved]


def total_outcomes(standings: Iterable[ShardStanding]) -> Counter[Outcome]:
    """Outcomes over all shards."""
    total: Counter[Outcome] = Counter()
    for one in standings:
        total.update(one.outcomes)
    return total


def total_rows(standings: Iterable[ShardStanding]) -> Counter[str]:
    """Live rows by record type over all shards."""
    total: Counter[str] = Counter()
    for one in standings:
        total.update(one.rows)
    return total
