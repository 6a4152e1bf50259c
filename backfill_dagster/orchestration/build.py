"""From a folder of YAML files to Dagster's definitions; a broken file never takes the others down."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from backfill_dagster.config import BackfillConfig
from backfill_dagster.orchestration import names
from backfill_dagster.orchestration.assets import coverage_report, did_list, pds_network, shard_assets, shard_plan
from backfill_dagster.orchestration.broken import BrokenFiles, broken_assets, broken_checks
from backfill_dagster.orchestration.checks import shard_checks
from backfill_dagster.orchestration.config_folder import config_folder, folder_stamp, read_folder
from backfill_dagster.orchestration.jobs import backfill_jobs
from backfill_dagster.orchestration.location_sensors import config_folder_sensor, coverage_reports, run_failed
from backfill_dagster.orchestration.resources import BackfillResource, source_of
from backfill_dagster.orchestration.schedules import backfill_schedules
from backfill_dagster.orchestration.sensors import backfill_sensors

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
    folder = config_folder(environ) if config_dir is None else config_dir
    stamp, found = folder_stamp(folder), read_folder(folder, environ)
    errors = dict(found.errors)
    parts: list[dg.Definitions] = []
    configs: list[BackfillConfig] = []
    for config in found.configs:
        try:
            parts.append(_definitions(config, overrides or {}))
        except Exception as error:  # noqa: BLE001 - whatever Dagster has against one file, the others live on
            errors[config.path] = f"Dagster refuses it: {' '.join(str(error).split())}"
        else:
            configs.append(config)
    for said in errors.values():
        _logger.error("no jobs for a broken config: %s", said)
    broken = BrokenFiles(folder, stamp, errors, environ)
    common = dg.Definitions(
        assets=broken_assets(errors),
        asset_checks=broken_checks(broken),
        sensors=[run_failed(configs), config_folder_sensor(broken), *coverage_reports(configs)],
        executor=dg.in_process_executor,  # runs from the asset catalog take this one, not their job's
    )
    return dg.Definitions.merge(common, *parts)


def _definitions(config: BackfillConfig, overrides: Mapping[str, Any]) -> dg.Definitions:
    name = config.name
    own = {
        names.state_resource(name): BackfillResource(config_path=str(config.path)),
        names.source_resource(name): source_of(config),
    }
    resources = {key: overrides.get(key, resource) for key, resource in own.items()}
    backfill, source = resources[names.state_resource(name)], resources[names.source_resource(name)]
    jobs = backfill_jobs(config)
    # Bound to this config's assets: resources of the location go into every job, and fifty configs have 150 jobs.
    bound = dg.with_resources(
        [shard_plan(config), shard_assets(config), coverage_report(config), shard_checks(config)], resources
    )
    return dg.Definitions(
        assets=[did_list(config), pds_network(config), *bound],
        jobs=[jobs.plan, jobs.shard, jobs.report],
        schedules=backfill_schedules(config, jobs, backfill),
        sensors=backfill_sensors(config, jobs, backfill, source),
    )
