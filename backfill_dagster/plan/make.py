"""Making a plan: read the source, find each DID's host, give it a shard, commit the difference as a generation.

Planning again tops up and appends; nothing that has a shard is moved to another unless its account has moved. The
assignment's rules live in `assign`, how a DID's host is found in `routing`, how generations are stored in `storage`,
what becomes of DIDs without a host in `unroutable`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import islice

from backfill_dagster.errors import StateError
from backfill_dagster.identity import HandleResolver, Resolver
from backfill_dagster.model import UNROUTABLE_SHARD, Outcome, PlannedDid, Shard, Wanted
from backfill_dagster.plan.assign import assign
from backfill_dagster.plan.estimate import Estimate, estimate
from backfill_dagster.plan.routing import Candidates, Route, invalid, resolve_handles, resolve_routes
from backfill_dagster.plan.storage import Plan, PlanStore
from backfill_dagster.plan.unroutable import log_unroutable
from backfill_dagster.sources import SourceRow, open_source
from backfill_dagster.state import BackfillState

_log = logging.getLogger(__name__)

RACE_TRIES_MAX = 10
"""Lost races for the next generation before the planner gives up; each winner has made progress."""

MOVED_MAX = 1_000_000
"""Moved DIDs that one plan looks up again; the rest is the next plan's."""

OnResolved = Callable[[int, int], None]
"""Told (DIDs resolved, DIDs to resolve)."""


@dataclass(frozen=True)
class PlanResult:
    """What planning did.

    Attributes:
        plan: the plan as it stands now.
        new: DIDs that were not in the plan before.
        rerouted: DIDs whose host changed.
        delisted: DIDs that left the source with this plan.
        listed: different DIDs and handles in the source; with 0 the plan stays as it was.
        unresolved: DIDs that wait because a directory or resolver was down: the next plan looks them up again.
        unroutable: outcome -> DIDs in the reserved shard, `unresolved` included as pending.
        estimate: what fetching the plan's DIDs costs.
        source: the source in words.
    """

    plan: Plan
    new: int
    rerouted: int
    delisted: int
    listed: int
    unresolved: int
    unroutable: Mapping[Outcome, int]
    estimate: Estimate
    source: str


async def make_plan(
    state: BackfillState,
    resolver: Resolver,
    handle_resolver: HandleResolver | None,
    *,
    scope: str,
    run_id: str,
    refresh: bool = False,
    limit: int | None = None,
    on_resolved: OnResolved = lambda done, total: None,
) -> PlanResult:
    """Bring the plan up to date with the source; commits at most one generation.

    Args:
        state: the opened state.
        resolver: DID -> DID document, with its cache.
        handle_resolver: handle -> DID; None when the config has none.
        scope: of the records wanted, for the log of the reserved shard.
        run_id: names this plan run.
        refresh: raise the refresh number, and look every DID up again (through the cache).
        limit: only the first so many rows of the source (a trial).
        on_resolved: told about progress.

    Raises:
        SourceError: the source can't be read.
        StateError: the state can't be written, or other planners kept winning.
    """
    source = open_source(state.config.source, state.config.resolve)
    for _ in range(RACE_TRIES_MAX):
        # In this order: a look at the source that is older than the plan would delist whom the plan has just got.
        before = PlanStore(state.store).read()
        noted = {"source_description": source.describe(), "source_version": source.version(), "run_id": run_id}
        candidates = Candidates.of(islice(source.rows(), limit))
        planner = _Planner(state, before, refresh=refresh)
        await planner.route(candidates, resolver, handle_resolver, on_resolved)
        # An empty source is a mistake far more often than a wish to delist everybody.
        plan = _commit(state, before, planner, noted, refresh=refresh) if candidates.count else before
        if plan is not None:
            break
    else:
        raise StateError(f"{state.store.uri}: {RACE_TRIES_MAX} other plans were quicker; run the plan again")
    if candidates.count == 0 and plan.count:
        _log.warning("%s lists nobody: the plan of %d DIDs stays as it is", source.describe(), plan.count)
    outcomes = await asyncio.to_thread(_book_unroutable, state, plan, scope, run_id)
    return PlanResult(
        plan=plan,
        new=planner.new,
        rerouted=planner.rerouted,
        delisted=planner.delisted,
        listed=candidates.count,
        unresolved=outcomes.get(Outcome.PENDING, 0),
        unroutable=outcomes,
        estimate=_estimate(state, planner.hosts()),
        source=source.describe(),
    )


