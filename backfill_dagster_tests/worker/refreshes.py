"""A backfill that is refreshed while its network changes, and what its rows have to be after each refresh.

Rows are compared whole, with every column but `fetched_at`, against a backfill in a state of its own that has never run
before and fetches whole repos.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, Protocol

import pyarrow.parquet as pq

from backfill_dagster.localnet import LocalNetwork
from backfill_dagster.localnet.repo_writer import blocks_of, keys_of
from backfill_dagster.model import Outcome, RepoOutcome
from backfill_dagster.plan import PlanStore
from backfill_dagster.report import verify_backfill
from backfill_dagster.scope import load_selection
from backfill_dagster.state import BackfillState
from backfill_dagster.worker.backfill import run_backfill, shards_with_work
from backfill_dagster.worker.planning import plan_backfill
from backfill_dagster_tests.net.virtual_time import InstantTime
from backfill_dagster_tests.road import opened, write_config
from backfill_dagster_tests.worker.tiny import assert_sound

WholeRow = tuple[tuple[str, Any], ...]
RowsByDid = dict[str, set[WholeRow]]

GET_REPO = "com.atproto.sync.getRepo"
NAMESPACES = ("app.bsky", "chat.bsky", "com.example", "com.example-notes", "com.whtwnd", "sh.example", "sh.tangled")
EVERYTHING = {"record_types": [f"{name}.*" for name in NAMESPACES]}
"""Takes every collection that generated repos have."""

HAS_THE_REPO = ("complete", "unchanged")
ROUNDS_MAX = 3
"""A refresh, the plan after it that follows a move, and one to spare."""


class Network(Protocol):
    """Where accounts are: a local network, or a reference PDS."""

    @property
    def plc_url(self) -> str:
        """Origin of its PLC directory."""
        ...

    @property
    def dids(self) -> list[str]:
        """Its accounts."""
        ...


@dataclass(frozen=True)
class Ran:
    """What one or more runs came to: outcomes at the end, all requests to PDS hosts, bytes of repos on the wire."""

    outcomes: Mapping[str, str]
    results: Mapping[str, RepoOutcome]
    requests: int
    bytes_fetched: int


class Refreshes:
    """A state that is refreshed, and what has to come of it.

    Args:
        folder: for this state and those it is compared with.
        network: where the accounts are.
        state: opened, of the config `changes`.
        changes: the config, as `write_config` takes it.

    Attributes:
        stands: DID -> whole rows that stand by its last complete fetch.
        last: DID -> its result when its repo was had last, or its first one.
        names: DID -> what a failure calls it.
    """

    def __init__(self, folder: Path, network: Network, state: BackfillState, changes: Mapping[str, Any]) -> None:
        self.state = state
        self.stands: RowsByDid = {}
        self.last: dict[str, RepoOutcome] = {}
        self.names: dict[str, str] = {}
        self._folder = folder
        self._network = network
        self._changes = changes
        self._compared = 0

    async def begin(self) -> Ran:
        """The first backfill."""
        ran = await run(self.state)
        self.stands, self.last = whole_rows(self.state), dict(ran.results)
        return ran

    async def refresh(self) -> Ran:
        """Refresh, follow accounts that moved, and check that every row is what it has to be."""
        ran = await run(self.state, refresh=True)
        for _ in range(ROUNDS_MAX):
            if "moved" not in ran.outcomes.values():
                break
            ran = await self.go_on(ran)
        await self.check(ran)
        return ran

    async def go_on(self, before: Ran) -> Ran:
        """What `backfill run` does next: plan what moved, run what is left."""
        ran = await run(self.state)
        return Ran(ran.outcomes, ran.results, before.requests + ran.requests, before.bytes_fetched + ran.bytes_fetched)

    async def check(self, ran: Ran) -> None:
        """Rows equal a fresh backfill's where the refresh ended with the repo; those of before stand elsewhere."""
        rows = whole_rows(self.state)
        fresh_rows, fresh = await self.fresh()
        assert rows.keys() <= ran.outcomes.keys()
        wrong = {
            f"{self.names.get(did, did)}: {outcome}": found
            for did, outcome in ran.outcomes.items()
            if (found := self._wrong(ran.results[did], fresh[did], rows.get(did, set()), fresh_rows.get(did, set())))
        }
        assert wrong == {}, wrong  # said in full: only test modules have their assertions explained
        self.stands = rows
        self.last |= {did: result for did, result in ran.results.items() if result.outcome.value in HAS_THE_REPO}
        assert_sound(self.state)
        if all(Outcome(outcome).is_terminal for outcome in ran.outcomes.values()):
            assert left_to_do(self.state) == []

    def _wrong(
        self, result: RepoOutcome, fresh: RepoOutcome, rows: set[WholeRow], fresh_rows: set[WholeRow]
    ) -> dict[str, Any]:
        """What is not as it has to be with one DID, by what it should be."""
        before, stands = self.last.get(result.did), self.stands.get(result.did, set())
        if result.outcome is Outcome.COMPLETE:
            found = {"rows of a fresh backfill": difference(rows, fresh_rows)}
            found["results of a fresh backfill"] = unequal(told(result), told(fresh))
            if result.records_total:
                found["signature"] = unequal({"": result.signature_checked}, {"": fresh.signature_checked})
            return kept(found)
        found = {"the rows of before": difference(rows, stands)}
        if before is not None and before.pds_endpoint == result.pds_endpoint:
            found["last complete rev"] = unequal({"": result.last_complete_rev}, {"": before.last_complete_rev})
        if result.outcome is Outcome.UNCHANGED:
            assert before is not None
            found["counts, rev and cid of before"] = unequal(told(result), told(before))
            # A key that was rotated without a new commit: nothing has changed, and from scratch it would be invalid.
            if fresh.outcome is Outcome.COMPLETE:
                found["rows of a fresh backfill"] = difference(rows, fresh_rows)
        return kept(found)

    async def fresh(self) -> tuple[RowsByDid, Mapping[str, RepoOutcome]]:
        """Rows and results of a backfill that begins now, fetches whole repos and meets no faults."""
        self._compared += 1
        processing = self._changes.get("processing", {}) | {"fetch": "full"}
        changes = {**self._changes, "name": f"fresh_{self._compared}", "processing": processing}
        async with healed(self._network):
            with state_of(self._folder, self._network, **changes) as state:
                ran = await run(state)
                assert verify_backfill(state) == []
                return whole_rows(state), ran.results


