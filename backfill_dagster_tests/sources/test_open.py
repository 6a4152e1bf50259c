"""From blocks of the YAML to sources and lists of URIs."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from backfill_dagster.aws import AwsPlace, aws_client
from backfill_dagster.config import sources as blocks
from backfill_dagster.errors import SourceError
from backfill_dagster.sources import SourceRow, load_uris, open_source

SOURCE: TypeAdapter[Any] = TypeAdapter(blocks.Source)
URI_LIST: TypeAdapter[Any] = TypeAdapter(blocks.UriList)


def rows(tmp_path: Path, **block: object) -> list[SourceRow]:
    return list(open_source(SOURCE.validate_python(block), tmp_path.joinpath).rows())


def uris(tmp_path: Path, **block: object) -> frozenset[str]:
    return load_uris(URI_LIST.validate_python(block), tmp_path.joinpath)


def database(path: Path, table: str, column: str, values: list[str]) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"CREATE TABLE {table} ({column})")
        connection.executemany(f"INSERT INTO {table} VALUES (?)", [(one,) for one in values])


def test_sqlite(tmp_path: Path) -> None:
    database(tmp_path / "a.sqlite", "dids", "did", ["a", "b"])
    assert rows(tmp_path, type="sqlite", path="a.sqlite") == [SourceRow("a"), SourceRow("b")]
    query = "SELECT did, 'x' AS cohort FROM dids LIMIT 1"
    kept = rows(tmp_path, type="sqlite", path="a.sqlite", query=query, keep_columns=["cohort"])
    assert kept == [SourceRow("a", {"cohort": "x"})]


def test_file(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,user\n1,a\n")
    (tmp_path / "b.dat").write_text("1,a\n")
    assert rows(tmp_path, type="file", path="a.csv", column="user", keep_columns=["x"]) == [SourceRow("a", {"x": "1"})]
    headless = rows(tmp_path, type="file", path="b.dat", format="csv", header=False, column="column1")
    assert headless == [SourceRow("a")]


def test_inline(tmp_path: Path) -> None:
    source = open_source(SOURCE.validate_python({"type": "inline", "dids": ["a", "b", "a "]}), tmp_path.joinpath)
    assert [row.text for row in source.rows()] == ["a", "b"]
    assert source.describe() == "a list of 3 in the config"
    other = open_source(SOURCE.validate_python({"type": "inline", "dids": ["a", "b"]}), tmp_path.joinpath)
    assert source.version().startswith("sha256:")
    assert source.version() != other.version()


def test_s3(tmp_path: Path, moto: str, bucket: str) -> None:
    client = aws_client("s3", AwsPlace("us-east-1", moto))
    client.put_object(Bucket=bucket, Key="a.dat", Body=b"1,a\n2,b\n3,a\n")
    client.put_object(Bucket=bucket, Key="uris.csv", Body=b"x,uri\n1,at://a\n2,at://b\n")
    place = {"region": "us-east-1", "endpoint_url": moto}
    block = {"type": "s3", "path": f"s3://{bucket}/a.dat", "format": "csv", "header": False, **place}
    kept = rows(tmp_path, **block, column="column1", keep_columns=["column0"])
    assert kept == [SourceRow("a", {"column0": "1"}), SourceRow("b", {"column0": "2"})]
    assert rows(tmp_path, **block, query="SELECT column1 FROM source ORDER BY ALL LIMIT 1") == [SourceRow("a")]
    block = {"type": "s3", "path": f"s3://{bucket}/uris.csv", **place}
    assert uris(tmp_path, **block) == {"at://a", "at://b"}
    assert uris(tmp_path, **block, query="SELECT uri, x FROM source WHERE x = '2'") == {"at://b"}


def test_uris_from_every_kind(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,uri\n1,at://a\n2,\n3,at://b\n4,at://a\n")
    database(tmp_path / "a.sqlite", "uris", "uri", ["at://c"])
    assert uris(tmp_path, type="file", path="a.csv") == {"at://a", "at://b"}
    assert uris(tmp_path, type="file", path="a.csv", column="uri") == {"at://a", "at://b"}
    assert uris(tmp_path, type="sqlite", path="a.sqlite") == {"at://c"}
    assert uris(tmp_path, type="inline", uris=["at://d", "did:plc:a"]) == {"at://d", "did:plc:a"}
    assert uris(tmp_path, type="inline", uris=["did:plc:a"]) == {"did:plc:a"}


def test_an_empty_list_is_an_error_never_drop_all(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("uri,x\n,1\n")
    with pytest.raises(SourceError) as caught:
        uris(tmp_path, type="file", path="a.csv")
    assert str(caught.value) == f"filters: {path} (csv) is empty, which would drop every record; fill it"


def test_a_list_of_something_else_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("x,uri\nat://a,7\nat://b,8\n")
    with pytest.raises(SourceError) as caught:
        uris(tmp_path, type="file", path="a.csv")
    assert str(caught.value) == f"filters: {path} (csv) holds no AT URI (at://...) but '7'; name the right column"
