"""What stands of a DID's rows in the parts when its repo came in part, and which parts rows can be put beside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backfill_dagster.atproto.dag_cbor import encode_dag_cbor
from backfill_dagster.atproto.repo import Repo
from backfill_dagster.atproto.tid import tid_from_micros
from backfill_dagster.errors import StateError
from backfill_dagster.model import Outcome, RepoOutcome
from backfill_dagster.records.delta import UnprovenError
from backfill_dagster.records.fold import Fold, LivePart
from backfill_dagster.records.parts import MERGED_BYTES_MAX, BatchWriter, OldRows
from backfill_dagster.records.row_index import RowIndex
from backfill_dagster.records.rows import COLLECTIONS_MAX, ROW_WEIGHT_BYTES
from backfill_dagster.records.selection import Selection
from backfill_dagster.records.tree_marks import tree_marks
from backfill_dagster.store.local import LocalStore
from backfill_dagster.worker import delta as delta_module
from backfill_dagster.worker.delta import DeltaRows, dids_in_another_form
from backfill_dagster_tests.atproto.build_repo import DID
from backfill_dagster_tests.records.changing_repo import Moment
from backfill_dagster_tests.records.fake_repo import FETCHED_US, NOON, REV, FakeRepo, tables_of, writer_at

POST, LIKE, THING = "app.bsky.feed.post", "app.bsky.feed.like", "com.example.thing"
SELECTION = Selection(("app.bsky.feed.*", "com.example.*"))
COMPLETE = RepoOutcome(did=DID, outcome=Outcome.COMPLETE, rev=REV, last_complete_rev=REV)
NEW_REV, NEW_US = "3kzzzzzzzzz2a", FETCHED_US + 10**12


def block_of(number: int, **more: Any) -> bytes:
    return encode_dag_cbor({"n": number, "text": f"text {number}", "createdAt": "2024-01-01T00:00:00Z", **more})


class Parts:
    """A store with one batch of repos, and the fold that says so."""

    def __init__(self, folder: Path, *moments: Moment, selection: Selection = SELECTION, **options: Any) -> None:
        self.folder, self.store, self.selection = folder, LocalStore(folder), selection
        writer = writer_at(folder, selection, **options)
        for moment in moments:
            writer.add_repo(moment.opened(), fetched_at_us=FETCHED_US, rev=REV)
        self.fold = self.live(writer, 1)

    def live(self, writer: BatchWriter, seq: int) -> Fold:
        parts = writer.finish()
        self.store.publish(part.path for part in parts)
        return Fold(seq=seq, parts={part.path: LivePart(part, seq) for part in parts})

    def base(self, moment: Moment) -> RepoOutcome:
        return replace(COMPLETE, tree=tree_marks(moment.opened(), self.selection))

    def standing(self, repo: Repo, before: Moment) -> tuple[OldRows, Sequence[int]]:
        return DeltaRows(self.store, self.selection).standing(self.fold, repo, self.base(before), frozenset())

    def refreshed(self, before: Moment, now: Moment) -> Mapping[str | None, Any]:
        """The tables of a batch with the refreshed repo alone, and of a whole fetch of it: they have to be equal."""
        repo = newer(now, before)
        assert not repo.is_whole
        old, _ = self.standing(repo, before)
        tables = []
        for name, source, rows in (("new", repo, old), ("whole", now.opened(), None)):
            writer = writer_at(self.folder / name, self.selection)
            writer.add_repo(source, fetched_at_us=NEW_US, rev=NEW_REV, old=rows)
            tables.append(tables_of(self.folder / name, writer.finish()))
        assert tables[0] == tables[1]
        return tables[0]


def moment_of(*keys: str) -> Moment:
    return Moment({key: block_of(number, key=key) for number, key in enumerate(keys)})


def newer(now: Moment, before: Moment) -> Repo:
    """What an honest host answers."""
    return now.opened(set(now.blocks) - set(before.blocks))


def unproven(reason: str) -> AbstractContextManager[Any]:
    return pytest.raises(UnprovenError, match=reason)


LIKES = [f"{LIKE}/{tid_from_micros(NOON + number, 1)}" for number in range(60)]
POSTS = [f"{POST}/{tid_from_micros(NOON + number, 1)}" for number in range(40)]


def test_what_stands_and_what_is_new_are_the_whole_repo(tmp_path: Path) -> None:
    before = moment_of(*LIKES, *POSTS, f"{THING}/a", "z.z.z/a")
    records = dict(before.records)
    del records[LIKES[7]]
    records |= {POSTS[3]: block_of(1000, reply={}), LIKES[20]: b"\xff", f"{THING}/b": block_of(1001)}
    tables = Parts(tmp_path, before).refreshed(before, Moment(records))
    assert {name: table.num_rows for name, table in tables.items()} == {
        "like": 58,
        "post": 39,
        "reply": 1,
        THING: 2,
        None: 1,
    }


def test_a_type_of_which_nothing_stands_makes_no_part(tmp_path: Path) -> None:
    before = moment_of(*LIKES, *POSTS, f"{THING}/a")
    now = Moment({key: block for key, block in before.records.items() if not key.startswith((THING, POST))})
    assert set(Parts(tmp_path, before).refreshed(before, now)) == {"like"}
    now = Moment(dict(before.records) | {f"{THING}/a": block_of(1000)})
    assert Parts(tmp_path / "edited", before).refreshed(before, now)[THING].num_rows == 1


def test_rows_that_stand_are_copies(tmp_path: Path) -> None:
    """They wait for the batch's end; the row group that they come from is a hundred times as large."""
    other = FakeRepo({f"{LIKE}/{n}": {"n": "x" * 100} for n in range(5000)}, "did:plc:other")
    writer = writer_at(tmp_path)
    before = moment_of(*LIKES)
    writer.add_repo(other, fetched_at_us=FETCHED_US, rev=REV)
    writer.add_repo(before.opened(), fetched_at_us=FETCHED_US, rev=REV)
    parts = Parts(tmp_path)
    parts.fold = parts.live(writer, 1)
    for new, standing in ((LIKES[0], 59), (POSTS[0], 60)):
        now = Moment(dict(before.records) | {new: block_of(1000)})
        old, _ = parts.standing(newer(now, before), before)
        (batch,) = old["like"]()
        assert batch.num_rows == standing
        assert batch.get_total_buffer_size() < 2 * batch.nbytes < 100_000


