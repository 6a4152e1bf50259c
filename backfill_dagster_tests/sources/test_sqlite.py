"""SQLite sources: any SELECT, nothing but a SELECT, and one line for whatever is wrong."""

from __future__ import annotations

import gc
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from backfill_dagster.errors import SourceError
from backfill_dagster.sources.base import SourceRow
from backfill_dagster.sources.sqlite import SqliteSource
from backfill_dagster.sources.sqlite_problems import sqlite_problem


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "dids #1?.sqlite"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE dids (did TEXT, cohort TEXT, age INT)")
        rows = [("did:plc:a", "x", 1), (" did:plc:b ", None, 2), (None, "y", 3), ("did:plc:a", "z", 4)]
        connection.executemany("INSERT INTO dids VALUES (?, ?, ?)", rows)
    return path


def texts(source: SqliteSource) -> list[str]:
    return [row.text for row in source.rows()]


def error_of(source: SqliteSource) -> str:
    with pytest.raises(SourceError) as caught:
        list(source.rows())
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_the_default_query_reads_the_table_dids(database: Path) -> None:
    source = SqliteSource(database)
    assert texts(source) == ["did:plc:a", "did:plc:b", ""]
    assert source.describe() == f"{database} (SELECT did FROM dids)"


def test_kept_columns_come_as_text(database: Path) -> None:
    source = SqliteSource(database, "SELECT age, did, cohort FROM dids WHERE age < 3", keep_columns=["cohort", "age"])
    assert list(source.rows()) == [
        SourceRow("did:plc:a", {"cohort": "x", "age": "1"}),
        SourceRow("did:plc:b", {"cohort": None, "age": "2"}),
    ]


@pytest.mark.parametrize(
    "query",
    [
        "SELECT upper(cohort) FROM dids WHERE cohort = 'x'",
        "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 3) SELECT 'X' FROM n;",
        "SELECT value FROM json_each('[\"X\"]')",
        "-- a comment\nSELECT 'X' AS did, age FROM dids",
    ],
)
def test_any_select_will_do(database: Path, query: str) -> None:
    assert texts(SqliteSource(database, query)) == ["X"]


def test_full_text_search_works_read_only(tmp_path: Path) -> None:
    path = tmp_path / "fts.sqlite"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE VIRTUAL TABLE bios USING fts5(did, bio)")
        connection.execute("INSERT INTO bios VALUES ('did:plc:a', 'likes birds'), ('did:plc:b', 'likes cars')")
    assert texts(SqliteSource(path, "SELECT did FROM bios WHERE bios MATCH 'birds'")) == ["did:plc:a"]


@pytest.mark.parametrize(
    "query",
    [
        "SELECT did FROM dids; SELECT did FROM dids",
        "INSERT INTO dids VALUES ('x', 'y', 1)",
        "DELETE FROM dids RETURNING did",
        "UPDATE dids SET did = 'x'",
        "CREATE TABLE x (did)",
        "CREATE TEMP TABLE x (did)",
        "DROP TABLE dids",
        "PRAGMA table_info(dids)",
        "PRAGMA writable_schema = 1",
        "ATTACH ':memory:' AS other",
        "BEGIN",
    ],
)
def test_anything_but_one_select_is_refused(database: Path, query: str) -> None:
    before = database.read_bytes()
    text = error_of(SqliteSource(database, query))
    assert text.startswith(f"source.query for {database} has to be one single SELECT that only reads (SQLite says: ")
    assert database.read_bytes() == before


@pytest.mark.parametrize("query", ["VACUUM", "VACUUM INTO '{}'", "UPDATE sqlite_master SET sql = ''"])
def test_writes_by_the_back_door_are_refused_too(database: Path, tmp_path: Path, query: str) -> None:
    before = database.read_bytes()
    error_of(SqliteSource(database, query.format(tmp_path / "copy.sqlite")))
    assert database.read_bytes() == before
    assert not (tmp_path / "copy.sqlite").exists()


def test_a_query_without_a_statement_is_refused(database: Path) -> None:
    expected = f"source.query for {database} is empty: write a SELECT, or leave it out"
    assert error_of(SqliteSource(database, "-- nothing")) == expected


def test_several_columns_without_did_are_named(database: Path) -> None:
    assert error_of(SqliteSource(database, "SELECT age, cohort FROM dids")) == (
        f"source.query for {database} has no column 'did'; columns found: age, cohort; "
        "name one of them in the query: SELECT ... AS did"
    )


def test_a_kept_column_that_the_query_lacks_is_named(database: Path) -> None:
    assert error_of(SqliteSource(database, keep_columns=["cohort"])) == (
        f"source.query for {database} has no column 'cohort'; columns found: did; correct source.keep_columns"
    )


def test_a_missing_table_lists_those_there_are(database: Path) -> None:
    assert error_of(SqliteSource(database, "SELECT did FROM users")) == (
        f"source.query for {database}: no such table: users; tables: dids(did, cohort, age); correct source.query"
    )


def test_a_missing_column_lists_those_there_are(database: Path) -> None:
    assert error_of(SqliteSource(database, "SELECT user FROM dids")) == (
        f"source.query for {database}: no such column: user; tables: dids(did, cohort, age); correct source.query"
    )


def test_a_long_list_of_tables_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "many.sqlite"
    with closing(sqlite3.connect(path)) as connection, connection:
        for number in range(25):
            connection.execute(f"CREATE TABLE t{number:02d} (x)")
    assert error_of(SqliteSource(path)).endswith("t19(x) and more; correct source.query")


def test_an_empty_file_is_a_database_without_tables(tmp_path: Path) -> None:
    path = tmp_path / "empty.sqlite"
    path.touch()
    assert error_of(SqliteSource(path)) == (
        f"source.query for {path}: no such table: dids; the database has no tables; correct source.query"
    )


