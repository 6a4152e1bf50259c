"""A shard's log: what is appended is what is read; gaps, forgeries and other writers are met with the right error."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from itertools import count
from pathlib import Path

import orjson
import pytest

from backfill_dagster.errors import FencedError, StateError
from backfill_dagster.model import Outcome, RepoOutcome
from backfill_dagster.records.entry import ENTRY_MAX_BYTES, LogEntry, Part
from backfill_dagster.records.fold import Fold, LivePart
from backfill_dagster.records.log import ShardLog
from backfill_dagster.store import LocalStore

SHARD = "pds.example~0000"


def nonces(prefix: str = "n") -> Callable[[], str]:
    numbers = count(1)
    return lambda: f"{prefix}{next(numbers)}"


def part(name: str, rows: int = 1) -> Part:
    return Part(path=f"records/record_type=post/{name}.parquet", record_type="post", rows=rows, bytes=10, sha256="ab")


def done(did: str, outcome: Outcome = Outcome.COMPLETE, **more: object) -> RepoOutcome:
    return RepoOutcome(did=did, outcome=outcome, **more)  # type: ignore[arg-type]


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "state")


@pytest.fixture
def log(store: LocalStore) -> ShardLog:
    return ShardLog(store, SHARD, nonce=nonces())


def commit(log: ShardLog, fold: Fold, *, epoch: int = 1, **content: object) -> Fold:
    return log.append(fold, epoch=epoch, run_id="run", scope="s", refresh=0, **content)  # type: ignore[arg-type]


def test_an_empty_log(log: ShardLog) -> None:
    assert log.read() == Fold()
    assert log.refresh(Fold()) == Fold()


def test_what_is_appended_is_what_is_read(log: ShardLog, store: LocalStore) -> None:
    fold = log.seal(log.read(), epoch=1, run_id="run")
    assert (fold.seq, fold.epoch, fold.entries, dict(fold.parts), dict(fold.dids)) == (1, 1, 1, {}, {})
    complete = done("did:plc:a", rev="3k2a", records_by_type={"post": 1}, error_headers={"server": "x"})
    fold = commit(log, fold, adds=[part("p1")], dids={"did:plc:a": complete})
    fold = commit(log, fold, adds=[part("p2")], dids={"did:plc:a": complete}, supersedes=["did:plc:a"])
    fold = commit(log, fold, adds=[part("p3")], removes=[part("p1").path], purged=["did:plc:z"], rewritten=3)
    assert fold.seq == fold.entries == 4
    assert dict(fold.parts) == {part("p2").path: LivePart(part("p2"), 3), part("p3").path: LivePart(part("p3"), 4)}
    assert dict(fold.dids) == {"did:plc:a": (complete, 3)}
    assert dict(fold.superseded) == {"did:plc:a": 3}
    assert fold.rewritten_seq == 3
    assert fold.purged == {"did:plc:z"}
    assert fold == log.read() == ShardLog(store, SHARD, nonce=nonces("other")).read()
    assert [info.key for info in store.list("log/")] == [f"log/{SHARD}/{seq:08d}.json" for seq in (1, 2, 3, 4)]


def test_rows_are_dead_below_the_entry_that_supersedes_them(log: ShardLog) -> None:
    fold = commit(log, log.seal(Fold(), epoch=1, run_id="r"), adds=[part("old")])
    fold = commit(log, fold, adds=[part("new")], supersedes=["did:plc:a"])
    assert fold.is_dead("did:plc:a", 2) is True
    assert fold.is_dead("did:plc:a", 3) is False
    assert fold.is_dead("did:plc:b", 2) is False
    assert fold.dead_in(fold.parts[part("old").path]) == {"did:plc:a"}
    assert fold.dead_in(fold.parts[part("new").path]) == set()
    fold = commit(log, fold, adds=[part("rewritten")], removes=[part("old").path])
    assert fold.dead_in(fold.parts[part("rewritten").path]) == set()


def test_refresh_reads_on_without_touching_the_old_fold(log: ShardLog, store: LocalStore) -> None:
    first = log.seal(Fold(), epoch=1, run_id="r")
    last = commit(log, first, adds=[part("p1")], dids={"did:plc:a": done("did:plc:a")})
    assert ShardLog(store, SHARD, nonce=nonces()).refresh(first) == last
    assert (first.seq, dict(first.parts), dict(first.dids)) == (1, {}, {})


def test_an_entry_is_canonical_json_with_hash_and_chain(log: ShardLog, store: LocalStore) -> None:
    fold = commit(log, log.seal(Fold(), epoch=1, run_id="r"), adds=[part("p")], dids={"did:plc:a": done("did:plc:a")})
    data = store.get(log.key(2))
    content = orjson.loads(data)
    assert data == orjson.dumps(content, option=orjson.OPT_SORT_KEYS)
    assert content["prev"] == orjson.loads(store.get(log.key(1)))["own"]
    own = content.pop("own")
    assert own == fold.own == hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()
    assert content == {
        "seq": 2,
        "epoch": 1,
        "nonce": "n2",
        "run_id": "run",
        "scope": "s",
        "refresh": 0,
        "adds": [{"path": part("p").path, "record_type": "post", "rows": 1, "bytes": 10, "sha256": "ab"}],
        "removes": [],
        "dids": {"did:plc:a": {"outcome": "complete"}},
        "supersedes": [],
        "purged": [],
        "voids": [],
        "rewritten": 0,
        "prev": content["prev"],
    }


def test_texts_that_utf8_cannot_say_do_not_stop_a_commit(log: ShardLog) -> None:
    odd = done("did:plc:a", Outcome.HTTP_ERROR, error_headers={"server": "x\udcff"}, error_detail="\ud800")
    fold = commit(log, log.seal(Fold(), epoch=1, run_id="r"), dids={"did:plc:a": odd})
    assert fold == log.read()
    assert fold.dids["did:plc:a"][0].error_headers == {"server": "x?"}
    assert fold.dids["did:plc:a"][0].error_detail == "?"


class TestTwoWriters:
    """Whoever has the next number has the shard."""

    def test_of_two_appends_one_wins(self, store: LocalStore) -> None:
        mine, theirs = ShardLog(store, SHARD, nonce=nonces("m")), ShardLog(store, SHARD, nonce=nonces("t"))
        fold = mine.seal(Fold(), epoch=1, run_id="mine")
        won = commit(theirs, fold, adds=[part("theirs")])
        with pytest.raises(FencedError, match="entry 2 of its log is another run's"):
            commit(mine, fold, adds=[part("mine")])
        assert mine.read() == won

    def test_a_seal_fences_the_old_writer(self, store: LocalStore) -> None:
        old, new = ShardLog(store, SHARD, nonce=nonces("o")), ShardLog(store, SHARD, nonce=nonces("n"))
        fold = old.seal(Fold(), epoch=1, run_id="old")
        sealed = new.seal(new.read(), epoch=2, run_id="new")
        with pytest.raises(FencedError, match="another run's"):
            commit(old, fold, adds=[part("late")])
        with pytest.raises(FencedError, match="the log is at epoch 2, this run has 1"):
            commit(old, old.refresh(fold), adds=[part("late")])
        assert old.read() == sealed

    def test_a_seal_reads_on_while_the_old_writer_commits(self, store: LocalStore) -> None:
        old, new = ShardLog(store, SHARD, nonce=nonces("o")), ShardLog(store, SHARD, nonce=nonces("n"))
        stale = fold = old.seal(Fold(), epoch=1, run_id="old")
        for name in ("p1", "p2"):
            fold = commit(old, fold, adds=[part(name)])
        sealed = new.seal(stale, epoch=2, run_id="new")
        assert sealed == new.read()
        assert (sealed.seq, sealed.epoch, sorted(sealed.parts)) == (4, 2, [part("p1").path, part("p2").path])

    @pytest.mark.parametrize("epoch", [1, 2])
    def test_a_seal_stops_at_its_own_or_a_newer_epoch(self, store: LocalStore, epoch: int) -> None:
        log = ShardLog(store, SHARD, nonce=nonces())
        log.seal(Fold(), epoch=2, run_id="theirs")
        with pytest.raises(FencedError, match=f"the log is at epoch 2, this run has {epoch}"):
            log.seal(Fold(), epoch=epoch, run_id="mine")
        assert log.read().seq == 1

    def test_an_unsealed_epoch_cannot_append(self, log: ShardLog) -> None:
        with pytest.raises(ValueError, match=r"epoch 1 has not sealed the log of pds\.example~0000"):
            commit(log, Fold(), adds=[part("p")])

    def test_a_seal_gives_up_some_day(self, store: LocalStore) -> None:
        class Busy(LocalStore):
            def put_if_absent(self, key: str, data: bytes) -> bool:
                other = ShardLog(store, SHARD, nonce=nonces())
                commit(other, other.read())
                return super().put_if_absent(key, data)

        ShardLog(store, SHARD, nonce=nonces()).seal(Fold(), epoch=1, run_id="other")
        busy = ShardLog(Busy(Path(store.uri)), SHARD, nonce=nonces("mine"))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("backfill_dagster.records.log._SEAL_TRIES_MAX", 3)
            with pytest.raises(StateError, match="its log grew 3 times while it was sealed"):
                busy.seal(Fold(), epoch=2, run_id="mine")


class FlakyStore(LocalStore):
    """Loses replies or fails, after the object was created (`late`) or before, when `armed`."""

    armed = ""

    def put_if_absent(self, key: str, data: bytes) -> bool:
        mode, self.armed = self.armed, ""
        if mode == "fails":
            raise StateError("the disk is full")
        created = super().put_if_absent(key, data)
        if mode == "lost reply":
            return False
        if mode == "fails late":
            raise StateError("the folder can't be flushed")
        return created


class UnreadableStore(FlakyStore):
    """Fails late, and then can't read either."""

    def get(self, key: str) -> bytes:
        raise StateError("the disk is gone")


