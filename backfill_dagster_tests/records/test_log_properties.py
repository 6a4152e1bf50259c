"""Properties of the log: the fold is what a simple model says; of racing writers exactly one wins each number."""

from __future__ import annotations

import shutil
import tempfile
import threading
import uuid
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backfill_dagster.errors import FencedError
from backfill_dagster.model import Outcome, RepoOutcome
from backfill_dagster.records.entry import Part, entry_bytes, outcome_bytes
from backfill_dagster.records.fold import Fold
from backfill_dagster.records.log import ShardLog
from backfill_dagster.store import LocalStore

DIDS = [f"did:plc:{letter}" for letter in "abcde"]


def unique() -> str:
    return uuid.uuid4().hex


class Model:
    """Rows as (did, text) in parts as plain dicts; what an honest reader would compute without any log."""

    def __init__(self) -> None:
        self.rows: dict[str, str] = {}
        self.parts: dict[str, dict[str, str]] = {}

    def live_rows(self, fold: Fold) -> list[tuple[str, str]]:
        return sorted(
            (did, text)
            for path, live in fold.parts.items()
            for did, text in self.parts[path].items()
            if not fold.is_dead(did, live.seq)
        )


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[str, list[str]]]:
    """Steps: commit some DIDs (new rows for each), rewrite, a new epoch, or a stale writer's try."""
    step = st.one_of(
        st.tuples(st.just("commit"), st.lists(st.sampled_from(DIDS), unique=True, max_size=3)),
        st.tuples(st.just("fail"), st.lists(st.sampled_from(DIDS), unique=True, min_size=1, max_size=2)),
        st.tuples(st.just("rewrite"), st.just([])),
        st.tuples(st.just("seal"), st.just([])),
        st.tuples(st.just("zombie"), st.just([])),
    )
    return draw(st.lists(step, max_size=15))


@settings(max_examples=60, deadline=None)
@given(histories())
def test_the_fold_is_what_the_model_says(history: list[tuple[str, list[str]]]) -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        _play(folder, history)
    finally:
        shutil.rmtree(folder)


def _play(folder: Path, history: list[tuple[str, list[str]]]) -> None:
    store, model = LocalStore(folder), Model()
    log = ShardLog(store, "a~0000", nonce=unique)
    epoch = 1
    fold = log.seal(Fold(), epoch=epoch, run_id="r")
    outcomes: dict[str, tuple[Outcome, int]] = {}
    for kind, dids in history:
        stale = fold
        path = f"records/record_type=post/{unique()}.parquet"
        if kind == "commit":
            rows = {did: unique() for did in dids}
            model.parts[path] = rows
            fold = _append(log, fold, epoch, path, dids=dids, supersedes=[did for did in dids if did in model.rows])
            model.rows.update(rows)
        elif kind == "fail":
            fold = _append(log, fold, epoch, None, dids=dids, outcome=Outcome.HTTP_ERROR)
        elif kind == "rewrite":
            model.parts[path] = dict(model.live_rows(fold))
            fold = _append(log, fold, epoch, path, removes=list(fold.parts))
            assert not any(fold.dead_in(live) & set(model.parts[path]) for live in fold.parts.values())
        elif kind == "seal":
            epoch += 1
            fold = log.seal(fold, epoch=epoch, run_id="r")
        else:
            fold = log.seal(fold, epoch=(epoch := epoch + 1), run_id="r")
            with pytest.raises(FencedError):
                _append(ShardLog(store, "a~0000", nonce=unique), stale, epoch - 1, path)
        if kind in ("commit", "fail"):
            outcome = Outcome.COMPLETE if kind == "commit" else Outcome.HTTP_ERROR
            outcomes.update((did, (outcome, fold.seq)) for did in dids)
        assert log.read() == log.refresh(stale) == fold
        assert fold.epoch == epoch
        assert model.live_rows(fold) == sorted(model.rows.items())
        assert {did: (result.outcome, seq) for did, (result, seq) in fold.dids.items()} == outcomes


def _append(
    log: ShardLog,
    fold: Fold,
    epoch: int,
    path: str | None,
    *,
    dids: list[str] | None = None,
    supersedes: list[str] | None = None,
    removes: list[str] | None = None,
    outcome: Outcome = Outcome.COMPLETE,
) -> Fold:
    return log.append(
        fold,
        epoch=epoch,
        run_id="r",
        scope="s",
        refresh=0,
        adds=[Part(path, "post", 1, 1, "")] if path else [],
        dids={did: RepoOutcome(did=did, outcome=outcome) for did in dids or []},
        supersedes=supersedes or [],
        removes=removes or [],
    )


@pytest.mark.parametrize("same_epoch", [True, False])
def test_of_racing_writers_one_has_each_number(tmp_path: Path, same_epoch: bool) -> None:
    """Threads append as fast as they can; who is fenced reads again and goes on (or seals a newer epoch)."""
    writers, each = 4, 12
    done: list[list[int]] = [[] for _ in range(writers)]
    first = ShardLog(LocalStore(tmp_path), "a~0000", nonce=unique).seal(Fold(), epoch=1, run_id="r")

    def write(number: int) -> None:
        log = ShardLog(LocalStore(tmp_path), "a~0000", nonce=unique)
        fold = first
        while len(done[number]) < each:
            try:
                if not same_epoch and not done[number]:
                    fold = log.seal(log.read(), epoch=fold.epoch + 1, run_id=str(number))
                did = f"did:plc:{number}x{len(done[number])}"
                fold = log.append(
                    fold,
                    epoch=fold.epoch,
                    run_id=str(number),
                    scope="",
                    refresh=0,
                    dids={did: RepoOutcome(did=did, outcome=Outcome.COMPLETE)},
                )
                done[number].append(fold.seq)
            except FencedError:
                fold = log.read()

    threads = [threading.Thread(target=write, args=(number,)) for number in range(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    fold = ShardLog(LocalStore(tmp_path), "a~0000", nonce=unique).read()
    won = {f"did:plc:{number}x{at}": seq for number in range(writers) for at, seq in enumerate(done[number])}
    assert len(won) == writers * each
    assert {did: seq for did, (_, seq) in fold.dids.items()} == won
    assert len(set(won.values())) == len(won)


texts = st.text(max_size=30)
outcomes = st.builds(
    RepoOutcome,
    did=texts,
    outcome=st.sampled_from(Outcome),
    error_detail=st.none() | texts,
    error_headers=st.dictionaries(texts, texts, max_size=3),
    records_by_type=st.dictionaries(texts, st.integers(0, 2**40), max_size=3),
    refresh=st.integers(0, 9),
)


@settings(max_examples=100, deadline=None)
@given(st.lists(outcomes, max_size=5, unique_by=lambda one: one.did), st.lists(texts, max_size=3))
def test_entry_bytes_is_an_upper_bound_and_outcome_bytes_adds_up(results: list[RepoOutcome], dids: list[str]) -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        store = LocalStore(folder)
        log = ShardLog(store, "a~0000", nonce=unique)
        fold = log.seal(Fold(), epoch=1, run_id="run")
        content = {one.did: one for one in results}
        fold = log.append(fold, epoch=1, run_id="run", scope="s", refresh=1, dids=content, supersedes=dids)
        size = len(store.get(log.key(2)))
        measured = entry_bytes(dids=content, supersedes=dids, run_id="run", scope="s")
        assert size <= measured <= size + 256
        without = entry_bytes(supersedes=dids, run_id="run", scope="s")
        assert measured == without + sum(map(outcome_bytes, results)) - (1 if results else 0)
        assert log.read() == fold
    finally:
        shutil.rmtree(folder)
