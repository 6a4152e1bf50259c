"""Which entries of a damaged log are blamed, and that a log is readable once these are void."""

from __future__ import annotations

import hashlib
import random
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from backfill_dagster.errors import FencedError
from backfill_dagster.progress import has_rewrites
from backfill_dagster.records.canonical import canonical_json
from backfill_dagster.records.entry import LogEntry
from backfill_dagster.records.fold import Fold
from backfill_dagster.records.log import ShardLog
from backfill_dagster_tests.records.test_snapshot import DIDS, History


@pytest.fixture
def history(tmp_path: Path) -> History:
    """Nine entries: two epochs of a seal and commits, and a rewrite."""
    made = History(tmp_path / "state")
    for did in DIDS[:3]:
        made.commit(did)
    made.seal()
    for did in DIDS[:3]:
        made.commit(did)
    made.rewrite()
    return made


def path_of(history: History, seq: int) -> Path:
    return Path(history.store.path(history.log.key(seq)))


def entry_of(history: History, seq: int) -> LogEntry:
    return LogEntry.from_bytes(path_of(history, seq).read_bytes())


def replaced(history: History, first: int, last: int | None = None, **other: object) -> None:
    """Valid entries of another history under these numbers, which follow from each other and from nothing here."""
    prev = "f" * 64 if first > 1 else ""
    for seq in range(first, (last or first) + 1):
        entry = replace(entry_of(history, seq), nonce=f"other{seq}", prev=prev, **other).sealed()  # type: ignore[arg-type]
        path_of(history, seq).write_bytes(entry.to_bytes())
        prev = entry.own


def voided(history: History) -> Fold:
    """What `read` gives once all that is blamed is void: it must not refuse anything more."""
    return history.log.read(voids=history.log.damaged().keys(), whole=True)


def test_nothing_is_wrong(history: History) -> None:
    assert history.log.damaged() == {}
    assert ShardLog(history.store, "else.example~0000", nonce=str).damaged() == {}


@pytest.mark.parametrize("seq", range(1, 10))
def test_one_of_another_history_is_blamed_and_its_neighbours_are_not(history: History, seq: int) -> None:
    replaced(history, seq)
    assert list(history.log.damaged()) == [seq]
    assert voided(history).entries == 8


def test_what_is_wrong_is_said(history: History) -> None:
    path_of(history, 2).unlink()
    path_of(history, 3).write_bytes(path_of(history, 3).read_bytes()[:-9])
    path_of(history, 4).write_bytes(path_of(history, 5).read_bytes())
    replaced(history, 9)
    problems = history.log.damaged()
    assert list(problems) == [2, 3, 4, 9]
    assert problems[2] == "is missing"
    assert problems[3].startswith("can't be read: ")
    assert problems[4] == "says that it is entry 5"
    assert problems[9] == "doesn't follow from entry 8"
    assert voided(history).entries == 5


@pytest.mark.parametrize(
    ("first", "last", "blamed"),
    [(6, 9, [6, 7, 8, 9]), (1, 3, [1, 2, 3]), (4, 6, [4, 5, 6]), (1, 6, [7, 8, 9])],
    ids=["end", "beginning", "middle", "longer"],
)
def test_of_two_histories_the_shorter_one_does_not_count(
    history: History, first: int, last: int, blamed: list[int]
) -> None:
    """If most of it is another history's, what is left of this one can't be told from a stranger."""
    replaced(history, first, last)
    assert sorted(history.log.damaged()) == blamed
    assert voided(history).entries == 9 - len(blamed)


def test_of_two_that_are_as_long_nobody_can_tell(history: History) -> None:
    path_of(history, 5).unlink()
    replaced(history, 3, 4)
    assert sorted(history.log.damaged()) == [1, 2, 3, 4, 5]
    assert voided(history).entries == 4


def test_an_epoch_of_earlier_days_behind_a_gap(history: History) -> None:
    path_of(history, 6).unlink()
    replaced(history, 7, 9, epoch=1)
    assert set(history.log.damaged()) == {6, 7, 8, 9}
    assert voided(history).entries == 5


