"""The plan's log of generations: the last row of a DID counts, one writer wins, damage is named."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backfill_dagster.errors import StateError
from backfill_dagster.model import UNROUTABLE_SHARD, Outcome, PlannedDid, Shard
from backfill_dagster.plan import fold, generation
from backfill_dagster.plan.storage import Plan, PlanStore, generation_key
from backfill_dagster.store import LocalStore
from backfill_dagster.store.base import Listing as Listing_


def did(name: str, shard: str = "a.test~0000", **more: object) -> PlannedDid:
    return PlannedDid(did=f"did:plc:{name}", shard=shard, pds_endpoint="https://a.test", **more)  # type: ignore[arg-type]


def grown(store: PlanStore, *generations: list[PlannedDid]) -> Plan:
    plan = store.read()
    for rows in generations:
        following = store.append(plan, rows, {"refresh": plan.refresh})
        assert following is not None
        plan = following
    return plan


@pytest.fixture(params=["plain", "x=1/od[d]*? 'name'"])
def store(tmp_path: Path, request: pytest.FixtureRequest) -> PlanStore:
    return PlanStore(LocalStore(tmp_path / request.param))


def test_nothing_planned_yet(store: PlanStore) -> None:
    plan = store.read()
    assert plan == Plan(generation=0, refresh=0, metadata={})
    assert (plan.count, plan.delisted, plan.unroutable) == (0, 0, 0)
    assert (plan.shards(), plan.hosts(), plan.places(), list(plan.rows()), plan.dids("a.test~0000")) == (
        {}, {}, {}, [], []
    )  # fmt: skip


def test_every_field_comes_back(store: PlanStore) -> None:
    rows = [
        did("a", handle="a.test", signing_key="did:key:z", columns={"cohort": 'x"é', "note": None}),
        PlannedDid(
            did="",
            shard=UNROUTABLE_SHARD,
            outcome=Outcome.INVALID_DID,
            error_code="InvalidDid",
            error_detail="the source's value is empty",
        ),
        did("b", delisted=True),
    ]
    plan = grown(store, rows)
    assert {row.did: row for row in plan.rows()} == {row.did: row for row in rows}
    assert plan.dids("a.test~0000") == [rows[0], rows[2]]
    assert plan.dids(UNROUTABLE_SHARD) == [rows[1]]


def test_metadata_is_kept_in_the_file(store: PlanStore, tmp_path: Path) -> None:
    noted = {"refresh": 3, "config_hash": "c" * 16, "estimate": {"hours": 1.5}, "run_id": "é"}
    plan = store.append(store.read(), [did("a")], noted)
    assert plan == store.read()
    assert (plan.generation, plan.refresh, plan.metadata) == (1, 3, {**noted, "generation": 1})
    (path,) = tmp_path.rglob("000001.parquet")
    metadata = pq.read_schema(path).metadata
    assert json.loads(metadata[b"backfill"]) == {**noted, "generation": 1}


def test_the_last_row_of_a_did_counts(store: PlanStore) -> None:
    plan = grown(
        store,
        [did("a"), did("b"), did("c"), did("d")],
        [did("b", "b.test~0000"), did("c", delisted=True)],
        [did("e"), did("c", handle="back.test"), did("d", delisted=True)],
    )
    assert plan.generation == 3
    assert plan == store.read()
    assert plan.dids("a.test~0000") == [did("a"), did("e"), did("c", handle="back.test"), did("d", delisted=True)]
    assert plan.dids("b.test~0000") == [did("b", "b.test~0000")]
    assert [row.did[8:] for row in plan.rows()] == ["a", "b", "e", "c", "d"]
    assert plan.shards() == {"a.test~0000": 3, "b.test~0000": 1}
    assert plan.hosts() == {"a.test": 3, "b.test": 1}
    assert plan.places() == {Shard("a.test", 0): 4, Shard("b.test", 0): 1}
    assert (plan.count, plan.delisted, plan.unroutable) == (4, 1, 0)


def test_a_did_can_go_and_come_back(store: PlanStore) -> None:
    plan = grown(store, [did("a")], [did("a", "b.test~0000")], [did("a")])
    assert plan.dids("a.test~0000") == [did("a")]
    assert plan.dids("b.test~0000") == []


def test_a_shard_that_everybody_left_stays_with_zero(store: PlanStore) -> None:
    plan = grown(store, [did("a"), did("b", "a.test~0001")], [did("b", "b.test~0000")])
    assert plan.shards() == {"a.test~0000": 1, "a.test~0001": 0, "b.test~0000": 1}


def test_the_reserved_shard_is_counted_apart(store: PlanStore) -> None:
    nowhere = PlannedDid(did="x", shard=UNROUTABLE_SHARD, outcome=Outcome.PENDING)
    plan = grown(store, [did("a"), nowhere], [did("b")])
    assert (plan.count, plan.unroutable, plan.shards()) == (3, 1, {"a.test~0000": 2})
    assert plan.places() == {Shard("a.test", 0): 2}


def test_a_refresh_without_changes_is_a_generation_of_its_own(store: PlanStore) -> None:
    plan = grown(store, [did("a")])
    refreshed = store.append(plan, [], {"refresh": 1})
    assert refreshed is not None
    assert (refreshed.generation, refreshed.refresh, refreshed.dids("a.test~0000")) == (2, 1, [did("a")])
    assert refreshed == store.read()


def test_the_refresh_round_never_goes_back(store: PlanStore) -> None:
    plan = store.append(store.read(), [], {"refresh": 2})
    assert plan is not None
    with pytest.raises(ValueError, match="refresh can't go back from 2 to 1"):
        store.append(plan, [], {"refresh": 1})


def test_the_loser_of_a_race_is_told_and_changes_nothing(store: PlanStore) -> None:
    base = store.read()
    assert store.append(base, [did("a")], {"refresh": 0}) is not None
    assert store.append(base, [did("b")], {"refresh": 0}) is None
    assert list(store.read().rows()) == [did("a")]
    assert list(base.rows()) == []


class LostReply(LocalStore):
    """As a store whose client tries again when the first reply doesn't come: the object stands, the key is taken."""

    def put_if_absent(self, key: str, data: bytes) -> bool:
        return super().put_if_absent(key, data) and False