def _commit(
    state: BackfillState, before: Plan, planner: _Planner, noted: Mapping[str, str], *, refresh: bool
) -> Plan | None:
    """Append what has changed as one generation: the commit point. None when another plan took its number."""
    rows = planner.changes()
    if not rows and not refresh:
        return before
    metadata = {
        **noted,
        "refresh": before.refresh + (1 if refresh else 0),
        "config_hash": state.config.config_hash,
        "created_at": state.effects.now_text(),
        "estimate": _estimate(state, planner.hosts()).to_json(),
    }
    return PlanStore(state.store).append(before, rows, metadata)


def _book_unroutable(state: BackfillState, plan: Plan, scope: str, run_id: str) -> Counter[Outcome]:
    """Book the reserved shard as the plan has it, and again if a quicker planner has made a newer plan meanwhile.

    What this one has just appended would stand over what that one had booked.
    """

    def book(one: Plan) -> Counter[Outcome]:
        return log_unroutable(state, one.dids(UNROUTABLE_SHARD), wanted=Wanted(scope, one.refresh), run_id=run_id)

    outcomes = book(plan)
    for _ in range(RACE_TRIES_MAX):
        newest = PlanStore(state.store).read()
        if newest.generation == plan.generation:
            break
        plan = newest
        book(plan)
    return outcomes


def _estimate(state: BackfillState, dids_by_host: Mapping[str, int]) -> Estimate:
    processing = state.config.processing
    return estimate(
        dids_by_host,
        requests_per_second=processing.requests_per_second,
        max_concurrent_pds=processing.max_concurrent_pds,
        total_requests_per_second=processing.total_requests_per_second,
    )


