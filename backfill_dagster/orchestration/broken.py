"""A YAML file that can't become jobs, shown where people look: an asset with a failing check that says what is wrong.

The check's results are recorded by the sensor `config_folder` and, by hand, by the check itself.
"""

# No `from __future__ import annotations`: Dagster looks at the annotation of `context` itself, not at its text.

import re
from collections.abc import Mapping
from pathlib import Path

import dagster as dg

from backfill_dagster.orchestration.config_folder import read_folder

GROUP = "broken_configs"
CHECK = "config_is_valid"


def broken_keys(errors: Mapping[Path, str]) -> dict[Path, dg.AssetKey]:
    """File -> key `<stem>__config_error` of the asset that stands for it."""
    taken: dict[Path, str] = {}
    for path in sorted(errors):
        key = free = f"{re.sub(r'[^A-Za-z0-9_]', '_', path.stem)}__config_error"
        number = 2
        while free in taken.values():
            free, number = f"{key}_{number}", number + 1
        taken[path] = free
    return {path: dg.AssetKey(key) for path, key in taken.items()}


def broken_assets(errors: Mapping[Path, str]) -> list[dg.AssetSpec]:
    """One external asset for each file.

    Args:
        errors: file -> what is wrong with it, one line per problem.
    """
    return [
        dg.AssetSpec(
            key,
            group_name=GROUP,
            description=f"{path.name} has no jobs, because it is not a valid config:\n\n```\n{errors[path]}\n```\n\n"
            "Mend the file (`backfill validate` checks it) and reload the code location.",
            metadata={"config": dg.MetadataValue.path(str(path))},
        )
        for path, key in broken_keys(errors).items()
    ]


def broken_checks(errors: Mapping[Path, str], folder: Path) -> list[dg.AssetChecksDefinition]:
    """The check `config_is_valid` of each of these assets.

    Args:
        errors: as for `broken_assets`.
        folder: the config folder: two files can be wrong only together.
    """
    return [_check(path, key, folder) for path, key in broken_keys(errors).items()]


def verdict(path: Path, error: str | None) -> tuple[bool, str]:
    """Whether a file's check passes, and what it says.

    Args:
        path: the file.
        error: what is wrong with it now; None: nothing, or the file is gone.
    """
    if error is None:
        return True, f"{path.name} is valid now, or gone: reload the code location"
    return False, error


def _check(path: Path, key: dg.AssetKey, folder: Path) -> dg.AssetChecksDefinition:
    @dg.asset_check(asset=key, name=CHECK, description=f"Reads {path.name} again.")
    def config_is_valid(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        passed, said = verdict(path, read_folder(folder).errors.get(path))
        return dg.AssetCheckResult(passed=passed, description=said)

    return config_is_valid
