"""The local network's repos, judged by the reference implementation: blocks, tree, commit and signature."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from backfill_dagster.atproto.cid import cid_text
from backfill_dagster.atproto.repo import open_repo
from backfill_dagster.identity import open_resolver
from backfill_dagster.localnet import LocalnetOptions, LocalNetwork
from backfill_dagster.net import check_endpoint, open_session
from backfill_dagster.pds import PdsClient
from backfill_dagster_tests.reference.servers import FOLDER, need_reference_pds

pytestmark = pytest.mark.live


async def test_the_reference_implementation_accepts_every_repo(folder: Path) -> None:
    need_reference_pds()
    options = LocalnetOptions(hosts=1, repos=25, seed=21, median_records=120, states={})
    asked, expected = [], {}
    async with (
        LocalNetwork(options) as network,
        open_session(allow_private_hosts=True) as session,
        open_resolver(plc_url=network.plc_url, requests_per_second=1000) as directory,
    ):
        did = network.active[0]
        for number in range(3):
            record = {"$type": "com.example.thing", "number": number}
            await network.control.add({"did": did, "records": [{"collection": "com.example.thing", "record": record}]})
        client = PdsClient(session, check_endpoint(network.hosts[0].url, True), clock=lambda: 0.0)
        for number, did in enumerate(network.active):
            key = (await directory.resolver.resolve(did)).signing_key
            data = bytes((await client.get_repo(did)).data)
            path = folder / f"{number}.car"
            path.write_bytes(data)
            asked.append({"did": did, "signing_key": key, "path": str(path)})
            repo = open_repo(data, did=did, signing_key=key)
            expected[did] = {(collection, rkey, cid_text(cid)) for collection, rkey, cid in repo.entries}
    said = judged(asked)
    assert {answer["did"]: answer.get("error") for answer in said} == dict.fromkeys(expected)
    assert {answer["did"]: {tuple(one) for one in answer["records"]} for answer in said} == expected


def judged(asked: list[dict[str, str]]) -> list[dict[str, object]]:
    done = subprocess.run(
        [str(FOLDER / "node"), "verify_cars.mjs"],
        cwd=FOLDER,
        input="\n".join(map(json.dumps, asked)),
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]
