"""`kill -9` at random moments of runs, refreshes and rewrites, again and again: the rows of a fresh full fetch."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from backfill_dagster.localnet import LocalnetOptions
from backfill_dagster.plan import PlanStore
from backfill_dagster.progress import has_rewrites
from backfill_dagster.scope import load_selection
from backfill_dagster.standing import all_standings
from backfill_dagster_tests.net.virtual_time import InstantTime
from backfill_dagster_tests.orchestration.network import ThreadedNetwork, threaded_network
from backfill_dagster_tests.road import opened, run_all, write_config
from backfill_dagster_tests.torture import TORTURE
from backfill_dagster_tests.torture.forked import exit_code, started
from backfill_dagster_tests.worker.tiny import Rows, assert_sound, rows_in, shard_keys

KILLS = int(os.environ.get("BACKFILL_TEST_KILLS") or (500 if TORTURE else 30))
OPTIONS = LocalnetOptions(hosts=2, repos=20, seed=11, median_records=12, max_records=60, states={})
PACE = {"batch_size": 2, "requests_per_second": 25, "concurrent_requests": 2, "shard_size": 8}
LIKES = "app.bsky.feed.like"
LIKE = {"subject": {"uri": "at://did:web:a.example/app.bsky.feed.post/3k", "cid": "bafyrei"}}
END_SECONDS = 60.0


class Victim:
    """A backfill whose processes are killed, on a network that changes."""

    def __init__(self, folder: Path, net: ThreadedNetwork, dice: random.Random) -> None:
        self.folder = folder
        self.net = net
        self.dice = dice
        self.config = write_config(folder, net.network.plc_url, net.network.dids, processing=PACE)
        self.rounds = self.kills = 0
        self.met: Counter[str] = Counter()
        self._said = folder / "said.txt"
        self._changed: dict[str, list[str]] = {}

    def start(self, *arguments: object) -> BaseProcess:
        return started(arguments, said=self._said, locks=self.folder / "locks")

    def kill_a_run(self) -> None:
        """One run, killed some time after its first request or after its last one; or it was quicker."""
        before = self.net.network.pds_requests()
        patience = self.dice.choice([1, 1, self.pending()])
        process = self.start("run", self.config, "--json")
        deadline = time.monotonic() + END_SECONDS
        while process.is_alive() and self.net.network.pds_requests() < before + patience:
            assert time.monotonic() < deadline, "it neither asks for repos nor ends"
            time.sleep(0.005)
        process.join(self.dice.uniform(0, 0.25))
        if self.killed(process):
            self.look()
        else:
            assert exit_code(self._said) == 0, self._said.read_text()
            self.begin_a_round()

    def begin_a_round(self) -> None:
        """All is fetched: the network changes, and a refresh is asked for, until it has been."""
        self.rounds += 1
        for did in self.dice.sample(self.net.network.dids, 8):
            self.change(did)
        process = self.start("plan", self.config, "--refresh")
        process.join(self.dice.uniform(0.1, 1))
        while self.killed(process):
            process = self.start("plan", self.config, "--refresh")
            process.join(END_SECONDS)
        assert exit_code(self._said) == 0, self._said.read_text()

    def change(self, did: str) -> None:
        """A record more; and if there are some of ours already, one edited or deleted."""
        control, known = self.net.network.control, self._changed.setdefault(did, [])
        if known:
            key = {"did": did, "collection": LIKES, "rkey": self.dice.choice(known)}
            if self.dice.random() < 0.5:
                known.remove(key["rkey"])
                self.net.do(control.delete(key))
            else:
                text = f"bafyrei{self.rounds}"
                self.net.do(control.edit(key | {"record": {"subject": LIKE["subject"] | {"cid": text}}}))
        added = self.net.do(control.add({"did": did, "records": [{"collection": LIKES, "record": LIKE}]}))
        known.append(added["uris"][0].rsplit("/", 1)[1])

    def killed(self, process: BaseProcess) -> bool:
        """Whether it was still there to be killed."""
        was_alive = process.is_alive()
        if was_alive:
            process.kill()
            self.kills += 1
        process.join()
        return was_alive

    def pending(self) -> int:
        """DIDs that a run would ask for."""
        with opened(self.config) as state:
            plan = PlanStore(state.store).read()
            return sum(one.pending for one in all_standings(state, plan, load_selection(state.config).scope))

    def look(self) -> None:
        """What the kill has left behind, so that the test can tell whether it was worth it."""
        with opened(self.config) as state:
            folds = [state.log(key).read() for key in shard_keys(state)]
            live = {path for fold in folds for path in fold.parts}
            files = {info.key for prefix in ("records/", "quarantine/") for info in state.store.list(prefix)}
            staged = {info.key for info in state.store.staged()}
        self.met.update(
            {
                "open rewrites": any(has_rewrites(fold) for fold in folds),
                "parts never committed": bool(staged - live),
                "parts not published": bool(staged & live),
                "parts not deleted": bool(files - live),
            }
        )


@pytest.mark.live
@pytest.mark.timeout(3600 if TORTURE else 240)
def test_killed_again_and_again(folder: Path) -> None:
    with threaded_network(OPTIONS) as net:
        victim = Victim(folder, net, random.Random(2026))
        for _ in range(4 * KILLS):
            if victim.kills >= KILLS:
                break
            victim.kill_a_run()
        assert victim.kills >= KILLS
        assert victim.rounds >= KILLS // 15
        assert victim.met["open rewrites"] and victim.met["parts never committed"], victim.met
        with opened(victim.config) as state:
            asyncio.run(run_all(state))
            assert_sound(state)
            assert rows_in(state) == fresh_rows(folder / "fresh", net)


def fresh_rows(folder: Path, net: ThreadedNetwork) -> Rows:
    """What a backfill that begins now comes to."""
    folder.mkdir()
    with opened(write_config(folder, net.network.plc_url, net.network.dids), InstantTime().effects()) as state:
        asyncio.run(run_all(state))
        return rows_in(state)