def test_a_first_entry_that_has_one_before(history: History) -> None:
    for seq in range(2, 10):
        path_of(history, seq).unlink()
    entry = replace(entry_of(history, 1), prev="f" * 64).sealed()
    path_of(history, 1).write_bytes(entry.to_bytes())
    assert history.log.damaged() == {1: "is the first and says that it isn't"}
    assert voided(history).entries == 0


def test_whatever_is_damaged_the_rest_can_be_read(history: History) -> None:
    dice = random.Random(3)
    whole = {seq: path_of(history, seq).read_bytes() for seq in range(1, 10)}
    for _ in range(60):
        for seq in dice.sample(range(1, 10), dice.randint(1, 4)):
            kind = dice.randrange(4)
            if kind == 0 and seq < 9:
                path_of(history, seq).unlink(missing_ok=True)
            elif kind == 1:
                flipped = bytearray(whole[seq])
                flipped[dice.randrange(len(flipped))] ^= 1 << dice.randrange(8)
                path_of(history, seq).write_bytes(flipped)
            elif kind == 2:
                path_of(history, seq).write_bytes(whole[dice.randint(1, 9)])
            elif path_of(history, seq).exists():
                path_of(history, seq).write_bytes(whole[seq])
                replaced(history, seq, epoch=dice.randint(1, 3))
        fold = voided(history)
        assert fold.entries == 9 - len(history.log.damaged())
        for seq, data in whole.items():
            path_of(history, seq).write_bytes(data)


def test_what_is_put_under_lost_numbers_is_no_entry_and_nobody_can_take_them(history: History) -> None:
    before = history.log.read(whole=True)
    zombie = replace(before, seq=10, own="x")
    path_of(history, 4).unlink()
    history.log.fill(12)
    assert sorted(history.log.damaged()) == [4, 10, 11, 12]
    with pytest.raises(FencedError, match="entry 11 of its log is another run's"):
        history.log.append(zombie, epoch=2, run_id="zombie", scope="", refresh=0)
    fold = voided(history)
    assert (fold.seq, fold.own, fold.entries) == (12, "", 8)
    history.fold, history.epoch = history.log.seal(fold, epoch=3, run_id="repair"), 3
    history.append(voids=[4, 10, 11, 12])
    assert history.log.read() == history.log.read(whole=True) == history.fold
    assert history.log.damaged() == {}


def old_entry(history: History, seq: int, prev: str) -> str:
    """An entry as the first version of the format had it: without `rewritten`."""
    content = orjson.loads(path_of(history, seq).read_bytes())
    for name in ("own", "rewritten"):
        del content[name]
    content["prev"] = prev
    own = hashlib.sha256(canonical_json(content)).hexdigest()
    path_of(history, seq).write_bytes(canonical_json(content | {"own": own}))
    return own


def test_entries_of_the_first_version_still_say_what_they_said(tmp_path: Path) -> None:
    history = History(tmp_path / "state")
    for did in [DIDS[0], DIDS[0]]:
        history.commit(did)
    history.rewrite()
    history.commit(DIDS[1])
    new = history.fold
    prev = ""
    for seq in range(1, 6):
        prev = old_entry(history, seq, prev)
    assert history.log.damaged() == {}
    old = history.log.read()
    assert old == replace(new, own=prev, rewritten_seq=4)
    assert not has_rewrites(old)
    history.fold = old
    history.commit(DIDS[1])
    assert has_rewrites(history.log.read()), "a newer entry goes on from there"
    history.rewrite()
    assert not has_rewrites(history.log.read())


def test_an_old_rewrite_that_is_void_leaves_its_rows_to_take_out(tmp_path: Path) -> None:
    history = History(tmp_path / "state")
    for did in [DIDS[0], DIDS[0]]:
        history.commit(did)
    history.rewrite()
    prev = ""
    for seq in range(1, 5):
        prev = old_entry(history, seq, prev)
    assert has_rewrites(history.log.read(voids=[4]))
