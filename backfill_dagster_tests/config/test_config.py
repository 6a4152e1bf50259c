"""Where a config's files are, its hash, trials, what isn't available, and rules over several blocks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from backfill_dagster.config import BackfillConfig, SqliteStorage, unavailable
from backfill_dagster.config.record_types import asset_name
from backfill_dagster.errors import ConfigError, UsageError
from backfill_dagster_tests.config.samples import SMALLEST, build, problems_of


def at(path: Path, environ: dict[str, str] | None = None, **blocks: Any) -> BackfillConfig:
    return BackfillConfig.from_mapping(SMALLEST | blocks, path=path, environ=environ or {})


def test_root_is_the_yamls_folder_without_anything_else(tmp_path: Path) -> None:
    config = at(tmp_path / "configs" / "a.yaml")
    assert config.path == tmp_path / "configs/a.yaml"
    assert config.root == tmp_path / "configs"
    assert config.state_path == tmp_path / "configs/data/study"
    assert config.ledger_path == tmp_path / "configs/data/study/ledger.sqlite"


def test_root_is_the_nearest_folder_with_a_workspace(tmp_path: Path) -> None:
    (tmp_path / "workspace.yaml").touch()
    (tmp_path / "in" / "configs").mkdir(parents=True)
    assert at(tmp_path / "in/configs/a.yaml").root == tmp_path
    (tmp_path / "in" / "workspace.yaml").touch()
    assert at(tmp_path / "in/configs/a.yaml").root == tmp_path / "in"
    assert at(tmp_path / "in/a.yaml").root == tmp_path / "in"


def test_root_of_the_environment_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "workspace.yaml").touch()
    monkeypatch.chdir(tmp_path)
    assert at(tmp_path / "a.yaml", {"BACKFILL_ROOT": "elsewhere/x"}).root == tmp_path / "elsewhere/x"
    assert at(tmp_path / "a.yaml", {"BACKFILL_ROOT": ""}).root == tmp_path
    monkeypatch.setenv("BACKFILL_ROOT", "/of/the/process")
    assert BackfillConfig.from_mapping(SMALLEST, path=tmp_path / "a.yaml").root == Path("/of/the/process")


def test_relative_yaml_path_gives_an_absolute_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert at(Path("configs/a.yaml")).root == tmp_path / "configs"


def test_resolve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    config = at(Path("/somewhere/a.yaml"))
    assert config.resolve("data/x") == Path("/somewhere/data/x")
    assert config.resolve(Path("../x")) == Path("/x")
    assert config.resolve("/etc/x") == Path("/etc/x")
    assert config.resolve("~/x") == Path("/home/someone/x")


@pytest.mark.parametrize(
    ("path", "state"),
    [("data/x/", Path("/somewhere/data/x")), ("/", Path("/")), ("s3://my-bucket/p/", "s3://my-bucket/p")],
)
def test_state_path(path: str, state: object) -> None:
    config = build(state={"path": path}, storage={"path": "ledger.sqlite"})
    assert config.state_path == state
    assert config.ledger_path == Path("/somewhere/ledger.sqlite")


@pytest.mark.parametrize(
    "path", ["gs://bucket/x", "s3://", "s3:/bucket", "s3://bucket//x", "s3://bucket/../x", "s3://bucket/a/.", "", 5]
)
def test_state_paths_that_are_refused(path: object) -> None:
    (problem,) = problems_of(state={"path": path})
    assert problem.endswith(
        "; accepted: a folder, or an S3 address s3://bucket/prefix without empty, '.' and '..' steps, or null"
    )


@pytest.mark.parametrize("bucket", ["ex", "My-bucket", "my_bucket", "-bucket", "bucket.", "b" * 64])
@pytest.mark.parametrize("rest", ["", "/", "/x"])
def test_a_buckets_name_that_breaks_the_rules_is_said_to_be_the_trouble(bucket: str, rest: str) -> None:
    (problem,) = problems_of(state={"path": f"s3://{bucket}{rest}"})
    assert problem == (
        "backfill.state.path: the bucket's name has to be 3 to 63 of a-z, 0-9, '-' and '.', with a letter or digit at "
        "both ends"
    )


def test_sqlite_ledger_beside_a_state_on_s3_needs_a_path() -> None:
    expected = ["backfill.state: the state is on S3, a SQLite ledger isn't: set storage.path to a local file"]
    assert problems_of(state={"path": "s3://my-bucket/p"}) == expected
    assert problems_of(state={"path": "s3://my-bucket/p"}, storage={"type": "dynamodb"}) == []


def test_storage_is_sqlite_by_default() -> None:
    assert build().storage == build(storage=None).storage == build(storage={}).storage == SqliteStorage()
    assert build(storage={"path": "l.db"}).storage == SqliteStorage(path="l.db")
    assert problems_of(storage={"table_name": "abc"}) == [
        "backfill.storage.table_name: unknown key; accepted: type, path"
    ]
    assert problems_of(storage=5) == ["backfill.storage: not accepted, found 5; accepted: a block of keys (a mapping)"]


def test_dynamodb_has_no_ledger_file() -> None:
    with pytest.raises(UsageError, match="dynamodb has no local ledger file"):
        _ = build(storage={"type": "dynamodb"}).ledger_path


def test_hash_is_of_what_the_config_says() -> None:
    config = build()
    assert len(config.config_hash) == 16
    assert int(config.config_hash, 16) >= 0
    assert at(Path("/other/b.yaml")).config_hash == config.config_hash
    assert build(processing={"requests_per_second": 10}, filters=[], state={"path": "data/study"}).config_hash == (
        config.config_hash
    )
    assert build(processing={"batch_size": 99}).config_hash != config.config_hash
    assert build(name="other").config_hash != config.config_hash


def test_hash_sees_the_moment_not_its_spelling() -> None:
    spellings = ["2025-01-02", "2025-01-02T00:00:00Z", "2025-01-02-00:00:00", "2025-01-02T01:00:00+01:00"]
    assert len({build(time_range={"start_date": text}).config_hash for text in spellings}) == 1
    assert (
        build(time_range={"start_date": "2025-01-03"}).config_hash
        != build(time_range={"start_date": "2025-01-02"}).config_hash
    )


def test_trial_has_a_state_and_ledger_of_its_own() -> None:
    config = build(state={"path": "data/x"}, storage={"path": "ledger.sqlite"})
    trial = config.with_trial(5)
    assert trial.trial_limit == 5
    assert trial.state_path == Path("/somewhere/data/x__trial")
    assert trial.ledger_path == Path("/somewhere/data/x__trial/ledger.sqlite")
    assert (trial.name, trial.path, trial.root) == (config.name, config.path, config.root)
    assert (config.trial_limit, config.state_path) == (None, Path("/somewhere/data/x"))
    assert trial.with_trial(7).state_path == trial.state_path
    assert (trial.with_trial(7).trial_limit, trial.trial_limit) == (7, 5)
    assert build().with_trial(1).state_path == Path("/somewhere/data/study__trial")
    with pytest.raises(UsageError, match="at least 1"):
        config.with_trial(0)


def test_trial_of_a_cloud_config_keeps_its_ledger_here() -> None:
    trial = build(state={"path": "s3://my-bucket/p/"}, storage={"type": "dynamodb"}).with_trial(5)
    assert trial.state_path == "s3://my-bucket/p__trial"
    assert trial.ledger_path == Path("/somewhere/data/study__trial/ledger.sqlite")


def test_a_trial_beside_a_state_that_has_a_bucket_of_its_own() -> None:
    config = build(state={"path": "s3://my-bucket"}, storage={"type": "sqlite", "path": "l.sqlite"})
    assert config.with_trial(5).state_path == "s3://my-bucket/__trial"


def test_what_is_not_available_says_so() -> None:
    assert unavailable(build()) == []
    config = build(
        storage={"type": "dynamodb"},
        state={"path": "s3://my-bucket/state"},
        processing={"decode_processes": 2},
    )
    assert [line.partition(" is not available")[0] for line in unavailable(config)] == [
        "processing.decode_processes over 0",
    ]


def test_from_mapping_takes_the_block_or_the_document_and_raises_all_problems() -> None:
    path = Path("/somewhere/study.yaml")
    document = BackfillConfig.from_mapping({"backfill": SMALLEST}, path=path, environ={})
    assert document == BackfillConfig.from_mapping(SMALLEST, path=path, environ={})
    with pytest.raises(ConfigError) as caught:
        BackfillConfig.from_mapping(SMALLEST | {"nam": 1, "auto_launch": 7}, path=path, environ={})
    assert str(caught.value).splitlines() == [
        "/somewhere/study.yaml: 2 problems",
        "  backfill.auto_launch: not accepted, found 7; accepted: true or false",
        "  backfill.nam: unknown key; did you mean name?",
    ]


@pytest.mark.parametrize(
    ("entry", "name"),
    [
        ("app.bsky.feed.post", "app_bsky_feed_post"),
        ("app.bsky.graph.*", "app_bsky_graph_all"),
        ("com.exa-mple.x", "com_exa__mple_x"),
    ],
)
def test_asset_names(entry: str, name: str) -> None:
    assert asset_name(entry) == name
