"""The SQLite ledger: contract, readable columns, damage and refusals, no file made by reading."""

from __future__ import annotations

import dataclasses
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from backfill_dagster.errors import StateError
from backfill_dagster.ledger import ShardSummary, SqliteLedger
from backfill_dagster.ledger.sqlite_file import SqliteFile
from backfill_dagster.ledger.sqlite_schema import LEDGER_SCHEMA, RESULT_COLUMNS
from backfill_dagster.model import LedgerItem, Outcome, RepoOutcome
from backfill_dagster_tests.ledger.contract import FULL, SHARD, ComparingContract, LedgerContract, MakeLedger, item


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "ledger.sqlite"


@pytest.fixture
def make_ledger(path: Path) -> Iterator[MakeLedger]:
    opened: list[SqliteLedger] = []

    def make(backfill: str) -> SqliteLedger:
        opened.append(SqliteLedger(path, backfill))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


class TestSqliteLedger(LedgerContract, ComparingContract):
    """The contract on a SQLite file."""


def rows(path: Path, query: str) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(path)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def test_results_read_well_with_plain_sqlite(path: Path) -> None:
    ledger = SqliteLedger(path, "study")
    ledger.put([LedgerItem(backfill="study", shard=SHARD, seq=7, result=FULL), item("did:plc:bare", 8)])
    ledger.close()
    assert rows(path, "SELECT did, outcome, records_total, records_by_type, attention FROM results ORDER BY did") == [
        ("did:plc:bare", "complete", 0, "{}", None),
        ("did:plc:full", "http_error", 7, '{"like":4,"post":3}', "http_error"),
    ]
    legacy = "bluesky_handle, types, total_records, total_records_by_type, pds_service_endpoint, timestamp"
    assert rows(path, f"SELECT {legacy} FROM results ORDER BY did") == [
        ("<unknown>", "", 0, "{}", "", ""),
        ("alice.example", "like,post", 7, '{"like":4,"post":3}', "https://pds.example", "2026-11-23-19:00:01"),
    ]
    assert rows(path, "PRAGMA journal_mode") == [("wal",)]


def test_every_field_of_an_outcome_has_its_column() -> None:
    fields = {field.name for field in dataclasses.fields(RepoOutcome)}
    assert fields - set(RESULT_COLUMNS) == {"tree"}, "what only a later fetch needs stays in the log"


def test_attention_goes_by_its_index(path: Path) -> None:
    SqliteLedger(path, "study").put([item("did:plc:a", 1, Outcome.PENDING)])
    plan = rows(
        path,
        "EXPLAIN QUERY PLAN SELECT did FROM results WHERE backfill = 'study' AND attention = 'pending' "
        "ORDER BY shard, did LIMIT 5",
    )
    assert "results_by_attention" in str(plan[0][3])
    assert len(plan) == 1  # no sorting


def test_texts_that_utf8_cannot_say(path: Path) -> None:
    ledger = SqliteLedger(path, "study")
    ledger.put([item("did:plc:\udcff", 1, Outcome.HTTP_ERROR, error_headers={"a": "\udcff"}, error_detail="\udcff")])
    found = ledger.item(SHARD, "did:plc:\udcff")
    assert found is not None
    assert (found.result.did, found.result.error_headers, found.result.error_detail) == ("did:plc:?", {"a": "?"}, "?")
    ledger.mark_for_retry(SHARD, {"did:plc:\udcff": 1})
    ledger.put([item("did:plc:\udcff", 2)])
    ledger.clear_marks(SHARD, ["did:plc:\udcff"])
    assert ledger.retry_marks(SHARD) == {}


