"""state.json: made once, refused when it is another's, of another version, lost or unreadable."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from backfill_dagster.errors import StateError
from backfill_dagster.store import (
    LocalStore,
    StateMarker,
    check_put_if_absent,
    ensure_state,
    open_store,
    read_state,
    restore_state,
)
from backfill_dagster.store.base import Listing


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "state")


def ids() -> Any:
    numbers = count(1)
    return lambda: f"id{next(numbers)}"


def test_it_is_made_once(store: LocalStore) -> None:
    assert read_state(store, "study") is None
    made = ensure_state(store, "study", ids())
    assert made == StateMarker("study", "id2", 1)  # id1 named the probe
    assert ensure_state(store, "study", ids()) == made
    assert read_state(store, "study") == made
    assert [info.key for info in store.list("")] == ["state.json"]


def test_another_process_may_begin_it_in_between(store: LocalStore) -> None:
    class Overtaken(LocalStore):
        def put_if_absent(self, key: str, data: bytes) -> bool:
            if key == "state.json":
                ensure_state(store, "study", lambda: "theirs")
            return super().put_if_absent(key, data)

    assert ensure_state(Overtaken(Path(store.uri)), "study", ids()).state_id == "theirs"


def test_another_process_may_begin_it_and_plan_in_between(store: LocalStore) -> None:
    class Overtaken(LocalStore):
        def list(self, prefix: str) -> Listing:
            if not store.exists("state.json"):
                ensure_state(store, "study", lambda: "theirs")
                store.put_if_absent("plan/00000001.parquet", b"")
            return super().list(prefix)

    assert ensure_state(Overtaken(Path(store.uri)), "study", ids()).state_id == "theirs"


def test_a_marker_whose_reply_got_lost_is_written_again(store: LocalStore) -> None:
    class LosesReplies(LocalStore):
        def put_if_absent(self, key: str, data: bytes) -> bool:
            super().put_if_absent(key, data)
            return super().put_if_absent(key, data)

    store.put_if_absent("plan/00000001.parquet", b"")
    assert restore_state(LosesReplies(Path(store.uri)), "study", "id") is True
    assert read_state(store, "study") == StateMarker("study", "id", 1)


def test_another_backfills_state_is_refused(store: LocalStore) -> None:
    ensure_state(store, "study", ids())
    with pytest.raises(StateError, match="holds the state of the backfill 'study', not of 'other'; set another state"):
        ensure_state(store, "other", ids())


def test_another_schema_version_is_refused(store: LocalStore) -> None:
    store.put("state.json", b'{"name":"study","schema_version":2,"state_id":"x"}')
    with pytest.raises(StateError, match="has schema version 2, this version of backfill-dagster reads 1"):
        read_state(store, "study")


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{}", b'{"name":"study"}', b'{"name":1,"state_id":"x","schema_version":1}', b"\xff"]
)
def test_an_unreadable_marker_is_refused(store: LocalStore, data: bytes) -> None:
    store.put("state.json", data)
    with pytest.raises(StateError, match=r"state\.json .*bring it back from a backup"):
        ensure_state(store, "study", ids())


@pytest.mark.parametrize("key", ["log/a~0000/00000001.json", "plan/000001.parquet"])
def test_a_state_that_lost_its_marker_is_refused(store: LocalStore, key: str) -> None:
    store.put(key, b"")
    with pytest.raises(StateError, match=r"has a log or a plan but no state\.json"):
        ensure_state(store, "study", ids())


def test_a_ledger_without_its_state_is_refused(store: LocalStore) -> None:
    with pytest.raises(StateError, match=r"the ledger belongs to the state abc, but .*state\.json is missing"):
        ensure_state(store, "study", ids(), ledger_state_id="abc")
    assert store.exists("state.json") is False


class Forgetful(LocalStore):
    """A store that ignores put-if-absent, as some S3 servers do."""

    def put_if_absent(self, key: str, data: bytes) -> bool:
        self.put(key, data)
        return True


def test_a_store_that_ignores_put_if_absent_is_refused(tmp_path: Path) -> None:
    store = Forgetful(tmp_path)
    with pytest.raises(StateError, match="ignores put-if-absent"):
        check_put_if_absent(store)
    with pytest.raises(StateError, match=f"{tmp_path} ignores put-if-absent"):
        ensure_state(store, "study", ids())
    assert store.list("") == []


def test_open_store(tmp_path: Path) -> None:
    state = SimpleNamespace(region=None, endpoint_url=None)
    assert open_store(cast(Any, SimpleNamespace(state_path=tmp_path))).uri == str(tmp_path)
    for path in ("s3://bucket/x/y", "s3://bucket"):
        assert open_store(cast(Any, SimpleNamespace(state_path=path, state=state))).uri == path
