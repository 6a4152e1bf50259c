"""From YAML files to definitions: names, metadata, and that a broken file hurts nobody else."""

from __future__ import annotations

import logging
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.execution.api import create_execution_plan

from backfill_dagster.orchestration.build import build_definitions
from backfill_dagster.orchestration.config_folder import config_folder
from backfill_dagster_tests.orchestration.samples import DID, write_yaml

SHARD_ASSETS = ["app_bsky_feed_post", "app_bsky_graph_all", "com_my__site_thing_record", "repo_outcomes"]


def specs(defs: dg.Definitions) -> dict[str, dg.AssetSpec]:
    return {spec.key.to_user_string(): spec for spec in defs.resolve_all_asset_specs()}


def job_names(defs: dg.Definitions) -> list[str]:
    return sorted(job.name for job in defs.get_repository_def().get_all_jobs() if not job.name.startswith("__"))


def columns(spec: dg.AssetSpec) -> dict[str, dg.TableColumn]:
    schema = spec.metadata["dagster/column_schema"]
    assert isinstance(schema, dg.TableSchema | dg.TableSchemaMetadataValue)
    table = schema.schema if isinstance(schema, dg.TableSchemaMetadataValue) else schema
    return {column.name: column for column in table.columns}


def test_every_file_becomes_jobs_and_assets(tmp_path: Path) -> None:
    write_yaml(tmp_path)
    write_yaml(tmp_path, "other.yml", name="other", record_types=["app.bsky.feed.like"])
    defs = build_definitions(tmp_path)
    dg.Definitions.validate_loadable(defs)
    assert job_names(defs) == [
        "backfill_other",
        "backfill_study",
        "plan_other",
        "plan_study",
        "report_other",
        "report_study",
    ]
    found = specs(defs)
    own = ["coverage_report", "did_list", "pds_network", "shard_plan"]
    assert sorted(key for key in found if key.startswith("study/")) == sorted(f"study/{a}" for a in own + SHARD_ASSETS)
    assert {spec.group_name for key, spec in found.items() if key.startswith("other/")} == {"other"}


def test_every_asset_says_what_a_row_is_and_whose_it_is(tmp_path: Path) -> None:
    write_yaml(tmp_path)
    for key, spec in specs(build_definitions(tmp_path)).items():
        assert (spec.description or "").startswith("One row per "), key
        assert all(column.description for column in columns(spec).values()), key
        assert not any("<" in (column.description or "") for column in columns(spec).values()), "Markdown swallows it"
        assert "```sql" in spec.metadata["duckdb"].value, key
        assert spec.owners == ["team:backfill"], key
        assert spec.kinds, key


def test_columns_are_those_of_the_files(tmp_path: Path) -> None:
    write_yaml(tmp_path)
    found = specs(build_definitions(tmp_path))
    posts = columns(found["study/app_bsky_feed_post"])
    assert posts["uri"].description == "AT URI of the record: at://author/collection/rkey"
    assert posts["uri"].constraints.nullable is False
    assert posts["text"].constraints.nullable is True
    assert "record" in posts
    assert "text" not in columns(found["study/app_bsky_graph_all"])
    assert columns(found["study/repo_outcomes"])["outcome"].type == "string"


def test_without_raw_records_there_is_no_such_column(tmp_path: Path) -> None:
    write_yaml(tmp_path, records={"raw": "none"})
    assert "record" not in columns(specs(build_definitions(tmp_path))["study/app_bsky_feed_post"])


def test_shard_assets_are_partitioned_and_the_others_are_not(tmp_path: Path) -> None:
    write_yaml(tmp_path)
    graph = build_definitions(tmp_path).resolve_asset_graph()
    for asset in SHARD_ASSETS:
        partitions = graph.get(dg.AssetKey(["study", asset])).partitions_def
        assert isinstance(partitions, dg.DynamicPartitionsDefinition)
        assert partitions.name == "did_shards__study"
    for asset in ("did_list", "shard_plan", "coverage_report"):
        assert graph.get(dg.AssetKey(["study", asset])).partitions_def is None


def test_the_plan_comes_from_the_list_and_the_report_from_the_shards(tmp_path: Path) -> None:
    write_yaml(tmp_path)
    graph = build_definitions(tmp_path).resolve_asset_graph()
    parents = {
        asset: sorted(key.path[-1] for key in graph.get(dg.AssetKey(["study", asset])).parent_keys)
        for asset in ("shard_plan", "repo_outcomes", "coverage_report")
    }
    assert parents == {
        "shard_plan": ["did_list"],
        "repo_outcomes": ["pds_network", "shard_plan"],
        "coverage_report": sorted(SHARD_ASSETS),
    }


def test_every_road_runs_in_one_process(tmp_path: Path) -> None:
    write_yaml(tmp_path)
    for job in build_definitions(tmp_path).get_repository_def().get_all_jobs():
        assert job.executor_def.name == "in_process", job.name


def test_the_job_tags_its_partitions(tmp_path: Path) -> None:
    write_yaml(tmp_path)
    job = build_definitions(tmp_path).resolve_job_def("backfill_study")
    assert job.partitioned_config is not None
    tags = job.partitioned_config.get_tags_for_partition_key("pds.example~0000", job_name="backfill_study")
    assert tags["backfill/pds_host"] == "pds.example"
    assert tags["backfill/name"] == "study"