class _Planner:
    """The difference between one plan and the source, worked out in memory."""

    def __init__(self, state: BackfillState, before: Plan, *, refresh: bool) -> None:
        self._state = state
        self._refresh = refresh
        self._before: dict[str, PlannedDid] = {one.did: one for one in before.rows()}
        self._shards = [Shard.parse(key) for key in before.shards()]
        self._now: dict[str, PlannedDid] = {}
        self._did_of_handle: dict[str, list[str]] = defaultdict(list)
        for one in self._before.values():
            if one.handle and not one.delisted:
                self._did_of_handle[one.handle].append(one.did)
        homeless = {did for did, one in self._before.items() if one.shard == UNROUTABLE_SHARD}
        known = state.log(UNROUTABLE_SHARD).read().dids
        marks = state.ledger.retry_marks(UNROUTABLE_SHARD)
        self._reopened = {did for did in homeless & known.keys() if marks.get(did) == known[did][1]}
        self.new = self.rerouted = self.delisted = 0

    async def route(
        self,
        candidates: Candidates,
        resolver: Resolver,
        handle_resolver: HandleResolver | None,
        on_resolved: OnResolved,
    ) -> None:
        """Find everybody's place: keep what stands, look up what has to be, assign the rest."""
        routes: list[Route] = [invalid(row) for row in candidates.neither.values()]
        dids = dict(candidates.dids)
        async for handle, row, answer in resolve_handles(candidates.handles, handle_resolver):
            found = self._of_silent_handle(handle, answer) if isinstance(answer, Route) else [answer]
            for did in found:
                dids.setdefault(did, SourceRow(handle, row.columns))
            if isinstance(answer, Route) and not found:
                routes.append(answer)
        moved = self._moved()
        to_look_up = {did: row for did, row in dids.items() if did in moved or not self._stands(did)}
        self._keep({did: row for did, row in dids.items() if did not in to_look_up})
        done = 0

        def resolved() -> None:
            nonlocal done
            done += 1
            on_resolved(done, len(to_look_up))

        answers = resolve_routes(
            to_look_up,
            resolver,
            fresh=frozenset(moved) | self._reopened,
            allow_private_hosts=self._state.config.processing.allow_private_hosts,
            on_resolved=resolved,
        )
        routes += [route async for route in answers]
        self._assign(routes, dids)

    def _of_silent_handle(self, handle: str, answer: Route) -> list[str]:
        """A resolver that is down must not delist whom the handle has led to before: the plan's DIDs of that handle."""
        if answer.planned.outcome is not Outcome.PENDING:
            return []
        return self._did_of_handle.get(handle, [])

    def _stands(self, did: str) -> bool:
        """Whether the DID's place needs no look-up: it has a shard, or was found to have no host and isn't reopened."""
        known = self._before.get(did)
        if known is None:
            return False
        if known.shard == UNROUTABLE_SHARD:
            outcome = known.outcome or Outcome.PENDING
            is_reopened = did in self._reopened or (self._refresh and outcome.is_retried_on_refresh)
            return outcome.is_terminal and not is_reopened
        return not self._refresh

    def _moved(self) -> set[str]:
        """DIDs whose shard run found that they live elsewhere."""
        return {
            item.result.did
            for item in self._state.ledger.attention(Outcome.MOVED, MOVED_MAX)
            if (known := self._before.get(item.result.did)) is not None and known.shard == item.shard
        }

    def _keep(self, rows: Mapping[str, SourceRow]) -> None:
        for did, row in rows.items():
            self._now[did] = replace(self._before[did], delisted=False, columns=row.columns)

    def _assign(self, routes: list[Route], order: Mapping[str, SourceRow]) -> None:
        """Give shards to the routes, in the source's order, so that the same source makes the same plan."""
        position = {did: index for index, did in enumerate(order)}
        routes.sort(key=lambda route: position.get(route.planned.did, len(position)))
        homeless: list[Route] = []
        for route in routes:
            did = route.planned.did
            known = self._before.get(did)
            if not route.host:
                self._place_unroutable(route, known)
            elif known is not None and known.shard != UNROUTABLE_SHARD and Shard.parse(known.shard).host == route.host:
                self._now[did] = replace(route.planned, shard=known.shard)
                self._try_again(known.shard, did, Outcome.MOVED)
            else:
                homeless.append(route)
        shards = assign(
            self._places({route.planned.did for route in homeless}),
            [route.host for route in homeless],
            self._state.config.processing.shard_size,
        )
        for route, shard in zip(homeless, shards, strict=True):
            did = route.planned.did
            self._now[did] = replace(route.planned, shard=shard.key)
            if did in self._before:
                self._try_again(shard.key, did)

    def _places(self, leaving: set[str]) -> Counter[Shard]:
        """Shard -> places taken; a DID that left the source keeps its place, one that changes host leaves it.

        A shard that everybody has left stays among them: the last one of a host is the last one that ever was.
        """
        places: Counter[Shard] = Counter(dict.fromkeys(self._shards, 0))
        for did, known in self._before.items():
            if known.shard != UNROUTABLE_SHARD:
                now = self._now.get(did, known)
                places[Shard.parse(known.shard)] += did not in leaving and now.shard == known.shard
        return places

    def _place_unroutable(self, route: Route, known: PlannedDid | None) -> None:
        is_waiting = route.planned.outcome is Outcome.PENDING
        if is_waiting and known is not None and known.shard != UNROUTABLE_SHARD:
            # A silent directory is no reason to take a shard away; the next plan asks again.
            self._now[known.did] = replace(known, delisted=False)
        else:
            self._now[route.planned.did] = route.planned

    def _try_again(self, shard: str, did: str, *outcomes: Outcome) -> None:
        """Reopen what the shard's ledger has of the DID: it left the shard (or its host) after that, and is back."""
        item = self._state.ledger.item(shard, did)
        if item is not None and (not outcomes or item.result.outcome in outcomes):
            self._state.ledger.mark_for_retry(shard, {did: item.seq})

    def changes(self) -> list[PlannedDid]:
        """The rows of the next generation: whatever isn't as the plan before says."""
        gone = [
            replace(one, delisted=True)
            for did, one in self._before.items()
            if did not in self._now and not one.delisted
        ]
        changed = [one for did, one in self._now.items() if self._before.get(did) != one]
        self.delisted = len(gone)
        self.new = sum(one.did not in self._before for one in changed)
        self.rerouted = sum(one.did in self._before and self._before[one.did].shard != one.shard for one in changed)
        return changed + gone

    def hosts(self) -> Counter[str]:
        """Current DIDs by host."""
        return Counter(Shard.parse(one.shard).host for one in self._now.values() if one.shard != UNROUTABLE_SHARD)
