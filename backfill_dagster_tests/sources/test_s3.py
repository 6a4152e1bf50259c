"""Lists on S3, over HTTP: which objects an address names, and what is read out of them."""

from __future__ import annotations

import asyncio
import gzip
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from backfill_dagster.cli.main import run_command
from backfill_dagster.sources import s3_objects
from backfill_dagster.sources.base import RowCounts, SourceRow
from backfill_dagster_tests.aws.proxy import Proxy, Trouble, mixed
from backfill_dagster_tests.road import opened, run_all, write_config
from backfill_dagster_tests.sources.s3_place import Lists, parquet
from backfill_dagster_tests.worker.tiny import tiny

pytestmark = pytest.mark.usefixtures("no_backoff")


class TestAddresses:
    """One object, a prefix, a glob."""

    @pytest.fixture(autouse=True)
    def _lists(self, lists: Lists) -> None:
        keys = ["a.csv", "b.csv", "x1.csv", "sub/c.csv", "sub/deep/d.csv", "_SUCCESS", ".hidden.csv", "_tmp/t.csv"]
        lists.put({f"dids/{key}": f"did\n{key}\n" for key in keys})
        lists.put({"dids/": b"", "dids/sub/": b"", "dids2/z.csv": "did\nz\n", "w[1]?*.csv": "did\nodd\n"})

    @pytest.mark.parametrize(
        ("key", "texts"),
        [
            ("dids/b.csv", ["b.csv"]),
            ("dids/", ["a.csv", "b.csv", "sub/c.csv", "sub/deep/d.csv", "x1.csv"]),
            ("dids/sub/", ["sub/c.csv", "sub/deep/d.csv"]),
            ("dids/*.csv", ["a.csv", "b.csv", "x1.csv"]),
            ("dids/?.csv", ["a.csv", "b.csv"]),
            ("dids/[bx]*.csv", ["b.csv", "x1.csv"]),
            ("dids/*/*.csv", ["sub/c.csv"]),
            ("dids/**/*.csv", ["a.csv", "b.csv", "sub/c.csv", "sub/deep/d.csv", "x1.csv"]),
            ("dids/**", ["a.csv", "b.csv", "sub/c.csv", "sub/deep/d.csv", "x1.csv"]),
            ("dids/_*/*.csv", ["_tmp/t.csv"]),
            ("d*/z.csv", ["z"]),
            ("w[[]1]?[*].csv", ["odd"]),
        ],
    )
    def test_what_they_name(self, lists: Lists, key: str, texts: list[str]) -> None:
        assert lists.texts(key) == texts
        assert sorted(lists.texts(key, query="FROM source")) == sorted(texts)

    @pytest.mark.parametrize(
        ("key", "said"),
        [
            ("dids", "s3://{}/dids is not there: add a slash to source.path, there are objects below it"),
            ("dids/no.csv", "s3://{}/dids/no.csv is not there: correct source.path, or put it there"),
            ("no/", "s3://{}/no/ matches none of the 0 objects below s3://{}/no/: correct source.path"),
            (
                "dids/sub/*.parquet",
                "s3://{}/dids/sub/*.parquet matches none of the 3 objects below s3://{}/dids/sub/: correct source.path",
            ),
            ("dids/b**", "s3://{}/dids/b**: ** has to stand alone between slashes; correct source.path"),
            ("", "s3://{}/ names a whole bucket: add an object's key, a prefix/ or a glob to source.path"),
        ],
    )
    def test_nothing_there(self, lists: Lists, key: str, said: str) -> None:
        assert lists.error(key) == said.replace("{}", lists.bucket)

    def test_a_bound_on_how_many(self, lists: Lists, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(s3_objects, "OBJECTS_MAX", 4)
        assert lists.error("dids/") == (
            f"{lists.uri('dids/')} names over 4 objects: put the list into fewer, larger ones"
        )
        monkeypatch.setattr(s3_objects, "KEYS_MAX", 3)
        assert lists.error("d*/z.csv") == (
            f"{lists.uri('d*/z.csv')}: there are over 3 objects below {lists.uri('d')}; "
            "write more of the key before the first wildcard"
        )


def test_a_listing_has_many_pages(lists: Lists, proxy: Proxy) -> None:
    def put(number: int) -> None:
        lists.put({f"many/{number:04d}.csv": f"did\ndid:plc:{number}\n"})

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(put, range(1005)))
    proxy.choose = mixed(0.3, 5)
    objects = s3_objects.find_objects(
        s3_objects.S3Address.of(lists.uri("many/*.csv")), lists.source("", url=proxy.url)._place
    )
    assert [one.key for one in objects] == [f"many/{number:04d}.csv" for number in range(1005)]
    assert len([seen for seen in proxy.seen if "continuation-token" in seen.query]) >= 1


