"""Queries on lists on S3: the same rows as without one, and no row lost because objects differ."""

from __future__ import annotations

import gzip
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from backfill_dagster.sources import csv_copy
from backfill_dagster.sources.base import SourceRow
from backfill_dagster_tests.aws.proxy import Proxy, Seen, Trouble
from backfill_dagster_tests.sources.s3_place import Lists, parquet

pytestmark = pytest.mark.usefixtures("no_backoff")

QUERY = "SELECT did FROM source"


class TestRows:
    """CSV by a query is what it is without one."""

    @pytest.mark.parametrize(
        ("objects", "options"),
        [
            ({"d/1.csv": b'did,note\na,"x\ny"\nb,"q""r"\n'}, {}),
            ({"d/1.csv": b"did,note\na,\xff\n\xe9,x\nb,y\n"}, {}),
            ({"d/1.csv": b"did,note\r\na,x\nb,y\rc,z\r\n"}, {}),
            ({"d/1.csv": b"did\na\n\n\r\nb\n"}, {}),
            ({"d/1.csv": b"did,note\na\nb,x,too many\n"}, {}),
            ({"d/1.csv": b"\xef\xbb\xbfdid,n\na,1\n", "d/2.tsv": b"n\tdid\n1\tb\n"}, {}),
            ({"d/1.csv": gzip.compress(b"did\na\n"), "d/2.csv.gz": gzip.compress(b"did\nb\n")}, {}),
            ({"d/1.csv": b"did\na\0b\n"}, {}),
            ({"d/1.csv": b",did\n0,a\n1,b\n"}, {}),
            ({"d/1.csv": b"did\n", "d/2.csv": b"did\n"}, {}),
            ({"d/1.csv": b"a,x\nb\nc,y,z\n", "d/2.csv": b""}, {"header": False, "column": "column0"}),
            ({"d/1.csv": b"", "d/2.csv": b"a\nb\n"}, {"header": False, "column": "column0"}),
            ({"d/1.csv": b"", "d/2.csv": b""}, {"header": False, "column": "column0"}),
        ],
    )
    @pytest.mark.parametrize("at_once", [1, 1000])
    def test_the_same(
        self,
        lists: Lists,
        objects: dict[str, bytes],
        options: dict[str, Any],
        at_once: int,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(csv_copy, "_CELLS", at_once)
        monkeypatch.setattr(csv_copy, "_ROWS", at_once)
        lists.put(objects)
        query = f"SELECT {options.get('column', 'did')} FROM source"
        assert lists.texts("d/", query=query, **options) == lists.texts("d/", **options)

    def test_an_empty_cell_is_null(self, lists: Lists) -> None:
        lists.put({"a.csv": 'did,n,m\na,,\nb,""\nc,007,x\n'})
        source = lists.source("a.csv", query="SELECT did, n, m FROM source WHERE n IS NULL", keep_columns=["n", "m"])
        assert list(source.rows()) == [SourceRow("a", {"n": None, "m": None}), SourceRow("b", {"n": None, "m": None})]
        assert lists.texts("a.csv", query="SELECT did FROM source WHERE n = '007'") == ["c"]

    def test_a_folder_name_is_no_column(self, lists: Lists) -> None:
        lists.put({"did=2024/x.parquet": parquet(did=["a"]), "did=2024/x.csv": "did\na\n"})
        for key in ("did=2024/x.parquet", "did=2024/x.csv"):
            assert lists.texts(key, query="FROM source") == ["a"]

    def test_parquet_columns_go_by_their_names(self, lists: Lists) -> None:
        lists.put({"d/1.parquet": parquet(did=["a"], n=["1"]), "d/2.parquet": parquet(n=["2"], did=["b"])})
        encoded = parquet(did=pa.array(["c"]).dictionary_encode(), n=pa.array(["3"], pa.large_string()))
        lists.put({"d/3.parquet": encoded})
        assert lists.texts("d/", query="SELECT did FROM source ORDER BY n") == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("objects", "options", "said"),
    [
        ({"d/1.csv": "did,n\na,1\n", "d/2.csv": "n\n1\n"}, {}, "{}d/2.csv is not like {}d/1.csv, it lacks did: write"),
        (
            {"d/1.csv": "did\na\n", "d/2.csv": "user,n\nb,1\n"},
            {},
            "{}d/2.csv is not like {}d/1.csv, it lacks did, it has user, n besides: write it like the others, or "
            "narrow source.path to those that are alike",
        ),
        ({"d/1.csv": "did\na\n", "d/2.csv": "did:plc:b\n"}, {}, "{}d/2.csv: the first line is data, not a header ("),
        ({"d/1.csv": "did\na\n", "d/2.csv": ""}, {}, "{}d/2.csv is empty: a CSV file needs at least its header"),
        ({"d/1.csv": "did,DID\na,b\n"}, {}, "{}d/1.csv has several columns 'did', which a query can't tell apart"),
        (
            {"d/1.csv": "a,x\n", "d/2.csv": "b\n"},
            {"header": False},
            "{}d/2.csv is not like {}d/1.csv, it lacks column1: write",
        ),
        ({"d/1.csv": ",".join(["a"] * 1001)}, {"header": False}, "{}d/1.csv has 1001 columns, over 1000: is it a list"),
        ({"d/1.csv": "did\na\n", "d/2.csv": "\ufeffdid\na".encode("utf-16-le")}, {}, "{}d/2.csv is UTF-16 text: save"),
        ({"d/1.csv": "did\na\n", "d/2.csv": parquet(did=["b"])}, {}, "{}d/2.csv is a Parquet file: set source.format"),
        ({"d/1.csv": "did\na\n", "d/2.csv": gzip.compress(b"did\nb\n")[:-6]}, {}, "{}d/2.csv is damaged or cut short"),
        ({"d/1.csv": "did\na\n", "d/2.csv": 'did\n"b\n'}, {}, "{}d/2.csv, line 2: not CSV as of RFC 4180 ("),
        (
            {"d/1.parquet": parquet(did=["a"]), "d/2.parquet": parquet(user=["b"])},
            {},
            "{}d/2.parquet is not like {}d/1.parquet, it lacks did, it has user besides: write",
        ),
        (
            {"d/1.parquet": parquet(did=["a"], n=["1"]), "d/2.parquet": parquet(did=["b"], n=[1])},
            {},
            "{}d/2.parquet is not like {}d/1.parquet, its column 'n' holds int64, not string: write",
        ),
        ({"d/1.parquet": parquet(did=["a"]), "d/2.parquet": "did\n"}, {}, "{}d/2.parquet can't be read as Parquet ("),
        ({"d/1.parquet": parquet(did=["a"], Did=["b"])}, {}, "{}d/1.parquet has several columns 'did', which"),
    ],
)
def test_an_object_that_is_not_like_the_first_is_named(
    lists: Lists, objects: dict[str, bytes | str], options: dict[str, Any], said: str
) -> None:
    lists.put(objects)
    assert lists.error("d/", query="FROM source", **options).startswith(said.replace("{}", lists.uri("")))


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize(("method", "at"), [("GET", 1), ("GET", 2), ("HEAD", 1), ("HEAD", 2)])
def test_a_refused_request_names_its_object(lists: Lists, proxy: Proxy, suffix: str, method: str, at: int) -> None:
    dids = [f"did:plc:{number:024d}" for number in range(100_000)]
    body = parquet(did=dids) if suffix == "parquet" else "\n".join(["did", *dids * 4])
    lists.put({f"d/1.{suffix}": body, f"d/2.{suffix}": body})
    asked = 0

    def choose(seen: Seen) -> Trouble | None:
        nonlocal asked
        if seen.method != method or not seen.path.endswith(f"2.{suffix}"):
            return None
        asked += 1
        return Trouble.DENIED if asked >= at else None

    proxy.choose = choose
    text = lists.error("d/", url=proxy.url, query=QUERY)
    assert re.match(rf"can't (read|look at) {lists.uri('d/2.' + suffix)}: (AccessDenied|403: Forbidden)[:;] ", text)
    assert "deploy/aws/ has a policy" in text


