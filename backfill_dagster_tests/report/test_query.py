"""`run_query` on a state that rests: which views there are, what is in them, what is said of a query that can't run."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from backfill_dagster.errors import BackfillError, StateError, UsageError
from backfill_dagster.model import UNROUTABLE_SHARD, RepoOutcome
from backfill_dagster.plan import PlanStore
from backfill_dagster.records.schema import schema_for
from backfill_dagster.report import build_coverage
from backfill_dagster.report.query import run_query
from backfill_dagster.state import BackfillState
from backfill_dagster.worker.planning import plan_backfill
from backfill_dagster_tests.net.virtual_time import InstantTime
from backfill_dagster_tests.report.asking import TYPES, ask, ask_one, live_rows
from backfill_dagster_tests.road import opened, run_all
from backfill_dagster_tests.worker.tiny import fold_of, only_shard, rows_in, state_of, tiny

BROKEN = {"collection": "app.bsky.feed.like", "record": {"subject": 7}}
FOO_BARS = [{"collection": f"app.bsky.{name}", "record": {"n": name}} for name in ("fooBar", "foobar", "a-b.foobar")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished backfill; tests work on copies."""
    folder = tmp_path_factory.mktemp("finished")
    with sqlite3.connect(folder / "users.sqlite") as users:
        users.execute("CREATE TABLE users (did TEXT, age INTEGER)")
    source = {
        "type": "sqlite",
        "path": str(folder / "users.sqlite"),
        "query": "SELECT * FROM users",
        "keep_columns": ["age"],
    }
    async with tiny(repos=5, states={"deactivated": 1, "unknown": 1}) as network:
        await network.control.add({"did": network.active[0], "records": [BROKEN, *FOO_BARS]})
        with users:
            users.executemany("INSERT INTO users VALUES (?, ?)", [(did, 20) for did in network.dids])
        changes = {"source": source, "record_types": ["app.bsky.*", "com.example.none"]}
        with state_of(folder, network, processing={"batch_size": 2}, **changes) as state:
            await run_all(state)
            with users:
                users.execute("DELETE FROM users WHERE did = ?", [network.active[1]])
            await plan_backfill(state, run_id="delists one")
    users.close()
    return folder


@pytest.fixture
def state(finished: Path, tmp_path: Path) -> Iterator[BackfillState]:
    copy = tmp_path / finished.name
    shutil.copytree(finished, copy)
    with opened(copy / "study.yaml", InstantTime().effects()) as state:
        yield state


def parts_of(state: BackfillState, record_type: str) -> list[Path]:
    return sorted(Path(str(state.config.state_path)).glob(f"records/record_type={record_type}/*.parquet"))


def test_a_view_per_record_type_has_its_rows(state: BackfillState) -> None:
    expected = {row for row in rows_in(state) if row[2] in TYPES}
    assert {row[2] for row in expected} == set(TYPES)
    assert live_rows(state) == expected
    assert ask(state, "FROM app_bsky_actor_profile ORDER BY uri") == ask(
        state, 'FROM "app.bsky.actor.profile" ORDER BY uri'
    )
    ((subject, reason),) = ask(state, "SELECT record_json->>'subject', reason FROM quarantine")
    assert (subject, "subject" in reason) == ("7", True)
    columns = run_query(state, "FROM post", lambda columns, rows: list(columns))
    assert columns == schema_for("post").names


def test_a_path_is_no_pattern_and_ends_no_text(finished: Path, tmp_path: Path) -> None:
    trap = tmp_path / "it's [1]*?"
    shutil.copytree(finished, trap)
    with opened(trap / "study.yaml") as state, opened(finished / "study.yaml") as same:
        assert live_rows(state) == {row for row in rows_in(same) if row[2] in TYPES}


def test_types_that_differ_by_case_share_a_view(state: BackfillState) -> None:
    names = {"app.bsky.fooBar", "app.bsky.foobar"}
    assert {row[2] for row in rows_in(state)} > names
    for name in (*names, "APP_BSKY_FOOBAR"):
        assert {row[0] for row in ask(state, f'SELECT collection FROM "{name}"')} == names
    assert ask_one(state, "SELECT collection FROM app_bsky_a__b_foobar") == "app.bsky.a-b.foobar"