def test_a_lost_reply_is_no_lost_race(tmp_path: Path) -> None:
    store = PlanStore(LostReply(tmp_path))
    plan = store.append(store.read(), [did("a")], {"refresh": 1, "run_id": "mine"})
    assert plan is not None
    assert plan == store.read()
    assert store.append(Plan(), [did("a")], {"refresh": 1, "run_id": "another's"}) is None
    assert plan == store.read()


def test_a_generation_that_comes_while_the_folder_is_listed_is_no_gap(tmp_path: Path) -> None:
    class Listing(LocalStore):
        def list(self, prefix: str) -> Listing_:
            return [info for info in super().list(prefix) if not info.key.endswith("000002.parquet")]

    plan = grown(PlanStore(LocalStore(tmp_path)), [did("a")], [did("b")], [did("c")])
    assert PlanStore(Listing(tmp_path)).read() == plan


def test_of_many_writers_each_generation_has_one(tmp_path: Path) -> None:
    def write(name: str) -> None:
        mine = PlanStore(LocalStore(tmp_path))
        while mine.append(mine.read(), [did(name)], {"refresh": 0}) is None:
            continue

    threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    plan = PlanStore(LocalStore(tmp_path)).read()
    assert plan.generation == 4
    assert sorted(row.did for row in plan.rows()) == [f"did:plc:{name}" for name in "abcd"]


def test_a_did_twice_in_one_generation_is_a_defect(store: PlanStore) -> None:
    with pytest.raises(ValueError, match="a DID comes twice"):
        store.append(store.read(), [did("a"), did("a", "b.test~0000")], {"refresh": 0})


