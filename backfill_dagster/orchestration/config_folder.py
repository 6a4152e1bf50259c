"""Which YAML files become jobs: the folder of `BACKFILL_CONFIG_DIR`, and the configs in it with their errors."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path

from backfill_dagster.config import LoadedConfig, load_config_folder
from backfill_dagster.errors import ConfigError

DEFAULT_FOLDER = "configs"

_logger = logging.getLogger(__name__)


def config_folder(environ: Mapping[str, str] | None = None) -> Path:
    """The folder of configs; a relative one starts at `BACKFILL_ROOT`, else at the current folder."""
    environ = os.environ if environ is None else environ
    folder = Path(environ.get("BACKFILL_CONFIG_DIR") or DEFAULT_FOLDER).expanduser()
    return Path(environ.get("BACKFILL_ROOT") or ".") / folder


def load_configs(folder: Path, environ: Mapping[str, str] | None = None) -> list[LoadedConfig]:
    """Every YAML file of the folder, broken ones with their error; nothing (and a warning) without the folder."""
    try:
        return load_config_folder(folder, environ)
    except ConfigError as error:
        _logger.warning("no backfills: %s", error)
        return []