class TestReading:
    """Reading makes no file."""

    @pytest.mark.parametrize("read_only", [True, False])
    def test_of_a_missing_file(self, path: Path, tmp_path: Path, read_only: bool) -> None:
        ledger = SqliteLedger(path, "study", read_only=read_only)
        assert list(ledger.items(SHARD)) == []
        assert ledger.summaries() == {}
        assert ledger.state_id() is None
        assert ledger.leases.read("x") is None
        ledger.close()
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("content", ["nothing", "no tables"])
    @pytest.mark.parametrize("read_only", [True, False])
    def test_of_a_file_that_another_process_is_creating(self, path: Path, content: str, read_only: bool) -> None:
        path.parent.mkdir()
        path.touch()
        if content == "no tables":
            connection = sqlite3.connect(path)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.close()
            assert path.stat().st_size > 0
        ledger = SqliteLedger(path, "study", read_only=read_only)
        assert ledger.seqs(SHARD) == {}
        SqliteLedger(path, "study").put([item("did:plc:a", 1)])
        assert ledger.seqs(SHARD) == {"did:plc:a": 1}

    def test_sees_what_is_written_meanwhile(self, path: Path) -> None:
        reader, writer = SqliteLedger(path, "study", read_only=True), SqliteLedger(path, "study")
        assert reader.seqs(SHARD) == {}
        writer.put([item("did:plc:a", 1)])
        assert reader.seqs(SHARD) == {"did:plc:a": 1}
        writer.put([item("did:plc:a", 2)])
        assert reader.seqs(SHARD) == {"did:plc:a": 2}

    def test_only_is_only(self, path: Path, tmp_path: Path) -> None:
        reader = SqliteLedger(path, "study", read_only=True)
        with pytest.raises(StateError, match="was opened to be read only; nothing was written"):
            reader.put([item("did:plc:a", 1)])
        SqliteLedger(path, "study").put([item("did:plc:a", 1)])
        assert reader.seqs(SHARD) == {"did:plc:a": 1}
        with pytest.raises(StateError, match="was opened to be read only"):
            reader.put_summary(SHARD, ShardSummary())

    def test_where_nothing_can_be_written_beside_the_file(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        writer = SqliteLedger(path, "study")
        writer.put([item("did:plc:a", 1)])
        writer.close()
        real, seen = SqliteFile._connect_to, []

        class NoSharedMemory(sqlite3.Connection):
            def execute(self, *args: object) -> sqlite3.Cursor:  # type: ignore[override]
                error = sqlite3.OperationalError("unable to open database file")
                error.sqlite_errorcode = sqlite3.SQLITE_CANTOPEN
                raise error

        def connect(self: SqliteFile, database: str) -> sqlite3.Connection:
            seen.append(database)
            if "immutable" in database:
                return real(self, database)
            return sqlite3.connect(":memory:", factory=NoSharedMemory)

        monkeypatch.setattr(SqliteFile, "_connect_to", connect)
        assert SqliteLedger(path, "study", read_only=True).seqs(SHARD) == {"did:plc:a": 1}
        assert [one.rpartition("?")[2] for one in seen] == ["mode=ro", "mode=ro&immutable=1"]


class TestDamage:
    """Every refusal is one line with what, where and the remedy."""

    @pytest.mark.parametrize("read_only", [True, False])
    def test_no_database(self, path: Path, read_only: bool) -> None:
        path.parent.mkdir()
        path.write_bytes(b"this is no database" * 1000)
        ledger = SqliteLedger(path, "study", read_only=read_only)
        with pytest.raises(
            StateError, match=r"ledger\.sqlite: file is not a database; move .*: `backfill run` writes it"
        ) as caught:
            ledger.seqs(SHARD)
        assert "\n" not in str(caught.value)
        assert path.read_bytes() == b"this is no database" * 1000

    def test_a_corrupt_database(self, path: Path) -> None:
        ledger = SqliteLedger(path, "study")
        ledger.put([item(f"did:plc:{number:05d}", 1) for number in range(500)])
        ledger.close()
        content = bytearray(path.read_bytes())
        content[4096 * 2 :] = os.urandom(len(content) - 4096 * 2)
        path.write_bytes(content)
        with pytest.raises(StateError, match=r"disk image is malformed; move .* away"):
            list(SqliteLedger(path, "study").items(SHARD))

    @pytest.mark.parametrize("write", [True, False])
    def test_another_programs_database(self, path: Path, write: bool) -> None:
        path.parent.mkdir()
        connection = sqlite3.connect(path)
        connection.execute("CREATE TABLE queue (id INTEGER)")
        connection.close()
        ledger = SqliteLedger(path, "study")
        with pytest.raises(StateError, match="is another program's SQLite file, not a backfill-dagster ledger; move"):
            ledger.put([item("did:plc:a", 1)]) if write else ledger.seqs(SHARD)
        assert rows(path, "SELECT name FROM sqlite_master") == [("queue",)]

    def test_another_kind_of_our_files(self, path: Path) -> None:
        SqliteFile(path, schema=LEDGER_SCHEMA, kind="thing", version=1, remedy="").write(
            "INSERT INTO meta VALUES (?, ?, ?)", []
        )
        with pytest.raises(StateError, match="is a thing, not a backfill-dagster ledger"):
            SqliteLedger(path, "study").seqs(SHARD)

    def test_another_schema_version(self, path: Path) -> None:
        ledger = SqliteLedger(path, "study")
        ledger.put([item("did:plc:a", 1)])
        ledger.close()
        connection = sqlite3.connect(path)
        connection.execute("UPDATE about SET value = '2' WHERE name = 'schema_version'")
        connection.commit()
        connection.close()
        with pytest.raises(StateError, match="has schema version 2, this version of backfill-dagster reads 1; use"):
            SqliteLedger(path, "study").seqs(SHARD)

    def test_a_full_disk(self, path: Path) -> None:
        ledger = SqliteLedger(path, "study")
        ledger.put([item("did:plc:a", 1)])
        with ledger._file.transaction() as connection:
            connection.execute("SELECT 1")
        ledger._file._connection.execute("PRAGMA max_page_count = 1")  # type: ignore[union-attr]
        with pytest.raises(StateError, match="database or disk is full; free space on that disk and start again"):
            ledger.put([item(f"did:plc:{number}", 1) for number in range(2000)])
        assert ledger.seqs(SHARD) == {"did:plc:a": 1}

    def test_a_writer_that_does_not_end(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("backfill_dagster.ledger.sqlite_file.BUSY_SECONDS", 0.05)
        first, second = SqliteLedger(path, "study"), SqliteLedger(path, "study")
        first.put([item("did:plc:a", 1)])
        with first._file.transaction():
            with pytest.raises(StateError, match="database is locked; another process has been writing"):
                second.put([item("did:plc:a", 2)])
            assert second.seqs(SHARD) == {"did:plc:a": 1}
        second.put([item("did:plc:a", 2)])
        assert first.seqs(SHARD) == {"did:plc:a": 2}

    @pytest.mark.parametrize("ends", [True, False])
    def test_another_process_that_is_creating_the_file(self, path: Path, ends: bool) -> None:
        path.parent.mkdir()
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        sleeps: list[float] = []

        def sleep(seconds: float) -> None:
            sleeps.append(seconds)
            if ends and len(sleeps) == 3:
                other.execute("COMMIT")

        file = SqliteFile(path, schema=LEDGER_SCHEMA, kind="k", version=1, remedy="", sleep=sleep)
        if ends:
            file.write("INSERT INTO meta VALUES (?, ?, ?)", [("study", "a", "b")])
            assert file.rows("SELECT value FROM meta") == [("b",)]
            assert len(sleeps) == 3
        else:
            with pytest.raises(StateError, match="database is locked; another process has been writing for 30 s"):
                file.write("INSERT INTO meta VALUES (?, ?, ?)", [])
            assert sum(sleeps) == pytest.approx(30, rel=0.01)
        other.close()

    def test_a_file_where_the_folder_should_be(self, tmp_path: Path) -> None:
        (tmp_path / "state").write_bytes(b"")
        ledger = SqliteLedger(tmp_path / "state" / "ledger.sqlite", "study")
        assert ledger.seqs(SHARD) == {}
        with pytest.raises(StateError, match=r"can't create the folder .*state: .*; make it writable"):
            ledger.put([item("did:plc:a", 1)])

    def test_a_folder_where_the_file_should_be(self, path: Path) -> None:
        path.mkdir(parents=True)
        with pytest.raises(StateError, match="unable to open database file; make the file and its folder writable"):
            SqliteLedger(path, "study").put([item("did:plc:a", 1)])

    def test_a_folder_that_cannot_be_looked_into(self, tmp_path: Path) -> None:
        looped = tmp_path / "loop"
        looped.symlink_to(looped)
        with pytest.raises(StateError, match=r"can't look at .*; make its folder readable"):
            SqliteLedger(looped / "ledger.sqlite", "study").seqs(SHARD)

    def test_a_failed_creation_leaves_a_file_that_can_be_used(self, path: Path) -> None:
        broken = SqliteFile(path, schema="CREATE TABLE one (a);\nrubbish", kind="k", version=1, remedy="")
        with pytest.raises(StateError, match='near "rubbish"'):
            broken.write("", [])
        SqliteLedger(path, "study").put([item("did:plc:a", 1)])
        assert rows(path, "SELECT count(*) FROM results") == [(1,)]

    def test_an_exception_undoes_the_transaction(self, path: Path) -> None:
        ledger = SqliteLedger(path, "study")
        with pytest.raises(KeyboardInterrupt), ledger._file.transaction() as connection:
            connection.execute("INSERT INTO meta VALUES ('study', 'state_id', 'x')")
            raise KeyboardInterrupt
        assert ledger.state_id() is None