def test_rows_lie_by_shard_so_that_one_is_found_quickly(
    store: PlanStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generation, "ROW_GROUP_ROWS", 10)
    rows = [did(f"{number:03d}", f"a.test~{number % 3:04d}") for number in range(95)]
    plan = grown(store, rows)
    assert plan.dids("a.test~0001") == rows[1::3]
    (path,) = tmp_path.rglob("000001.parquet")
    file = pq.ParquetFile(path)
    assert file.num_row_groups == 10
    assert file.read(["shard"])["shard"].to_pylist() == sorted(row.shard for row in rows)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.dictionaries(
            st.sampled_from("abcdef"),
            st.tuples(st.sampled_from(["a.test~0000", "a.test~0001", UNROUTABLE_SHARD]), st.booleans()),
        ),
        max_size=5,
    )
)
def test_the_fold_is_a_dict_update(
    tmp_path_factory: pytest.TempPathFactory, generations: list[dict[str, tuple[str, bool]]]
) -> None:
    store = PlanStore(LocalStore(tmp_path_factory.mktemp("plan")))
    expected: dict[str, PlannedDid] = {}
    written = []
    for one in generations:
        rows = [did(name, shard, delisted=delisted) for name, (shard, delisted) in one.items()]
        expected.update({row.did: row for row in rows})
        written.append(rows)
    grown(store, *written)
    plan = store.read()
    assert {row.did: row for row in plan.rows()} == expected
    for shard in ("a.test~0000", "a.test~0001", UNROUTABLE_SHARD):
        mine = {row.did: row for row in expected.values() if row.shard == shard}
        assert {row.did: row for row in plan.dids(shard)} == mine
        current = sum(not row.delisted for row in mine.values())
        assert (plan.unroutable if shard == UNROUTABLE_SHARD else plan.shards().get(shard, 0)) == current
    assert plan.count + plan.delisted == len(expected)


def test_foreign_files_beside_the_generations_are_left_alone(store: PlanStore, tmp_path: Path) -> None:
    grown(store, [did("a")])
    (path,) = tmp_path.rglob("000001.parquet")
    (path.parent / "notes.txt").write_text("mine")
    (path.parent / "000002.parquet.bak").write_text("mine")
    assert store.read().generation == 1


def test_a_gap_is_named_with_the_remedy(store: PlanStore, tmp_path: Path) -> None:
    grown(store, [did("a")], [did("b")], [did("c")])
    (path,) = tmp_path.rglob("000002.parquet")
    path.unlink()
    with pytest.raises(StateError) as caught:
        store.read()
    assert str(caught.value) == (
        f"generation 2 of the plan is missing ({path}): bring it back from a backup of the state folder"
    )


def rewritten(path: Path, table: pa.Table) -> None:
    path.unlink()
    pq.write_table(table, path)


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        (None, "its metadata doesn't say generation and refresh"),
        ({b"backfill": b"[]"}, "its metadata doesn't say generation and refresh"),
        ({b"backfill": b'{"generation": 2, "refresh": true}'}, "its metadata doesn't say generation and refresh"),
        ({b"backfill": b'{"generation": -1, "refresh": 0}'}, "its metadata doesn't say generation and refresh"),
        ({b"backfill": b"{"}, "Expecting property name"),
    ],
)
def test_a_file_without_its_metadata_is_named(
    store: PlanStore, tmp_path: Path, metadata: dict[bytes, bytes] | None, said: str
) -> None:
    grown(store, [did("a")], [did("b")])
    (path,) = tmp_path.rglob("000002.parquet")
    rewritten(path, pq.ParquetFile(path).read().replace_schema_metadata(metadata))
    with pytest.raises(StateError) as caught:
        store.read()
    assert str(caught.value).startswith(f"{path} can't be read as a generation of the plan ({said}")
    assert str(caught.value).endswith("): bring it back from a backup of the state folder")


def test_a_file_under_another_generations_name_is_named(store: PlanStore, tmp_path: Path) -> None:
    grown(store, [did("a")], [did("b")])
    (first,) = tmp_path.rglob("000001.parquet")
    first.with_name("000003.parquet").write_bytes(first.read_bytes())
    with pytest.raises(StateError, match=r"000003\.parquet says that it is generation 1 of the plan: bring it back"):
        store.read()


def test_other_columns_are_named(store: PlanStore, tmp_path: Path) -> None:
    grown(store, [did("a")])
    (path,) = tmp_path.rglob("000001.parquet")
    rewritten(path, pq.ParquetFile(path).read().drop_columns(["handle"]))
    with pytest.raises(StateError, match=r"\(columns are did, shard, pds_endpoint, signing_key, .*, wanted did, shard"):
        store.read()


def test_what_is_no_parquet_is_named(store: PlanStore, tmp_path: Path) -> None:
    grown(store, [did("a")])
    (path,) = tmp_path.rglob("000001.parquet")
    path.write_bytes(b"half a fi")
    with pytest.raises(StateError, match=r"000001\.parquet can't be read as a generation of the plan \("):
        store.read()