def test_one_look_at_the_parts_serves_all_dids_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[Fold] = []

    class Watched(RowIndex):
        def __init__(self, store: LocalStore, fold: Fold) -> None:
            looks.append(fold)
            super().__init__(store, fold)

    monkeypatch.setattr(delta_module, "RowIndex", Watched)
    before, now = moment_of(*LIKES), moment_of(*LIKES, POSTS[0])
    parts = Parts(tmp_path, before)
    rows = DeltaRows(parts.store, SELECTION)
    for fold in (parts.fold, replace(parts.fold, seq=2)):
        old, _ = rows.standing(fold, newer(now, before), parts.base(before), frozenset())
        assert sum(batch.num_rows for batch in old["like"]()) == len(LIKES)
    assert looks == [parts.fold]


def test_no_rows_before(tmp_path: Path) -> None:
    before, now = moment_of("z.z.z/a"), moment_of("z.z.z/a", LIKES[0])
    parts = Parts(tmp_path, before)
    assert parts.standing(now.opened(), before) == ({}, [])


def test_collections_that_are_too_many_together(tmp_path: Path) -> None:
    """Which of them have parts of their own depends on all that the repo has."""
    before = moment_of(LIKES[0])
    parts = Parts(tmp_path, before)
    for count, expected in (
        (COLLECTIONS_MAX - 1, nullcontext()),
        (COLLECTIONS_MAX, unproven("too many collections")),
    ):
        now = moment_of(LIKES[0], *(f"com.example.t{number}/a" for number in range(count)))
        with expected:
            old, _ = parts.standing(newer(now, before), before)
            assert list(old) == ["like"]


def test_new_records_weigh_no_more_than_may_wait_between_old_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, now = moment_of(*LIKES), moment_of(*LIKES, *POSTS, "z.z.z/not-wanted")
    parts = Parts(tmp_path, before)
    weight = sum(ROW_WEIGHT_BYTES + len(now.records[key]) for key in POSTS)
    for most, expected in ((weight, nullcontext()), (weight - 1, unproven("too much that is new"))):
        monkeypatch.setattr(delta_module, "NEW_BYTES_MAX", most)
        with expected:
            assert parts.standing(newer(now, before), before)
    assert delta_module.NEW_BYTES_MAX < MERGED_BYTES_MAX


@pytest.mark.parametrize(
    ("rkey", "block", "is_undated"),
    [
        ("a", block_of(0), False),
        ("a", encode_dag_cbor({"createdAt": "nonsense"}), True),
        ("a", encode_dag_cbor({"createdAt": 5}), True),
        ("a", encode_dag_cbor([]), True),
        ("a", b"\xff", True),
        (LIKES[0].partition("/")[2], b"\xff", False),
    ],
)
def test_records_without_any_date_are_counted_by_whole_fetches(
    tmp_path: Path, rkey: str, block: bytes, is_undated: bool
) -> None:
    for selection in (Selection((LIKE,), start_us=0), Selection((LIKE,)), Selection((POST,), end_us=0)):
        parts = Parts(tmp_path / selection.scope, Moment({}), selection=selection)
        matters = is_undated and selection.has_time_range and selection.wants_collection(LIKE)
        with unproven("without any date") if matters else nullcontext():
            assert parts.standing(Moment({f"{LIKE}/{rkey}": block}).opened(), Moment({})) == ({}, [])


def test_parts_of_another_form(tmp_path: Path) -> None:
    records = {LIKES[0]: block_of(0), POSTS[0]: b"\xff"}
    as_json = Parts(tmp_path / "json", Moment(records))
    assert dids_in_another_form(as_json.store, as_json.fold, "json") == set()
    (did,) = dids_in_another_form(as_json.store, as_json.fold, "cbor")
    assert dids_in_another_form(as_json.store, as_json.fold, "none") == {did}
    without = Parts(tmp_path / "none", Moment(records), raw="none")
    assert dids_in_another_form(without.store, without.fold, "none") == set()
    quarantine = Parts(tmp_path / "bad", Moment({POSTS[0]: b"\xff"}))
    assert len(quarantine.fold.parts) == 1
    assert dids_in_another_form(quarantine.store, quarantine.fold, "cbor") == set()
    assert dids_in_another_form(quarantine.store, Fold(), "json") == set()


def test_a_part_that_is_gone_or_damaged(tmp_path: Path) -> None:
    before = moment_of(*LIKES)
    parts = Parts(tmp_path, before)
    (path,) = parts.fold.parts
    file = Path(parts.store.find(path))
    for damage in (lambda: file.write_bytes(b"PAR1"), file.unlink):
        damage()
        with pytest.raises(StateError):
            dids_in_another_form(parts.store, parts.fold, "json")
        with pytest.raises(StateError):
            parts.standing(before.opened(), before)