class TestContent:
    """CSV and Parquet."""

    def test_csv_quotes_kept_columns_and_gzip(self, lists: Lists) -> None:
        body = 'cohort, did ,note\n"a, b",did:plc:a,"line 1\nline 2"\n\nx,did:plc:b\n'
        expected = [
            SourceRow("did:plc:a", {"note": "line 1\nline 2", "cohort": "a, b"}),
            SourceRow("did:plc:b", {"note": None, "cohort": "x"}),
        ]
        packed = gzip.compress(body.encode())
        lists.put({"a.csv": body, "a.csv.gz": packed, "b.csv": packed, "a.tsv": "x\tdid\n1\tdid:plc:a\n"})
        for key in ("a.csv", "a.csv.gz", "b.csv"):
            assert list(lists.source(key, keep_columns=["note", "cohort"]).rows()) == expected
        assert lists.texts("a.tsv") == ["did:plc:a"]

    def test_csv_comes_in_large_pieces(self, lists: Lists, proxy: Proxy) -> None:
        body = "did\n" + "".join(f"did:plc:{number:01024d}\n" for number in range(10_000))
        lists.put({"a.csv": body, "a.csv.gz": gzip.compress(body.encode(), 0)})
        for key in ("a.csv", "a.csv.gz"):
            proxy.seen.clear()
            assert len(lists.texts(key, url=proxy.url)) == 10_000
            assert [seen.method for seen in proxy.seen].count("GET") == 2

    def test_csv_without_a_header(self, lists: Lists) -> None:
        lists.put({"a.csv": "x,did:plc:a\ny,did:plc:b\n", "b.csv": ""})
        options = {"header": False, "column": "column1"}
        assert lists.texts("a.csv", **options) == ["did:plc:a", "did:plc:b"]
        assert lists.texts("*.csv", **options) == ["did:plc:a", "did:plc:b"]
        query = "SELECT column1 FROM source WHERE column0 = 'y'"
        assert lists.texts("a.csv", header=False, query=query) == ["did:plc:b"]

    def test_parquet_with_kept_columns(self, lists: Lists) -> None:
        lists.put({"a.parquet": parquet(did=["did:plc:a", None, "dïd"], age=[1, 2, None])})
        assert list(lists.source("a.parquet", keep_columns=["age"]).rows()) == [
            SourceRow("did:plc:a", {"age": "1"}),
            SourceRow("", {"age": "2"}),
            SourceRow("dïd", {"age": None}),
        ]

    def test_over_all_objects_a_text_comes_once_and_rows_are_counted(self, lists: Lists) -> None:
        lists.put({"d/1.parquet": parquet(did=["a", "b"]), "d/2.parquet": parquet(did=["b", "c", ""])})
        counts = RowCounts()
        assert [row.text for row in lists.source("d/").rows(counts)] == ["a", "b", "c", ""]
        assert counts == RowCounts(rows=5, duplicates=1, empty=1)

    def test_a_format_that_the_suffix_does_not_say(self, lists: Lists) -> None:
        lists.put({"d/part-0": parquet(user=["a"]), "d/part-1": parquet(user=["b"])})
        assert lists.texts("d/", format="parquet", column="user") == ["a", "b"]

    def test_it_describes_itself(self, lists: Lists) -> None:
        assert lists.source("a.csv").describe() == lists.uri("a.csv")
        assert lists.source("a", format="csv").describe() == f"{lists.uri('a')} (csv)"
        described = lists.source("a.csv", query="SELECT did\n  FROM source").describe()
        assert described == f"{lists.uri('a.csv')} (SELECT did FROM source)"

    def test_trouble_on_the_way_costs_no_row(self, lists: Lists, proxy: Proxy) -> None:
        dids = [f"did:plc:{number:024d}" for number in range(50_000)]
        lists.put({"a.parquet": parquet(did=dids), "a.csv": "did\n" + "\n".join(dids)})
        kinds = (Trouble.INTERNAL_ERROR, Trouble.DELAY, Trouble.RESET, Trouble.LOST_REPLY)
        proxy.choose = mixed(0.3, 3, kinds)
        for key in ("a.parquet", "a.csv"):
            assert lists.texts(key, url=proxy.url) == dids
        assert lists.texts("a.parquet", url=proxy.url, query="SELECT did FROM source ORDER BY did") == dids
        assert proxy.troubled