def test_damage_inside_a_file_is_named_when_it_is_met(store: PlanStore, tmp_path: Path) -> None:
    names = ["".join(letters) for letters in itertools.product("abcdefgh", repeat=4)]
    plan = grown(store, [did("first")], [did(name) for name in names])
    (path,) = tmp_path.rglob("000002.parquet")
    data = bytearray(path.read_bytes())
    data[4:1500] = b"\xaa" * 1496
    path.write_bytes(data)
    for read in (lambda: list(plan.rows()), lambda: plan.dids("a.test~0000")):
        with pytest.raises(StateError, match=r"000002\.parquet can't be read as a generation of the plan \("):
            read()


def test_an_outcome_that_nobody_knows_is_damage_too(store: PlanStore, tmp_path: Path) -> None:
    plan = grown(store, [did("a", outcome=Outcome.PENDING)])
    (path,) = tmp_path.rglob("000001.parquet")
    table = pq.ParquetFile(path).read()
    position = table.schema.get_field_index("outcome")
    rewritten(path, table.set_column(position, table.schema.field(position), pa.array(["lost"])))
    with pytest.raises(StateError, match="'lost' is not a valid Outcome"):
        list(plan.rows())


def test_a_failure_of_the_query_itself_blames_no_file(store: PlanStore, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = grown(store, [did("a")])

    tries = iter([True, False])

    def out_of_space_once(batch: pa.RecordBatch) -> Iterator[PlannedDid]:
        if next(tries):
            raise OSError("no space left for temporary files")
        return generation.planned_dids(batch)

    monkeypatch.setattr(fold, "planned_dids", out_of_space_once)
    with pytest.raises(StateError) as caught:
        list(plan.rows())
    assert str(caught.value).startswith("can't read the plan in ")
    assert "(no space left for temporary files); each of its files is sound" in str(caught.value)


def test_keys_are_padded() -> None:
    assert generation_key(7) == "plan/000007.parquet"
    assert generation_key(1_234_567) == "plan/1234567.parquet"


def test_what_a_generation_has_touched(store: PlanStore) -> None:
    assert store.read().touched() == {}
    first = grown(store, [did("1"), did("2"), did("3", "b.test~0000"), did("4", "c.test~0000")])
    assert first.touched() == {"a.test~0000": 1, "b.test~0000": 1, "c.test~0000": 1}
    assert grown(store, []).touched() == first.touched(), "a refresh that changes no DID touches no shard"
    moved = grown(store, [did("1", "b.test~0000")])
    assert moved.touched() == {"a.test~0000": 3, "b.test~0000": 3, "c.test~0000": 1}
    listed = grown(store, [did("4", "c.test~0000", delisted=True)])
    assert listed.touched() == {"a.test~0000": 3, "b.test~0000": 3, "c.test~0000": 4}
    back = grown(store, [did("1")])
    assert back.touched() == {"a.test~0000": 5, "b.test~0000": 5, "c.test~0000": 4}


def test_which_shards_later_generations_have_filled(store: PlanStore) -> None:
    grown(
        store,
        [did("1"), did("2", "b.test~0000")],
        [did("3", "b.test~0000"), PlannedDid(did="x", shard=UNROUTABLE_SHARD)],
    )
    plan = grown(store, [did("2", "b.test~0000", delisted=True)])
    assert plan.shards_since(0) == {"a.test~0000", "b.test~0000"}
    assert plan.shards_since(1) == {"b.test~0000"}
    assert plan.shards_since(2) == set(), "nobody is to be fetched there"
    assert plan.shards_since(3) == set()


def test_some_shards_in_one_pass(store: PlanStore) -> None:
    plan = grown(store, [did("1"), did("2", "b.test~0000"), did("3", "c.test~0000")], [did("4", "c.test~0000")])
    found = {
        shard: [one.did for one in rows] for shard, rows in plan.by_shard(["c.test~0000", "a.test~0000", "x~0000"])
    }
    assert found == {"a.test~0000": ["did:plc:1"], "c.test~0000": ["did:plc:3", "did:plc:4"]}
    assert list(plan.by_shard([])) == []