class TestLostReplies:
    """Which entry stands decides, not the reply."""

    def test_ones_own_entry_is_known_by_its_nonce(self, tmp_path: Path) -> None:
        store = FlakyStore(tmp_path)
        log = ShardLog(store, SHARD, nonce=nonces())
        store.armed = "lost reply"
        fold = log.seal(Fold(), epoch=1, run_id="r")
        store.armed = "lost reply"
        fold = commit(log, fold, adds=[part("p")])
        assert fold.seq == 2
        assert fold == log.read()

    def test_a_refused_entry_that_does_not_stand_is_the_stores_error(self, tmp_path: Path) -> None:
        store = FlakyStore(tmp_path)
        log = ShardLog(store, SHARD, nonce=nonces())
        fold = log.seal(Fold(), epoch=1, run_id="r")
        store.armed = "fails"
        with pytest.raises(StateError, match="the disk is full"):
            commit(log, fold, adds=[part("p")])
        assert commit(log, fold, adds=[part("p")]).seq == 2

    def test_a_refused_entry_that_stands_is_not_to_be_touched(self, tmp_path: Path) -> None:
        store = FlakyStore(tmp_path)
        log = ShardLog(store, SHARD, nonce=nonces())
        fold = log.seal(Fold(), epoch=1, run_id="r")
        store.armed = "fails late"
        with pytest.raises(FencedError, match=r"00000002\.json may or may not have been written"):
            commit(log, fold, adds=[part("p")])
        assert list(log.read().parts) == [part("p").path]

    def test_a_refused_entry_that_cannot_be_looked_at_is_not_to_be_touched(self, tmp_path: Path) -> None:
        store = UnreadableStore(tmp_path)
        log = ShardLog(store, SHARD, nonce=nonces())
        store.armed = "fails late"
        with pytest.raises(FencedError, match="may or may not have been written"):
            log.seal(Fold(), epoch=1, run_id="r")

    def test_a_refused_entry_whose_number_is_a_strangers(self, tmp_path: Path) -> None:
        store = FlakyStore(tmp_path)
        log = ShardLog(store, SHARD, nonce=nonces())
        fold = log.seal(Fold(), epoch=1, run_id="r")
        commit(ShardLog(store, SHARD, nonce=nonces("theirs")), fold)
        store.armed = "fails"
        with pytest.raises(StateError, match="the disk is full"):
            commit(log, fold)

    def test_a_refused_entry_over_an_unreadable_one(self, tmp_path: Path) -> None:
        store = FlakyStore(tmp_path)
        log = ShardLog(store, SHARD, nonce=nonces())
        fold = log.seal(Fold(), epoch=1, run_id="r")
        store.put(log.key(2), b"rubbish")
        store.armed = "fails"
        with pytest.raises(FencedError, match="may or may not"):
            commit(log, fold)