@contextmanager
def refreshing(folder: Path, network: Network, **changes: Any) -> Iterator[Refreshes]:
    with state_of(folder, network, **changes) as state:
        yield Refreshes(folder, network, state, changes)


@contextmanager
def state_of(folder: Path, network: Network, **changes: Any) -> Iterator[BackfillState]:
    """An opened state whose waits take no time."""
    with opened(write_config(folder, network.plc_url, network.dids, **changes), InstantTime().effects()) as state:
        yield state


@asynccontextmanager
async def healed(network: Network) -> AsyncIterator[None]:
    """The network without its faults for a while; they stand as they stood afterwards."""
    if not isinstance(network, LocalNetwork):
        yield
        return
    faults = network.faults.faults
    await network.set_faults([])
    yield
    await network.set_faults(faults)


async def run(state: BackfillState, *, refresh: bool = False) -> Ran:
    """Plan, and run every shard that has work."""
    run_id = state.effects.new_id()
    plan = (await plan_backfill(state, run_id=run_id, refresh=refresh)).plan
    selection = load_selection(state.config)
    shards = shards_with_work(state, plan, selection.scope)
    done = await run_backfill(state, plan, selection, shards, run_id=run_id)
    assert done.held == {}
    results = {}
    for shard, planned in plan.by_shard():
        for one in planned:
            item = state.ledger.item(shard, one.did)
            if not one.delisted:
                results[one.did] = item.result if item else RepoOutcome(did=one.did, outcome=Outcome.PENDING)
    numbers = [result.numbers for result in done.results.values()]
    return Ran(
        {did: result.outcome.value for did, result in results.items()},
        results,
        sum(one.requests for one in numbers),
        sum(one.bytes_fetched for one in numbers),
    )


def left_to_do(state: BackfillState) -> list[str]:
    """Shards that another run would do something for."""
    plan = PlanStore(state.store).read()
    return [one.key for one in shards_with_work(state, plan, load_selection(state.config).scope)]


def told(result: RepoOutcome) -> dict[str, Any]:
    """What a result says of the repo, whatever was asked to know it."""
    return {
        "rev": result.rev,
        "commit_cid": result.commit_cid,
        "last_complete_rev": result.last_complete_rev,
        "records_by_type": dict(result.records_by_type),
        "quarantined": result.quarantined,
    }


