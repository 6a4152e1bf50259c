"""Snapshots of a fold: what is read from one is what the log says, and a bad one is passed over and named."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from dataclasses import replace
from itertools import count
from pathlib import Path

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backfill_dagster.errors import StateError
from backfill_dagster.model import Outcome, RepoOutcome
from backfill_dagster.records.canonical import canonical_json
from backfill_dagster.records.entry import Part
from backfill_dagster.records.fold import Fold, LivePart
from backfill_dagster.records.log import ShardLog
from backfill_dagster.records.snapshot import fold_from_snapshot, snapshot_bytes, snapshot_key
from backfill_dagster.store import LocalStore

SHARD = "pds.example~0000"
DIDS = [f"did:plc:{letter}" for letter in "abcd"]

numbers = st.integers(0, 2**40)
texts = st.text(max_size=8)
parts = st.builds(
    LivePart, st.builds(Part, texts, st.none() | texts, rows=numbers, bytes=numbers, sha256=texts), numbers
)
outcomes = st.builds(
    RepoOutcome,
    did=st.just(""),
    outcome=st.sampled_from(Outcome),
    scope=texts,
    rev=st.none() | texts,
    records_by_type=st.dictionaries(texts, numbers, max_size=2),
    records_seen_by_collection=st.none() | st.dictionaries(texts, numbers, max_size=2),
    error_headers=st.dictionaries(texts, texts, max_size=2),
    signature_checked=st.booleans(),
)
folds = st.builds(
    Fold,
    seq=numbers,
    epoch=numbers,
    own=texts,
    entries=numbers,
    parts=st.lists(parts, max_size=3).map(lambda some: {one.part.path: one for one in some}),
    dids=st.dictionaries(texts, st.tuples(outcomes, numbers), max_size=3).map(
        lambda dids: {did: (replace(result, did=did), seq) for did, (result, seq) in dids.items()}
    ),
    superseded=st.dictionaries(texts, numbers, max_size=3),
    rewritten_seq=numbers,
    purged=st.frozensets(texts, max_size=3),
    voids=st.frozensets(numbers, max_size=3),
)


@settings(max_examples=150, deadline=None)
@given(folds)
def test_a_fold_comes_back_as_it_was(fold: Fold) -> None:
    data = snapshot_bytes(fold)
    back = fold_from_snapshot(data)
    assert back == fold
    assert list(back.parts) == list(fold.parts), "parts stay in their order"
    assert snapshot_bytes(back) == data


class History:
    """A log that a test writes, one random step after the other."""

    def __init__(self, folder: Path) -> None:
        self.store = LocalStore(folder)
        self._names = count(1)
        self.log = ShardLog(self.store, SHARD, nonce=lambda: f"n{next(self._names)}")
        self.epoch = 1
        self.fold = self.log.seal(Fold(), epoch=1, run_id="r")

    def seal(self) -> None:
        self.epoch += 1
        self.fold = self.log.seal(self.fold, epoch=self.epoch, run_id="r")

    def commit(self, did: str) -> None:
        self.append(
            adds=[self.part()],
            dids={did: RepoOutcome(did=did, outcome=Outcome.COMPLETE, rev=f"r{next(self._names)}")},
            supersedes=[did] if did in self.fold.dids else [],
        )

    def rewrite(self) -> None:
        self.append(adds=[self.part()], removes=list(self.fold.parts), rewritten=self.fold.seq)

    def purge(self, did: str) -> None:
        self.append(purged=[did])

    def snapshot(self) -> None:
        self.log.write_snapshot(self.fold)

    def lose(self, seq: int) -> None:
        """An entry becomes unreadable, and a repair lists it as void; also those that it was the one to list."""
        if seq > self.fold.seq or seq in self.fold.voids:
            return
        path = Path(self.store.path(self.log.key(seq)))
        path.write_bytes(path.read_bytes()[:-3])
        self.epoch += 1
        voids = sorted(self.log.damaged())
        fold = self.log.seal(self.log.read(voids=voids), epoch=self.epoch, run_id="repair")
        self.fold = self.log.append(fold, epoch=self.epoch, run_id="repair", scope="", refresh=0, voids=voids)

    def append(self, **content: object) -> None:
        self.fold = self.log.append(self.fold, epoch=self.epoch, run_id="r", scope="s", refresh=0, **content)  # type: ignore[arg-type]

    def part(self) -> Part:
        return Part(f"records/record_type=post/{next(self._names)}.parquet", "post", 1, 1, "ab")


steps = st.one_of(
    st.tuples(st.just("commit"), st.sampled_from(DIDS)),
    st.tuples(st.sampled_from(["seal", "rewrite", "snapshot"])),
    st.tuples(st.just("purge"), st.sampled_from(DIDS)),
    st.tuples(st.just("lose"), st.integers(1, 12)),
)


@settings(max_examples=80, deadline=None)
@given(st.lists(steps, max_size=14))
def test_read_from_snapshots_a_log_says_what_it_says_read_whole(history: list[tuple[str, ...]]) -> None:
    """Also with voids, and when an entry below a snapshot is voided after it was taken."""
    folder = Path(tempfile.mkdtemp())
    try:
        made = History(folder)
        for name, *arguments in history:
            getattr(made, name)(*arguments)
            whole = made.log.read(whole=True)
            assert made.log.read() == whole == made.fold
            assert made.log.bad_snapshots(whole).keys() <= whole.voids
            assert made.log.damaged() == {}
            assert len(made.log.snapshots()) <= 2
            assert made.log.last_seq() == len(list(made.store.list("log/"))), "no entry is ever deleted"
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def history(tmp_path: Path) -> History:
    """Six entries, snapshots of the fourth and the fifth."""
    made = History(tmp_path / "state")
    for did in DIDS[:3]:
        made.commit(did)
    made.snapshot()
    made.commit(DIDS[0])
    made.snapshot()
    made.rewrite()
    return made


def reads(history: History) -> list[str]:
    """The keys that reading the log asks for."""
    asked: list[str] = []

    class Counting(LocalStore):
        def get(self, key: str) -> bytes:
            asked.append(key)
            return super().get(key)

    assert ShardLog(Counting(Path(history.store.uri)), SHARD, nonce=str).read() == history.fold
    return asked


def test_only_what_follows_the_newest_snapshot_is_read(history: History) -> None:
    assert reads(history) == [snapshot_key(SHARD, 5), history.log.key(5), history.log.key(6)]


def flip(data: bytes) -> bytes:
    return data[:40] + bytes([data[40] ^ 1]) + data[41:]


def of_version(data: bytes, version: int) -> bytes:
    """A snapshot in good order that a later version of the code has written."""
    content = orjson.loads(data) | {"version": version}
    return signed(content)


def signed(content: dict[str, object]) -> bytes:
    content.pop("sha256", None)
    return canonical_json(content | {"sha256": hashlib.sha256(canonical_json(content)).hexdigest()})


def without(data: bytes, name: str) -> bytes:
    content = orjson.loads(data)
    del content[name]
    return signed(content)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda data: data[: len(data) // 2], "can't be read"),
        (lambda data: b"", "can't be read"),
        (lambda data: b"[]", "can't be read"),
        (flip, "can't be read"),
        (lambda data: of_version(data, 2), "it is of version 2"),
        (lambda data: without(data, "voids"), "a field is missing"),
        (lambda data: signed(orjson.loads(data) | {"own": "else"}), "is not a snapshot of this log"),
        (lambda data: signed(orjson.loads(data) | {"seq": 4}), "is not a snapshot of this log"),
    ],
    ids=["cut", "empty", "list", "flipped", "version", "field", "foreign", "seq"],
)
def test_a_snapshot_that_is_no_good_is_passed_over_and_named(history: History, damage: object, said: str) -> None:
    path = Path(history.store.path(snapshot_key(SHARD, 5)))
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    assert reads(history)[-3:] == [history.log.key(4), history.log.key(5), history.log.key(6)], "from the one before"
    ((seq, problem),) = history.log.bad_snapshots(history.fold).items()
    assert seq == 5
    assert said in problem
    Path(history.store.path(snapshot_key(SHARD, 4))).write_bytes(b"x")
    assert reads(history)[-6:] == [history.log.key(seq) for seq in range(1, 7)], "and without any, the whole log"


def test_a_snapshot_that_says_something_else_is_named(history: History) -> None:
    """It is read, as its entry fits: only whoever reads the log whole can tell."""
    path = Path(history.store.path(snapshot_key(SHARD, 4)))
    path.write_bytes(signed(orjson.loads(path.read_bytes()) | {"purged": ["did:plc:z"]}))
    assert history.log.bad_snapshots(history.fold) == {4: "doesn't say what the log says"}


def test_a_snapshot_of_an_entry_that_is_lost_is_passed_over(history: History) -> None:
    history.lose(5)
    assert history.log.read() == history.log.read(whole=True)
    assert history.fold.dids[DIDS[0]][0].rev == "r3", "what entry 5 said is forgotten"


def test_of_the_log_behind_a_snapshot_only_its_own_entry_is_looked_at(history: History) -> None:
    """A run goes on with what is known for sure; `verify` reads everything."""
    Path(history.store.path(history.log.key(2))).unlink()
    assert history.log.read() == history.fold
    with pytest.raises(StateError, match=r"00000002\.json is missing"):
        history.log.read(whole=True)
    assert history.log.damaged() == {2: "is missing"}


def test_the_newest_two_are_kept_and_nothing_else_is_touched(history: History) -> None:
    strangers = [f"snapshots/{SHARD}/notes.txt", "snapshots/other.example~0000/00000004.json"]
    for key in strangers:
        history.store.put(key, b"x")
    for _ in range(3):
        history.commit(DIDS[1])
        history.snapshot()
    assert history.log.snapshots() == [8, 9]
    assert all(map(history.store.exists, strangers))
    history.log.drop_snapshots()
    assert history.log.snapshots() == []
    assert history.log.read() == history.fold
    assert all(map(history.store.exists, strangers))


def test_who_dies_before_deleting_the_old_one_leaves_nothing_for_ever(history: History) -> None:
    class Dying(LocalStore):
        def delete(self, key: str) -> None:
            raise KeyboardInterrupt

    dying = ShardLog(Dying(Path(history.store.uri)), SHARD, nonce=str)
    with pytest.raises(KeyboardInterrupt):
        dying.write_snapshot(history.fold)
    assert history.log.snapshots() == [4, 5, 6]
    assert history.log.read() == history.fold
    history.commit(DIDS[2])
    history.snapshot()
    assert history.log.snapshots() == [6, 7]
