"""`backfill query`: its forms of output, its exit codes, and what a stranger's text may not do to a terminal."""

from __future__ import annotations

import csv
import io
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from backfill_dagster.cli import query_forms
from backfill_dagster_tests.cli.conftest import Command
from backfill_dagster_tests.cli.network import BACKFILL, Network, wait_until

VALUES: dict[str, tuple[str, Any]] = {
    "timestamptz": ("timestamptz '2024-02-03 04:05:06.789+02'", "2024-02-03T02:05:06.789000Z"),
    "timestamp": ("timestamp '2024-02-03 04:05:06'", "2024-02-03T04:05:06"),
    "date": ("date '2024-02-03'", "2024-02-03"),
    "time": ("time '04:05:06'", "04:05:06"),
    "decimal": ("1234567890123456789.125::DECIMAL(30, 3)", "1234567890123456789.125"),
    "hugeint": ("123456789012345678901234567890::HUGEINT", 123456789012345678901234567890),
    "double": ("0.1::DOUBLE", 0.1),
    "infinity": ("'-infinity'::DOUBLE", "-inf"),
    "blob": (r"'\x00\xFFa'::BLOB", "AP9h"),
    "list": ("[1, NULL, 3]", [1, None, 3]),
    "struct": ("{'a': [true], 'b': date '2024-02-03'}", {"a": [True], "b": "2024-02-03"}),
    "map": ("MAP {1: 'x', 2: NULL}", {"1": "x", "2": None}),
    "uuid": ("'6ba7b810-9dad-11d1-80b4-00c04fd430c8'::UUID", "6ba7b810-9dad-11d1-80b4-00c04fd430c8"),
    "interval": ("INTERVAL 1 HOUR", "1:00:00"),
    "text": ("'é\"'", 'é"'),
    "null": ("NULL", None),
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, network: Network) -> Path:
    """The config of a finished backfill, which these tests only look at."""
    folder = tmp_path_factory.mktemp("finished")
    config = network.write_config(folder)
    environ = os.environ | {"BACKFILL_LOCK_DIR": str(folder / "locks")}
    subprocess.run([*BACKFILL, "run", str(config)], env=environ, check=True, capture_output=True)
    return config


def test_all_live_rows_are_there(finished: Path, network: Network, backfill: Command) -> None:
    counts = " UNION ALL ".join(f"SELECT '{name}', count(*) FROM \"{name}\"" for name in network.records())
    ran = backfill("query", finished, counts, "--json")
    assert (ran.code, ran.err) == (0, "")
    assert dict(ran.json["rows"]) == network.records()
    outcomes = backfill("query", finished, "SELECT outcome, dids FROM outcomes", "--json")
    assert dict(outcomes.json["rows"]) == network.outcomes()


def test_a_table_says_how_many_rows_it_has(finished: Path, backfill: Command) -> None:
    ran = backfill("query", finished, "SELECT outcome, NULL AS nothing FROM outcomes WHERE outcome = 'complete'")
    assert (ran.code, ran.err) == (0, "")
    lines = [line.strip() for line in ran.out.splitlines()]
    assert lines[0].split() == ["outcome", "┃", "nothing"]
    assert lines[2:] == ["complete │ null", "", "1 row"]
    none = backfill("query", finished, "SELECT 1 AS one WHERE false")
    assert (none.code, none.out.splitlines()[-1]) == (0, "0 rows")


def test_a_long_table_is_cut_and_says_so(finished: Path, backfill: Command) -> None:
    ran = backfill("query", finished, "SELECT range AS number FROM range(1_000_000_000)")
    lines = ran.out.splitlines()
    assert (ran.code, lines[-3].strip()) == (0, "999")
    assert lines[-1] == "the first 1,000 rows are shown and there are more: --csv or --json prints all"
    assert backfill("query", finished, "FROM range(1000)").out.splitlines()[-1] == "1,000 rows"


def test_a_wide_row_is_one_line_where_there_is_no_terminal(finished: Path, backfill: Command) -> None:
    ran = backfill("query", finished, "SELECT repeat('x', 5000) AS x")
    assert ran.out.splitlines()[2].strip() == "x" * 5000


def test_what_a_terminal_would_obey_is_shown(finished: Path, backfill: Command) -> None:
    ran = backfill("query", finished, "SELECT chr(27) || ']0;x' || chr(7) || chr(10) || chr(8238) || '[b]é' AS t")
    assert ran.out.splitlines()[2].strip() == r"\x1b]0;x\x07\n\u202e[b]é"


