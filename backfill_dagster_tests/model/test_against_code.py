"""The model's steps are the code's: what the code does in every situation that the model gets into is the same.

Situations are those of a search with three lives. The code runs on a real folder, without flushing.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from backfill_dagster.errors import FencedError, StateError
from backfill_dagster.ledger import Ledger
from backfill_dagster.model import LedgerItem
from backfill_dagster.progress import has_rewrites
from backfill_dagster.records.entry import LogEntry
from backfill_dagster.records.log import ShardLog
from backfill_dagster.store import LocalStore
from backfill_dagster.worker.recover import recover
from backfill_dagster_tests.model import starts
from backfill_dagster_tests.model.actions import Action
from backfill_dagster_tests.model.as_code import (
    SHARD,
    HastyDisk,
    content_of,
    entries_of,
    fold_of,
    key_of,
    keys_of,
    log_in,
    put_log,
    store_in,
)
from backfill_dagster_tests.model.folding import fold
from backfill_dagster_tests.model.rules import Rules
from backfill_dagster_tests.model.search import explore
from backfill_dagster_tests.model.steps import CALLS
from backfill_dagster_tests.model.world import At, Log, World, Writer
from backfill_dagster_tests.repository import ROOT

Epochs = list[tuple[int, frozenset[str]]]


@pytest.fixture(scope="module")
def worlds() -> list[World]:
    return [*explore(starts.refresh(2, 1), Rules()).came_by]


def situations(worlds: Sequence[World], *places: At) -> Iterator[World]:
    """The worlds in which a writer is at one of these places, with that writer only; those that differ for it."""
    seen = set()
    for world in worlds:
        for writer in world.writers:
            alone = world._replace(writers=(writer,), snapshot=(), finished=None, told=frozenset())
            if writer.at in places and alone not in seen:
                seen.add(alone)
                yield alone


def on_its_own(world: World, until: At) -> World:
    """The world after its only writer has come to that place or has stopped."""
    while world.writers[0].at not in (until, At.OFF):
        world = next(CALLS[world.writers[0].at](world, world.writers[0], Rules())).world
    return world


def gist(log: Log) -> Epochs:
    return [(entry.epoch, frozenset(keys_of(entry.adds))) for entry in log]


def gist_in(folder: Path) -> Epochs:
    """The log in a folder; all its entries are good."""
    log_in(store_in(folder)).read()
    entries = [LogEntry.from_bytes(path.read_bytes()) for path in sorted((folder / "log" / SHARD).iterdir())]
    return [(entry.epoch, frozenset(part.path for part in entry.adds)) for entry in entries]


@pytest.mark.parametrize("action", [action for action in Action if action.file], ids=lambda action: action.name)
def test_the_code_that_a_step_stands_for_is_there(action: Action) -> None:
    scope: Any = ast.parse((ROOT / "backfill_dagster" / action.file).read_text(encoding="utf-8"))
    for name in action.function.split("."):
        scope = next((node for node in scope.body if getattr(node, "name", None) == name), None)
        assert scope is not None, f"{action.file} has no {action.function}: look at {action.name} of the model again"


def test_every_log_adds_up_to_the_same(worlds: list[World]) -> None:
    logs = {world.read() for world in worlds}
    assert len(logs) > 30
    for log in logs:
        ours, theirs = fold(log), fold_of(log)
        assert {key_of(part): seq for part, seq in ours.parts.items()} == {
            path: live.seq for path, live in theirs.parts.items()
        }
        assert dict(theirs.superseded) == dict(ours.superseded)
        assert {did: (int(one.rev or 0), seq) for did, (one, seq) in theirs.dids.items()} == dict(ours.dids)
        assert all(
            theirs.is_dead(did, seq) == ((did, version) in ours.dead_in(part))
            for part, seq in ours.parts.items()
            for did, version in part.rows
        )
        assert has_rewrites(theirs) == bool(ours.with_dead_rows())
        assert entries_of(log)[-1].is_seal == log[-1].is_seal


def test_seals_and_appends_end_the_same(worlds: list[World], tmp_path: Path) -> None:
    ends = {"committed": 0, "fenced": 0}
    for number, world in enumerate(situations(worlds, At.SEALING, At.APPENDING)):
        (writer,) = world.writers
        folder = tmp_path / str(number)
        put_log(folder, world.read())
        after = on_its_own(world, At.RECOVERING) if writer.at is At.SEALING else next(steps_of(world))
        is_fenced = after.writers[0].at is At.OFF
        ends["fenced" if is_fenced else "committed"] += 1
        if is_fenced:
            with pytest.raises(FencedError):
                put_by_code(store_in(folder), writer)
        else:
            put_by_code(store_in(folder), writer)
        assert gist_in(folder) == gist(after.read())
    assert min(ends.values()) > 20, ends


def steps_of(world: World) -> Iterator[World]:
    """What the only writer's next call can lead to."""
    (writer,) = world.writers
    return (step.world for step in CALLS[writer.at](world, writer, Rules()))


