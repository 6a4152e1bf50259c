"""What every object store has to do. A test module subclasses this and gives `store`, a fresh store per test."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from backfill_dagster.errors import ObjectMissingError, StateError
from backfill_dagster.store import ObjectInfo, ObjectStore, check_put_if_absent


class StoreContract:
    """The contract of `ObjectStore`.

    Attributes:
        stages_apart: whether a staged file is out of sight until it is published; without a rename it can't be.
    """

    stages_apart = True

    def test_put_if_absent_has_one_winner_and_keeps_its_bytes(self, store: ObjectStore) -> None:
        assert store.put_if_absent("log/a~0000/00000001.json", b"one") is True
        assert store.put_if_absent("log/a~0000/00000001.json", b"two") is False
        assert store.get("log/a~0000/00000001.json") == b"one"

    def test_put_replaces(self, store: ObjectStore) -> None:
        store.put("reports/coverage.json", b"one")
        store.put("reports/coverage.json", b"")
        assert store.get("reports/coverage.json") == b""
        assert store.put_if_absent("reports/coverage.json", b"x") is False

    def test_exists_and_get_of_what_is_missing(self, store: ObjectStore) -> None:
        assert store.exists("plan/000001.parquet") is False
        with pytest.raises(ObjectMissingError, match=r"plan/000001\.parquet"):
            store.get("plan/000001.parquet")
        store.put("plan/000001.parquet", b"1")
        assert store.exists("plan/000001.parquet") is True
        assert store.exists("plan") is False

    def test_list_is_by_key_and_by_text_prefix(self, store: ObjectStore) -> None:
        for key in ("b/2", "b/10", "b-a/1", "a", "b/c/d"):
            store.put(key, key.encode())
        if self.stages_apart:
            with store.stage("b/staged") as file:
                file.write(b"x")
        assert store.list("") == [
            ObjectInfo("a", 1),
            ObjectInfo("b-a/1", 5),
            ObjectInfo("b/10", 4),
            ObjectInfo("b/2", 3),
            ObjectInfo("b/c/d", 5),
        ]
        assert [info.key for info in store.list("b/")] == ["b/10", "b/2", "b/c/d"]
        assert [info.key for info in store.list("b")] == ["b-a/1", "b/10", "b/2", "b/c/d"]
        assert [info.key for info in store.list("b/1")] == ["b/10"]
        assert store.list("nothing/here/") == []

    def test_folders_are_one_step_below(self, store: ObjectStore) -> None:
        for key in ("b/2", "b-a/1", "a", "b/c/d", "b/c/e/f", "b/x y/1"):
            store.put(key, b"")
        if self.stages_apart:
            with store.stage("c/staged") as file:
                file.write(b"x")
        assert list(store.folders("")) == ["b-a/", "b/"]
        assert list(store.folders("b/")) == ["b/c/", "b/x y/"]
        assert list(store.folders("b/c/e/")) == []
        assert list(store.folders("nothing/")) == []

    def test_delete_is_repeatable(self, store: ObjectStore) -> None:
        store.put("a/b", b"1")
        store.delete("a/b")
        store.delete("a/b")
        store.delete("never/there")
        assert store.list("") == []

    def test_a_staged_file_becomes_live_by_publish_only(self, store: ObjectStore) -> None:
        key = "records/record_type=post/a~0000-00000001-1-x.parquet"
        with store.stage(key) as file:
            file.write(b"rows")
        if self.stages_apart:
            assert store.exists(key) is False
            assert store.staged() == [ObjectInfo(key, 4)]
            assert store.list("") == []
            assert Path(store.find(key)).read_bytes() == b"rows"
        with store.open_input(key) as found:
            assert found.read() == b"rows"
        store.publish([key])
        assert store.staged() == []
        assert store.get(key) == b"rows"
        assert store.size(key) == 4
        assert store.find(key) == store.path(key)
        with store.open_input(key) as found:
            assert (found.size(), found.read_at(2, 1)) == (4, b"ow")

    def test_publish_is_repeatable_and_names_what_is_lost(self, store: ObjectStore) -> None:
        for key in ("r/1", "r/2"):
            with store.stage(key) as file:
                file.write(b"x")
        store.publish(["r/1"])
        store.publish(["r/1", "r/2"])
        assert [info.key for info in store.list("r/")] == ["r/1", "r/2"]
        with pytest.raises(StateError, match=r"r/3 is (neither published nor in .*staging|not there); bring it back"):
            store.publish(["r/3"])

    def test_an_exception_while_staging_leaves_nothing(self, store: ObjectStore) -> None:
        with pytest.raises(KeyboardInterrupt), store.stage("r/1") as file:
            file.write(b"x")
            raise KeyboardInterrupt
        assert store.staged() == []

    def test_a_name_is_never_staged_twice(self, store: ObjectStore) -> None:
        with store.stage("r/1") as file:
            file.write(b"one")
        with pytest.raises(StateError, match="r/1"), store.stage("r/1") as file:
            file.write(b"two")
        store.publish(["r/1"])
        assert store.get("r/1") == b"one"

    def test_discard_staged_is_repeatable(self, store: ObjectStore) -> None:
        with store.stage("r/1") as file:
            file.write(b"one")
        store.discard_staged("r/1")
        store.discard_staged("r/1")
        assert store.staged() == []
        for looks in (store.find, store.open_input):
            with pytest.raises(ObjectMissingError, match=r"r/1 is (neither published nor staged|missing)"):
                looks("r/1")

    def test_what_is_published_is_not_discarded(self, store: ObjectStore) -> None:
        """Whoever tidies up behind itself must never take what the log may call live."""
        with store.stage("r/1") as file:
            file.write(b"one")
        store.publish(["r/1"])
        store.discard_staged("r/1")
        assert store.get("r/1") == b"one"

    def test_duckdb_reads_what_pyarrow_wrote(self, store: ObjectStore) -> None:
        table = pa.table({"n": pa.array(range(1000))})
        for number in (1, 2):
            with store.stage(f"r/{number}.parquet") as file:
                pq.write_table(table, file)
        store.publish(["r/1.parquet", "r/2.parquet"])
        with duckdb.connect() as database:
            filesystem = store.duckdb_filesystem()
            if filesystem is not None:
                database.register_filesystem(filesystem)
            paths = [store.find("r/1.parquet"), store.path("r/2.parquet")]
            query = "SELECT count(*), sum(n), list(DISTINCT filename ORDER BY filename) FROM read_parquet(?)"
            assert database.execute(query, [paths]).fetchall() == [(2000, 999_000, paths)]

    @pytest.mark.parametrize(
        "key", ["", "/a", "a/", "a//b", "..", "a/../b", "./a", "a\\b", "a\nb", "a\x00", "staging/a", ".tmp/a"]
    )
    def test_what_is_no_key_is_refused(self, store: ObjectStore, key: str) -> None:
        with pytest.raises(ValueError, match="is not a key"):
            store.put(key, b"")
        with pytest.raises(ValueError, match="is not a key"):
            store.get(key)
        with pytest.raises(ValueError, match="is not a key"), store.stage(key):
            pass

    @pytest.mark.parametrize("prefix", ["/", "../", "a//b", "..", "a/.."])
    def test_what_begins_no_key_is_refused(self, store: ObjectStore, prefix: str) -> None:
        with pytest.raises(ValueError, match="not the beginning of a key"):
            store.list(prefix)

    def test_put_if_absent_is_honoured(self, store: ObjectStore) -> None:
        check_put_if_absent(store)
        assert store.list("") == []
