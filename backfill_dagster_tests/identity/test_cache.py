"""The document cache: ages, several processes, and files that are no cache."""

from __future__ import annotations

import multiprocessing
import sqlite3
from pathlib import Path

import pytest

from backfill_dagster.atproto.did_document import DidDocument
from backfill_dagster.errors import StateError
from backfill_dagster.identity import DocumentCache
from backfill_dagster_tests.identity.documents import plc_did

PLC = "https://plc.example.com"


class Clock:
    """Stands still until it is told otherwise."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def a_document(number: int, pds: str = "https://pds.example.com") -> DidDocument:
    return DidDocument(plc_did(number), "a.example.com", pds, "did:key:zQ3")


def test_what_was_put_is_there_until_it_is_too_old(tmp_path: Path) -> None:
    clock = Clock()
    with DocumentCache(tmp_path / "new" / "documents.sqlite", clock, PLC) as cache:
        assert cache.get(plc_did(1), 10) is None
        cache.put(a_document(1))
        clock.now += 10
        assert cache.get(plc_did(1), 10) == a_document(1)
        clock.now += 0.001
        assert cache.get(plc_did(1), 10) is None
        cache.put(a_document(1, "https://new.example.com"))
        assert cache.get(plc_did(1), 0) == a_document(1, "https://new.example.com")


def test_what_was_learnt_in_the_future_is_not_trusted() -> None:
    clock = Clock()
    with DocumentCache(None, clock, PLC) as cache:
        cache.put(a_document(1))
        clock.now -= 1
        assert cache.get(plc_did(1), 10**9) is None


def test_many_at_once() -> None:
    with DocumentCache(None, Clock(), PLC) as cache:
        for number in range(3):
            cache.put(a_document(number))
        assert cache.get_many([plc_did(n) for n in range(2, 500)], 10) == {plc_did(2): a_document(2)}
        assert cache.get_many([], 10) == {}
        with pytest.raises(ValueError, match="500"):
            cache.get_many([plc_did(n) for n in range(501)], 10)


def test_it_outlives_the_process(tmp_path: Path) -> None:
    path = tmp_path / "documents.sqlite"
    with DocumentCache(path, Clock(), PLC) as cache:
        cache.put(a_document(1))
    with DocumentCache(path, Clock(), PLC) as cache:
        assert cache.get(plc_did(1), 10) == a_document(1)


def test_what_one_directory_said_is_not_told_of_another(tmp_path: Path) -> None:
    path, elsewhere = tmp_path / "documents.sqlite", "http://localhost:2582"
    with DocumentCache(path, Clock(), PLC) as cache, DocumentCache(path, Clock(), elsewhere) as other:
        cache.put(a_document(1))
        assert other.get(plc_did(1), 10) is None
        other.put(a_document(1, "http://localhost:2583"))
        assert cache.get(plc_did(1), 10) == a_document(1)
        assert other.get(plc_did(1), 10) == a_document(1, "http://localhost:2583")


def test_rows_that_do_not_say_of_which_directory_go(tmp_path: Path) -> None:
    path = tmp_path / "documents.sqlite"
    with sqlite3.connect(path) as old:
        old.execute("CREATE TABLE did_document (did TEXT PRIMARY KEY, pds_endpoint TEXT)")
    with DocumentCache(path, Clock(), PLC) as cache:
        assert cache.get(plc_did(1), 10) is None
    with sqlite3.connect(path) as now:
        assert now.execute("SELECT name FROM sqlite_master").fetchall() == [("document",)]


@pytest.mark.parametrize("content", [b"not a database, just some text that is long enough" * 99])
def test_a_file_that_is_no_cache_names_the_remedy(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "documents.sqlite"
    path.write_bytes(content)
    with pytest.raises(StateError, match="delete the file: it only saves requests"):
        DocumentCache(path, Clock(), PLC)


def test_a_table_of_another_shape_names_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "documents.sqlite"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE document (x)")
    with DocumentCache(path, Clock(), PLC) as cache, pytest.raises(StateError, match="delete the file"):
        cache.get(plc_did(1), 10)


def test_a_folder_that_cannot_be_made_names_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StateError, match="make its folder writable"):
        DocumentCache(tmp_path / "file" / "documents.sqlite", Clock(), PLC)


def write_some(path: Path, start: int) -> None:
    with DocumentCache(path, Clock(), PLC) as cache:
        for number in range(start, start + 50):
            cache.put(a_document(number))
            assert cache.get(plc_did(number), 10) is not None


def test_several_processes_may_make_and_fill_it_at_once(tmp_path: Path) -> None:
    path = tmp_path / "documents.sqlite"
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=write_some, args=(path, 50 * n)) for n in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0, 0]
    with DocumentCache(path, Clock(), PLC) as cache:
        assert len(cache.get_many([plc_did(n) for n in range(200)], 10)) == 200