def test_the_ops_have_plain_names(tmp_path: Path) -> None:
    write_yaml(tmp_path)
    plan = create_execution_plan(build_definitions(tmp_path).resolve_job_def("backfill_study"))
    assert [str(step.key) for step in plan.get_all_steps_in_topo_order()] == [
        "study__shard.load_shard",
        "study__shard.fetch_repos",
        "study__check_shard",
    ]


def test_the_list_shows_where_it_comes_from(tmp_path: Path) -> None:
    write_yaml(tmp_path / "a", source={"type": "sqlite", "path": "dids.sqlite", "query": "SELECT did FROM users"})
    metadata = specs(build_definitions(tmp_path / "a"))["study/did_list"].metadata
    assert metadata["path"] == str(tmp_path / "a" / "dids.sqlite")
    assert "SELECT did FROM users" in str(metadata["query"])
    write_yaml(tmp_path / "b", source={"type": "file", "path": "dids.csv"})
    found = specs(build_definitions(tmp_path / "b"))["study/did_list"]
    assert (found.metadata["format"], found.kinds) == ("csv", {"csv"})
    write_yaml(tmp_path / "c", source={"type": "inline", "dids": [DID]})
    assert specs(build_definitions(tmp_path / "c"))["study/did_list"].metadata["dagster/row_count"] == 1
    write_yaml(tmp_path / "d", source={"type": "s3", "path": "s3://bucket/dids.csv"})
    assert specs(build_definitions(tmp_path / "d"))["study/did_list"].metadata["path"] == "s3://bucket/dids.csv"


def test_loading_touches_no_file(tmp_path: Path) -> None:
    configs = tmp_path / "configs"
    write_yaml(configs)
    before = sorted(tmp_path.rglob("*"))
    build_definitions(configs).get_repository_def()
    assert sorted(tmp_path.rglob("*")) == before


def test_a_broken_file_is_shown_and_takes_nothing_down(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_yaml(tmp_path)
    (tmp_path / "my study-2.yaml").write_text("backfill: {nmae: x}\n")
    with caplog.at_level(logging.ERROR):
        defs = build_definitions(tmp_path)
    dg.Definitions.validate_loadable(defs)
    assert job_names(defs) == ["backfill_study", "plan_study", "report_study"]
    spec = specs(defs)["my_study_2__config_error"]
    assert spec.group_name == "broken_configs"
    assert "did you mean name?" in (spec.description or "")
    assert not defs.resolve_asset_graph().get(spec.key).is_executable
    assert any("my study-2.yaml" in record.message for record in caplog.records)


def test_broken_files_of_one_stem_are_both_shown(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("[]\n")
    (tmp_path / "a.yml").write_text("[]\n")
    assert sorted(specs(build_definitions(tmp_path))) == ["a__config_error", "a__config_error_2"]


def test_two_files_of_one_name_are_both_broken(tmp_path: Path) -> None:
    write_yaml(tmp_path, "first.yaml")
    write_yaml(tmp_path, "second.yaml")
    write_yaml(tmp_path, "third.yaml", name="third")
    defs = build_definitions(tmp_path)
    found = specs(defs)
    assert "first__config_error" in found
    assert "second__config_error" in found
    assert job_names(defs) == ["backfill_third", "plan_third", "report_third"]


def test_names_that_would_clash_in_dagster_break_the_later_one_only(tmp_path: Path) -> None:
    write_yaml(tmp_path, "a.yaml", name="plan_x")
    write_yaml(tmp_path, "b.yaml", name="x__shard_plan")
    defs = build_definitions(tmp_path)
    dg.Definitions.validate_loadable(defs)
    assert job_names(defs) == ["backfill_plan_x", "plan_plan_x", "report_plan_x"]
    assert "choose another backfill.name" in (specs(defs)["b__config_error"].description or "")


def test_an_empty_folder_loads(tmp_path: Path) -> None:
    defs = build_definitions(tmp_path)
    dg.Definitions.validate_loadable(defs)
    assert specs(defs) == {}


def test_a_missing_folder_loads_and_shows(tmp_path: Path) -> None:
    """A volume that isn't mounted must not look like a location without backfills."""
    defs = build_definitions(tmp_path / "nowhere")
    dg.Definitions.validate_loadable(defs)
    assert "nowhere can't be read" in (specs(defs)["nowhere__config_error"].description or "")


def test_a_link_to_itself_breaks_only_itself(tmp_path: Path) -> None:
    write_yaml(tmp_path)
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    found = specs(build_definitions(tmp_path))
    assert "loop__config_error" in found
    assert "study/did_list" in found


def test_the_config_folder_comes_from_the_environment(tmp_path: Path) -> None:
    assert config_folder({}) == Path("configs")
    assert config_folder({"BACKFILL_CONFIG_DIR": str(tmp_path)}) == tmp_path
    assert config_folder({"BACKFILL_ROOT": str(tmp_path), "BACKFILL_CONFIG_DIR": "mine"}) == tmp_path / "mine"


def test_build_definitions_reads_the_environment(tmp_path: Path) -> None:
    write_yaml(tmp_path)
    assert "study/did_list" in specs(build_definitions(environ={"BACKFILL_CONFIG_DIR": str(tmp_path)}))