def test_types_without_rows_have_an_empty_view(state: BackfillState) -> None:
    assert ask(state, 'SELECT uri, record, fetched_at FROM "com.example.none"') == []
    assert ask_one(state, "SELECT count(*) FROM com_example_none") == 0


async def test_a_fresh_state_answers_nothing(folder: Path) -> None:
    async with tiny(repos=2) as network:
        with state_of(folder, network) as state:
            await plan_backfill(state, run_id="plan")
            assert ask_one(state, "SELECT count(*) FROM reply") == 0
            assert ask(state, "SELECT text, langs, record FROM post WHERE created_at_ts > '2020-01-01'") == []
            assert ask(state, 'SELECT uri FROM quarantine UNION ALL SELECT subject_uri FROM "like"') == []
            assert ask(state, "SELECT outcome, dids, terminal FROM outcomes") == [("pending", 2, False)]
            assert ask_one(state, "SELECT min(pds_endpoint) FROM repos") == network.hosts[0].url


def test_all_names_are_listed(state: BackfillState) -> None:
    names = {row[0] for row in ask(state, "SHOW TABLES")}
    assert names > {"post", "like", "quarantine", "repos", "outcomes", "plan", "app.bsky.actor.profile"}
    listed = ask(state, "SELECT table_name FROM information_schema.tables WHERE table_schema = 'main'")
    assert {row[0] for row in listed} == names


def test_a_did_has_one_row_in_repos_with_its_evidence(state: BackfillState) -> None:
    plan, fold = PlanStore(state.store).read(), fold_of(state)
    current = [one.did for one in plan.rows() if not one.delisted]
    assert sorted(row[0] for row in ask(state, "SELECT did FROM repos")) == sorted(current)
    columns = run_query(state, "FROM repos", lambda columns, rows: set(columns))
    assert columns == set(RepoOutcome.__dataclass_fields__) - {"tree"} | {"shard", "host", "records_total"}
    for did in set(current) & fold.dids.keys():
        result = fold.dids[did][0]
        (row,) = ask(
            state,
            "SELECT shard, host, outcome, records_total, records_by_type, records_seen_by_collection, rev, "
            "http_status, error_headers, "
            f"strftime(finished_at, '%Y-%m-%dT%H:%M:%S.%gZ') FROM repos WHERE did = '{did}'",
        )
        key = only_shard(state)
        assert row == (
            key,
            key.split("~")[0],
            result.outcome.value,
            result.records_total,
            result.records_by_type,
            result.records_seen_by_collection,
            result.rev,
            result.http_status,
            result.error_headers,
            result.finished_at,
        )
    assert ask(state, "SELECT shard, host, error_code FROM repos WHERE outcome = 'unresolvable'") == [
        (UNROUTABLE_SHARD, None, "DidNotFound")
    ]


def test_outcomes_are_those_of_the_report(state: BackfillState) -> None:
    rows = ask(state, "SELECT outcome, dids, reason, remedy FROM outcomes")
    said = build_coverage(state).to_json()
    assert {outcome: dids for outcome, dids, _, _ in rows} == said["outcomes"]
    assert {outcome: (reason, remedy) for outcome, _, reason, remedy in rows if outcome != "complete"} == {
        outcome: (missing["why"], missing["remedy"]) for outcome, missing in said["missing"].items()
    }


def test_the_plan_has_everybody_with_the_kept_columns(state: BackfillState) -> None:
    rows = ask(state, "SELECT did, shard, pds_endpoint, handle, delisted, columns FROM plan")
    planned = list(PlanStore(state.store).read().rows())
    assert Counter(row[4] for row in rows) == {False: 4, True: 1}
    assert {row[0]: (*row[1:5], json.loads(row[5])) for row in rows} == {
        one.did: (one.shard, one.pds_endpoint, one.handle, one.delisted, dict(one.columns)) for one in planned
    }
    assert ask_one(state, "SELECT sum((columns->>'age')::INT) FROM plan") == 100


