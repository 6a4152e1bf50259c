"""From a CAR in memory to checked records, and on to staged Parquet: no network, no log."""

from __future__ import annotations

import asyncio
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

from backfill_dagster.atproto.car import scan_car
from backfill_dagster.atproto.repo import open_repo
from backfill_dagster.localnet import LocalnetOptions, LocalNetwork
from backfill_dagster.net import check_endpoint, open_session
from backfill_dagster.pds import PdsClient
from backfill_dagster.records.parts import BatchWriter
from backfill_dagster.records.selection import Selection
from backfill_dagster.store import LocalStore
from benchmarks.measure import Figure, median_seconds

REPOS = 40


async def _cars() -> list[tuple[str, bytes]]:
    """DIDs and CARs of a small network."""
    options = LocalnetOptions(hosts=1, repos=REPOS, seed=7, states={})
    async with LocalNetwork(options) as network, open_session(allow_private_hosts=True) as session:
        client = PdsClient(session, check_endpoint(network.hosts[0].url, True), clock=lambda: 0.0)
        return [(did, bytes((await client.get_repo(did)).data)) for did in network.active]


def figures() -> Iterator[Figure]:
    """Scan, check, and rows to Parquet."""
    cars = asyncio.run(_cars())
    size = sum(len(car) for _, car in cars) // 1_000_000
    records = sum(len(open_repo(car, did=did, signing_key=None, verify="structure").entries) for did, car in cars)

    def scan() -> None:
        for _, car in cars:
            scan_car(car)

    def check() -> None:
        for did, car in cars:
            open_repo(car, did=did, signing_key=None, verify="structure")

    def write() -> None:
        with tempfile.TemporaryDirectory() as folder:
            writer = BatchWriter(
                LocalStore(Path(folder)),
                shard="bench~0000",
                seq=1,
                epoch=1,
                selection=Selection(("app.bsky.*",), None, None, ()),
                raw="json",
                compression="zstd",
                unique=lambda: uuid.uuid4().hex,
            )
            for did, car in cars:
                repo = open_repo(car, did=did, signing_key=None, verify="structure")
                writer.add_repo(repo, fetched_at_us=0, rev=repo.rev)
            writer.finish()

    yield Figure("CAR scan, sha256 of every block", size, "MB", median_seconds(scan))
    yield Figure("repo checked: CIDs, tree", records, "records", median_seconds(check))
    yield Figure("repo checked, rows, Parquet", records, "records", median_seconds(write))