def test_a_damaged_page_of_one_of_several(lists: Lists) -> None:
    good = parquet(did=[f"did:plc:{number:024d}" for number in range(30_000)])
    for start in (5, 100):
        data = bytearray(good)
        data[start:2000] = b"\xaa" * (2000 - start)
        lists.put({"d/1.parquet": good, "d/2.parquet": bytes(data), "d/3.parquet": good})
        text = lists.error("d/", query=QUERY)
        assert lists.uri("d/2.parquet") in text
        assert lists.uri("d/3.parquet") not in text


_FULL = """
import resource, signal, sys
from backfill_dagster.aws import AwsPlace
from backfill_dagster.errors import SourceError
from backfill_dagster.sources.s3 import S3Source
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    list(S3Source(sys.argv[1], AwsPlace("us-east-1", sys.argv[2]), query="FROM source").rows())
except SourceError as error:
    print(error)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="no bound on the size of files")
def test_a_full_disk_is_one_clear_line(lists: Lists, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lists.put({"a.csv": "did\n" + "".join(f"did:plc:{number:024d}\n" for number in range(300_000))})
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    command = [sys.executable, "-c", _FULL, lists.uri("a.csv"), lists.url]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said == (
        f"the temporary folder {tmp_path} has no room for what source.query needs: free space there, or set TMPDIR "
        "to a folder on a larger disk\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_the_copy_of_csv_is_all_that_can_be_read(lists: Lists) -> None:
    lists.put({"a.csv": "did\na\n"})
    for query in ("FROM read_csv('/etc/passwd')", f"FROM read_csv('{lists.uri('a.csv')}')", "FROM glob('/tmp/*')"):
        text = lists.error("a.csv", query=query)
        assert "may read nothing but the table `source` (DuckDB says: " in text
