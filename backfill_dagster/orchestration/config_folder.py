"""Which YAML files become jobs: the folder of `BACKFILL_CONFIG_DIR`, its configs, and what is wrong with the others."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from backfill_dagster.config import BackfillConfig, LoadedConfig, is_config_file, load_config_folder
from backfill_dagster.errors import ConfigError
from backfill_dagster.orchestration import names

DEFAULT_FOLDER = "configs"

Stamp: TypeAlias = tuple[tuple[str, int, int], ...]
"""(file name, time of change in ns, bytes) of every YAML file of a folder."""

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


@dataclass(frozen=True)
class ConfigFolder:
    """The YAML files of a folder, as they can live together in one code location.

    Attributes:
        configs: those that become jobs.
        errors: the others, with what is wrong.
    """

    configs: list[BackfillConfig] = field(default_factory=list)
    errors: dict[Path, str] = field(default_factory=dict)


def read_folder(folder: Path, environ: Mapping[str, str] | None = None) -> ConfigFolder:
    """Sort the files of a folder into configs and errors; jobs of one name are an error of the later file."""
    found = ConfigFolder()
    taken: dict[str, Path] = {}
    try:
        everything = load_config_folder(folder, environ)
    except ConfigError as error:
        return ConfigFolder(errors={folder: str(error)})
    for loaded in everything:
        if loaded.config is None:
            found.errors[loaded.path] = str(loaded.error)
            continue
        own = names.node_names(loaded.config.name)
        clash = next((taken[name] for name in sorted(own) if name in taken), None)
        if clash is not None:
            found.errors[loaded.path] = f"its jobs would be named like those of {clash}; choose another backfill.name"
            continue
        taken |= dict.fromkeys(own, loaded.path)
        found.configs.append(loaded.config)
    return found


def folder_stamp(folder: Path) -> Stamp:
    """What changes when a YAML file of the folder does, or comes, or goes. A file that vanishes meanwhile is gone."""
    stamp = []
    for path in sorted(path for path in folder.glob("*.y*ml") if is_config_file(path)):
        try:
            status = path.stat()
        except FileNotFoundError:
            continue
        except OSError:
            stamp.append((path.name, 0, 0))  # a loop of links, say: reading the file will say what is wrong
            continue
        stamp.append((path.name, status.st_mtime_ns, status.st_size))
    return tuple(stamp)
