"""A YAML file that can't become jobs, shown where people look: as an asset that nothing can run, with what is wrong."""

from __future__ import annotations

import re
from pathlib import Path

import dagster as dg

GROUP = "broken_configs"


def broken_assets(errors: dict[Path, str]) -> list[dg.AssetSpec]:
    """One external asset `<stem>__config_error` for each file.

    Args:
        errors: file -> what is wrong with it, one line per problem.
    """
    specs: dict[str, dg.AssetSpec] = {}
    for path, error in sorted(errors.items()):
        key = _free_key(f"{re.sub(r'[^A-Za-z0-9_]', '_', path.stem)}__config_error", specs)
        specs[key] = dg.AssetSpec(
            key,
            group_name=GROUP,
            description=f"{path.name} has no jobs, because it is not a valid config:\n\n```\n{error}\n```\n\n"
            "Mend the file (`backfill validate` checks it) and reload the code location.",
            metadata={"config": dg.MetadataValue.path(str(path))},
        )
    return list(specs.values())


def _free_key(key: str, taken: dict[str, dg.AssetSpec]) -> str:
    number = 2
    free = key
    while free in taken:
        free, number = f"{key}_{number}", number + 1
    return free