def whole_rows(state: BackfillState) -> RowsByDid:
    """Author -> all rows that plain globs over records/ and quarantine/ see, `fetched_at` left out; no row twice."""
    root = Path(str(state.config.state_path))
    found: RowsByDid = defaultdict(set)
    total = 0
    for path in [*root.glob("records/*/*.parquet"), *root.glob("quarantine/**/*.parquet")]:
        kind = path.relative_to(root).parent.as_posix()
        rows = pq.ParquetFile(path).read().to_pylist()
        assert_in_repo_order(rows)
        for row in rows:
            total += 1
            values = {name: _frozen(value) for name, value in row.items() if name != "fetched_at"}
            found[row["author"]].add((("folder", kind), *values.items()))
    assert total == sum(map(len, found.values())), "a row is there twice"
    uris = [dict(row)["uri"] for rows in found.values() for row in rows]
    assert len(set(uris)) == len(uris), "a URI is there twice"
    return dict(found)


def assert_in_repo_order(rows: list[dict[str, Any]]) -> None:
    """A part holds its rows author by author, each author's in the order of the repo's keys."""
    runs = [list(own) for _, own in groupby(rows, key=itemgetter("author"))]
    assert len({run[0]["author"] for run in runs}) == len(runs), "an author's rows are not together"
    for run in runs:
        keys = [f"{row['collection']}/{row['rkey']}" for row in run]
        assert keys == sorted(keys)


def difference(rows: set[WholeRow], expected: set[WholeRow]) -> dict[str, Any]:
    """How two sets of rows differ: URIs that are too many or missing, columns in which a URI's rows differ."""
    mine, others = ({dict(row)["uri"]: dict(row) for row in some} for some in (rows, expected))
    both = {uri: unequal(mine[uri], others[uri]) for uri in mine.keys() & others.keys()}
    return kept(
        {"too many": sorted(mine.keys() - others), "missing": sorted(others.keys() - mine), "unequal": kept(both)}
    )


def unequal(mine: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
    """The values that differ: name -> (mine, the other)."""
    pairs = {name: (mine.get(name), others.get(name)) for name in [*mine, *others]}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def kept(found: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if value}


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


class Hand:
    """The hand of one account: what it does to its repo."""

    def __init__(self, network: LocalNetwork, did: str) -> None:
        self.network = network
        self.did = did

    def held(self, collection: str = "") -> list[str]:
        """The keys of the repo, in order; of one collection, or all."""
        repo = self.network.world.shelf.get(self.did)
        return [key for key in keys_of(repo.root, blocks_of(repo)) if key.startswith(collection)]

    async def add(self, collection: str, *records: Mapping[str, Any], keys: list[str] | None = None) -> list[str]:
        """Add records in one commit, under keys `<collection>/<rkey>` or such as clients make up; returns the keys."""
        rows = [{"collection": collection, "record": dict(record)} for record in records]
        if keys is not None:
            rows = [row | {"rkey": key.partition("/")[2]} for row, key in zip(rows, keys, strict=True)]
        said = await self.network.control.add({"did": self.did, "records": rows})
        return [uri.split("/", 3)[3] for uri in said["uris"]]

    async def put(self, key: str, record: Mapping[str, Any] | None = None, block: str | None = None) -> None:
        """Write one record, given as JSON or as the base64 of its block; None for both: nothing but a type."""
        collection, _, rkey = key.partition("/")
        content = {"record": dict(record or {})} if block is None else {"block_base64": block}
        await self.network.control.edit({"did": self.did, "collection": collection, "rkey": rkey, **content})

    async def delete(self, *keys: str) -> None:
        """Delete records in one commit."""
        await self.network.control.delete({"did": self.did, "keys": list(keys)})

    async def vanish(self, collection: str = "") -> None:
        """Delete all of a collection, or all there is."""
        if keys := self.held(collection):
            await self.delete(*keys)

    async def status(self, status: str) -> None:
        await self.network.control.status({"did": self.did, "status": status})

    async def rotate_key(self, *, sign_again: bool = True) -> None:
        await self.network.control.rotate_key({"did": self.did, "sign_again": sign_again})

    async def import_anew(self, *, sign_again: bool = True) -> None:
        await self.network.control.import_anew({"did": self.did, "sign_again": sign_again})

    async def move(self, host: int) -> None:
        await self.network.control.move({"did": self.did, "to": host})