class TestMisuse:
    """Callers' mistakes are ValueErrors and write nothing."""

    def test_an_entry_over_the_maximum(self, log: ShardLog, store: LocalStore) -> None:
        fold = log.seal(Fold(), epoch=1, run_id="r")
        big = done("did:plc:a", error_detail="x" * ENTRY_MAX_BYTES)
        with pytest.raises(ValueError, match="the maximum is 1048576"):
            commit(log, fold, dids={"did:plc:a": big})
        assert log.read() == fold

    def test_a_part_is_added_or_removed_twice(self, log: ShardLog) -> None:
        fold = commit(log, log.seal(Fold(), epoch=1, run_id="r"), adds=[part("p")])
        for content in ({"adds": [part("p")]}, {"adds": [part("q"), part("q")]}):
            with pytest.raises(ValueError, match="a part is added twice"):
                commit(log, fold, **content)
        for removes in ([part("q").path], [part("p").path, part("p").path]):
            with pytest.raises(ValueError, match="a part is removed that is not live"):
                commit(log, fold, removes=removes)
        assert log.read() == fold


class TestDamage:
    """An unreadable log is an error with key and remedy, never a shorter log."""

    @pytest.fixture
    def fold(self, log: ShardLog) -> Fold:
        fold = log.seal(Fold(), epoch=1, run_id="r")
        for name in ("a", "b", "c"):
            did = f"did:plc:{name}"
            fold = commit(log, fold, adds=[part(name)], dids={did: done(did)})
        return fold

    def remade(self, store: LocalStore, log: ShardLog, at: int, **changes: object) -> None:
        """Replace an entry by a forged one whose own hash is right."""
        content = orjson.loads(store.get(log.key(at))) | changes
        content.pop("own")
        own = hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()
        store.put(log.key(at), orjson.dumps(content | {"own": own}, option=orjson.OPT_SORT_KEYS))

    @pytest.mark.usefixtures("fold")
    def test_a_gap(self, log: ShardLog, store: LocalStore) -> None:
        store.delete(log.key(3))
        with pytest.raises(StateError, match=r"00000003\.json is missing; bring it back"):
            log.read()

    @pytest.mark.usefixtures("fold")
    @pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"null", b"\xff", b'{"seq":3,"own":""}'])
    def test_an_entry_that_is_none(self, log: ShardLog, store: LocalStore, data: bytes) -> None:
        store.put(log.key(3), data)
        with pytest.raises(StateError, match=r"00000003\.json can't be read: .*bring it back"):
            log.read()

    @pytest.mark.usefixtures("fold")
    def test_every_flipped_bit_is_seen(self, log: ShardLog, store: LocalStore) -> None:
        good = store.get(log.key(3))
        for at in range(len(good)):
            store.put(log.key(3), good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
            with pytest.raises(StateError, match=r"0000000[34]\.json"):
                log.read()

    @pytest.mark.usefixtures("fold")
    @pytest.mark.parametrize(
        ("changes", "text"),
        [
            ({"prev": "0" * 64}, r"00000003\.json doesn't follow from the entry before"),
            ({"run_id": "forged"}, r"00000004\.json doesn't follow from the entry before"),
            ({"epoch": 0}, r"00000003\.json has epoch 0 after epoch 1"),
            ({"seq": 4}, r"00000003\.json says that it is entry 4"),
            ({"seq": True}, r"00000003\.json can't be read: a field is missing or of the wrong type"),
            ({"epoch": -1}, r"00000003\.json can't be read"),
            ({"nonce": None}, r"00000003\.json can't be read"),
            ({"removes": "x"}, r"00000003\.json can't be read"),
            ({"adds": [{"path": "x"}]}, r"00000003\.json can't be read"),
            ({"dids": []}, r"00000003\.json can't be read"),
            ({"dids": {"did:plc:a": {"outcome": "wonderful"}}}, r"00000003\.json can't be read"),
        ],
    )
    def test_a_forged_entry(self, log: ShardLog, store: LocalStore, changes: dict[str, object], text: str) -> None:
        self.remade(store, log, 3, **changes)
        with pytest.raises(StateError, match=text):
            log.read()

    def test_refresh_checks_the_chain_too(self, log: ShardLog, store: LocalStore, fold: Fold) -> None:
        commit(log, fold)
        self.remade(store, log, 5, prev="0" * 64)
        with pytest.raises(StateError, match=r"00000005\.json doesn't follow"):
            log.refresh(fold)

    def test_fields_of_a_later_version_are_ignored(self, log: ShardLog, store: LocalStore, fold: Fold) -> None:
        self.remade(store, log, 4, news=1)
        assert log.read().dids == fold.dids

    def test_other_files_in_the_folder_are_ignored(self, log: ShardLog, store: LocalStore, fold: Fold) -> None:
        store.put(f"log/{SHARD}/.nfs0001", b"")
        store.put(f"log/{SHARD}/00000009.json.bak", b"")
        assert log.read() == fold

    @pytest.mark.parametrize("how", ["missing", "rubbish"])
    def test_a_voided_entry_counts_as_empty(self, log: ShardLog, store: LocalStore, fold: Fold, how: str) -> None:
        store.delete(log.key(3))
        if how == "rubbish":
            store.put(log.key(3), b"rubbish")
        holed = log.read(voids=[3])
        assert (holed.seq, holed.entries, sorted(holed.dids)) == (4, 3, ["did:plc:a", "did:plc:c"])
        repaired = commit(log, holed, voids=[3], dids={"did:plc:b": done("did:plc:b", Outcome.PENDING)})
        assert repaired == log.read()
        assert repaired.voids == {3}
        assert repaired.dids["did:plc:b"] == (done("did:plc:b", Outcome.PENDING), 5)
        assert log.refresh(fold) == repaired  # one who still counts the voided entry begins anew
        assert log.refresh(holed) == repaired

    @pytest.mark.usefixtures("fold")
    def test_the_last_entry_can_be_voided(self, log: ShardLog, store: LocalStore) -> None:
        store.put(log.key(4), b"rubbish")
        holed = log.read(voids=[4])
        assert (holed.seq, holed.own) == (4, "")
        sealed = log.seal(holed, epoch=2, run_id="repair")
        repaired = commit(log, sealed, epoch=2, voids=[4])
        assert repaired == log.read()
        assert sorted(repaired.dids) == ["did:plc:a", "did:plc:b"]


def test_a_seal_is_an_entry_without_content() -> None:
    seal = LogEntry(seq=1, epoch=1, nonce="n", run_id="r")
    assert seal.is_seal is True
    assert LogEntry(seq=1, epoch=1, nonce="n", run_id="r", purged=["x"]).is_seal is False
