"""A folder of configs: sorted, a broken one alone, clashes named on both sides."""

from __future__ import annotations

from pathlib import Path

import pytest

from backfill_dagster.config import load_config_folder
from backfill_dagster.errors import ConfigError
from backfill_dagster_tests.config.samples import write


def config(folder: Path, file: str, name: str, more: str = "") -> Path:
    text = f"backfill: {{name: {name}, source: {{type: inline, dids: [a]}}, record_types: [a.b.c]{more}}}"
    return write(folder, text, file)


def test_yaml_and_yml_sorted_and_a_broken_one_hinders_nobody(tmp_path: Path) -> None:
    config(tmp_path, "c.yaml", "three")
    config(tmp_path, "a.yml", "one")
    write(tmp_path, "backfill: [", "b.yaml")
    write(tmp_path, "not a config", "notes.txt")
    write(tmp_path, "lock", ".hidden.yaml")
    (tmp_path / "d.yaml").mkdir()
    loaded = load_config_folder(tmp_path, {})
    assert [item.path.name for item in loaded] == ["a.yml", "b.yaml", "c.yaml", "d.yaml"]
    assert [item.config.name if item.config else None for item in loaded] == ["one", None, "three", None]
    assert [item.error is None for item in loaded] == [True, False, True, False]
    assert "b.yaml: line 1: not valid YAML" in str(loaded[1].error)


def test_one_name_in_two_files_is_an_error_on_both(tmp_path: Path) -> None:
    a = config(tmp_path, "a.yaml", "same", ", state: {path: data/a}")
    b = config(tmp_path, "b.yaml", "same", ", state: {path: data/b}")
    config(tmp_path, "c.yaml", "other")
    first, second, third = load_config_folder(tmp_path, {})
    assert (first.config, second.config) == (None, None)
    assert str(first.error) == f"{a}: backfill.name is the same as in {b}; each backfill needs its own"
    assert str(second.error) == f"{b}: backfill.name is the same as in {a}; each backfill needs its own"
    assert third.config is not None
    assert third.error is None


def test_one_state_in_two_files_is_an_error_on_both_however_it_is_written(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "data")
    a = config(tmp_path, "a.yaml", "one", ", state: {path: data/x}")
    b = config(tmp_path, "b.yaml", "two", ", state: {path: link/../link/x/}")
    first, second = load_config_folder(tmp_path, {})
    assert str(first.error) == f"{a}: backfill.state.path is the same as in {b}; each backfill needs its own"
    assert str(second.error) == f"{b}: backfill.state.path is the same as in {a}; each backfill needs its own"


def test_one_state_on_s3_in_two_files(tmp_path: Path) -> None:
    config(tmp_path, "a.yaml", "one", ", state: {path: s3://my-bucket/x/}, storage: {type: dynamodb}")
    config(tmp_path, "b.yaml", "two", ", state: {path: s3://my-bucket/x}, storage: {type: dynamodb}")
    assert [item.config for item in load_config_folder(tmp_path, {})] == [None, None]


def test_one_bucket_and_prefix_at_two_endpoints_are_two_states(tmp_path: Path) -> None:
    on_s3 = ", storage: {type: dynamodb}, state: {path: s3://my-bucket/x"
    config(tmp_path, "a.yaml", "one", on_s3 + ", endpoint_url: 'http://127.0.0.1:1'}")
    config(tmp_path, "b.yaml", "two", on_s3 + ", endpoint_url: 'http://127.0.0.1:2'}")
    assert [item.error for item in load_config_folder(tmp_path, {})] == [None, None]


@pytest.mark.parametrize("root", ["data/x", "s3://my-bucket", "s3://my-bucket/x/"])
def test_a_state_within_another_ones(tmp_path: Path, root: str) -> None:
    """The inner one is told; the outer one is as good as it was."""
    a = config(tmp_path, "a.yaml", "one", f", storage: {{type: dynamodb}}, state: {{path: '{root}'}}")
    inner = f", storage: {{type: dynamodb}}, state: {{path: '{root.rstrip('/')}/y/z'}}"
    b = config(tmp_path, "b.yaml", "two", inner)
    beside = f", storage: {{type: dynamodb}}, state: {{path: '{root.rstrip('/')}2/y'}}"
    config(tmp_path, "c.yaml", "three", beside)
    first, second, third = load_config_folder(tmp_path, {})
    assert (first.error, third.error) == (None, None)
    assert str(second.error) == (
        f"{b}: backfill.state.path lies within that of {a}, which would take its files for strays; move it"
    )


def test_no_folder_and_an_empty_one(tmp_path: Path) -> None:
    assert load_config_folder(tmp_path, {}) == []
    with pytest.raises(ConfigError, match="No such file or directory; set BACKFILL_CONFIG_DIR"):
        load_config_folder(tmp_path / "none", {})