@pytest.mark.parametrize("kind", VALUES)
def test_values_in_json(finished: Path, backfill: Command, kind: str) -> None:
    sql, expected = VALUES[kind]
    ran = backfill("query", finished, f"SELECT {sql} AS value, 1", "--json")
    assert (ran.code, ran.err) == (0, "")
    assert ran.json == {"columns": ["value", "1"], "rows": [[expected, 1]]}


def test_json_without_rows(finished: Path, backfill: Command) -> None:
    assert backfill("query", finished, "SELECT 1 AS a WHERE false", "--json").json == {"columns": ["a"], "rows": []}


def test_csv_is_what_the_rfc_says(finished: Path, backfill: Command) -> None:
    ran = backfill(
        "query", finished, "SELECT 'a,\"b' || chr(10) || 'é' AS \"x,y\", NULL AS n, [1, 2] AS l, true", "--csv"
    )
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == '"x,y",n,l,true\r\n"a,""b\né",,"[1, 2]",true\r\n'


def test_csv_has_all_rows_also_when_they_need_a_file(
    finished: Path, backfill: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(query_forms, "_IN_MEMORY_BYTES", 100)
    ran = backfill("query", finished, "SELECT range AS n, 'é' AS e FROM range(3000)", "--csv")
    rows = list(csv.reader(io.StringIO(ran.out)))
    assert rows == [["n", "e"], *([str(n), "é"] for n in range(3000))]


def test_sql_from_stdin(finished: Path, backfill: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("-- a comment first\nSELECT 1 AS one;\n"))
    assert backfill("query", finished, "-", "--json").json == {"columns": ["one"], "rows": [[1]]}


def test_bad_usage_is_one_line_and_exit_2(finished: Path, backfill: Command) -> None:
    bad = {
        "SELEC 1": 'backfill: Parser Error: syntax error at or near "SELEC"\n',
        "FROM nix": "backfill: Catalog Error: Table with name nix does not exist; there are repos, outcomes, plan, ",
        "": "backfill: there is no SQL statement to run\n",
    }
    for sql, said in bad.items():
        ran = backfill("query", finished, sql, "--json")
        assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
        assert ran.err.startswith(said)
    both = backfill("query", finished, "SELECT 1", "--json", "--csv")
    assert (both.code, both.err) == (2, "backfill: --json and --csv exclude each other: choose one\n")
    assert backfill("query", finished).code == 2


def test_before_any_plan(config: Path, folder: Path, backfill: Command) -> None:
    before = {*folder.rglob("*")}
    ran = backfill("query", config, "SELECT 1")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == f"backfill: nothing is planned yet in {folder}/data/study: run `backfill plan {config}` first\n"
    assert {*folder.rglob("*")} == before


def test_it_changes_nothing(finished: Path, backfill: Command) -> None:
    def content() -> dict[str, bytes]:
        kept = (path for path in finished.parent.rglob("*") if path.is_file() and "sqlite-" not in path.name)
        return {str(path): path.read_bytes() for path in kept}

    before = content()
    assert backfill("query", finished, "SELECT count(*) FROM post, repos").code == 0
    assert content() == before


def test_help_names_the_views(backfill: Command) -> None:
    said = backfill("query", "--help").out
    for name in ("post", "reply", '"like"', "quarantine", "repos", "outcomes", "plan", "app_bsky_actor_profile"):
        assert name in said
    assert max(len(line) for line in said.splitlines()) < 80


@contextmanager
def started(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    """The command as a process of its own."""
    process = subprocess.Popen(
        [*BACKFILL, "query", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # ignored in a background job
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_reader_that_has_seen_enough(finished: Path) -> None:
    with started(finished, "FROM range(300_000)", "--csv") as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == "range\n"
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(60) == 0


@pytest.mark.parametrize("form", [[], ["--csv"]])
def test_ctrl_c_ends_a_long_query(finished: Path, folder: Path, form: list[str]) -> None:
    mark = folder / "at_work"
    endless = (
        "FROM range(1_000_000_000_000)"
        if form
        else "SELECT count(*) FROM range(1_000_000_000_000) AS t(n) WHERE hash(n) = 7"
    )
    with started(finished, f"COPY (SELECT 1) TO '{mark}'; {endless}", *form) as process:
        wait_until(mark.exists)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err.strip().startswith("backfill: stopped; ")