class TestQuery:
    """DuckDB SQL over the objects."""

    def test_its_columns_are_the_sources(self, lists: Lists) -> None:
        objects = {"d/1.parquet": parquet(user=["a", "b"], cohort=["x", "y"])}
        lists.put(objects | {"d/2.parquet": parquet(user=["c"], cohort=["z"])})
        query = "SELECT upper(user) AS did, cohort FROM source WHERE user <> 'b' ORDER BY user"
        assert list(lists.source("d/", query=query, keep_columns=["cohort"]).rows()) == [
            SourceRow("A", {"cohort": "x"}),
            SourceRow("C", {"cohort": "z"}),
        ]
        assert lists.texts("d/", query="SELECT user, 1 AS one FROM source ORDER BY 1", column="user") == ["a", "b", "c"]

    def test_csv_is_text(self, lists: Lists) -> None:
        lists.put({"a.csv": 'did,n\ndid:plc:a,007\n"q""x",8\n', "b.tsv": "did\tn\ndid:plc:b\t9\n"})
        query = "SELECT did FROM source WHERE n IN ('007', '8', '9') ORDER BY n"
        assert lists.texts("*.?sv", query=query) == ["did:plc:a", 'q"x', "did:plc:b"]

    @pytest.mark.parametrize(
        ("query", "said"),
        [
            ("SELECT 1; SELECT 2", "has to be one single SELECT on the table `source`; correct it"),
            ("COPY source TO 'x.csv'", "has to be one single SELECT on the table `source`; correct it"),
            ("SET memory_limit = '9GB'", "has to be one single SELECT on the table `source`; correct it"),
            ("-- nothing", "has to be one single SELECT on the table `source`; correct it"),
            ("SELEC did", 'fails: Parser Error: syntax error at or near "SELEC"; correct the query'),
            ("SELECT nope FROM source", 'fails: Binder Error: Referenced column "nope" not found in FROM clause!'),
            ("FROM nowhere", "fails: Catalog Error: Table with name nowhere does not exist!"),
            ("FROM database", "fails: Catalog Error: Table with name database does not exist!"),
            ("FROM read_csv('/etc/passwd')", "may read nothing but the table `source` (DuckDB says: "),
            ("FROM 's3://other/a.parquet'", "may read nothing but the table `source` (DuckDB says: "),
            ("SELECT x, y FROM source", "has no column 'did'; columns found: x, y; name one of them in the query"),
            ("SELECT [x] FROM source", "holds list<"),
            ("SELECT error('no') FROM source", "fails: Invalid Input Error: no; correct the query, or the object"),
        ],
    )
    def test_what_is_wrong_with_it_is_said(self, lists: Lists, query: str, said: str) -> None:
        lists.put({"a.parquet": parquet(x=["1"], y=["2"])})
        text = lists.error("a.parquet", query=query)
        assert text.startswith(f"source.query for {lists.uri('a.parquet')}")
        assert said in text


class TestVersion:
    """What the sensor compares."""

    def test_it_is_about_the_objects_that_match(self, lists: Lists) -> None:
        lists.put({"d/1.csv": "did\na\n", "d/2.csv": "did\nb\n"})
        source = lists.source("d/*.csv")
        first = source.version()
        assert first.startswith("s3:")
        lists.put({"d/1.csv": "did\na\n", "d/x.txt": "x"})
        assert source.version() == first
        lists.put({"d/1.csv": "did\nc\n"})
        second = source.version()
        assert second != first
        lists.put({"d/3.csv": "did\nd\n"})
        assert source.version() not in (first, second)

    def test_of_one_object_too(self, lists: Lists) -> None:
        lists.put({"a.csv": "did\na\n"})
        assert lists.source("a.csv").version() == lists.source("*.csv").version()


def test_validate_opens_it(lists: Lists, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lists.put({"a.csv": "did\ndid:plc:a\ndid:plc:b\n"})
    source = {"type": "s3", "path": lists.uri("a.csv"), "region": "us-east-1", "endpoint_url": lists.url}
    path = write_config(folder, "https://plc.directory", [], source=source)
    assert run_command(["validate", "--source", str(path)]) == 0
    assert f"source {lists.uri('a.csv')}: did:plc:a, did:plc:b" in capsys.readouterr().out
    write_config(folder, "https://plc.directory", [], source=source | {"column": "user"})
    assert run_command(["validate", "--source", str(path)]) == 2
    assert (
        f"{lists.uri('a.csv')} has no column 'user'; columns found: did; set source.column" in capsys.readouterr().err
    )


async def test_a_whole_run_from_a_list_on_s3(lists: Lists, tmp_path: Path) -> None:
    async with tiny(repos=5) as network:
        body = parquet(did=network.dids, cohort=["x"] * len(network.dids))
        await asyncio.to_thread(lists.put, {"d/1.parquet": body})
        source = {"type": "s3", "path": lists.uri("d/"), "region": "us-east-1", "endpoint_url": lists.url}
        path = write_config(tmp_path, network.plc_url, [], source=source | {"keep_columns": ["cohort"]})
        with opened(path) as state:
            came = await run_all(state)
    assert set(came.outcomes) == set(network.dids)
    assert came.rows