def test_repos_and_views_agree(state: BackfillState) -> None:
    """Delisted DIDs keep their rows, and are no repos any more."""
    in_views = ask(state, "SELECT author, count(*) FROM post SEMI JOIN repos ON did = author GROUP BY ALL")
    in_repos = ask(state, "SELECT did, records_by_type['post'] FROM repos WHERE records_by_type['post'] > 0")
    assert sorted(in_views) == sorted(in_repos)
    assert ask_one(state, "SELECT count(DISTINCT author) FROM post") == len(in_repos) + 1


def test_a_scope_that_nobody_answered_to_is_pending_with_the_old_evidence(state: BackfillState) -> None:
    path = state.config.path
    path.write_text(path.read_text().replace("com.example.none", "com.example.other"))
    with opened(path) as other:
        assert set(ask(other, "SELECT outcome, records_total > 0 FROM repos WHERE rev IS NOT NULL")) == {
            ("pending", True)
        }


@pytest.mark.parametrize(
    ("raws", "type_of", "bytes_total"),
    [
        (("json", "none"), "VARCHAR", 0),
        (("none", "cbor"), "BLOB", 1),
        (("json", "cbor"), "BLOB", 2),
        (("cbor", "none", "json"), "BLOB", 2),
    ],
)
async def test_records_kept_in_several_ways(
    folder: Path, raws: tuple[str, ...], type_of: str, bytes_total: int
) -> None:
    """Text with a backslash: what DuckDB reads as bytes when it is left to turn text into them."""
    async with tiny(repos=len(raws), median=1) as network:
        for did, raw in zip(network.dids, raws, strict=True):
            text = {"collection": "app.bsky.feed.post", "record": {"text": "\\x41é", "langs": [raw]}}
            await network.control.add({"did": did, "records": [text]})
            with state_of(folder, network, network.dids[: raws.index(raw) + 1], records={"raw": raw}) as state:
                await run_all(state)
        with state_of(folder, network) as state:
            rows = ask(state, "SELECT langs[1], record, typeof(record) FROM post WHERE text = '\\x41é'")
    records = {raw: record for raw, record, _ in rows}
    assert {kind for _, _, kind in rows} == {type_of}
    assert records.get("none") is None
    assert sum(isinstance(record, bytes) for record in records.values()) == bytes_total
    if "json" in raws:
        text = records["json"] if type_of == "VARCHAR" else records["json"].decode()
        assert json.loads(text)["text"] == "\\x41é"


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("SELEC 1", 'Parser Error: syntax error at or near "SELEC"'),
        ("SELECT nix FROM post", 'Binder Error: Referenced column "nix" not found .*! Candidate bindings: '),
        ("SELECT 'a\n\x1bb'::INT FROM post", r"Conversion Error: Could not convert string 'a \?b' to INT32$"),
        ("FROM nix", "Table with name nix does not exist; there are repos, outcomes, plan, .*post, "),
        ("FROM read_csv('nix.csv')", 'IO Error: No files found that match the pattern "nix.csv"'),
        ("-- nothing", "there is no SQL statement to run"),
    ],
)
def test_sql_that_can_not_run(state: BackfillState, sql: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as raised:
        ask(state, sql)
    assert "\n" not in str(raised.value)


def test_of_several_statements_the_last_one_counts(state: BackfillState) -> None:
    assert ask(state, "CREATE TABLE mine AS SELECT 7 AS n; SELECT n FROM mine;") == [(7,)]


def test_a_damaged_part_is_named_and_bothers_its_own_view_only(state: BackfillState) -> None:
    part = parts_of(state, "like")[0]
    part.write_bytes(part.read_bytes()[:-9])
    with pytest.raises(StateError, match=rf"{part.name}.*; `backfill verify .*study.yaml` says what is damaged"):
        ask(state, 'SELECT count(*) FROM "like"')
    assert ask_one(state, "SELECT count(*) FROM post") > 0


def test_too_little_memory_is_said(state: BackfillState) -> None:
    too_much = "SELECT list(range) FROM range(9_000_000)"
    with pytest.raises(BackfillError, match=r"Out of Memory Error.*; ask for fewer columns or rows") as raised:
        ask(state, f"SET memory_limit = '20MB'; SET temp_directory = ''; {too_much}")
    assert raised.value.exit_code == 1