def put_by_code(store: LocalStore, writer: Writer) -> None:
    log, seen = log_in(store), fold_of(writer.seen)
    if writer.at is At.SEALING:
        log.seal(seen, epoch=writer.epoch, run_id="own")
    else:
        append_by_code(log, writer)


def append_by_code(log: ShardLog, writer: Writer) -> None:
    assert writer.entry is not None
    content = cast(Any, content_of(writer.entry, writer.next_seq))
    log.append(fold_of(writer.seen), epoch=writer.epoch, run_id="own", scope="", refresh=0, **content)


class LosingStore(LocalStore):
    """Its one put-if-absent comes back when the log has become that of `world`, without a word on how it went."""

    def __init__(self, root: Path, world: World, *, as_error: bool) -> None:
        super().__init__(root, disk=HastyDisk())
        self._world, self._folder, self._as_error = world, root, as_error

    def put_if_absent(self, key: str, data: bytes) -> bool:
        (writer,) = self._world.writers
        found = self._world.entry(writer.next_seq)
        if found == writer.entry:
            super().put_if_absent(key, data)
        elif found is not None:
            put_log(self._folder, self._world.read())
        if self._as_error:
            raise StateError("the network is gone")
        return False


def appends_read_back(worlds: list[World], tmp_path: Path) -> Iterator[tuple[World, Writer, Path]]:
    """Each situation in which a batch's append is uncertain, with a folder that holds the log as its writer saw it."""
    for number, world in enumerate(situations(worlds, At.UNSURE)):
        (writer,) = world.writers
        if writer.entry and not writer.entry.is_seal:
            put_log(tmp_path / str(number), writer.seen)
            yield world, writer, tmp_path / str(number)


def test_a_number_reported_as_taken_is_read_back(worlds: list[World], tmp_path: Path) -> None:
    # A store that tries again by itself: its second try meets the entry of the first.
    ends = {Action.RECOGNISED: 0, Action.FENCED: 0}
    for world, writer, folder in appends_read_back(worlds, tmp_path):
        possible = {step.action for step in CALLS[At.UNSURE](world, writer, Rules())}
        log = log_in(LosingStore(folder, world, as_error=False))
        if Action.RECOGNISED in possible:
            append_by_code(log, writer)
            ends[Action.RECOGNISED] += 1
        elif Action.FENCED in possible:
            with pytest.raises(FencedError):
                append_by_code(log, writer)
            ends[Action.FENCED] += 1
    assert min(ends.values()) > 20, ends


def test_after_an_error_parts_go_only_if_the_entry_does_not_stand(worlds: list[World], tmp_path: Path) -> None:
    # StateError: the caller may discard. FencedError: it touches nothing.
    ends = {FencedError: 0, StateError: 0}
    for world, writer, folder in appends_read_back(worlds, tmp_path):
        may_discard = Action.DISCARD in {step.action for step in CALLS[At.UNSURE](world, writer, Rules())}
        expected = StateError if may_discard else FencedError
        with pytest.raises(expected):
            append_by_code(log_in(LosingStore(folder, world, as_error=True)), writer)
        ends[expected] += 1
    assert min(ends.values()) > 20, ends


class Items:
    """The methods of a ledger that recovery uses; nobody has marked anything."""

    def __init__(self, seqs: dict[str, int]) -> None:
        self.by_did = seqs

    def seqs(self, shard: str) -> dict[str, int]:
        return dict(self.by_did)

    def retry_marks(self, shard: str) -> dict[str, int]:
        return {}

    def put(self, items: Sequence[LedgerItem]) -> None:
        self.by_did.update((item.result.did, item.seq) for item in items)


def test_recovery_ends_the_same(worlds: list[World], tmp_path: Path) -> None:
    ends = {At.WORKING: 0, At.OFF: 0}
    for number, world in enumerate(situations(worlds, At.RECOVERING)):
        (writer,) = world.writers
        folder, ledger = tmp_path / str(number), Items(dict(world.ledger))
        for parts, below in ((world.staging, folder / "staging"), (world.records, folder)):
            for part in parts:
                path = below / key_of(part)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(b"x")
        after, store = on_its_own(world, At.WORKING), store_in(folder)
        try:
            recover(store, cast(Ledger, ledger), fold_of(writer.seen), backfill="study", shard=SHARD)
        except StateError:
            ended = At.OFF
        else:
            ended = At.WORKING
        assert ended is after.writers[0].at
        assert {info.key for info in store.staged()} == keys_of(after.staging)
        assert {info.key for info in store.list("records/")} == keys_of(after.records)
        assert ledger.by_did == dict(after.ledger)
        ends[ended] += 1
    assert min(ends.values()) > 0, ends
