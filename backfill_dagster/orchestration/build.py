"""From a folder of YAML files to Dagster's definitions; a broken file never takes the others down."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from backfill_dagster.config import BackfillConfig
from backfill_dagster.orchestration import names
from backfill_dagster.orchestration.assets import coverage_report, did_list, shard_assets, shard_plan
from backfill_dagster.orchestration.broken import broken_assets
from backfill_dagster.orchestration.config_folder import config_folder, load_configs
from backfill_dagster.orchestration.jobs import backfill_jobs
from backfill_dagster.orchestration.resources import BackfillResource, source_of

_logger = logging.getLogger(__name__)


def build_definitions(
    config_dir: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> dg.Definitions:
    """Jobs, assets and resources of every config in a folder; touches neither network nor state.

    Args:
        config_dir: default: `BACKFILL_CONFIG_DIR`.
        overrides: resource key -> resource; `<name>__source` and `<name>__backfill` are what runs use.
        environ: environment variables; default: the process's.
    """
    loaded = load_configs(config_folder(environ) if config_dir is None else config_dir, environ)
    errors = {one.path: str(one.error) for one in loaded if one.error is not None}
    parts: list[dg.Definitions] = []
    taken: dict[str, Path] = {}
    for config in (one.config for one in loaded if one.config is not None):
        clash = next((taken[name] for name in sorted(_node_names(config)) if name in taken), None)
        if clash is not None:
            errors[config.path] = f"its jobs would be named like those of {clash}; choose another backfill.name"
            continue
        taken |= dict.fromkeys(_node_names(config), config.path)
        parts.append(_definitions(config, overrides or {}))
    for error in errors.values():
        _logger.error("no jobs for a broken config: %s", error)
    common = dg.Definitions(
        assets=broken_assets(errors),
        executor=dg.in_process_executor,  # runs from the asset catalog take this one, not their job's
    )
    return dg.Definitions.merge(common, *parts)


def _definitions(config: BackfillConfig, overrides: Mapping[str, Any]) -> dg.Definitions:
    name = config.name
    resources = {
        names.state_resource(name): BackfillResource(config_path=str(config.path)),
        names.source_resource(name): source_of(config),
    }
    return dg.Definitions(
        assets=[did_list(config), shard_plan(config), shard_assets(config), coverage_report(config)],
        jobs=backfill_jobs(config),
        resources={key: overrides.get(key, resource) for key, resource in resources.items()},
    )


def _node_names(config: BackfillConfig) -> set[str]:
    """Names of jobs, graphs and ops, which Dagster wants to be unique over the whole code location."""
    name = config.name
    jobs = {names.plan_job(name), names.backfill_job(name), names.report_job(name)}
    ops = {"shard", "load_shard", "fetch_repos", names.SHARD_PLAN, names.COVERAGE_REPORT}
    return jobs | {f"{name}__{op}" for op in ops}
