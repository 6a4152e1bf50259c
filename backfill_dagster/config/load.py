"""Loading configs from files: one, or a folder of them. What the keys mean is in the models."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from backfill_dagster.config.document import read_document
from backfill_dagster.config.models import BackfillConfig
from backfill_dagster.config.problems import config_error
from backfill_dagster.errors import ConfigError

_SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True)
class LoadedConfig:
    """One file of a config folder: its config, or why there is none."""

    path: Path
    config: BackfillConfig | None
    error: ConfigError | None


def load_config(path: Path, environ: Mapping[str, str] | None = None) -> BackfillConfig:
    """Load and validate one YAML file.

    Args:
        path: the file.
        environ: environment variables; default: the process's.

    Raises:
        ConfigError: with all problems of the file, a line each.
    """
    document = read_document(path)
    config, problems = BackfillConfig.check(
        document.data, path=path, environ=os.environ if environ is None else environ, lines=document.lines
    )
    if config is None or document.problems:
        raise config_error(path, document.problems + [item for item in problems if item.path not in document.unread])
    return config


def load_config_folder(folder: Path, environ: Mapping[str, str] | None = None) -> list[LoadedConfig]:
    """Load every .yaml and .yml file of a folder, sorted by name; a broken file never hinders the others.

    Files that share a name or a state path are errors, all of them. Hidden files are left out.

    Raises:
        ConfigError: there is no such folder, or it can't be read.
    """
    try:
        paths = sorted(filter(is_config_file, folder.iterdir()))
    except OSError as error:
        raise ConfigError(f"config folder {folder} can't be read: {error.strerror}; set BACKFILL_CONFIG_DIR") from None
    return load_configs(paths, environ)


def is_config_file(path: Path) -> bool:
    """Whether a file of a config folder is a config, by its name."""
    return path.suffix in _SUFFIXES and not path.name.startswith(".")


def load_configs(paths: Iterable[Path], environ: Mapping[str, str] | None = None) -> list[LoadedConfig]:
    """Load files that are to live together: one broken never hides the others; a name or state path in two is an error.

    Args:
        paths: the files, in the order of the result.
        environ: environment variables; default: the process's.
    """
    return _without_clashes([_load(path, environ) for path in paths])


def _load(path: Path, environ: Mapping[str, str] | None) -> LoadedConfig:
    try:
        return LoadedConfig(path, load_config(path, environ), None)
    except ConfigError as error:
        return LoadedConfig(path, None, error)


def _without_clashes(loaded: list[LoadedConfig]) -> list[LoadedConfig]:
    good = [(item.path, item.config) for item in loaded if item.config is not None]
    files = _Files(
        by_name=_grouped((config.name, path) for path, config in good),
        by_state=_grouped((_state_place(config), path) for path, config in good),
    )
    return [_with_clashes(item, files) for item in loaded]


_Key = str | tuple[str, ...]


@dataclass(frozen=True)
class _Files:
    """Which files say the same: name, and the steps of the state's place."""

    by_name: Mapping[_Key, list[Path]]
    by_state: Mapping[_Key, list[Path]]


def _grouped(pairs: Iterable[tuple[_Key, Path]]) -> Mapping[_Key, list[Path]]:
    groups = defaultdict[_Key, list[Path]](list)
    for key, path in pairs:
        groups[key].append(path)
    return groups


def _with_clashes(item: LoadedConfig, files: _Files) -> LoadedConfig:
    clashes = [] if item.config is None else list(_clashes(item.path, item.config, files))
    error = ConfigError(f"{item.path}: {'; '.join(clashes)}")
    return replace(item, config=None, error=error) if clashes else item


def _clashes(path: Path, config: BackfillConfig, files: _Files) -> Iterator[str]:
    for other in files.by_name[config.name]:
        if other != path:
            yield f"backfill.name is the same as in {other}; each backfill needs its own"
    place = _state_place(config)
    for other in files.by_state[place]:
        if other != path:
            yield f"backfill.state.path is the same as in {other}; each backfill needs its own"
    for length in range(1, len(place)):
        for other in files.by_state.get(place[:length], ()):
            yield f"backfill.state.path lies within that of {other}, which would take its files for strays; move it"


def _state_place(config: BackfillConfig) -> tuple[str, ...]:
    """Where a state is, step by step. One bucket at two endpoints is two."""
    path = config.state_path
    if isinstance(path, Path):
        return path.resolve().parts
    return (config.state.endpoint_url or "", *path.split("/"))