def test_a_syntax_error_is_told_in_sqlites_words(database: Path) -> None:
    text = error_of(SqliteSource(database, "SELEKT 1"))
    assert text == f'source.query for {database} fails: near "SELEKT": syntax error; correct the query'


def test_a_huge_value_is_refused(database: Path) -> None:
    text = error_of(SqliteSource(database, "SELECT randomblob(100000000)"))
    assert text == f"source.query for {database} fails: string or blob too big; correct the query"


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    missing = tmp_path / "nope.sqlite"
    assert error_of(SqliteSource(missing)) == f"{missing} doesn't exist: correct source.path"
    assert error_of(SqliteSource(tmp_path)) == f"{tmp_path} is a folder: correct source.path"
    assert not missing.exists()


def test_what_is_no_database_is_named(tmp_path: Path) -> None:
    path = tmp_path / "text.sqlite"
    path.write_text("did:plc:a\n" * 1000)
    assert error_of(SqliteSource(path)) == (
        f"{path} is not a SQLite database; correct source.path or source.type (SQLite says: file is not a database)"
    )


def test_a_damaged_database_is_an_error_not_a_short_list(tmp_path: Path) -> None:
    path = tmp_path / "damaged.sqlite"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE dids (did TEXT)")
        connection.executemany("INSERT INTO dids VALUES (?)", [(f"did:plc:{number:024d}",) for number in range(5000)])
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 8192] = b"\xee" * 8192
    path.write_bytes(data)
    assert error_of(SqliteSource(path)).startswith(f"{path} is damaged; restore it, or recover what is left")


def test_a_locked_database_is_waited_for_then_named(database: Path) -> None:
    with closing(sqlite3.connect(database)) as owner:
        owner.execute("BEGIN EXCLUSIVE")
        text = error_of(SqliteSource(database, busy_seconds=0))
    assert text == (
        f"{database} is locked by another process; let that finish, or copy the database, and try again "
        "(SQLite says: database is locked)"
    )


def test_bad_utf8_and_blobs_become_text(database: Path) -> None:
    query = "SELECT CAST(x'ff41' AS TEXT) UNION ALL SELECT x'646964'"
    assert texts(SqliteSource(database, query)) == ["\ufffdA", "did"]


@pytest.fixture
def in_wal_mode(tmp_path: Path) -> Iterator[tuple[Path, sqlite3.Connection]]:
    path = tmp_path / "wal.sqlite"
    with closing(sqlite3.connect(path)) as owner:
        owner.execute("PRAGMA journal_mode = WAL")
        owner.execute("CREATE TABLE dids (did TEXT)")
        owner.execute("INSERT INTO dids VALUES ('did:plc:a')")
        owner.commit()
        yield path, owner


def test_what_is_committed_to_the_wal_is_seen(in_wal_mode: tuple[Path, sqlite3.Connection]) -> None:
    path, owner = in_wal_mode
    version = SqliteSource(path).version()
    owner.execute("INSERT INTO dids VALUES ('did:plc:b')")
    assert texts(SqliteSource(path)) == ["did:plc:a"]
    owner.commit()
    assert texts(SqliteSource(path)) == ["did:plc:a", "did:plc:b"]
    assert SqliteSource(path).version() != version


def test_reading_a_wal_database_does_not_change_its_version(tmp_path: Path) -> None:
    path = tmp_path / "wal.sqlite"
    with closing(sqlite3.connect(path)) as owner:
        owner.execute("PRAGMA journal_mode = WAL")
        owner.execute("CREATE TABLE dids (did TEXT)")
    before = SqliteSource(path).version()
    assert texts(SqliteSource(path)) == []
    assert SqliteSource(path).version() == before


def test_the_version_follows_the_content(database: Path) -> None:
    before = SqliteSource(database).version()
    assert SqliteSource(database).version() == before
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("INSERT INTO dids (did) VALUES ('did:plc:c')")
    assert SqliteSource(database).version() != before


def test_the_version_of_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="doesn't exist"):
        SqliteSource(tmp_path / "nope").version()


def test_what_the_system_will_not_open_is_named(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    def cannot_open(*_: object, **__: object) -> None:
        error = sqlite3.OperationalError("unable to open database file")
        error.sqlite_errorname = "SQLITE_CANTOPEN"
        raise error

    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr(sqlite3, "connect", cannot_open)
    with pytest.raises(SourceError) as caught:
        SqliteSource(database).version()
    assert str(caught.value) == f"can't read {database}: Permission denied; make it readable, or correct source.path"
    assert error_of(SqliteSource(database)) == (
        f"{database} can't be opened; check its permissions (in WAL mode its folder has to be writable too) "
        "(SQLite says: unable to open database file)"
    )


def test_an_abandoned_iterator_lets_go_of_the_database(database: Path) -> None:
    rows = SqliteSource(database).rows()
    assert next(rows).text == "did:plc:a"
    del rows
    gc.collect()
    with closing(sqlite3.connect(database, timeout=0)) as connection, connection:
        connection.execute("DELETE FROM dids")
    assert texts(SqliteSource(database)) == []


def test_tables_that_cannot_be_listed_do_not_hide_the_error(database: Path) -> None:
    class Broken:
        def set_authorizer(self, _: object) -> None: ...

        def execute(self, *_: object) -> None:
            raise sqlite3.OperationalError("disk I/O error")

    error = sqlite3.OperationalError("no such table: x")
    text = str(sqlite_problem(error, database, Broken()))  # type: ignore[arg-type]
    assert text.endswith("no such table: x; its tables can't be listed (disk I/O error); correct source.query")
