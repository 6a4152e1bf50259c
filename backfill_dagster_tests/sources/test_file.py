"""File sources: CSV, Parquet and plain text, as people really write them."""

from __future__ import annotations

import datetime
import gzip
import hashlib
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from backfill_dagster.config.sources import FileFormat
from backfill_dagster.errors import SourceError
from backfill_dagster.sources.base import SourceRow
from backfill_dagster.sources.file import FileSource
from backfill_dagster.sources.local_path import file_version


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def texts(source: FileSource) -> list[str]:
    return [row.text for row in source.rows()]


def error_of(source: FileSource) -> str:
    with pytest.raises(SourceError) as caught:
        list(source.rows())
    text = str(caught.value)
    assert "\n" not in text
    return text


def csv(path: Path, content: str | bytes, **options: object) -> FileSource:
    return FileSource(write(path, content), format="csv", **options)  # type: ignore[arg-type]


class TestText:
    """Plain lists."""

    def test_one_account_a_line_whatever_the_line_ends(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.txt", b"\xef\xbb\xbfdid:plc:a\r\n\n  \ndid:plc:b\n did:plc:a\nalice.test")
        source = FileSource(path, format="text")
        assert texts(source) == ["did:plc:a", "did:plc:b", "alice.test"]
        assert source.describe() == f"{path} (text)"

    def test_gzip_is_known_by_its_content(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.txt", gzip.compress(b"did:plc:a\ndid:plc:b\n"))
        assert texts(FileSource(path, format="text")) == ["did:plc:a", "did:plc:b"]

    def test_bad_utf8_costs_its_own_row_only(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.txt", b"did:plc:a\ndid:plc:\xff\xfe\ndid:plc:b\n")
        assert texts(FileSource(path, format="text")) == ["did:plc:a", "did:plc:\ufffd\ufffd", "did:plc:b"]

    def test_it_has_no_columns_to_keep(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.txt", "did:plc:a\n")
        assert error_of(FileSource(path, format="text", keep_columns=["cohort"])) == (
            f"{path} is plain text without columns; take source.keep_columns out, or use CSV"
        )

    def test_an_endless_line_is_refused(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.txt", "did:plc:a\n" + "x" * (1024 * 1024 + 1))
        assert error_of(FileSource(path, format="text")) == (
            f"{path}, line 2 is longer than 1048576 characters: is it a list of lines, or CSV?"
        )

    def test_a_line_at_the_bound_is_a_row(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.txt", "x" * (1024 * 1024 - 1) + "\ndid:plc:a\n")
        assert texts(FileSource(path, format="text"))[1] == "did:plc:a"

    @pytest.mark.parametrize(
        ("start", "said"),
        [
            (b"PAR1....", "is a Parquet file: set source.format: parquet"),
            (b"SQLite format 3\0....", "is a SQLite database: set source.type: sqlite"),
            (b"PK\x03\x04....", "is a zip archive or a spreadsheet: save it as CSV"),
            (b"\x28\xb5\x2f\xfd....", "is compressed with zstd: unpack it, or use gzip"),
            ("\ufeffdid".encode("utf-16-le"), "is UTF-16 text: save it as UTF-8"),
            ("\ufeffdid".encode("utf-16-be"), "is UTF-16 text: save it as UTF-8"),
        ],
    )
    def test_what_is_no_text_is_named(self, tmp_path: Path, start: bytes, said: str) -> None:
        path = write(tmp_path / "a.txt", start)
        assert error_of(FileSource(path, format="text")) == f"{path} {said}"

    @pytest.mark.parametrize("spoil", [lambda data: data[:-12], lambda data: data[:20] + b"\0\xff" * 50 + data[120:]])
    def test_damaged_gzip_is_an_error_not_a_short_list(self, tmp_path: Path, spoil: object) -> None:
        whole = gzip.compress(b"".join(b"did:plc:%d\n" % number for number in range(20000)))
        path = write(tmp_path / "a.txt.gz", spoil(whole))  # type: ignore[operator]
        assert error_of(FileSource(path, format="text")).startswith(f"{path} is damaged or cut short (")


class TestCsv:
    """CSV, with and without a header."""

    def test_quotes_kept_columns_and_short_rows(self, tmp_path: Path) -> None:
        source = csv(
            tmp_path / "a.csv",
            'cohort, did ,note\n"a, b",did:plc:a,"line 1\nline 2"\n\nx,did:plc:b\n,"",y\n',
            keep_columns=["note", "cohort"],
        )
        assert list(source.rows()) == [
            SourceRow("did:plc:a", {"note": "line 1\nline 2", "cohort": "a, b"}),
            SourceRow("did:plc:b", {"note": None, "cohort": "x"}),
            SourceRow("", {"note": "y", "cohort": ""}),
        ]

    def test_bom_and_gzip(self, tmp_path: Path) -> None:
        source = csv(tmp_path / "a.csv.gz", gzip.compress(b"\xef\xbb\xbfdid,x\r\ndid:plc:a,1\r\n"))
        assert texts(source) == ["did:plc:a"]

    def test_bad_utf8_costs_its_own_row_only(self, tmp_path: Path) -> None:
        source = csv(tmp_path / "a.csv", b"did,x\n\xe9,1\ndid:plc:a,2\n")
        assert texts(source) == ["\ufffd", "did:plc:a"]

    def test_the_only_column_may_have_any_name(self, tmp_path: Path) -> None:
        assert texts(csv(tmp_path / "a.csv", "user\ndid:plc:a\n")) == ["did:plc:a"]

    def test_a_column_by_name(self, tmp_path: Path) -> None:
        assert texts(csv(tmp_path / "a.csv", "did,user\nx,did:plc:a\n", column="user")) == ["did:plc:a"]

    def test_tabs(self, tmp_path: Path) -> None:
        assert texts(csv(tmp_path / "a.tsv", "x\tdid\n1\tdid:plc:a\n")) == ["did:plc:a"]

    def test_a_missing_column_names_those_there_are(self, tmp_path: Path) -> None:
        source = csv(tmp_path / "a.csv", "did;user\nx;y\n", column="did")
        assert error_of(source) == (
            f"{tmp_path / 'a.csv'} has no column 'did'; columns found: did;user; set source.column"
        )

    def test_without_a_header(self, tmp_path: Path) -> None:
        assert texts(csv(tmp_path / "a.csv", "did:plc:a\ndid:plc:b\n", header=False)) == ["did:plc:a", "did:plc:b"]
        source = csv(tmp_path / "b.csv", "x,did:plc:a\n", header=False, column="column1", keep_columns=["column0"])
        assert list(source.rows()) == [SourceRow("did:plc:a", {"column0": "x"})]

    def test_without_a_header_several_columns_have_to_be_told_apart(self, tmp_path: Path) -> None:
        assert error_of(csv(tmp_path / "a.csv", "x,did:plc:a\n", header=False)) == (
            f"{tmp_path / 'a.csv'} has no column 'did'; columns found: column0, column1; set source.column"
        )

    @pytest.mark.parametrize("first", ["did:plc:a", "at://did:plc:a/app.bsky.feed.post/1", "alice.test", "x,did:plc:a"])
    def test_a_first_line_of_data_is_not_swallowed_as_header(self, tmp_path: Path, first: str) -> None:
        assert error_of(csv(tmp_path / "a.csv", f"{first}\n")) == (
            f"{tmp_path / 'a.csv'}: the first line is data, not a header ({first.replace(',', ', ')}); "
            "set source.header: false (or source.column, if it is a name)"
        )

    def test_a_name_like_a_handle_is_a_name_when_the_config_says_so(self, tmp_path: Path) -> None:
        assert texts(csv(tmp_path / "a.csv", "user.did\ndid:plc:a\n", column="user.did")) == ["did:plc:a"]

    def test_an_empty_file(self, tmp_path: Path) -> None:
        assert error_of(csv(tmp_path / "a.csv", "")) == (
            f"{tmp_path / 'a.csv'} is empty: a CSV file needs at least its header line"
        )
        assert texts(csv(tmp_path / "a.csv", "", header=False)) == []

    def test_an_open_quote_does_not_swallow_rows(self, tmp_path: Path) -> None:
        text = error_of(csv(tmp_path / "a.csv", 'did,x\n"did:plc:a,1\ndid:plc:b,2\n'))
        assert text == (f"{tmp_path / 'a.csv'}, line 3: not CSV as of RFC 4180 (unexpected end of data); correct it")

    def test_a_huge_field_is_refused(self, tmp_path: Path) -> None:
        text = error_of(csv(tmp_path / "a.csv", f'did,x\nd,"{"y" * 140_000}"\n'))
        assert text.startswith(f"{tmp_path / 'a.csv'}, line 2: not CSV as of RFC 4180 (field larger than field limit")


class TestParquet:
    """Parquet, whatever wrote it."""

    def test_text_columns_of_every_kind(self, tmp_path: Path) -> None:
        path = tmp_path / "a.parquet"
        day = datetime.date(2025, 1, 2)
        table = pa.table(
            {
                "did": pa.array([" did:plc:a ", None, "did:plc:b"]).dictionary_encode(),
                "large": pa.array(["x", "y", None], pa.large_string()),
                "raw": pa.array([b"\xff", b"r", None], pa.binary()),
                "age": [1, 2, None],
                "yes": [True, False, None],
                "day": [day, day, None],
                "at": pa.array([1, None, None], pa.timestamp("ns", "UTC")),
                "nothing": pa.nulls(3),
            }
        )
        pq.write_table(table, path)
        keep = ["large", "raw", "age", "yes", "day", "at", "nothing"]
        rows = list(FileSource(path, format="parquet", keep_columns=keep).rows())
        assert [row.text for row in rows] == ["did:plc:a", "", "did:plc:b"]
        assert list(rows[0].columns.values()) == [
            "x", "\ufffd", "1", "true", "2025-01-02", "1970-01-01 00:00:00.000000001Z", None
        ]  # fmt: skip
        assert list(rows[2].columns.values()) == [None] * 7

    def test_bad_utf8_costs_its_own_row_only(self, tmp_path: Path) -> None:
        path = tmp_path / "a.parquet"
        bad = pa.array([b"did:plc:a", b"\xff\xfe", b"did:plc:b"]).view(pa.string())
        pq.write_table(pa.table({"did": bad}), path)
        assert texts(FileSource(path, format="parquet")) == ["did:plc:a", "\ufffd\ufffd", "did:plc:b"]

    def test_many_batches_and_row_groups_keep_the_order(self, tmp_path: Path) -> None:
        path = tmp_path / "a.parquet"
        dids = [f"did:plc:{number:05d}" for number in range(40_000)]
        pq.write_table(pa.table({"x.y": dids}), path, row_group_size=7_000)
        assert texts(FileSource(path, format="parquet", column="x.y")) == dids

    def test_the_did_column_can_be_kept_too(self, tmp_path: Path) -> None:
        path = tmp_path / "a.parquet"
        pq.write_table(pa.table({"did": [" a"]}), path)
        assert list(FileSource(path, format="parquet", keep_columns=["did"]).rows()) == [SourceRow("a", {"did": " a"})]

    def test_a_column_of_lists_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "a.parquet"
        pq.write_table(pa.table({"dids": [["a"], ["b"]]}), path)
        text = error_of(FileSource(path, format="parquet"))
        assert text.startswith(f"{path}, column 'dids' holds list<")
        assert text.endswith("not text: name another")

    def test_a_missing_column_names_those_there_are(self, tmp_path: Path) -> None:
        path = tmp_path / "a.parquet"
        pq.write_table(pa.table({"a": [1], "b": [2]}), path)
        assert error_of(FileSource(path, format="parquet")) == (
            f"{path} has no column 'did'; columns found: a, b; set source.column"
        )

    def test_what_is_no_parquet_is_named(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.parquet", "did\ndid:plc:a\n")
        assert error_of(FileSource(path, format="parquet")).startswith(f"{path} can't be read as Parquet (")

    def test_a_damaged_page_is_an_error(self, tmp_path: Path) -> None:
        path = tmp_path / "a.parquet"
        pq.write_table(pa.table({"did": [f"did:plc:{n}" for n in range(50_000)]}), path, compression="zstd")
        data = bytearray(path.read_bytes())
        data[100:2000] = b"\xaa" * 1900
        path.write_bytes(data)
        text = error_of(FileSource(path, format="parquet"))
        assert text.startswith((f"{path} can't be read as Parquet (", f"can't read {path}: "))


@pytest.mark.parametrize("format", ["csv", "parquet", "text"])
def test_a_missing_file_a_folder_and_a_pipe_are_named(tmp_path: Path, format: FileFormat) -> None:
    missing, pipe = tmp_path / "nope", tmp_path / "pipe"
    os.mkfifo(pipe)
    assert error_of(FileSource(missing, format=format)) == f"{missing} doesn't exist: correct source.path"
    assert error_of(FileSource(tmp_path, format=format)) == f"{tmp_path} is a folder: correct source.path"
    assert error_of(FileSource(pipe, format=format)) == f"{pipe} is not a regular file: correct source.path"


def test_a_path_that_no_system_takes_is_named(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 300)
    text = error_of(FileSource(path, format="text"))
    assert text == f"{path} can't be looked at (File name too long): correct source.path"


@pytest.mark.parametrize("format", ["csv", "parquet", "text"])
def test_an_unreadable_file_is_named(
    tmp_path: Path,
    format: FileFormat,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = write(tmp_path / "a", "did\n")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr(pq, "ParquetFile", refuse)
    said = f"can't read {path}: Permission denied; make it readable, or correct source.path"
    assert error_of(FileSource(path, format=format)) == said
    with pytest.raises(SourceError) as caught:
        FileSource(path, format=format).version()
    assert str(caught.value) == said


def test_the_version_is_the_digest_of_the_content(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "did:plc:a\n")
    source = FileSource(path, format="text")
    assert source.version() == "sha256:" + hashlib.sha256(b"did:plc:a\n").hexdigest()
    write(path, "did:plc:b\n")
    assert source.version() == "sha256:" + hashlib.sha256(b"did:plc:b\n").hexdigest()


def test_a_big_file_is_known_by_size_and_time(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "12345")
    os.utime(path, ns=(7, 7))
    assert file_version(path, hashed_max_bytes=4) == "stat:5:7"
    assert file_version(path, hashed_max_bytes=5).startswith("sha256:")
